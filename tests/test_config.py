"""Protects configurations: the sound load and round-trip; the others are named with key, line and fix."""

import math
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import (
    STAGES,
    OptimConfig,
    StageConfig,
    apply_overrides,
    check_stage_name,
    load_file,
    load_stage,
    parse_value,
    preset_file,
    settings_of,
    stage_title,
    to_toml,
)
from core.errors import BbtuiError, ConfigError, UsageError

SOUND = """seed = 7
steps = 10

[model]
layers = 2
heads = 2
width = 32
context = 16

[tokenizer]
kind = "trained"
vocabulary = 512

[data]
source = "sandlot"

[batch]
tokens = 64

[optim]
learning_rate = 1e-3
"""


def load(folder: Path, text: str | bytes = SOUND, *overrides: str, **options: Any) -> StageConfig:
    path = folder / "stage.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_file(path, folder, list(overrides), **options)


def problems(folder: Path, text: str | bytes, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, *overrides)
    assert caught.value.exit_code == 2
    return caught.value.problems


# ---------------------------------------------------------------- what is sound


def test_a_sound_file_loads_with_the_defaults_for_what_it_leaves_out(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert (config.seed, config.steps, config.epochs, config.stage) == (7, 10, 0.0, "pretrain")
    assert config.model and (config.model.layers, config.model.dropout) == (2, 0.0)
    assert (config.optim.beta1, config.optim.schedule) == (0.9, "cosine")


def test_an_integer_is_taken_for_a_rate_or_a_number_of_epochs(tmp_path: Path) -> None:
    config = load(tmp_path, SOUND.replace("steps = 10", "epochs = 5").replace("1e-3", "1"))
    assert config.epochs == 5.0 and isinstance(config.epochs, float)


TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(TEXT, max_size=3),
    TEXT.filter(lambda text: 0 < len(text) <= 24),
    st.floats(0, 1, exclude_min=True),
    st.sampled_from([{"steps": 3}, {"epochs": 0.1}, {"epochs": 5e-324}]),
    TEXT.filter(bool),
)
def test_a_written_configuration_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory,
    prompts: list[str],
    domain: str,
    rate: float,
    length: dict[str, float],
    path: str,
) -> None:
    values = {key: value for key, value in tomllib.loads(SOUND).items() if key != "steps"} | length
    values |= {
        "domain": domain,
        "samples": {"prompts": prompts},
        "data": {"source": "files", "path": path},
        "optim": {"learning_rate": rate},
    }
    config = StageConfig.model_validate(values)
    file = tmp_path_factory.getbasetemp() / "written.toml"
    file.write_text(to_toml(config), encoding="utf-8")
    assert load_file(file, file.parent, trusted=True) == config


def test_every_setting_has_a_sentence_that_says_what_it_is_for(tmp_path: Path) -> None:
    found = list(settings_of(load(tmp_path)))
    assert [s.key for s in found if len(s.why) < 10 or not s.why.endswith((".", ")"))] == []
    keys = [s.key for s in found]
    assert len(set(keys)) == len(keys) and {"seed", "steps", "optim.learning_rate", "model.width"} <= {*keys}
    assert {s.key: s.value for s in found}["batch.tokens"] == 64


def test_the_screen_names_the_last_stages_after_their_domain() -> None:
    titles = "|".join(stage_title(stage, "baseball") for stage in STAGES)
    assert titles == "Pretrain|Finetune|Baseball pretrain|Baseball finetune"


# ---------------------------------------------------------------- what is not


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("learning_rate =", "lerning_rate =", ["line 21: optim.lerning_rate: unknown key", "learning_rate?"]),
        ("layers = 2", "layer = 2", ["line 5: model.layer: unknown key", "Did you mean layers?"]),
        ("seed = 7", "sead = 7", ["line 1: sead: unknown key", "Did you mean seed?"]),
        ("[batch]", "[bach]", ["bach: unknown key", "Did you mean batch?", "batch: is missing"]),
        ("seed = 7", "seed = true", ["line 1: seed:", "valid integer", "it is True"]),
        ("1e-3", "true", ["line 21: optim.learning_rate:", "valid number"]),
        ("seed = 7", "seed = 7.0", ["line 1: seed:", "valid integer"]),
        ("seed = 7", 'seed = "7"', ["line 1: seed:", "'7'"]),
        ("seed = 7", "seed = 1979-05-27", ["seed:", "valid integer"]),
        ("seed = 7", "seed = 0x" + "f" * 9000, ["line 1: seed:", "too large to show"]),
        ("seed = 7", "seed = " + "9" * 9000, ["stage.toml: not valid TOML"]),
        ("seed = 7", "seed = " + "[" * 100 + "]" * 100, ["line 1: seed:", "valid integer"]),
        ("seed = 7", "seed = " + "[" * 9999 + "]" * 9999, ["nested too deeply"]),
        ("seed = 7", "seed." + ".".join("a" * 3000) + " = 1", ["seed:", "too large to show"]),
        ("1e-3", "nan", ["line 21: optim.learning_rate:", "finite"]),
        ("1e-3", "1e400", ["optim.learning_rate:", "finite"]),
        ("1e-3", "0.0", ["optim.learning_rate:", "greater than 0"]),
        ("1e-3", "0x" + "f" * 9000, ["line 21: optim.learning_rate:"]),
        ("heads = 2", "heads = 5", ["model: width 32 does not divide into 5 heads; 4 heads would fit"]),
        ("heads = 2", 'heads = 32\narchitecture = "modern"', ["model: modern", "must be even"]),
        ("width = 32", "width = 10000000000", ["model.width:", "less than or equal to"]),
        ("tokens = 64", "tokens = 63", ["batch.tokens: 63 is not a multiple of the context 16"]),
        ("tokens = 64", "tokens = 0", ["batch.tokens: must be above 0"]),
        ("tokens = 64", "examples = 4", ["batch.examples:", "batch.tokens instead"]),
        ("steps = 10", "", ["steps, epochs: give exactly one"]),
        ("steps = 10", "steps = 10\nepochs = 2", ["steps, epochs: give exactly one"]),
        ("steps = 10", "steps = 0", ["steps, epochs: give exactly one"]),
        ('kind = "trained"', 'kind = "gpt3"', ["tokenizer.kind:", "'gpt2' or 'trained'"]),
        ("vocabulary = 512", "vocabulary = 299", ["tokenizer.vocabulary:", "300"]),
        ('source = "sandlot"', 'source = "nectar"', ["data.source: nectar holds pairs"]),
        ('source = "sandlot"', 'source = "files"', ["data.path:", "--set data.path=..."]),
        ('source = "sandlot"', "", ["data.source: is missing"]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_problem_names_its_place_and_what_is_wrong(
    tmp_path: Path, old: str, new: str, said: list[str]
) -> None:
    assert SOUND.count(old) == 1
    text = "\n".join(problems(tmp_path, SOUND.replace(old, new)))
    assert "stage.toml" in text
    for part in said:
        assert part in text


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = SOUND.replace("seed = 7", "sead = 7").replace("layers = 2", "layers = -1").replace("1e-3", "nan")
    assert len(problems(tmp_path, text)) == 3


def test_a_flood_of_problems_is_cut_and_counted(tmp_path: Path) -> None:
    flood = "\n".join(f"k{i} = 1" for i in range(5000))
    found = problems(tmp_path, f"{flood}\n{SOUND}")
    assert len(found) == 51 and found[-1].endswith("and 4950 more problems")


def test_a_key_can_neither_fake_a_line_nor_reach_the_terminal(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, '"\\u001b[31m\\nforged: ok" = 1\n' + SOUND)
    assert found.isprintable() and "unknown key" in found


def test_a_stage_for_pairs_wants_examples_not_tokens(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, f'stage = "finetune"\n{SOUND}')
    assert "batch.tokens: stage finetune learns from pairs; give batch.examples instead" in found
    pairs = SOUND.replace("tokens = 64", "examples = 0")
    assert load(tmp_path, pairs, stage="finetune").learns_pairs


def test_the_first_stage_needs_a_model_and_a_tokenizer(tmp_path: Path) -> None:
    head, _, tail = SOUND.partition("[tokenizer]")
    (found,) = problems(tmp_path, head + tail[tail.index("[data]") :])
    assert "model, tokenizer: the first stage needs both sections" in found


def test_files_that_are_no_configuration_are_refused(tmp_path: Path) -> None:
    assert "not UTF-8" in problems(tmp_path, b"seed = '\xff'")[0]
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(UsageError):
            load_file(path, tmp_path)
    with pytest.raises(UsageError, match="larger"):
        load(tmp_path, "#" * (1 << 20) + "\n" + SOUND)


def test_unknown_stages_and_presets_are_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean pretrain"):
        check_stage_name("pretrian")
    with pytest.raises(UsageError, match="Did you mean quickstart"):
        preset_file("quikstart", "pretrain")
    for hostile in ("../configs/quickstart", "", ".", "a\0b", "quickstart/", "x" * 9999):
        with pytest.raises(UsageError):
            preset_file(hostile, "pretrain")
        with pytest.raises(UsageError):
            load_stage("quickstart", hostile, tmp_path)


# ---------------------------------------------------------------- paths


def files_at(path: str) -> str:
    quoted = "".join(f"\\u{ord(c):04x}" if c < " " else c for c in path)
    return SOUND.replace('source = "sandlot"', f'source = "files"\npath = "{quoted}"')


def test_a_path_in_a_file_is_taken_from_the_root(tmp_path: Path) -> None:
    assert load(tmp_path, files_at("texts/a.txt")).data.path == str(tmp_path.resolve() / "texts" / "a.txt")


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "a/../../b",
        "/etc/passwd",
        "~/x",
        "~nobody-of-this-name/x",
        "a\0b",
        "out/x",
        "\n/../../..",
    ],
)
def test_a_path_in_a_file_cannot_leave_the_root(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (found,) = problems(root, files_at(path))
    assert "data.path:" in found


def test_a_path_typed_by_the_user_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    assert load(root, SOUND, "data.path=").data.path == load(root, SOUND, 'data.path=""').data.path == ""
    here = {name: tmp_path / name for name in ("../pairs.txt", "1_000", "true", "0x" + "f" * 5000)}
    for typed, taken in [*here.items(), ("/srv/x", Path("/srv/x"))]:
        config = load(root, SOUND, "data.source=files", f"data.path={typed}")
        assert config.data.path == str(taken)


@pytest.mark.parametrize("typed", ["~nobody-of-this-name/x", "a\0b", os.fsdecode(b"\xff")])
def test_a_typed_path_that_cannot_be_one_is_refused(tmp_path: Path, typed: str) -> None:
    (found,) = problems(tmp_path, SOUND, "data.source=files", f"data.path={typed}")
    assert found.startswith("--set") and found.isprintable()


def test_a_runs_own_file_keeps_the_paths_it_was_given(tmp_path: Path) -> None:
    assert load(tmp_path, files_at("/srv/texts"), trusted=True).data.path == "/srv/texts"


# ---------------------------------------------------------------- overrides


def test_overrides_stand_above_the_file(tmp_path: Path) -> None:
    config = load(tmp_path, SOUND, "seed=9", "optim.learning_rate=3e-4", "domain=chess", "batch.tokens = 32")
    assert (config.seed, config.optim.learning_rate) == (9, 3e-4)
    assert (config.domain, config.batch.tokens) == ("chess", 32)
    assert load(tmp_path, SOUND, "samples.prompts=['a', 'b']").samples.prompts == ["a", "b"]


def test_giving_epochs_takes_steps_back_and_the_other_way(tmp_path: Path) -> None:
    config = load(tmp_path, SOUND, "epochs=2")
    assert (config.steps, config.epochs) == (0, 2.0)
    config = load(tmp_path, SOUND, "epochs=2", "steps=5")
    assert (config.steps, config.epochs) == (5, 0.0)


def test_overrides_leave_the_given_values_alone() -> None:
    values = {"seed": 1, "optim": {"learning_rate": 0.1}}
    assert apply_overrides(values, ["optim.learning_rate=0.2", "seed=2"])["optim"] == {"learning_rate": 0.2}
    assert values == {"seed": 1, "optim": {"learning_rate": 0.1}}


@pytest.mark.parametrize("override", ["seed", "=1", ".x=1", "a.b.c=1", "a..b=1", "", "steps.x=1"])
def test_an_override_that_is_no_override_is_refused(tmp_path: Path, override: str) -> None:
    assert problems(tmp_path, SOUND, override)[0].startswith(f"--set {override}:")


@pytest.mark.parametrize("override", ["seed=x", "sead=1", "optim.learning_rate=nan", "model=3", "data=[]"])
def test_a_bad_value_of_an_override_is_laid_to_it_not_to_the_file(tmp_path: Path, override: str) -> None:
    for problem in problems(tmp_path, SOUND, override):
        assert problem.startswith("--set: "), problem


def test_values_are_read_as_toml_and_else_as_text() -> None:
    assert [parse_value(text) for text in ("1", "1e-3", "true", "[1, 2]")] == [1, 1e-3, True, [1, 2]]
    assert [parse_value(text) for text in ('"x"', "x y", "")] == ["x", "x y", ""]
    assert math.isnan(parse_value("nan"))


# ---------------------------------------------------------------- anything at all

KEYS = [*StageConfig.model_fields, "model.width", "optim.learning_rate", "data.path", "x.y"]
HARMLESS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary()
ANYTHING = st.recursive(
    HARMLESS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
ODD_TEXT = st.sampled_from(
    [
        "nan",
        "1e400",
        "-inf",
        "true",
        "9" * 5000,
        "0x" + "f" * 5000,
        "[" * 5000,
        "{a.a.a=1}",
        "../..",
        "\0",
        "'",
    ]
)


def only_our_errors(folder: Path, text: str | bytes, *overrides: str) -> StageConfig | None:
    try:
        return load(folder, text, *overrides)
    except BbtuiError as error:
        assert str(error).strip()
        return None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS) | st.text(), ODD_TEXT | st.text()), min_size=1, max_size=4))
def test_any_overrides_load_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    config = only_our_errors(tmp_path_factory.getbasetemp(), SOUND, *(f"{k}={v}" for k, v in pairs))
    if config:
        for setting in settings_of(config):
            assert not isinstance(setting.value, float) or math.isfinite(setting.value)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from([*StageConfig.model_fields]) | st.text(), ANYTHING, max_size=5))
def test_any_values_validate_or_are_refused(values: dict[str, Any]) -> None:
    base = tomllib.loads(SOUND)
    try:
        config = StageConfig.model_validate({**base, **values})
    except ValueError:
        return
    assert StageConfig.model_validate(config.model_dump()) == config


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_to_a_file_is_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(SOUND.encode())
    piece = ODD_TEXT.map(str.encode) | st.binary(max_size=6) | st.sampled_from([b"[", b"=", b'"', b"\n[x]\n"])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw)))
        raw[place : place + data.draw(st.integers(0, 8))] = data.draw(piece)
    only_our_errors(tmp_path_factory.getbasetemp(), bytes(raw))


@settings(max_examples=200, deadline=None)
@given(st.text() | st.binary())
def test_any_text_at_all_is_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, text: str | bytes
) -> None:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    assert only_our_errors(tmp_path_factory.getbasetemp(), raw) is None


def test_a_configuration_cannot_be_changed_once_it_stands(tmp_path: Path) -> None:
    config = load(tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 8
    assert isinstance(config.optim, OptimConfig) and config.seed == 7
