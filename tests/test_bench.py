"""The measurements: each runs and finds something, its share follows from a formula that a hand can check."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import pytest

from core.bench import operations
from core.bench.decoding import decode, prefill
from core.bench.limits import bandwidth, matmul
from core.bench.machine import Machine
from core.bench.measurement import GPT2_SMALL, Measurement, Sizes
from core.bench.preparing import prepare_text
from core.bench.process import measured
from core.bench.starting import until_ended, until_painted
from core.bench.suite import NAMES, Suite, chosen, with_limits
from core.bench.training import train_step
from core.errors import BbtuiError, UsageError
from core.model import build
from core.packed import can_pack

TINY = Sizes(layers=2, heads=2, width=32, context=64, vocabulary=512, micro_batch=2)


def ends() -> list[str]:
    """A command that draws a word and waits."""
    return [sys.executable, "-c", "import time; print('Pre' + 'train', flush=True); time.sleep(60)"]


# ---------------------------------------------------------------- each of them


@pytest.mark.parametrize(
    "measure",
    [
        lambda: train_step(TINY, 2),
        lambda: decode(TINY, 2, 8),
        lambda: prefill(TINY, 2, 20),
        lambda: matmul(TINY, 2, "float32"),
        lambda: matmul(TINY, 2, "bfloat16"),
        lambda: prepare_text(2, 0.05),
    ],
    ids=["train", "decode", "prefill", "matmul float32", "matmul bfloat16", "prepare"],
)
def test_a_measurement_has_as_many_samples_as_rounds(
    measure: Callable[[], Iterable[Measurement]],
) -> None:
    found = list(measure())
    assert found
    for each in found:
        assert len(each.samples) == 2 and min(each.samples) > 0 and each.unit and not each.problem
        assert Measurement.from_row(json.loads(json.dumps(each.to_row()))) == each


@pytest.mark.skipif(not can_pack(), reason="no int8 products on this machine")
def test_generation_from_int8_is_held_against_a_byte_a_weight() -> None:
    (packed,), (plain,) = decode(TINY, 1, 4, "int8"), decode(TINY, 1, 4, "float32")
    assert (packed.precision, plain.precision) == ("int8", "float32")
    weights = operations.multiplied_numbers(build(TINY.config().model, TINY.vocabulary))  # type: ignore[arg-type]
    assert plain.cost - packed.cost == 3 * weights


def test_reading_memory_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.bench.limits._READ_BYTES", 1 << 20)
    (found,) = bandwidth(2)
    assert len(found.samples) == 2 and min(found.samples) > 0 and found.unit == "GB/s"


def test_a_process_of_its_own_says_what_it_found_and_held() -> None:
    (found,) = measured("train", {"sizes": asdict(TINY), "rounds": 1})
    assert len(found.samples) == 1 and found.memory_bytes > 50_000_000 and not found.problem


def test_a_process_that_finds_nothing_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = measured("prepare", {"rounds": 1, "megabytes": 1, "path": "/there/is/none"})
    assert not found.samples and "/there/is/none" in found.problem
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (found,) = measured("train", {"sizes": asdict(TINY), "rounds": 1})
    assert not found.samples and found.problem == "The process ended with 1."


def test_a_process_does_not_outlive_whoever_asked() -> None:
    process = subprocess.Popen([sys.executable, "-m", "core.bench"], stdin=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(b'{"kind": "bandwidth", "arguments": {"rounds": 1000000}}\n')
    process.stdin.close()
    assert process.wait(20) == 0


def test_start_up_is_timed_until_the_words_are_drawn() -> None:
    assert until_ended([sys.executable, "-c", ""]) > 0
    assert until_painted(ends(), "Pretrain") > 0
    with pytest.raises(BbtuiError, match="ended with 3"):
        until_ended([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(BbtuiError, match="did not come"):
        until_painted([sys.executable, "-c", ""], "Pretrain")


# ---------------------------------------------------------------- shares


def test_operations_are_those_counted_by_hand() -> None:
    """GPT-2's smallest size: 12 blocks of 12 C^2 weights and 13 C biases and scales; the tied head, once."""
    model = build(GPT2_SMALL.config().model, 50304, device="meta")  # type: ignore[arg-type]
    blocks = 12 * (12 * 768**2 + 13 * 768)
    head = 50304 * 768
    assert operations.multiplied_numbers(model) == blocks + head
    assert operations.per_trained_token(model) == 6 * (blocks + head) + 12 * 12 * 768 * 1024
    assert operations.per_prompt_token(model, 900) == 2 * blocks + 4 * 12 * 768 * 900 + 2 * head / 900
    assert operations.bytes_per_drawn_token(model, 100, 4) == 4 * (blocks + head) + 2 * 12 * 768 * 100 * 4


def test_a_share_is_taken_of_the_fastest_of_the_same_precision() -> None:
    limits = [
        Measurement(name="matmul", what="a", unit="GFLOP/s", samples=(80.0, 100.0), precision="float32"),
        Measurement(name="matmul", what="b", unit="GFLOP/s", samples=(70.0,), precision="float32"),
        Measurement(name="matmul", what="c", unit="GFLOP/s", samples=(400.0,), precision="bfloat16"),
        Measurement(name="bandwidth", what="d", unit="GB/s", samples=(20.0, 10.0)),
    ]
    pace = {"name": "x", "what": "x", "unit": "tokens/s", "samples": (40.0, 50.0, 90.0)}
    trained = Measurement(**pace, precision="float32", limit="operations", cost=1e9)  # type: ignore[arg-type]
    drawn = Measurement(**pace, precision="float32", limit="bytes", cost=2e8)  # type: ignore[arg-type]
    assert trained.share(limits) == pytest.approx(0.5) and drawn.share(limits) == pytest.approx(0.5)
    assert trained.share(limits[3:]) is None and limits[0].share(limits) is None


# ---------------------------------------------------------------- all of them, and the command


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the suite measures is done in this process, at the sizes of a toy; preparing data fails."""
    kinds: dict[str, Callable[[dict[str, Any]], Iterable[Measurement]]] = {
        "train": lambda more: train_step(TINY, more["rounds"]),
        "matmul": lambda more: matmul(TINY, more["rounds"], more["precision"]),
        "prepare": lambda more: [
            Measurement(name="", what="\x1b[31mdata", unit="", problem="It\x07 failed.")
        ],
    }
    monkeypatch.setattr("core.bench.suite.measured", lambda kind, more: list(kinds[kind](more)))


def test_the_suite_measures_everything_under_its_names(here: None) -> None:
    suite = Suite([sys.executable, "-c", ""], ends(), "Pretrain", rounds=1)
    found = list(suite.run(["train-small", "start-up"]))
    assert [each.name for each in found] == ["matmul"] * 4 + ["train-small"] + ["start-up"] * 2
    assert all(each.samples and not each.problem for each in found)
    share = found[4].share(found)
    assert share is not None and share > 0


def test_names_bring_the_limits_that_they_are_held_against() -> None:
    assert chosen("") == list(NAMES) and chosen(" decode, prepare ") == ["decode", "prepare"]
    assert with_limits(["decode", "train-124m"]) == ["matmul", "bandwidth", "train-124m", "decode"]
    with pytest.raises(UsageError, match="Did you mean"):
        chosen("decod")


def test_the_command_prints_one_json_document(bbtui: Callable[..., Any], here: None) -> None:
    done = bbtui("bench", "--json", "--only", "train-small,prepare", "--rounds", "2")
    assert done.code == 0
    row = json.loads(done.out)
    assert row["machine"]["cores"] >= 1 and "6 N" in row["formula"]
    by_name = {each["name"]: each for each in row["measurements"]}
    assert by_name["train-small"]["share"] > 0 and len(by_name["train-small"]["samples"]) == 2
    assert by_name["prepare"]["median"] is None and by_name["prepare"]["problem"]


def test_the_command_prints_a_clean_table(bbtui: Callable[..., Any], here: None) -> None:
    """No escape, no wrapped row; what was not measured is said under it."""
    done = bbtui("bench", "--only", "train-small,prepare", "--rounds", "2")
    assert done.code == 0 and "\x1b" not in done.out and "\x07" not in done.out
    lines = done.out.splitlines()
    assert Machine.here().processor in lines[0]
    (row,) = (line for line in lines if line.startswith("training"))
    assert "tokens/s" in row and " %" in row and "MB" in row
    assert any("not measured. It" in line for line in lines)
    assert "operations of a training token = 6 N" in done.out


def test_the_command_says_what_it_does_not_know(bbtui: Callable[..., Any]) -> None:
    assert bbtui("bench", "--only", "speed").code == 2
    assert bbtui("bench", "--precision", "float64").code == 2


def test_the_machine_is_named() -> None:
    words = Machine.here().in_words()
    assert "cores" in words and "torch" in words and "\n" not in words
