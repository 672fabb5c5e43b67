"""Protects a run told again: everything once and in order, in its own time, so many times as fast."""

import pytest

from core.events import TrainMeasured, Warned
from core.log_columns import Columns, Logged, read_lines
from tui.pace import SPEEDS, Pace, next_speed, speed_for
from tui.workers.replay import Replay


def line(step: int, second: int) -> bytes:
    rates = {"learning_rate": 1e-3, "grad_norm": 1.0, "tokens_per_s": 1.5}
    event = TrainMeasured(step=step, tokens=step, loss=2.5, **rates)
    return event.to_line(f"2026-01-01T00:{second // 60:02}:{second % 60:02}.000+00:00").encode()


def steps_of(found: Columns | Logged) -> list[int]:
    if isinstance(found, Columns):
        return list(found.values["step"])
    return [found.event.step] if isinstance(found.event, TrainMeasured) else []


def test_a_replay_tells_everything_once_and_takes_as_long_as_it_should() -> None:
    """600 steps of a second each, with another line among them: 6 s at a hundred times."""
    lines = [line(step, step) for step in range(600)]
    lines.insert(300, Warned(message="x").to_line("2026-01-01T00:05:00.000+00:00").encode())
    portions = list(Replay(100.0).portions(read_lines(b"\n".join(lines))))
    told = [step for portion, _ in portions for found in portion for step in steps_of(found)]
    assert told == list(range(600))
    assert sum(len(portion) for portion, _ in portions) < 120
    assert sum(wait_s for _, wait_s in portions) == pytest.approx(5.99, abs=0.11)
    assert max(wait_s for _, wait_s in portions) < 0.2


def test_a_change_of_speed_holds_from_the_next_portion_on() -> None:
    replay = Replay(10.0)
    waits = []
    for _, wait_s in replay.portions(read_lines(b"\n".join(line(step, step * 2) for step in range(100)))):
        waits.append(wait_s)
        replay.pace.speed = 20.0
    assert waits[0] == pytest.approx(0.2) and waits[1:-1] == pytest.approx([0.1] * 98)


def test_long_pauses_and_unknown_times_keep_nobody_waiting() -> None:
    pace = Pace(1.0)
    assert [pace.wait_s(at) for at in (1e9, 1e9 + 2, 1e9 + 90_000, 0.0, 1e9, 1e9 + 90_001)] == [
        0,
        2,
        5,
        0,
        0,
        1,
    ]


def test_speeds_are_round_and_bounded() -> None:
    assert speed_for(9700, 10) == 1000 and speed_for(3, 10) == 1 and speed_for(1e12, 10) == SPEEDS[-1]
    assert [next_speed(100, 1), next_speed(100, -1), next_speed(1, -1)] == [200, 50, 1]
    assert next_speed(SPEEDS[-1], 1) == SPEEDS[-1]
