"""A run that is over, told again: what its log holds, in portions, each after as long as it took."""

from collections.abc import Iterable, Iterator

from core.log_columns import Columns, Logged
from tui.pace import Pace

_TICK_S = 0.1


class Replay:
    """What the screen's thread sets and the telling thread heeds.

    Args:
        speed: times real time.
    """

    def __init__(self, speed: float) -> None:
        self.pace = Pace(speed)
        self.is_held = False
        """Whether it stands still for now."""

    @property
    def speed(self) -> float:
        return self.pace.speed

    def portions(self, log: Iterable[Columns | Logged]) -> Iterator[tuple[list[Columns | Logged], float]]:
        """What comes next, and how many seconds to let pass after it."""
        portion: list[Columns | Logged] = []
        owed_s = 0.0
        for found in log:
            begin = 0
            for place in range(1 if isinstance(found, Logged) else len(found)):
                owed_s += self.pace.wait_s(found.at if isinstance(found, Logged) else found.at_of(place))
                if owed_s < _TICK_S:
                    continue
                if isinstance(found, Columns) and place > begin:
                    portion.append(found.part(begin, place))
                    begin = place
                if portion:
                    yield portion, owed_s
                portion, owed_s = [], 0.0
            portion.append(found.part(begin, len(found)) if isinstance(found, Columns) else found)
        yield portion, 0.0
