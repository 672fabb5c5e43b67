"""A report of an evaluation as what the Eval tab says and draws about it. No widget in here."""

from typing import TYPE_CHECKING

from textual.content import Content

from tui.clean import clean, clean_line
from tui.widgets.bar_chart import Bar
from tui.workers.listing import Models

if TYPE_CHECKING:
    from core.evals.results import Report, SetResult

_QUESTION_WIDTH = 50
_CLEARLY_MORE = 1.05
_SIGN_STYLES = {"▲": "$text-success", "▼": "$text-warning"}


def verdicts(report: "Report", domain: str) -> list[str]:
    """A sentence a set: what was gained or lost, by how much, and whether that is beyond chance."""
    from core.evals.items import BASEBALL_SET, GENERAL_SET

    lines = []
    for name, result in report.sets.items():
        if result.ratio is None or result.ratio_ci95 is None:
            continue
        if name == GENERAL_SET:
            lines.append(_forgetting(result))
        else:
            subject = domain if name == BASEBALL_SET else clean_line(name, 24)
            lines.append(_gain(subject, result))
    return lines


def _gain(subject: str, result: "SetResult") -> str:
    ratio, means = result.ratio or 0.0, _means(result)
    low, high = result.ratio_ci95 or (0.0, 0.0)
    if high >= 1 and _is_more_surprised(result):
        return f"▼ Mixed on {subject}: ×{ratio:.2f} ({means}), {_surprise(result)}."
    if low > 1:
        return f"▲ Gained on {subject}: ×{ratio:.2f} probability for the correct token ({means})."
    if high < 1:
        return f"▼ Lost on {subject}: ×{ratio:.2f} probability for the correct token ({means})."
    return f"= No clear change on {subject}: ×{ratio:.2f}, within chance ({means})."


def _forgetting(result: "SetResult") -> str:
    ratio, means = result.ratio or 0.0, _means(result)
    low, high = result.ratio_ci95 or (0.0, 0.0)
    kept = f"kept {ratio * 100:.0f} %"
    if high >= 1 and _is_more_surprised(result):
        return f"▼ Mixed on general subjects: {kept} ({means}), {_surprise(result)}."
    if high < 1:
        return f"▼ Forgot of the general subjects: {kept} ({means})."
    if low > 1:
        return f"▲ Gained on general subjects, too: {kept} ({means})."
    return f"= Forgot nothing that shows of the general subjects: {kept} ({means})."


def _is_more_surprised(result: "SetResult") -> bool:
    """Whether the answers cost clearly more nats than before.

    A model can gain mean probability where it was right before, and yet be far more wrong elsewhere: nats show that.
    """
    first, *_, last = result.by_model.values()
    return last.nats_per_byte > _CLEARLY_MORE * first.nats_per_byte


def _surprise(result: "SetResult") -> str:
    first, *_, last = result.by_model.values()
    return f"nats/byte {first.nats_per_byte:.2f} → {last.nats_per_byte:.2f}"


def _means(result: "SetResult") -> str:
    first, *_, last = result.by_model.values()
    return f"{probability_text(first.mean_probability)} → {probability_text(last.mean_probability)}"


def report_bars(report: "Report", domain: str) -> list[Bar]:
    """The mean probabilities: a group a set, a bar a model, the general model's shaded."""
    bars = []
    for name, result in report.sets.items():
        for position, (label, found) in enumerate(result.by_model.items()):
            shown = domain if label == "baseball" else label
            value = found.mean_probability
            bars.append(Bar(name, shown, value, probability_text(value), is_shaded=position == 0))
    return bars


def question_lines(report: "Report", domain: str) -> list[str]:
    """The questions behind the figures, a set after the other, most gained first."""
    lines: list[str] = []
    labels = list(report.models)
    if len(labels) < 2:
        return lines
    first, last = labels[0], labels[-1]
    heads = [clean_line(domain if label == "baseball" else label, 9) for label in (first, last)]
    for name in report.sets:
        asked = [row for row in report.questions if row.set == name]
        if not asked:
            continue
        asked.sort(key=lambda row: row.mean_probability[first] - row.mean_probability[last])
        lines.append("")
        lines.append(
            f"{clean_line(name, _QUESTION_WIDTH):<{_QUESTION_WIDTH}}{heads[0]:>9}{heads[1]:>10}        Δ"
        )
        for row in asked:
            before, after = row.mean_probability[first], row.mean_probability[last]
            sign = "▲" if after - before > 0.0005 else "▼" if before - after > 0.0005 else "="
            lines.append(
                f"{clean_line(row.question, _QUESTION_WIDTH - 1):<{_QUESTION_WIDTH}}{probability_text(before):>9}"
                f"{probability_text(after):>10}  {sign} {probability_text(abs(after - before))}"
            )
    return lines


def standing(models: Models, report: "Report | None", is_current: bool, missing: str) -> str:
    """Which models the report is of, and what could be measured now."""
    names = []
    for model in (models.general, models.baseball):
        if model:
            names.append(clean_line(f"{model.run.short_name} step {model.step}"))
    pair = " and ".join(names)
    if report is None:
        return (
            f"No report yet. Press Enter to measure {pair} on held-out questions."
            if models.is_pair
            else missing
        )
    if is_current:
        return f"Report of the newest pair, {names[-1]}."
    if models.is_pair:
        return f"Out of date: the report below is of older models. Press Enter to measure {pair}."
    return f"The report below is of models that are no longer the newest pair. {missing}"


def styled(line: str, is_heading: bool = False) -> Content:
    """A line of the report, its signs coloured; words and glyphs say the same without colour."""
    content = Content(clean(line).replace("\n", " "))
    if is_heading:
        content = content.stylize("bold")
    for position, character in enumerate(content.plain):
        if style := _SIGN_STYLES.get(character):
            content = content.stylize(style, position, position + 1)
    return content


def probability_text(value: float) -> str:
    """A probability to three places without its leading zero."""
    return f"{value:.3f}".removeprefix("0")
