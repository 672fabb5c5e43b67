"""What stands between a wish (`this stage of that preset`) and a run folder that `train` can work on."""

from collections.abc import Callable
from pathlib import Path

import psutil

from core.config import (
    DEFAULT_PRESET,
    PARENT_STAGE,
    ModelConfig,
    StageConfig,
    TokenizerConfig,
    check_stage_name,
    load_stage,
)
from core.errors import MissingError, UsageError
from core.runs import Run, Runs
from core.stage_queue import QueueFile, QueueTask

# Weight, gradient and AdamW's two means, in float32.
_BYTES_PER_PARAMETER = 16


def start(
    store: Runs,
    preset: str = DEFAULT_PRESET,
    stage: str = "pretrain",
    from_run: str | None = None,
    overrides: list[str] | None = None,
) -> Run:
    """A new run folder, its configuration resolved: sizes and vocabulary inherited, parent named.

    Args:
        from_run: reference of the parent; by default the newest finished run of the stage before, same preset.
    Raises: ConfigError, UsageError; MissingError where there is no parent.
    """
    config = resolved(store, preset, stage, from_run, overrides, _verified_step)
    _check_memory(config)
    return store.create(config)


def resolved(
    store: Runs,
    preset: str,
    stage: str,
    from_run: str | None,
    overrides: list[str] | None,
    step_of: Callable[[Run, str], int],
) -> StageConfig:
    """The configuration of a new run: sizes and vocabulary inherited, parent named.

    Args:
        step_of: the step of a run's checkpoint `last`, `best` or of a number; it says how much is checked.
    Raises: as `start`.
    """
    config = load_stage(preset, stage, store.root, overrides)
    before = PARENT_STAGE[check_stage_name(stage)]
    if before is None:
        if from_run:
            raise UsageError(
                f"{stage} starts from random weights; it takes no parent.",
                "Leave --from out, or resume a run with --resume.",
            )
        return config
    run, at = _parent_of(store, preset, before, from_run)
    return _inherit(config, run, step_of(run, at))


def resume(store: Runs, reference: str, stage: str | None = None) -> Run:
    """The run to go on with: the one named, or with `latest` the unfinished one that was active last.

    Args:
        stage: the run must be of this stage.
    Raises: MissingError, UsageError; also for a run that has already completed.
    """
    if reference == "latest":
        summaries = [(run.summary(), run) for run in store.all(stage)]
        unfinished = [(s.last_at, run) for s, run in summaries if not s.is_live and s.state != "completed"]
        if not unfinished:
            raise MissingError(
                f"There is no unfinished {stage or ''} run to resume.",
                f"Start one: bbtui train {stage or 'STAGE'}",
            )
        return max(unfinished, key=lambda item: item[0])[1]
    run, at = store.find(reference)
    if stage and run.stage != stage:
        raise UsageError(
            f"{run.name} is not a {stage} run.", f"Write: bbtui train {run.stage} --resume {run.id}"
        )
    if at != "last":
        raise UsageError(
            "A run resumes from its newest checkpoint; @ cannot choose another.", "Leave the @ out."
        )
    if run.summary().state == "completed":
        raise UsageError(f"{run.name} has already completed.", "Start a new run, or a later stage from it.")
    return run


def begin(queue: QueueFile, task: QueueTask) -> Run:
    """The run that does a queue's task, new or gone on with, and written down in the queue.

    Raises: as `start` and `resume`; MissingError where the queue is gone.
    """
    if task.run:
        return resume(queue.store, task.run, task.stage)
    plan = queue.read()
    if plan is None:
        raise MissingError("The queue is no longer there.", "Begin one: bbtui quickstart")
    overrides = scaled_overrides(plan.preset, task.stage, queue.store.root, plan.steps_scale)
    run = start(queue.store, plan.preset, task.stage, task.parent or None, overrides)
    queue.note_begun(run)
    return run


def scaled_overrides(preset: str, stage: str, root: Path, scale: float) -> list[str]:
    """Overrides that make a preset's stage `scale` times as long; warm-up shrinks with it."""
    if scale == 1:
        return []
    config = load_stage(preset, stage, root)
    length = (
        f"steps={max(1, round(config.steps * scale))}" if config.steps else f"epochs={config.epochs * scale}"
    )
    return [length, f"optim.warmup_steps={round(config.optim.warmup_steps * scale)}"]


def count_parameters(model: ModelConfig, padded_vocabulary: int) -> int:
    """Learned numbers of a model of these sizes, as `Transformer.num_parameters` counts them."""
    c = model.width
    if model.architecture == "modern":
        return padded_vocabulary * c + model.layers * (12 * c * c + 2 * c) + 2 * c
    if model.architecture == "nanochat":
        return 2 * padded_vocabulary * c + model.layers * 12 * c * c
    block = 12 * c * c + 13 * c
    return padded_vocabulary * c + model.context * c + model.layers * block + 2 * c


def padded_vocabulary(tokenizer: TokenizerConfig) -> int:
    """Rows of the embedding that the vocabulary takes, as `Tokenizer.padded_size` has them."""
    return 50304 if tokenizer.kind == "gpt2" else -(-tokenizer.vocabulary // 64) * 64


def _parent_of(store: Runs, preset: str, before: str, from_run: str | None) -> tuple[Run, str]:
    if from_run:
        return store.find(from_run)
    run = store.newest(before, preset=preset)
    if run is None:
        raise MissingError(
            f"No finished {before} run of preset {preset} to start from.",
            f"Train it first: bbtui train {before} --preset {preset}; or name a run with --from.",
        )
    return run, "last"


def _verified_step(run: Run, at: str) -> int:
    # Imported here: whoever only lists runs does not wait for torch.
    from core.checkpoint import load_at

    return load_at(run, at).state.step


def _inherit(config: StageConfig, parent: Run, step: int) -> StageConfig:
    theirs = parent.config
    if theirs.model is None or theirs.tokenizer is None:
        raise UsageError(f"{parent.name}: its configuration names no model.", "Choose another parent.")
    model = theirs.model
    if config.model:
        wanted = {name: getattr(config.model, name) for name in config.model.model_fields_set}
        odd = [name for name in wanted if name != "dropout" and wanted[name] != getattr(model, name)]
        if odd:
            raise UsageError(
                f"model.{odd[0]}: a later stage inherits its sizes from {parent.name} "
                f"({odd[0]} = {getattr(model, odd[0])}).",
                "Leave it out here, or train the first stage with it.",
            )
        model = model.model_copy(update=wanted)
    if not config.learns_pairs and config.batch.tokens % model.context:
        raise UsageError(
            f"batch.tokens: {config.batch.tokens} is not a multiple of the parent's context {model.context}.",
            f"Set batch.tokens={max(1, config.batch.tokens // model.context) * model.context}.",
        )
    return config.model_copy(
        update={"parent": f"{parent.name}@{step}", "model": model, "tokenizer": theirs.tokenizer}
    )


def _check_memory(config: StageConfig) -> None:
    if config.model is None or config.tokenizer is None:
        return
    parameters = count_parameters(config.model, padded_vocabulary(config.tokenizer))
    needed, there = parameters * _BYTES_PER_PARAMETER, psutil.virtual_memory().total
    if config.device in ("auto", "cpu") and needed > there:
        raise UsageError(
            f"model: {parameters:,} parameters need {needed / 1e9:,.0f} GB to train; "
            f"this machine has {there / 1e9:,.0f} GB.",
            "Lower model.layers or model.width.",
        )


def parent_folder(store: Runs, config: StageConfig) -> tuple[Run, Path]:
    """The parent's run and the checkpoint folder that the configuration names. Raises: MissingError."""
    name, _, step = config.parent.partition("@")
    try:
        run, _ = store.find(name)
    except UsageError:
        raise MissingError(
            f"The parent {config.parent} is no longer there.", "Start the stage again."
        ) from None
    return run, run.checkpoint_folder(int(step))
