"""How fast a run is told again: its own pace, so many times over."""

_LONGEST_PAUSE_S = 5.0
SPEEDS = tuple(digit * 10.0**power for power in range(7) for digit in (1, 2, 5))
"""What the keys for faster and slower step through."""


class Pace:
    """Lets time pass between events as it passed in the run, `speed` times over."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        """Times real time; it may be changed on the way."""
        self._before = 0.0

    def wait_s(self, at: float) -> float:
        """Seconds to let pass before the event of this instant (seconds since 1970, 0 if unknown)."""
        before, self._before = self._before, max(self._before, at)
        # A pause of a night is no reason to sit before a still picture.
        return min(_LONGEST_PAUSE_S, max(0.0, at - before) / self.speed) if before and at else 0.0


def speed_for(span_s: float, shown_in_s: float) -> float:
    """The slowest of the speeds that shows so long a run in at most that time."""
    return next((speed for speed in SPEEDS if span_s / speed <= shown_in_s), SPEEDS[-1])


def next_speed(speed: float, steps: int) -> float:
    """The speed so many places faster (or slower, below 0)."""
    at = SPEEDS.index(speed) if speed in SPEEDS else 0
    return SPEEDS[min(len(SPEEDS) - 1, max(0, at + steps))]
