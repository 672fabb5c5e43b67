"""Protects the fast way into a long log: it tells what reading line by line tells, damaged lines included."""

import json
import random
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.event_log import Follower
from core.events import (
    AnswersScored,
    CheckpointSaved,
    Event,
    Heartbeat,
    NonFiniteMet,
    RunContinued,
    RunEnded,
    RunPaused,
    TrainMeasured,
    Validated,
    event_from_line,
)
from core.log_columns import Columns, instant_of, read_lines
from core.runs import Run
from driving import a_run, opened, started
from tui.run_state import RunState

RUN = Run(Path("checkpoints/pretrain/2026-01-01-smoke-0000"))


def measured(step: int, loss: float = 4.125) -> TrainMeasured:
    rates = {"learning_rate": 1e-05, "grad_norm": 0.1 + 0.2, "tokens_per_s": 5900.123}
    return TrainMeasured(step=step, tokens=step * 4096, loss=loss, **rates)


def beat(step: int) -> Heartbeat:
    return Heartbeat(
        step=step, tokens=step * 4096, micro_batches_done=1, micro_batches=4, memory_bytes=10**9 + step
    )


def known(value: Any) -> Any:
    """A value, and all that hangs on it, as text that tells every two apart and finds nan equal to itself."""
    if hasattr(value, "__slots__") and not isinstance(value, Run):
        return type(value).__name__, [(name, known(getattr(value, name))) for name in value.__slots__]
    if isinstance(value, RunState):
        return [(name, known(each)) for name, each in sorted(vars(value).items())]
    if isinstance(value, dict):
        return [(key, known(each)) for key, each in value.items()]
    if isinstance(value, (list, array)):
        return [known(each) for each in value]
    return repr(value)


def one_by_one(block: bytes) -> RunState:
    state = RunState(RUN)
    for line in block.split(b"\n"):
        if event := event_from_line(line):
            state.feed(event, instant_of(line))
    return state


def at_once(block: bytes) -> RunState:
    state = RunState(RUN)
    for found in read_lines(block):
        state.take(found)
    return state


def a_log(draw: random.Random, length: int) -> list[bytes]:
    """Lines of a run with pauses, resumes, and steps in long rows."""
    step, lines = 0, [started(RUN).to_line("2026-01-01T00:00:00.000+00:00")]
    for place in range(length):
        step += 1
        others: list[Event] = [
            beat(step),
            Validated(step=step, tokens=step * 4096, loss=draw.random(), bits_per_byte=1.0, elapsed_s=1.0),
            NonFiniteMet(step=step, what="loss"),
            RunPaused(step=step),
            RunContinued(step=step),
            CheckpointSaved(step=step, path="step-1", bytes_written=1, is_best=draw.random() < 0.5),
            AnswersScored(
                step=step, tokens=step * 4096, questions="x", items=1, mean_probability=0.5, elapsed_s=0.0
            ),
            RunEnded(step=step, reason="stopped", message="", elapsed_s=1.0),
        ]
        event = measured(step, draw.choice([4.0, draw.random(), 1e-9, float("nan"), float("inf")]))
        if draw.random() < 0.3:
            event = draw.choice(others)
        elif draw.random() < 0.03:
            step = draw.randrange(step)
            event = started(RUN, step)
        second = draw.choice([place, place, draw.randrange(60 * 24)])
        at = f"2026-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.{draw.randrange(1000):03}+00:00"
        lines.append(event.to_line(at))
    return [line.encode() for line in lines]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_reading_at_once_is_the_same_as_reading_line_by_line(seed: int) -> None:
    """Every figure, mark and clock of the run's state, with bytes of the log damaged and with none."""
    draw = random.Random(seed)
    lines = a_log(draw, 200)
    for damages in (0, 20):
        for _ in range(damages):
            line = bytearray(draw.choice(lines))
            place = draw.randrange(len(line) + 1)
            line[place : place + draw.randint(0, 3)] = bytes(draw.choices(range(256), k=draw.randint(0, 3)))
            lines[draw.randrange(len(lines))] = bytes(line).replace(b"\n", b" ").replace(b"\r", b" ")
        block = b"\n".join(lines) + b"\n"
        assert known(at_once(block)) == known(one_by_one(block))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step", "007"),
        ("step", "1.0"),
        ("step", "true"),
        ("step", "-0"),
        ("step", "9" * 18),
        ("step", str(2**63 - 1)),
        ("step", str(2**63)),
        ("tokens", "-5"),
        ("loss", "3"),
        ("loss", "-0"),
        ("loss", "-0.0"),
        ("loss", "00.5"),
        ("loss", "1."),
        ("loss", "1.e5"),
        ("loss", ".5"),
        ("loss", "+1.5"),
        ("loss", "1_0.5"),
        ("loss", '"1.5"'),
        ("loss", '"nan"'),
        ("loss", '"-inf"'),
        ("loss", "NaN"),
        ("loss", "1e400"),
        ("loss", "1e-400"),
        ("loss", "9" * 400),
        ("loss", "null"),
        ("loss", "1.5,2.5"),
        ("at", '"2026-13-41T99:99:99.999+00:00"'),
        ("at", '"\\u0031"'),
        ("event", '"Heartbeat"'),
    ],
)
def test_what_a_careful_reader_drops_is_dropped(field: str, value: str) -> None:
    """Numbers that JSON does not know, or that no field takes, get through neither way, alone or in a row."""
    row = json.loads(measured(7).to_line("2026-01-01T00:00:00.000+00:00"))
    texts = {name: json.dumps(each) for name, each in row.items()} | {field: value}
    odd = "{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}"
    good = [measured(step).to_line("2026-01-01T00:00:01.000+00:00") for step in (5, 6, 8)]
    block = "\n".join([*good[:2], odd, good[2]]).encode() + b"\n"
    assert known(at_once(block)) == known(one_by_one(block))


def test_steps_in_a_row_are_read_as_columns_of_exact_figures() -> None:
    """The fast way is taken at all, with heartbeats between the steps, and gives the same bits."""
    lines = [e.to_line() for step in range(1, 300) for e in (measured(step, step / 7), beat(step))]
    found = list(read_lines("\n".join(lines).encode()))
    assert [(type(each), len(each)) for each in found if isinstance(each, Columns)] == [(Columns, 299)] * 2
    assert isinstance(found[0], Columns) and found[0].event(6) == measured(7, 1.0)
    assert list(found[0].values["loss"]) == [step / 7 for step in range(1, 300)]


def test_a_log_larger_than_a_block_is_read_in_bounded_pieces(tmp_path: Path) -> None:
    """No block holds more than the reader wants at once, save where one line is longer; torn lines are counted."""
    run = Run(tmp_path)
    lines = [measured(step).to_line() for step in range(1, 4001)]
    lines.insert(2000, '{"event":"Warned","message":"' + "x" * 600_000 + '"}')
    lines.insert(1000, '{"event":"TrainMeas')
    run.events_file.write_text("\n".join(lines) + '\n{"event":"Val')
    blocks = list(Follower(run.events_file).blocks())
    assert len(blocks) > 3 and all(block.endswith(b"\n") for block in blocks)
    assert sorted(map(len, blocks))[-2] <= 1 << 19
    follower = Follower(run.events_file)
    assert sum(len(each) for each in follower.read() if isinstance(each, Columns)) == 4000
    assert follower.bad_lines == 1


async def test_a_log_that_grows_is_shown_whole(tmp_path: Path) -> None:
    """What was there and what comes later stand on one curve, each step once."""
    run = a_run(tmp_path, [])
    with run.held():
        async with opened(tmp_path) as (app, pilot):
            pane = app.stage_pane("pretrain")
            for step in range(41, 1041):
                run.append(measured(step))
            for _ in range(1000):
                if pane.state and pane.state.step == 1040:
                    break
                await pilot.pause(0.01)
            assert pane.state and list(pane.state.series.train.steps) == list(range(1, 1041))
            assert len(pane.state.series.grad_norm.values) == 1040
