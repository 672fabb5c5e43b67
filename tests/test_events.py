"""Protects the log: every record reads back bit for bit, and no line, however damaged, stops a reader."""

import json
import math
import random
import struct
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import commands, events
from core.commands import Command, Pause, SetLearningRate, Stop, command_from_line
from core.event_log import Follower
from core.events import Event, SampleDrawn, TrainMeasured, Validated, Warned, event_from_line
from core.records import Record, instant_of_line, now
from core.runs import Run

KINDS: list[type[Record]] = [
    kind
    for kind in [*vars(events).values(), *vars(commands).values()]
    if isinstance(kind, type) and issubclass(kind, Record) and kind not in (Record, Event, Command)
]
FLOATS = [0.0, -0.0, 5e-324, -2.2e-308, 1 / 3, 0.1 + 0.2, 1e308, 2e-3, math.nan, math.inf, -math.inf]
VALUES: dict[type, list[Any]] = {
    int: [0, 1, -1, 2**53 + 1, 2**63 - 1],
    float: FLOATS,
    bool: [True, False],
    str: ["", "plain", "two\nlines\r\u2028\x00\x1b[31m", "“é 日本 🙂", '"quoted" \\ {"event":"RunEnded"}'],
}


def bits(record: Record | None) -> list[Any]:
    """What distinguishes -0.0 from 0.0 and finds nan equal to itself."""
    assert record is not None
    values = [getattr(record, field.name) for field in fields(record)]
    return [type(record), *(struct.pack("<d", v) if isinstance(v, float) else (type(v), v) for v in values)]


def read(record: Record, line: str | bytes) -> Record | None:
    return event_from_line(line) if isinstance(record, Event) else command_from_line(line)


def records_of(kind: type[Record]) -> list[Record]:
    hints = get_type_hints(kind)
    rounds = max(map(len, VALUES.values()))
    return [
        kind(**{f.name: VALUES[hints[f.name]][i % len(VALUES[hints[f.name]])] for f in fields(kind)})
        for i in range(rounds)
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_comes_back_from_its_line_bit_for_bit(kind: type[Record]) -> None:
    for record in records_of(kind):
        line = record.to_line()
        assert "\n" not in line and "\r" not in line
        assert bits(read(record, line)) == bits(record)
        assert bits(read(record, line.encode())) == bits(record)


@given(st.binary(min_size=8, max_size=8))
def test_any_64_bits_of_a_loss_survive_the_log(raw: bytes) -> None:
    (loss,) = struct.unpack("<d", raw)
    event = event_from_line(
        Validated(step=1, tokens=2, loss=loss, bits_per_byte=loss, elapsed_s=0.0).to_line()
    )
    assert isinstance(event, Validated)
    # JSON has no place for a nan's payload, and no chart for it.
    assert math.isnan(event.loss) if math.isnan(loss) else struct.pack("<d", event.loss) == raw


def test_a_line_is_strict_json_with_the_keys_that_scripts_read() -> None:
    event = TrainMeasured(
        step=3, tokens=48, loss=math.nan, learning_rate=1e-3, grad_norm=math.inf, tokens_per_s=10.0
    )

    def refuse(word: str) -> None:
        raise AssertionError(word)

    row = json.loads(event.to_line(at="2026-01-02T03:04:05.678+00:00"), parse_constant=refuse)
    assert list(row)[:2] == ["event", "at"] and row["event"] == "TrainMeasured"
    assert {"step", "tokens", "loss", "learning_rate", "grad_norm", "tokens_per_s"} <= row.keys()
    assert (row["loss"], row["grad_norm"], row["at"]) == ("nan", "inf", "2026-01-02T03:04:05.678+00:00")
    assert json.loads(Stop().to_line())["command"] == "Stop"


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("RunStarted", "run stage parent parameters resumed_from_step"),
        ("TrainMeasured", "step tokens loss learning_rate grad_norm tokens_per_s"),
        ("Validated", "step tokens loss bits_per_byte"),
        ("SampleDrawn", "step prompt text"),
        ("LearningRateChanged", "step before after"),
        ("CheckpointSaved", "step path"),
        ("RunEnded", "step reason"),
    ],
)
def test_the_fields_that_scripts_rely_on_keep_their_names(name: str, keys: str) -> None:
    assert set(keys.split()) <= {field.name for field in fields(getattr(events, name))}


def test_instants_are_utc_and_sort_as_text() -> None:
    first, second = now(), now()
    assert first <= second and first.endswith("+00:00")
    assert instant_of_line(Warned(message="x").to_line(at=first)) == first


def test_a_lone_surrogate_in_a_text_does_not_break_the_log() -> None:
    line = SampleDrawn(step=1, prompt="a\ud800b", text="ok").to_line()
    event = event_from_line(line.encode("utf-8"))
    assert isinstance(event, SampleDrawn) and event.prompt == "a?b"


def test_a_field_of_a_newer_version_is_passed_over_and_a_missing_one_makes_no_record() -> None:
    row = json.loads(Warned(message="hello").to_line())
    assert event_from_line(json.dumps({**row, "colour": "red"})) == Warned(message="hello")
    del row["message"]
    assert event_from_line(json.dumps(row)) is None
    assert command_from_line('{"command":"Stop"}') == Stop(save=True, reason="stopped")


def test_events_and_commands_do_not_read_each_other() -> None:
    assert command_from_line(Warned(message="x").to_line()) is None
    assert event_from_line(SetLearningRate(learning_rate=1e-4).to_line()) is None


VALIDATED = '{"event":"Validated","step":%s,"tokens":1,"loss":%s,"bits_per_byte":1.0,"elapsed_s":1}'


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "3",
        "[]",
        '"text"',
        "{}",
        "{",
        "\ufeff{}",
        '{"event":"NoSuchKind"}',
        '{"event":["RunPaused"],"step":1}',
        '{"event":{"a":1}}',
        '{"event":"RunPaused","step":true}',
        '{"event":"RunPaused","step":1.0}',
        '{"event":"RunPaused","step":"1"}',
        '{"event":"RunPaused","step":null}',
        '{"event":"Warned","message":7}',
        VALIDATED % (1, "true"),
        VALIDATED % (1, '"infinity"'),
        VALIDATED % (1, "null"),
        VALIDATED % (1, "9" * 400),
        VALIDATED % (1, "9" * 5000),
        VALIDATED % (10**400, 1.0),
        VALIDATED % (2**63, 1.0),
        "[" * 100_000,
        '{"event":' * 50_000,
        b"\xff\xfe{\x00",
        b"\x00" * 64,
        b'{"event":"Warned","message":"\xff"}',
    ],
    ids=lambda line: repr(line[:50]),
)
def test_a_line_without_a_sound_record_is_none_never_an_error(line: str | bytes) -> None:
    assert event_from_line(line) is None
    assert command_from_line(line) is None
    assert isinstance(instant_of_line(line), str)


@settings(max_examples=300)
@given(st.binary(max_size=200) | st.text(max_size=200))
def test_arbitrary_bytes_are_never_an_error(line: str | bytes) -> None:
    assert event_from_line(line) is None
    assert command_from_line(line) is None
    assert isinstance(instant_of_line(line), str)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KINDS), st.randoms(use_true_random=False))
def test_a_damaged_record_is_none_or_a_record_of_sound_types(kind: type[Record], draw: random.Random) -> None:
    line = bytearray(draw.choice(records_of(kind)).to_line().encode())
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(line) + 1)
        line[place : place + draw.randint(0, 3)] = bytes(draw.choices(range(256), k=draw.randint(0, 3)))
    for record in (event_from_line(bytes(line)), command_from_line(bytes(line))):
        if record is not None:
            hints = get_type_hints(type(record))
            assert all(type(getattr(record, f.name)) is hints[f.name] for f in fields(record))


# ---------------------------------------------------------------- following a log


def measured(step: int) -> TrainMeasured:
    return TrainMeasured(
        step=step, tokens=step * 8, loss=2.0, learning_rate=1e-3, grad_norm=1.0, tokens_per_s=5.0
    )


def write(run: Run, *events: Event) -> Run:
    for event in events:
        run.append(event)
    return run


def test_a_follower_gives_each_event_once_in_order_in_batches(tmp_path: Path) -> None:
    run = Run(tmp_path)
    follower = Follower(run.events_file)
    assert follower.events() == []
    write(run, measured(1), measured(2))
    assert follower.events() == [measured(1), measured(2)] and follower.events() == []
    write(run, measured(3))
    assert follower.events() == [measured(3)]


def test_a_follower_waits_for_the_rest_of_a_line(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    follower = Follower(log)
    line = (Warned(message="“é”").to_line() + "\n").encode()
    for i in range(len(line)):
        with log.open("ab") as file:
            file.write(line[i : i + 1])
        assert follower.events() == ([Warned(message="“é”")] if i == len(line) - 1 else [])
    assert follower.bad_lines == 0


def test_a_follower_starts_over_when_the_file_is_replaced_or_gone(tmp_path: Path) -> None:
    run = write(Run(tmp_path), measured(1), measured(2))
    follower = Follower(run.events_file)
    assert len(follower.events()) == 2
    run.events_file.unlink()
    assert follower.events() == []
    write(run, measured(7))
    assert follower.events() == [measured(7)]


def test_a_follower_from_the_end_skips_what_was_said_before(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.tell(Stop())
    follower = Follower(run.commands_file, from_end=True)
    run.tell(Pause())
    assert follower.commands() == [Pause()]


# ---------------------------------------------------------------- damage


def test_the_line_that_a_kill_has_cut_costs_only_itself(tmp_path: Path) -> None:
    run = write(Run(tmp_path), measured(1))
    with run.events_file.open("ab") as log:
        log.write(measured(2).to_line().encode()[:-9])
    run.mend_log()
    run.mend_log()
    write(run, measured(3))
    follower = Follower(run.events_file)
    assert list(run.events()) == follower.events() == [measured(1), measured(3)]
    assert follower.bad_lines == 1


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_byte_surgery_on_a_log_costs_only_the_lines_it_touches(
    tmp_path_factory: pytest.TempPathFactory, draw: random.Random
) -> None:
    run = Run(tmp_path_factory.getbasetemp() / "damaged")
    run.folder.mkdir(exist_ok=True)
    lines = [measured(step).to_line("2026").encode() for step in range(1, 9)]
    touched = draw.sample(range(8), draw.randint(1, 3))
    for i in touched:
        line = bytearray(lines[i])
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(line) + 1)
            line[place : place + draw.randint(0, 30)] = draw.randbytes(draw.randint(0, 5))
        lines[i] = bytes(line)
    run.events_file.write_bytes(b"\n".join(lines) + draw.choice([b"\n", b"", b'{"event":']))
    if run.events_file.read_bytes().endswith(b'"event":'):
        touched.append(7)
    sound = [measured(step) for step in range(1, 9) if step - 1 not in touched]
    read = list(run.events())
    assert [event for event in read if event in sound] == sound
    run.present_events()
    run.summary()
    Follower(run.events_file).events()
    run.mend_log()
    assert list(run.events())[: len(read)] == read
