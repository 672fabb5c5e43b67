"""A stage's configuration: typed, loaded from TOML, every problem reported at once with its key and the fix."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tomlkit
from pydantic import Field, ValidationError, model_validator

from core.config_problems import did_you_mean, explain
from core.config_sections import (
    BatchConfig,
    DataConfig,
    ModelConfig,
    OptimConfig,
    QualityConfig,
    SampleConfig,
    Section,
    TokenizerConfig,
)
from core.errors import ConfigError, UsageError

Stage = Literal["pretrain", "finetune", "baseball-pretrain", "baseball-finetune"]
STAGES: tuple[Stage, ...] = get_args(Stage)
PARENT_STAGE: dict[Stage, Stage | None] = dict(zip(STAGES, [None, *STAGES], strict=False))
DEFAULT_PRESET = "quickstart"

_MAX_FILE_BYTES = 1 << 20


class StageConfig(Section):
    """One stage of one preset, whole."""

    preset: str = ""
    """Folder of configs/ that this came from."""
    stage: Stage = "pretrain"
    """Which of the four stages."""
    parent: str = ""
    """stage/run@step that the weights come from; empty for random weights."""
    domain: Annotated[str, Field(min_length=1, max_length=24)] = "baseball"
    """What the last two stages gear the model to, as the screen names it."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Everything random follows from it: weights, batches, dropout, samples."""
    steps: Annotated[int, Field(ge=0, le=10**8)] = 0
    """Optimizer steps; 0 when epochs is given."""
    epochs: Annotated[float, Field(ge=0, le=10**5)] = 0.0
    """Passes over the training data; 0 when steps is given."""
    validate_every: Annotated[int, Field(ge=1)] = 50
    """Steps between measurements of the validation loss."""
    validation_rows: Annotated[int, Field(ge=0)] = 0
    """At most this many windows or pairs are validated on; 0 takes all."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 500
    """Steps between checkpoints."""
    keep_last: Annotated[int, Field(ge=1, le=1000)] = 2
    """Newest checkpoints kept; the best one is kept besides."""
    prompt_format: Literal["markers", "plain"] = "markers"
    """markers: role tokens around question and answer; plain: the answer follows the question, as published."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto takes a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto takes bfloat16 where the device computes it faster."""
    compile: bool = False
    """Compile the model with torch.compile: slower start, faster steps on a GPU."""
    model: ModelConfig | None = None
    """Only the first stage says it; the others inherit."""
    tokenizer: TokenizerConfig | None = None
    """Only the first stage says it; the others inherit."""
    data: DataConfig
    batch: BatchConfig
    optim: OptimConfig
    samples: SampleConfig = SampleConfig()
    quality: QualityConfig = QualityConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> "StageConfig":
        problems = []
        if (self.steps > 0) == (self.epochs > 0):
            problems.append("steps, epochs: give exactly one of the two, above 0")
        if self.learns_pairs:
            if self.batch.tokens:
                problems.append(
                    f"batch.tokens: stage {self.stage} learns from pairs; give batch.examples instead"
                )
        elif self.batch.examples:
            problems.append(f"batch.examples: stage {self.stage} learns from text; give batch.tokens instead")
        elif not self.batch.tokens:
            problems.append("batch.tokens: must be above 0")
        # A later stage may name one size of its model, dropout; the others are its parent's, unknown here.
        knows_context = self.model and (self.stage == "pretrain" or "context" in self.model.model_fields_set)
        if self.model and knows_context and not self.learns_pairs and self.batch.tokens % self.model.context:
            problems.append(
                f"batch.tokens: {self.batch.tokens} is not a multiple of the context {self.model.context}"
            )
        if self.stage == "pretrain" and not (self.model and self.tokenizer):
            problems.append("model, tokenizer: the first stage needs both sections")
        expected = {"fineweb-edu": False, "nectar": True}.get(self.data.source, self.learns_pairs)
        if expected != self.learns_pairs:
            kind = "pairs" if expected else "text"
            problems.append(
                f"data.source: {self.data.source} holds {kind}, which stage {self.stage} cannot learn from"
            )
        if self.data.source == "files" and not self.data.path:
            problems.append("data.path: the source files needs a file or folder; add --set data.path=...")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def learns_pairs(self) -> bool:
        """Whether the stage learns from question-answer pairs rather than running text."""
        return self.stage in ("finetune", "baseball-finetune")


def stage_title(stage: str, domain: str) -> str:
    """The stage as the screen names it: `Baseball pretrain`."""
    head, _, tail = stage.rpartition("-")
    return f"{domain.capitalize()} {tail}" if head else stage.capitalize()


# ---------------------------------------------------------------- finding and reading


def presets_folder() -> Path:
    """The folder of presets: the project's own, or the copy inside an installed wheel."""
    package = Path(__file__).parent
    beside = package.parent / "configs"
    return beside if (beside / DEFAULT_PRESET).is_dir() else package / "presets"


def preset_names() -> list[str]:
    folder = presets_folder()
    names = [p.name for p in folder.iterdir() if (p / "pretrain.toml").is_file()] if folder.is_dir() else []
    return sorted(names, key=lambda name: (name != DEFAULT_PRESET, name))


def check_stage_name(stage: str) -> Stage:
    """The stage of that name. Raises: UsageError that names the nearest one."""
    if stage not in STAGES:
        raise UsageError(
            f"There is no stage {stage[:60]!r}.{did_you_mean(stage, STAGES)}",
            f"Stages: {', '.join(STAGES)}.",
        )
    return stage  # type: ignore[return-value]


def preset_file(preset: str, stage: str) -> Path:
    """The TOML file of a preset's stage. Raises: UsageError for an unknown name."""
    names = preset_names()
    if preset not in names:
        raise UsageError(
            f"There is no preset {preset[:60]!r}.{did_you_mean(preset, names)}",
            f"Presets: {', '.join(names)}.",
        )
    return presets_folder() / preset / f"{check_stage_name(stage)}.toml"


def load_stage(preset: str, stage: str, root: Path, overrides: list[str] | None = None) -> StageConfig:
    """A preset's stage with `key=value` overrides applied. Raises: ConfigError with every problem."""
    return load_file(preset_file(preset, stage), root, overrides, preset=preset, stage=stage)


def load_file(
    path: Path, root: Path, overrides: list[str] | None = None, *, trusted: bool = False, **given: str
) -> StageConfig:
    """A stage configuration from a TOML file.

    A path inside the file must stay under the root, since such files are passed around; one given by an
    override is taken as it is, relative to the current folder, since the user typed it.

    Args:
        trusted: the file was written by us (a run's own configuration), so its paths are taken as they are.
        given: values that stand where the file is silent (preset, stage).
    Raises: ConfigError with every problem; UsageError for a file that cannot be read.
    """
    text = _read_text(path)
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise ConfigError([f"{path.name}: not valid TOML: {reason}"]) from None
    for key, value in given.items():
        values.setdefault(key, value)
    problems = [] if trusted else _paths_leaving(values, root, path.name)
    values = apply_overrides(values, overrides or [])
    try:
        config = StageConfig.model_validate(values)
    except (ValidationError, RecursionError, OverflowError) as error:
        given_keys = {tuple(override.partition("=")[0].strip().split(".")) for override in overrides or []}
        problems += explain(error, StageConfig, path.name, text, given_keys)
    else:
        if not problems:
            return config
    raise ConfigError(problems, "Run `bbtui config check` to see all problems of all presets.")


def apply_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """A copy of nested values with `dotted.key=value` applied. Raises: ConfigError for one without `=`."""
    values = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = [part.strip() for part in key.split(".")]
        # The shell's undecodable bytes arrive as lone surrogates; the run's configuration could not hold them.
        if re.search("[\ud800-\udfff]", override):
            raise ConfigError([f"--set {override[:80]!r}: not UTF-8 text"])
        if not equals or not all(parts) or len(parts) > 2:
            raise ConfigError(
                [f"--set {override[:80]}: not of the form key=value"],
                "Example: --set optim.learning_rate=3e-4",
            )
        section = values
        for part in parts[:-1]:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError([f"--set {override[:80]}: {part} is not a section"])
        value = parse_value(text.strip())
        if parts == ["data", "path"] and value != "":
            # A folder may be called 1_000, which TOML reads as a number.
            value = _typed_path(override, value if isinstance(value, str) else text.strip())
        elif parts == ["quality", "files"]:
            # One file needs no brackets.
            name = value if isinstance(value, str) else text.strip()
            named = value if isinstance(value, list) else [name] if name else []
            value = [_typed_path(override, name) if isinstance(name, str) else name for name in named]
        # Steps and epochs exclude each other, so giving one takes the other back.
        if parts in (["steps"], ["epochs"]):
            values.pop("epochs" if parts == ["steps"] else "steps", None)
        section[parts[-1]] = value
    return values


def _typed_path(override: str, text: str) -> str:
    try:
        if "\0" not in text:
            return str(Path(text).expanduser().absolute())
    except RuntimeError:  # ~name of a user who does not exist
        pass
    raise ConfigError([f"--set {override[:80]!r}: not a usable path"], "Write the path out.")


def parse_value(text: str) -> Any:
    """A value as TOML writes it; anything else is the text itself, so that strings need no quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError, ValueError, KeyError):
        return text


def to_toml(config: StageConfig) -> str:
    """The configuration as TOML that `load_file` reads back to an equal one."""
    document = tomlkit.document()
    values = config.model_dump(exclude_none=True)
    for key in ("steps", "epochs"):
        if not values[key]:
            values.pop(key)
    for key, value in values.items():
        document[key] = value
    return tomlkit.dumps(document)


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of a configuration, for a form or a table."""

    key: str
    value: Any
    why: str


def settings_of(config: StageConfig) -> Iterator[Setting]:
    """Every setting with its dotted key and the sentence that says what it is for."""
    for name, field in StageConfig.model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Section):
            is_inherited = name == "model" and config.stage != "pretrain" and not config.parent
            for inner, inner_field in type(value).model_fields.items():
                if is_inherited and inner not in value.model_fields_set:
                    continue
                yield Setting(f"{name}.{inner}", getattr(value, inner), inner_field.description or "")
        elif value is not None:
            yield Setting(name, value, field.description or "")


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UsageError(f"{path.name} is larger than a configuration can be.")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError([f"{path.name}: not UTF-8 text"], "Save it as UTF-8.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise UsageError(f"Cannot read the configuration {path}: {reason}.") from None


def _paths_leaving(values: dict[str, Any], root: Path, name: str) -> list[str]:
    """What is wrong with the paths of a file; those that may stay are made whole in `values`."""
    problems: list[str] = []
    for section, key in (("data", "path"), ("quality", "files")):
        held = values.get(section)
        given = held.get(key) if isinstance(held, dict) else None
        texts = given if isinstance(given, list) else [given]
        whole = [_path_within(text, root, f"{name}: {section}.{key}", problems) for text in texts]
        if given:
            held[key] = whole if isinstance(given, list) else whole[0]  # type: ignore[index]
    return problems


def _path_within(text: Any, root: Path, where: str, problems: list[str]) -> Any:
    if not isinstance(text, str) or not text:
        return text
    if "\0" in text:
        problems.append(f"{where}: holds a NUL character")
        return text
    try:
        target = (root / Path(text).expanduser()).resolve()
    except (OSError, RuntimeError, ValueError):
        problems.append(f"{where}: {text[:80]!r} is not a usable path")
        return text
    if not target.is_relative_to(root.resolve()):
        option = where.partition(": ")[2]
        problems.append(
            f"{where}: {text[:80]!r} lies outside the root; "
            f"a file may only name paths under it. Give the path yourself: --set {option}=..."
        )
    return str(target)
