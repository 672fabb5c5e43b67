"""The published experiment's validation losses, to be drawn behind a run, or watched as one.

`pretrain.txt` and `finetune.txt` hold `step loss`, a line each as that experiment's log had them, with its restarts:
where a step stands again, or an earlier one, it was restarted there. GPT-2 small, 2^19 tokens a step of pretraining, on
one GPU. Its author lowered the learning rate twice by editing the program, near the steps 2950 and 6700; the rates are
not recorded but for the last, 1e-5. Fine-tuning counts its steps through: an epoch is taken as 1110. Tokens of a
fine-tuning step are not recorded, so that they are counted as one each.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from core.config import load_stage, to_toml
from core.errors import RetryLaterError, UsageError
from core.events import Event, LearningRateChanged, RunEnded, RunStarted, Validated
from core.launch import count_parameters
from core.runs import PUBLISHED, Run, Runs
from core.series import RunSeries, Series

_TOKENS_PER_STEP = {"pretrain": 1 << 19, "finetune": 1}
_RATE_CHANGES: dict[str, dict[int, float]] = {"pretrain": {2950: math.nan, 6700: 1e-5}}
"""By the step after which they hold: the rate from there on."""
_BEGAN = datetime(2024, 1, 1, tzinfo=UTC)
"""The figures name no instants. They are given one a second, so that they can be watched."""


@cache
def published_curve(stage: str) -> Series | None:
    """The experiment's validation losses of a stage; None for a stage whose figures were not published."""
    if stage not in _TOKENS_PER_STEP:
        return None
    series = RunSeries()
    for event in events(stage):
        series.feed(event)
    return series.validation


def events(stage: str) -> Iterator[Event]:
    """The experiment's stage as the events of a run, restarts and rate changes included."""
    figures = _figures(stage)
    last = max(step for step, _ in figures)
    changes = dict(_RATE_CHANGES.get(stage, {}))
    yield _started(stage, 0, last)
    measured: dict[int, float] = {}
    for step, loss in figures:
        if measured and step <= max(measured):
            is_same = measured.get(step) == loss
            begins = step if is_same else max((s for s in measured if s < step), default=0)
            measured = {s: each for s, each in measured.items() if s <= begins}
            yield _started(stage, begins, last)
            if is_same:
                continue
        for changed in [at for at in changes if at < step]:
            after = changes.pop(changed)
            tokens = changed * _TOKENS_PER_STEP[stage]
            yield LearningRateChanged(
                step=changed, tokens=tokens, before=math.nan, after=after, multiplier=math.nan
            )
        measured[step] = loss
        tokens = step * _TOKENS_PER_STEP[stage]
        yield Validated(
            step=step, tokens=tokens, loss=loss, bits_per_byte=math.nan, elapsed_s=0.0, steps=last
        )
    words = "published figures, no weights"
    yield RunEnded(step=last, reason="completed", message=words, elapsed_s=math.nan)


def make_run(store: Runs) -> Run:
    """The run `pretrain/published` under the root: a finished one without a checkpoint, to look at and to watch.

    Raises: UsageError where it is there already; RetryLaterError if it cannot be written.
    """
    run = Run(store.folder / "pretrain" / PUBLISHED)
    if run.events_file.exists():
        raise UsageError(f"{run.name} is there already.", f"Watch it: bbtui runs replay {run.name}")
    config = load_stage("gpt2-small", "pretrain", store.root)
    steps = max(step for step, _ in _figures("pretrain"))
    config = config.model_copy(update={"preset": PUBLISHED, "steps": steps})
    lines, at = [], _BEGAN
    for event in events("pretrain"):
        at = max(at, _BEGAN + timedelta(seconds=getattr(event, "step", 0)))
        lines.append(event.to_line(at.isoformat(timespec="milliseconds")) + "\n")
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
        run.events_file.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise RetryLaterError(
            f"Cannot write {run.folder}: {error.strerror}.",
            "Free disk space or choose another folder with --root.",
        ) from None
    return run


def _started(stage: str, step: int, steps: int) -> RunStarted:
    model = load_stage("gpt2-small", "pretrain", Path()).model
    parameters = count_parameters(model, 50304) if model else 0
    run = {"run": PUBLISHED, "stage": stage, "parent": "", "parameters": parameters}
    where = {"device": "gpu", "precision": "", "process_id": 0}
    return RunStarted(**run, resumed_from_step=step, steps=steps, **where)  # type: ignore[arg-type]


@cache
def _figures(stage: str) -> list[tuple[int, float]]:
    text = (Path(__file__).parent / f"{stage}.txt").read_text(encoding="ascii")
    return [(int(step), float(loss)) for step, loss in map(str.split, text.splitlines())]
