"""What was left out of the data, and why."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Skipped:
    """Counts of documents or pairs left out, by reason, with the first of each named."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def note(self, reason: str, name: str) -> None:
        """Count one more. The reason is an adjective: `empty`, `not UTF-8`."""
        self.counts[reason] += 1
        self.first.setdefault(reason, name)

    @property
    def total(self) -> int:
        return self.counts.total()

    def in_words(self) -> str:
        """`2 not UTF-8 (first: rules.txt), 1 empty (first: notes.md)`, or an empty text."""
        return ", ".join(f"{n:,} {reason} (first: {self.first[reason]})" for reason, n in self.counts.items())
