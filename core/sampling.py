"""How a token is drawn: plain numbers, so that a form can show them without torch."""

from dataclasses import dataclass, replace
from typing import Literal

from core.errors import UsageError

Precision = Literal["auto", "float32", "int8"]
"""Of the matrices that drawn tokens are read with; auto takes int8 where that is the faster."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 0.8
    """0 takes the likeliest token each time."""
    top_k: int = 50
    """Draw from this many likeliest tokens; 0 from all."""
    top_p: float = 1.0
    """Draw from the fewest likeliest tokens that hold this much probability; 1 from all."""
    max_tokens: int = 200
    """Longest answer."""
    seed: int = 7
    """The same seed draws the same answer."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 10:
            raise UsageError(f"temperature: {self.temperature} is not between 0 and 10.")
        if self.top_k < 0:
            raise UsageError(f"top-k: {self.top_k} is below 0.")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top-p: {self.top_p} is not above 0 and at most 1.")
        if self.max_tokens < 1:
            raise UsageError(f"longest answer: {self.max_tokens} tokens is below 1.")
        if abs(self.seed) >= 1 << 63:
            raise UsageError(f"seed: {str(self.seed)[:40]} does not fit into 64 bits.")

    def with_next_seed(self) -> "Sampling":
        return replace(self, seed=(self.seed + 1) % 2**31)

    def in_words(self) -> str:
        """All of it on one line of at most 60 columns."""
        return (
            f"temperature {self.temperature:g}  top-k {self.top_k}  top-p {self.top_p:g}  "
            f"seed {self.seed}  longest {self.max_tokens}"
        )
