"""Models scored on sets of questions, and the report on it as lines of text and as Markdown."""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import DataError, MissingError, UsageError
from core.evals.items import GENERAL_SET, QuestionSet, check_sets
from core.evals.results import BASEBALL, GENERAL, ModelInfo, ModelResult, QuestionResult, Report, SetResult
from core.runs import Run, Runs

# torch is imported inside functions: whoever shows a kept report does not wait for it.
if TYPE_CHECKING:
    from core.evals.probability import FloatArray


@dataclass(frozen=True, slots=True)
class Entry:
    """A model to evaluate."""

    label: str
    run: Run
    at: str = "last"
    """last, best, or a step."""


@dataclass(frozen=True, slots=True)
class EvalProgressed:
    done: int
    total: int
    """Questions of all models together."""
    what: str


@dataclass(frozen=True, slots=True)
class EvalFinished:
    report: Report


# ---------------------------------------------------------------- which models


def default_entries(
    store: Runs, general: str | None = None, baseball: str | None = None
) -> tuple[Entry, Entry]:
    """The general and the baseball model: those named, or else the newest pair.

    Where only one is named, the other is of its line: the assistant that the baseball model came from, or the
    newest finished baseball model that came from the assistant. Raises: MissingError, UsageError.
    """
    if general and baseball:
        return Entry(GENERAL, *store.find(general)), Entry(BASEBALL, *store.find(baseball))
    if baseball:
        run, at = store.find(baseball)
        return Entry(GENERAL, _assistant_of(store, run)), Entry(BASEBALL, run, at)
    if general:
        run, at = store.find(general)
        return Entry(GENERAL, run, at), Entry(BASEBALL, _newest_child_of(store, run))
    pair = store.newest_pair()
    if pair:
        return Entry(GENERAL, pair[0]), Entry(BASEBALL, pair[1])
    newest = store.newest("baseball-finetune")
    if newest:
        _assistant_of(store, newest)
    raise MissingError(
        "There is no pair of models yet: no baseball-finetune run has finished.",
        "Train all four stages: bbtui quickstart; or the one that is missing: bbtui train baseball-finetune.",
    )


def _assistant_of(store: Runs, baseball: Run) -> Run:
    for run in store.lineage(baseball)[1:]:
        if run.stage == "finetune":
            return run
    raise MissingError(
        f"{baseball.name} comes from no finetune run that is still there.", "Name one: --general RUN."
    )


def _newest_child_of(store: Runs, general: Run) -> Run:
    finished = []
    for run in store.all("baseball-finetune"):
        try:
            summary = run.summary()
            if summary.state == "completed" and general in store.lineage(run)[1:]:
                finished.append((summary.last_at, run))
        except UsageError:  # a run whose configuration is damaged is nobody's child
            continue
    if not finished:
        raise MissingError(
            f"No finished baseball-finetune run comes from {general.name}.",
            f"Name one: --baseball RUN; or train one: bbtui train baseball-pretrain --from {general.name}.",
        )
    return max(finished, key=lambda found: found[0])[1]


# ---------------------------------------------------------------- scoring


def evaluate(
    entries: Sequence[Entry], sets: list[QuestionSet], should_stop: Callable[[], bool] = lambda: False
) -> Iterator[EvalProgressed | EvalFinished]:
    """Progress batch by batch, then the report; after a stop, nothing more. One model is in memory at a time.

    Raises: UsageError for equal names, MissingError, CheckpointError; DataError where no question fits.
    """
    check_sets(sets)
    label, count = Counter(entry.label for entry in entries).most_common(1)[0] if entries else ("", 0)
    if count != 1:
        raise UsageError(
            f"{count} models are labelled {label!r}." if count else "There is no model to evaluate."
        )
    return _evaluate(entries, sets, should_stop)


_Answers = dict[str, "dict[int, FloatArray]"]
"""Set's name -> index of the pair -> log probabilities of its answer's tokens."""


def _evaluate(
    entries: Sequence[Entry], sets: list[QuestionSet], should_stop: Callable[[], bool]
) -> Iterator[EvalProgressed | EvalFinished]:
    share = sum(len(question_set.pairs) for question_set in sets)
    models: dict[str, ModelInfo] = {}
    answers: dict[str, _Answers] = {}
    for number, entry in enumerate(entries):
        scored = yield from _score_entry(entry, sets, should_stop, number * share, len(entries) * share)
        if scored is None:
            return
        models[entry.label], answers[entry.label] = scored
    report = Report(models, {})
    for question_set in sets:
        # Thousands of resamples of a large set take their time.
        yield EvalProgressed(len(entries) * share, len(entries) * share, f"intervals of {question_set.name}")
        if should_stop():
            return
        _add_set(report, question_set, {label: found[question_set.name] for label, found in answers.items()})
    yield EvalFinished(report)


def _score_entry(
    entry: Entry, sets: list[QuestionSet], should_stop: Callable[[], bool], done: int, total: int
) -> Generator[EvalProgressed, None, tuple[ModelInfo, _Answers] | None]:
    """What one model gives, or None after a stop. The model is let go with this function's frame."""
    from core.evals.probability import score
    from core.generate import load_voice

    yield EvalProgressed(done, total, f"loading {entry.label}")
    voice = load_voice(entry.run, entry.at)
    answers: _Answers = {}
    for question_set in sets:
        found = answers[question_set.name] = {}
        what = f"{entry.label} on {question_set.name}"
        yield EvalProgressed(done, total, what)
        for batch in score(voice, question_set.pairs, should_stop):
            found |= batch
            yield EvalProgressed(done + len(found), total, what)
        if should_stop():
            return None
        done += len(question_set.pairs)
    return ModelInfo(entry.run.name, voice.step, voice.sha256), answers


def _add_set(report: Report, question_set: QuestionSet, answers: "dict[str, dict[int, FloatArray]]") -> None:
    """Add a set's figures and questions to the report, of the questions that every model could be asked."""
    import numpy as np

    from core.evals.probability import interval95, model_result, resampled_means

    name, pairs = question_set.name, question_set.pairs
    kept = [i for i in range(len(pairs)) if all(i in found for found in answers.values())]
    if not kept:
        raise DataError(
            f"{name}: each of its {len(pairs)} questions is, with its answer, longer than a model's context.",
            "Give shorter questions, or models with a longer context.",
        )
    labels = list(answers)
    logs = {label: [found[i] for i in kept] for label, found in answers.items()}
    sums = np.array([[float(np.exp(answer).sum()) for answer in logs[label]] for label in labels])
    counts = np.array([[float(len(answer)) for answer in logs[label]] for label in labels])
    means = resampled_means(sums, counts)
    answer_bytes = sum(len(pairs[i].answer.encode("utf-8", "replace")) for i in kept)
    by_model = {
        label: model_result(logs[label], answer_bytes, interval95(means[:, row]))
        for row, label in enumerate(labels)
    }
    ratio = ratio_ci95 = None
    if GENERAL in by_model and BASEBALL in by_model:
        ratio = by_model[BASEBALL].mean_probability / by_model[GENERAL].mean_probability
        ratio_ci95 = interval95(means[:, labels.index(BASEBALL)] / means[:, labels.index(GENERAL)])
    report.sets[name] = SetResult(
        len(kept), int(counts[0].sum()), len(pairs) - len(kept), by_model, ratio, ratio_ci95
    )
    per_question = sums / counts
    for column, i in enumerate(kept):
        shown = {label: float(per_question[row, column]) for row, label in enumerate(labels)}
        report.questions.append(QuestionResult(name, pairs[i].id, pairs[i].question, pairs[i].answer, shown))


# ---------------------------------------------------------------- in words and figures

_HEADING = "Mean probability of the correct next token, ± half of its 95 % interval"
_WIDTH = 78
_FIRST_COLUMN, _SET_COLUMN, _FIGURE_COLUMN = 16, 31, 12
_SETS_ABREAST = (_WIDTH - _FIRST_COLUMN) // _SET_COLUMN
_FIGURES: dict[str, Callable[[ModelResult], str]] = {
    "nats/byte": lambda result: f"{result.nats_per_byte:.3f}",
    "by question": lambda result: _probability(result.per_question_mean),
    "geometric": lambda result: _probability(result.geometric_mean),
    "without end": lambda result: _probability(result.mean_probability_without_end),
    "perplexity": lambda result: format(result.perplexity, ".1f" if result.perplexity < 1e6 else ".1e"),
}


def report_lines(report: Report, domain: str) -> list[str]:
    """The report as lines of plain text, at most 78 columns wide.

    Args:
        domain: what the baseball model is geared to, as the screen names it.
    """
    lines = [_HEADING]
    names = list(report.sets)
    for start in range(0, len(names), _SETS_ABREAST):
        for first, *cells in _main_rows(report, domain, names[start : start + _SETS_ABREAST]):
            lines.append(_fit(first, _FIRST_COLUMN) + "".join(_fit(cell, _SET_COLUMN) for cell in cells))
        lines.append("")
    lines.append(
        _fit("Other figures", _FIRST_COLUMN) + "".join(f"{name:>{_FIGURE_COLUMN}}" for name in _FIGURES)
    )
    for name, result in report.sets.items():
        lines.append(_short(name, _WIDTH))
        for label, found in result.by_model.items():
            cells = "".join(f"{figure(found):>{_FIGURE_COLUMN}}" for figure in _FIGURES.values())
            lines.append(_fit(f"  {_title(label, domain)}", _FIRST_COLUMN) + cells)
    lines += ["", *(_short(line, _WIDTH) for line in _skipped_lines(report))]
    width = min(_FIRST_COLUMN, 2 + max((len(_title(label, domain)) for label in report.models), default=0))
    for label, info in report.models.items():
        weights = f"  step {info.step}  {info.sha256[:6]}"
        room = _WIDTH - width - len(weights)
        # What tells runs apart is the end of their names.
        run = info.run if len(info.run) <= room else "…" + info.run[1 - room :]
        lines.append(_fit(_title(label, domain), width) + run + weights)
    return [line.rstrip() for line in lines]


def report_markdown(report: Report, domain: str = BASEBALL) -> str:
    """The report as Markdown: tables of the mean probabilities, of the other figures, and of the models."""
    figures = [
        [name, _title(label, domain), *(figure(found) for figure in _FIGURES.values())]
        for name, result in report.sets.items()
        for label, found in result.by_model.items()
    ]
    models = [
        [_title(label, domain), info.run, str(info.step), info.sha256[:12]]
        for label, info in report.models.items()
    ]
    parts = [
        f"{_HEADING}:",
        _markdown_table(_main_rows(report, domain, list(report.sets))),
        _markdown_table([["set", "model", *_FIGURES], *figures]),
        "\n".join(_skipped_lines(report)),
        _markdown_table([["model", "run", "step", "SHA-256"], *models]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _main_rows(report: Report, domain: str, names: list[str]) -> list[list[str]]:
    """Rows of cells: the sets' names, each model's means with the change from the model above, the ratio."""
    sets = [report.sets[name] for name in names]
    rows = [
        ["model", *(f"{_short(name, 22)} {result.items}" for name, result in zip(names, sets, strict=True))]
    ]
    above: str | None = None
    for label in report.models:
        cells = [
            _mean_cell(result.by_model[label], result.by_model[above] if above else None) for result in sets
        ]
        rows.append([_title(label, domain), *cells])
        above = label
    ratios = [_ratio_cell(name, result) for name, result in zip(names, sets, strict=True)]
    return [*rows, ["ratio", *ratios]] if any(ratios) else rows


def _mean_cell(result: ModelResult, above: ModelResult | None) -> str:
    low, high = result.ci95
    text = f"{_probability(result.mean_probability)} ±{_probability((high - low) / 2)}"
    if above is None:
        return text
    change = result.mean_probability - above.mean_probability
    sign = "=" if abs(change) < 0.0005 else "▲" if change > 0 else "▼"
    return f"{text}  {sign} {_probability(abs(change))}"


def _ratio_cell(name: str, result: SetResult) -> str:
    if result.ratio is None or result.ratio_ci95 is None:
        return ""
    low, high = (f"{end:.2f}".removeprefix("0") for end in result.ratio_ci95)
    kept = f"  kept {result.ratio:.0%}".replace("%", " %") if name == GENERAL_SET else ""
    return f"×{f'{result.ratio:.2f}'.removeprefix('0')} [{low}, {high}]{kept}"


def _skipped_lines(report: Report) -> list[str]:
    lines = []
    for name, result in report.sets.items():
        if result.skipped:
            asked = result.items + result.skipped
            lines.append(
                f"Left out of {_short(name, 24)}: {result.skipped} of {asked}, too long for a model."
            )
    return lines


def _title(label: str, domain: str) -> str:
    return domain if label == BASEBALL else label


def _probability(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _fit(text: str, width: int) -> str:
    """The text in so many columns, the last one free."""
    return _short(text, width - 1).ljust(width)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _markdown_table(rows: list[list[str]]) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
