"""What `bbtui bench` measures, one thing after the other. Loads without torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.bench.measurement import GPT2_SMALL, SMALL, Measurement, Precision, Sizes
from core.bench.process import measured
from core.bench.starting import until_ended, until_painted
from core.config_problems import did_you_mean
from core.errors import BbtuiError, UsageError

NAMES = ("matmul", "bandwidth", "train-small", "train-124m", "decode", "prefill", "prepare", "start-up")
_NEEDS_LIMIT = {
    "train-small": "matmul",
    "train-124m": "matmul",
    "prefill": "matmul",
    "decode": "bandwidth",
}


@dataclass(frozen=True, slots=True)
class Suite:
    """How much of everything.

    Args:
        help_command: a command that ends by itself, to time the program's start.
        app_command: a command that opens the app; its first screen shows `app_words`.
    """

    help_command: Sequence[str]
    app_command: Sequence[str]
    app_words: str
    rounds: int = 3
    precision: Precision = "auto"
    small: Sizes = SMALL
    large: Sizes = GPT2_SMALL
    new_tokens: int = 256
    prompt_tokens: int = 900
    megabytes: float = 8.0

    def run(self, names: Sequence[str]) -> Iterator[Measurement]:
        """Each measurement as soon as it is there; a limit that a share needs is measured first."""
        for name in with_limits(names):
            for found in self._found(name):
                yield replace(found, name=name)

    def _found(self, name: str) -> Iterator[Measurement]:
        rounds: dict[str, Any] = {"rounds": self.rounds}
        large = rounds | {"sizes": asdict(self.large)}
        match name:
            case "matmul":
                for precision in ("float32", "bfloat16"):
                    yield from measured("matmul", large | {"precision": precision})
            case "bandwidth":
                yield from measured("bandwidth", rounds)
            case "train-small" | "train-124m":
                sizes = asdict(self.small if name == "train-small" else self.large)
                yield from measured("train", rounds | {"sizes": sizes, "precision": self.precision})
            case "decode":
                yield from measured("decode", large | {"new_tokens": self.new_tokens})
            case "prefill":
                yield from measured("prefill", large | {"prompt_tokens": self.prompt_tokens})
            case "prepare":
                yield from measured("prepare", rounds | {"megabytes": self.megabytes})
            case _:
                yield self._timed(name, "first screen of the app", self._paint)
                yield self._timed(name, "--help", lambda: until_ended(self.help_command))

    def _paint(self) -> float:
        return until_painted(self.app_command, self.app_words)

    def _timed(self, name: str, what: str, once: Callable[[], float]) -> Measurement:
        """Seconds; the first time is left out, as the system reads the files from the disk then."""
        blank = Measurement(name=name, what=what, unit="s", device="cpu")
        try:
            once()
            return replace(blank, samples=tuple(once() for _ in range(self.rounds)))
        except (BbtuiError, OSError) as error:
            return replace(blank, problem=str(error).splitlines()[0])


def chosen(only: str) -> list[str]:
    """The names in a list with commas; all for an empty one. Raises: UsageError for an unknown one."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in NAMES:
            raise UsageError(
                f"There is no measurement {name[:40]!r}.{did_you_mean(name, NAMES)}",
                f"There are: {', '.join(NAMES)}.",
            )
    return names or list(NAMES)


def with_limits(names: Sequence[str]) -> list[str]:
    """The names in their order, with the limits that their shares are taken of."""
    wanted = {*names, *(_NEEDS_LIMIT[name] for name in names if name in _NEEDS_LIMIT)}
    return [name for name in NAMES if name in wanted]
