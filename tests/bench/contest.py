"""Contenders that do the same in turns, each in a process of its own, and what came of it as a table.

Loads without torch, as the memory of whoever starts a process is where that of the process begins.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from core.bench.machine import Machine
from core.bench.measurement import Measurement
from tui.commands.bench import figure_text

CPU_ONLY = "CPU only; no GPU was measured."


@dataclass(frozen=True, slots=True)
class Contender:
    label: str
    measure: Callable[[], Measurement]


@dataclass(slots=True)
class Contest:
    """What is measured; the first contender is ours.

    Args:
        choices: of contenders whose labels begin alike, up to a comma, only the fastest in a first round goes on.
    """

    name: str
    what: str
    contenders: list[Contender]
    choices: bool = False
    found: dict[str, list[Measurement]] = field(default_factory=dict)
    """By label, one a pair."""
    problems: dict[str, str] = field(default_factory=dict)

    def run(self, pairs: int) -> Iterator[str]:
        """Measure in turns; yields a line a turn."""
        left = list(self.contenders)
        if self.choices:
            left = yield from self._fastest_of_alike(left)
        for pair in range(pairs):
            # Whoever comes first in one pair comes later in the next: a machine that warms up favours nobody.
            turn = pair % max(1, len(left))
            for contender in left[turn:] + left[:turn]:
                measurement = contender.measure()
                if measurement.problem:
                    self.problems[contender.label] = measurement.problem
                    yield f"  {contender.label}: left out. {measurement.problem}"
                else:
                    self.found.setdefault(contender.label, []).append(measurement)
                    yield f"  pair {pair + 1}  {contender.label:<26} {_said(measurement)}"
            left = [each for each in left if each.label not in self.problems]
        for label in self.problems:
            self.found.pop(label, None)

    def _fastest_of_alike(self, contenders: list[Contender]) -> Any:
        groups: dict[str, list[Contender]] = {}
        for contender in contenders:
            groups.setdefault(contender.label.partition(",")[0], []).append(contender)
        chosen = []
        for group in groups.values():
            if len(group) == 1:
                chosen += group
                continue
            rates: dict[str, float] = {}
            for contender in group:
                measurement = contender.measure()
                if measurement.problem:
                    self.problems[contender.label] = measurement.problem
                    yield f"  {contender.label}: left out. {measurement.problem}"
                else:
                    rates[contender.label] = measurement.median
                    yield f"  to choose {contender.label:<26} {_said(measurement)}"
            best = max(rates, key=lambda label: rates[label], default="")
            chosen += [each for each in group if each.label == best]
        return chosen

    # ------------------------------------------------------------ what came of it

    def rates(self, label: str) -> list[float]:
        """The median of each pair."""
        return [each.median for each in self.found[label]]

    def ratios(self, label: str) -> list[float]:
        """Ours over theirs, pair by pair."""
        ours = self.rates(self.contenders[0].label) if self.contenders[0].label in self.found else []
        return [mine / theirs for mine, theirs in zip(ours, self.rates(label), strict=False)]

    def memory_bytes(self, label: str) -> float:
        return statistics.median(each.memory_bytes for each in self.found[label])

    def rows(self, limits: list[Measurement]) -> list[list[str]]:
        """A row a contender: label, median and spread, ratio with its range, memory, share of the limit."""
        first, rows = self.contenders[0].label, []
        ours = self.found.get(first, [])
        for label, found in self.found.items():
            rates, unit = self.rates(label), found[0].unit
            rate = f"{figure_text(statistics.median(rates))} {unit} "
            spread = f"({figure_text(min(rates))} to {figure_text(max(rates))})"
            ratio = ""
            if label != first and (ratios := self.ratios(label)):
                middle = statistics.median(rates) and statistics.median(
                    self.rates(first)
                ) / statistics.median(rates)
                ratio = f"{middle:.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
            held = self.memory_bytes(label)
            memory = f"{held / 1e9:.2f} GB" if held else ""
            rows.append([self.what, label, rate + spread, ratio, memory, _share(found, ours, limits)])
        return rows

    def to_row(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "name": self.name,
            "what": self.what,
            "found": {label: [each.to_row() for each in found] for label, found in self.found.items()},
            "problems": self.problems,
        }


def _said(measurement: Measurement) -> str:
    return (
        f"{figure_text(measurement.median):>9} {measurement.unit}  "
        f"{measurement.memory_bytes / 1e9:.2f} GB  {measurement.precision}"
    )


def _share(found: list[Measurement], ours: list[Measurement], limits: list[Measurement]) -> str:
    """Of the limit, at the work that ours is counted with: the model is the same."""
    if not ours or ours[0].limit != "operations":
        # What others read for a token, at which precision, is theirs to know.
        shares = [share for each in found if (share := each.share(limits)) is not None]
    else:
        cost = ours[0].cost
        shares = [
            share
            for each in found
            if (
                share := Measurement(
                    name=each.name,
                    what=each.what,
                    unit=each.unit,
                    samples=each.samples,
                    precision=each.precision,
                    limit="operations",
                    cost=cost,
                ).share(limits)
            )
            is not None
        ]
    return f"{100 * statistics.median(shares):.0f} %" if shares else ""


# ---------------------------------------------------------------- tables


def markdown_table(rows: list[list[str]]) -> str:
    """The first row is the head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)


def heading(machine: Machine) -> str:
    """When and on what, in two lines."""
    said = "" if machine.gpu else f" {CPU_ONLY}"
    return f"Measured on {date.today().isoformat()}: {machine.in_words()}.{said}"


def contests_table(
    contests: list[Contest], limits: list[Measurement], ratio: str = "ours is faster by"
) -> str:
    """All contests in one table of Markdown.

    Args:
        ratio: what the first contender's rate over another's means.
    """
    head = ["what", "who", "median (lowest to highest)", ratio, "peak memory", "of the limit"]
    return markdown_table([head, *(row for contest in contests for row in contest.rows(limits))])
