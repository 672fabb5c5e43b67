"""What `bbtui runs` prints: rows as plain JSON values, tables of plain lines."""

import math
from dataclasses import asdict
from typing import Any

from core.comparison import Comparison, Outcome, Pair
from core.errors import UsageError
from core.housekeeping import DataBytes, Removal, RunBytes, bytes_of
from core.runs import Run
from tui.clean import clean_line
from tui.figures import bytes_text, duration_text, loss_text

_LONGEST_VALUE = 34


def run_row(run: Run) -> dict[str, Any]:
    """What `runs list` says of a run; losses are None where nothing was measured, or what was is not a number."""
    summary = run.summary()
    try:
        preset = run.config.preset
    except UsageError:
        preset = "?"
    return {
        "run": run.name,
        "stage": run.stage,
        "id": run.id,
        "preset": preset,
        "state": summary.state,
        "step": summary.step,
        "steps": summary.steps,
        "tokens": summary.tokens,
        "train_loss": _finite(summary.train_loss),
        "validation_loss": _finite(summary.validation_loss),
        "parent": summary.parent,
        "started_at": summary.started_at,
        "message": summary.message,
        "bytes": bytes_of(run).total,
    }


def print_runs(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("No runs yet. Begin with: bbtui quickstart")
        return
    print(f"{'run':<52} {'state':<12} {'step':>13} {'train':>8} {'valid.':>8} {'size':>8}")
    for row in rows:
        losses = [
            f"{row[key]:.4f}" if row[key] is not None else "-" for key in ("train_loss", "validation_loss")
        ]
        step = f"{row['step']}/{row['steps'] or '?'}"
        print(
            f"{row['run']:<52} {clean_line(row['state'], 12):<12} {step:>13} {losses[0]:>8} {losses[1]:>8} "
            f"{bytes_text(row['bytes']):>8}"
        )
    print(f"{len(rows)} runs, {bytes_text(sum(row['bytes'] for row in rows))}. More: bbtui runs sizes")


def print_run(row: dict[str, Any]) -> None:
    for key, value in row.items():
        if key == "config":
            continue
        shown = " <- ".join(value) if key == "lineage" else value
        print(f"{key.replace('_', ' '):>16}  {clean_line(str(shown), 300)}")
    print("        settings")
    for key, value in row["config"].items():
        entries = value.items() if isinstance(value, dict) else [("", value)]
        for inner, setting in entries:
            print(f"{'':18}{key}{'.' + inner if inner else ''} = {clean_line(str(setting), 200)}")


# ---------------------------------------------------------------- sizes


def sizes_row(sizes: dict[Run, RunBytes], data: list[DataBytes]) -> dict[str, Any]:
    """What `runs sizes` says, as plain JSON values, all in bytes."""
    rows = {
        run.name: {
            "checkpoints": {str(step): size for step, size in parts.checkpoints.items()},
            "logs": parts.logs,
            "other": parts.other,
            "total": parts.total,
        }
        for run, parts in sizes.items()
    }
    return {
        "runs": rows,
        "runs_total": sum(parts.total for parts in sizes.values()),
        "data": {folder.name: {"total": folder.bytes_used, "used": folder.is_used} for folder in data},
        "data_total": sum(folder.bytes_used for folder in data),
    }


def print_sizes(sizes: dict[Run, RunBytes], data: list[DataBytes]) -> None:
    print(f"{'run':<52} {'checkpoints':>16} {'logs':>8} {'other':>8} {'total':>8}")
    for run, parts in sizes.items():
        weights = f"{len(parts.checkpoints)}: {bytes_text(sum(parts.checkpoints.values()))}"
        rest = "".join(f" {bytes_text(size):>8}" for size in (parts.logs, parts.other, parts.total))
        print(f"{clean_line(run.name, 52):<52} {weights:>16}{rest}")
    print(f"{'all runs':<52} {'':>34} {bytes_text(sum(parts.total for parts in sizes.values())):>8}\n")
    print(f"{'prepared data':<87} {'total':>8}")
    for folder in data:
        note = "" if folder.is_used else "   no run uses it; deleted, it is made again when needed"
        print(f"{clean_line(folder.name, 34) + note:<87} {bytes_text(folder.bytes_used):>8}")
    print(f"{'all prepared data':<87} {bytes_text(sum(folder.bytes_used for folder in data)):>8}")


# ---------------------------------------------------------------- two runs


def comparison_row(comparison: Comparison) -> dict[str, Any]:
    """Two runs' differing settings and their outcomes, as plain JSON values."""
    left, right = (
        {key: _finite(value) if isinstance(value, float) else value for key, value in asdict(outcome).items()}
        for outcome in comparison.outcomes
    )
    return {
        "runs": [run.name for run in comparison.runs],
        "settings": {pair.key: [pair.left, pair.right] for pair in comparison.settings if pair.differs},
        "outcome": {key: [left[key], right[key]] for key in left},
        "problems": comparison.problems,
    }


def outcome_rows(outcomes: tuple[Outcome, Outcome]) -> list[Pair]:
    """What came of two runs, in words."""
    left, right = (
        {
            "state": outcome.state,
            "steps done": f"{outcome.step} of {outcome.steps}",
            "tokens": f"{outcome.tokens:,}",
            "validation loss": _loss_words(outcome.validation_loss),
            "lowest": _loss_words(outcome.best_validation_loss)
            + (f" at step {outcome.best_step}" if outcome.best_step is not None else ""),
            "trained for": duration_text(outcome.trained_s),
            "parent": outcome.parent or "none: random weights",
        }
        for outcome in outcomes
    )
    return [Pair(key, left[key], right[key]) for key in left]


def value_words(value: Any) -> str:
    """A setting's value as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "; ".join(map(str, value)) or "none"
    return "–" if value is None or value == "" else str(value)


def print_comparison(comparison: Comparison) -> None:
    def line(key: str, left: str, right: str) -> str:
        columns = [clean_line(value, _LONGEST_VALUE) for value in (left, right)]
        return f"{key:<24} {columns[0]:<{_LONGEST_VALUE}} {columns[1]}".rstrip()

    print(line("", *(run.name[-_LONGEST_VALUE:] for run in comparison.runs)))
    for pair in outcome_rows(comparison.outcomes):
        print(line(pair.key, pair.left, pair.right))
    print()
    for problem in comparison.problems:
        print(clean_line(problem, 300))
    differing = [pair for pair in comparison.settings if pair.differs]
    if not differing and not comparison.problems:
        print("Their settings are the same.")
    for pair in differing:
        print(line(pair.key, value_words(pair.left), value_words(pair.right)))


# ---------------------------------------------------------------- removing


def removal_row(removal: Removal) -> dict[str, Any]:
    """What was removed, as plain JSON values."""
    return {
        "run": removal.run.name,
        "keep": removal.keep,
        "steps_removed": list(removal.steps_gone),
        "steps_kept": list(removal.steps_kept),
        "bytes_freed": removal.bytes_freed,
    }


def removal_words(removal: Removal) -> str:
    """What would go, and what would stay."""
    freed = bytes_text(removal.bytes_freed)
    if removal.keep == "nothing":
        return f"The whole run goes, its log and notes included: {freed}."
    gone = len(removal.steps_gone)
    going = f"{gone} checkpoint{'' if gone == 1 else 's'}" if gone else "No checkpoint"
    stays = ", ".join(map(str, removal.steps_kept))
    kept = f"step {stays} and the log stay" if stays else "settings, log and notes stay"
    return f"{going} of {len(removal.steps)} would go: {freed}; {kept}."


def _loss_words(loss: float | None) -> str:
    return "–" if loss is None else loss_text(loss)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
