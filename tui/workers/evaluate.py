"""The newest pair of models measured off the UI thread, and the report kept beside the newer of the two."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import BbtuiError
from core.runs import Run, Runs
from tui.workers.listing import Models, models_of

if TYPE_CHECKING:
    from core.evals.report import Report

REPORT_FILE = "eval.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` questions of all models together."""

    done: int
    total: int
    what: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The report, and why it could not be kept, if so."""

    report: "Report"
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What there is to measure, and the report that there is already."""

    models: Models
    report: "Report | None"


def evaluate_pair(
    store: Runs, qa_files: Sequence[Path], should_stop: Callable[[], bool]
) -> Iterator[Progress | Finished]:
    """Progress, then the report on the built-in sets and these files; after a stop, nothing more.

    Raises: MissingError without a pair; DataError for a file that holds no questions; CheckpointError.
    """
    from core.evals.items import builtin_sets, read_set
    from core.evals.report import EvalFinished, EvalProgressed, default_entries, evaluate

    entries = list(default_entries(store))
    sets = [*builtin_sets(), *(read_set(path) for path in qa_files)]
    for event in evaluate(entries, sets, should_stop):
        if isinstance(event, EvalProgressed):
            yield Progress(event.done, event.total, event.what)
        elif isinstance(event, EvalFinished):
            yield Finished(event.report, keep_report(event.report, entries[-1].run))


def count_questions(path: Path) -> int:
    """How many questions the file holds. Raises: DataError that names file, line and fix."""
    from core.evals.items import check_sets, read_set

    question_set = read_set(path)
    check_sets([question_set])
    return len(question_set.pairs)


def keep_report(report: "Report", run: Run) -> str:
    """Write the report into the run's folder, whole or not at all; why that failed, or an empty text."""
    target = run.folder / REPORT_FILE
    beside = target.with_suffix(".tmp")
    try:
        beside.write_text(json.dumps(report.to_json(questions=True)), encoding="utf-8")
        beside.replace(target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)[:80]
        return f"The report is shown but could not be kept in {target}: {reason}."
    return ""


def look(store: Runs) -> Outlook:
    """The newest pair and the report to show: that of the pair, or else the newest there is."""
    models = models_of(store)
    if models.baseball and (report := read_report(models.baseball.run)):
        return Outlook(models, report)
    kept = [
        (path.stat().st_mtime, run) for run in store.all() if (path := run.folder / REPORT_FILE).is_file()
    ]
    for _, run in sorted(kept, key=lambda entry: entry[0], reverse=True):
        if report := read_report(run):
            return Outlook(models, report)
    return Outlook(models, None)


def read_report(run: Run) -> "Report | None":
    """The report kept with a run, or None where there is none that can be read."""
    from core.evals.results import Report

    try:
        return Report.from_json(json.loads((run.folder / REPORT_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, BbtuiError):
        return None


def as_markdown(report: "Report", domain: str) -> str:
    """The report's tables as Markdown."""
    from core.evals.report import report_markdown

    return report_markdown(report, domain)


def as_lines(report: "Report", domain: str) -> list[str]:
    """The report's tables as lines of at most 78 columns, blank ones left out."""
    from core.evals.report import report_lines

    return [line for line in report_lines(report, domain) if line.strip()]


def is_of_pair(report: "Report", models: Models) -> bool:
    """Whether the report is of the newest pair's present weights."""
    pair = [model for model in (models.general, models.baseball) if model]
    measured = list(report.models.values())
    return len(pair) == len(measured) and all(
        info.run == model.run.name and info.sha256 == model.sha256
        for info, model in zip(measured, pair, strict=True)
    )
