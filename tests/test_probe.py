"""The probe: pieces of a step against the clock, scaled to a whole one, in a process that ends when it is told to."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from core import probe_bench
from core.plan import plan_of
from core.probe import MachineFound, PaceMeasured, ProbeFailed, ProbeProcess, ProbeProgressed, ProbeRequest
from core.probe_bench import Bench, probe
from core.runs import Runs


def request_of(root: Path, *overrides: str, stage: str = "pretrain") -> ProbeRequest:
    return ProbeRequest.of(plan_of(Runs(root), "smoke", stage, None, list(overrides)))


def never() -> bool:
    return False


def test_a_probe_tells_the_machine_then_the_pace(tmp_path: Path) -> None:
    events = list(probe(request_of(tmp_path), never, longest_s=0.3))
    assert isinstance(events[0], MachineFound) and events[0].device in ("cpu", "cuda", "mps")
    assert all(isinstance(event, ProbeProgressed) for event in events[1:-1]) and len(events) > 2
    pace = events[-1]
    assert isinstance(pace, PaceMeasured)
    assert pace.step_s > 0 and pace.validation_row_s > 0 and pace.token_s > 0
    assert pace.memory_bytes > 50_000_000
    assert pace.elapsed_s < 5
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize("stage", ["finetune", "baseball-pretrain"])
def test_later_stages_are_measured_as_they_train(trained_root: Path, stage: str) -> None:
    """Pairs are as wide as they are padded, and only their answers are learned."""
    request = request_of(trained_root, stage=stage)
    assert request.row_tokens <= 128 and (request.supervised_share < 1) == (stage == "finetune")
    assert isinstance(list(probe(request, never, longest_s=0.1))[-1], PaceMeasured)


def test_a_probe_that_is_told_to_stop_has_no_result(tmp_path: Path) -> None:
    asked: list[int] = []

    def third_time() -> bool:
        asked.append(1)
        return len(asked) > 2

    events = list(probe(request_of(tmp_path), third_time, longest_s=30))
    assert [type(event) for event in events] == [MachineFound, ProbeProgressed]


class Clock:
    """A clock that only the timed pieces move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, row_s: float, update_s: float) -> None:
        self.now_s = 0.0
        self.rows: list[int] = []
        self.row_s, self.update_s = row_s, update_s
        monkeypatch.setattr(probe_bench.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(Bench, "_accumulate", lambda _, rows: self.accumulate(rows))
        monkeypatch.setattr(Bench, "_update", lambda _: self.update())

    def accumulate(self, rows: int) -> None:
        self.rows.append(rows)
        self.now_s += rows * self.row_s

    def update(self) -> None:
        self.now_s += self.update_s


def bench_of(request: ProbeRequest) -> Bench:
    config = probe_bench.StageConfig.model_validate_json(request.config)
    return Bench(request, config)


@pytest.mark.parametrize("rows_per_step", [3, 8, 20, 512])
def test_a_step_is_all_its_rows_and_one_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_step: int
) -> None:
    """Two micro-batches at most are computed; the time is that of the whole step."""
    bench = bench_of(
        replace(request_of(tmp_path, "batch.micro_batch=8", "batch.tokens=1024"), rows_per_step=rows_per_step)
    )
    clock = Clock(monkeypatch, row_s=0.25, update_s=3.0)
    assert bench.step(bench.micro_batch) == pytest.approx(rows_per_step * 0.25 + 3)
    assert clock.rows == [min(8, rows_per_step)] * min(2, -(-rows_per_step // 8))


@pytest.mark.parametrize(("row_s", "rows"), [(0.001, 8), (1.0, 3), (30.0, 1)])
def test_rows_that_are_slow_are_tried_in_fewer_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row_s: float, rows: int
) -> None:
    bench = bench_of(request_of(tmp_path, "batch.micro_batch=8", "batch.tokens=1024"))
    Clock(monkeypatch, row_s, update_s=0.0)
    assert bench.warm_up(10.0) == rows


def test_of_a_row_that_takes_half_a_minute_one_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the update is measured after the warm-up, and the memory of a micro-batch is not claimed."""
    clock = Clock(monkeypatch, row_s=30.0, update_s=2.0)
    request = request_of(tmp_path, "batch.micro_batch=8", "batch.tokens=1024")
    pace = list(probe(request, never))[-1]
    assert isinstance(pace, PaceMeasured) and clock.rows == [1]
    assert pace.step_s == pytest.approx(8 * 30 + 2) and pace.validation_row_s == pytest.approx(10)
    assert pace.elapsed_s == pytest.approx(2) and pace.memory_bytes == 0


def test_a_steady_pace_ends_it_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch, row_s=0.1, update_s=0.1)
    pace = list(probe(request_of(tmp_path), never, longest_s=1000))[-1]
    assert isinstance(pace, PaceMeasured) and pace.elapsed_s < 4
    assert pace.step_s == pytest.approx(0.5)


def test_a_device_that_is_not_there_is_said(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    plan = plan_of(Runs(tmp_path), "smoke", "pretrain", None, ["device=cuda"])
    events = list(ProbeProcess(plan).events())
    assert len(events) == 1 and isinstance(events[0], ProbeFailed)
    assert "no cuda" in events[0].what and "device=cpu" in events[0].fix


def test_a_stopped_process_is_gone_and_says_nothing_more(tmp_path: Path) -> None:
    process = ProbeProcess(plan_of(Runs(tmp_path), "smoke", "pretrain"))
    events = process.events()
    assert isinstance(next(events), MachineFound)
    process.stop()
    assert list(events) == []
    assert process._process is not None and process._process.returncode is not None


def test_a_process_that_dies_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(Runs(tmp_path), "smoke", "pretrain")
    monkeypatch.setattr(sys, "executable", "/bin/true")
    (event,) = ProbeProcess(plan).events()
    assert isinstance(event, ProbeFailed) and "without a result" in event.what
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    (event,) = ProbeProcess(plan).events()
    assert isinstance(event, ProbeFailed) and "could be started" in event.what


def test_a_process_does_not_outlive_whoever_asked(tmp_path: Path) -> None:
    """Its input closes when the app dies, even by SIGKILL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "core.probe_bench"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    process.stdin.write(json.dumps(asdict(request_of(tmp_path))).encode() + b"\n")
    process.stdin.flush()
    process.stdout.readline()
    closed_s = time.monotonic()
    process.stdin.close()
    assert process.wait(10) == 0 and time.monotonic() - closed_s < 5
    assert b"PaceMeasured" not in process.stdout.read()
    process.stdout.close()
