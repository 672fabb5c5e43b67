"""Protects training in several processes: the data and the loss of one, one will, and an end for all if one dies."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from core.commands import AddNote, Pause, Resume, SampleNow, SaveNow, ScaleLearningRate, Stop
from core.events import AnswersScored, Event, RunEnded, RunStarted, SampleDrawn, TrainMeasured, Validated
from core.launch import start
from core.runs import Run, Runs
from core.train import train

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# Seven micro-batches: one process has one more to do than the other.
PACE = ["batch.tokens=896", "batch.micro_batch=1", "validation_rows=5", "samples.max_tokens=2"]


@contextlib.contextmanager
def two_processes(
    root: Path, *arguments: str, script: Path | None = None
) -> Iterator["subprocess.Popen[str]"]:
    """Both processes of a stage; what they leave running is ended with the block."""
    program = [str(script)] if script else ["-m", "tui.cli"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path.cwd()),
        "BBTUI_ROOT": str(root),
    }
    process = subprocess.Popen(
        [*TORCHRUN, *program, "train", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        for left in [*psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []:
            left.kill()
        process.kill()
        process.communicate()


def train_in_two(root: Path, *arguments: str) -> str:
    with two_processes(root, *arguments) as process:
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
    return output


def settings(*more: str) -> list[str]:
    return [part for key in [*PACE, *more] for part in ("--set", key)]


def figures(run: Run) -> dict[tuple[str, int], tuple[float, ...]]:
    """Losses and what was fed, by step; answers too."""
    found: dict[tuple[str, int], tuple[float, ...]] = {}
    for event in run.present_events():
        if isinstance(event, TrainMeasured):
            found["train", event.step] = (event.loss, event.grad_norm, event.learning_rate, event.tokens)
        elif isinstance(event, Validated):
            found["validation", event.step] = (event.loss, event.tokens)
        elif isinstance(event, AnswersScored):
            found[event.questions, event.step] = (event.mean_probability, event.items)
    return found


def assert_same(one: Run, other: Run) -> None:
    first, second = figures(one), figures(other)
    assert first.keys() == second.keys()
    for key, values in first.items():
        for value, expected in zip(values, second[key], strict=True):
            assert math.isclose(value, expected, rel_tol=1e-5), (key, value, expected)


def wait_for(
    run_of: Callable[[], Run | None], holds: Callable[[list[Event]], bool], seconds: float = 60
) -> Run:
    """The run once its log says so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        run = run_of()
        if run and holds(list(run.events())):
            return run
        time.sleep(0.02)
    raise AssertionError("the log never said so")


def of_kind(events: list[Event], kind: type[Event]) -> list:  # type: ignore[type-arg]
    return [event for event in events if isinstance(event, kind)]


def only_run(root: Path) -> Run | None:
    return next(iter(Runs(root).all("pretrain")), None)


def test_two_processes_see_the_data_and_reach_the_losses_of_one(tmp_path: Path) -> None:
    """Dropout is on: its masks follow from the micro-batch, whoever computes it. One writes and prints."""
    output = train_in_two(tmp_path, "pretrain", "--preset", "smoke", *settings("steps=6"))
    assert output.count("completed at step 6") == 1
    together = only_run(tmp_path)
    assert together and together.summary().state == "completed" and not together.is_held()
    alone = start(Runs(tmp_path), "smoke", "pretrain", None, [*PACE, "steps=6"])
    list(train(alone.config, alone))
    assert_same(together, alone)
    assert len(of_kind(list(together.events()), SampleDrawn)) == len(
        of_kind(list(alone.events()), SampleDrawn)
    )
    assert len(of_kind(list(together.events()), RunStarted)) == 1
    assert together.checkpoint_steps() == alone.checkpoint_steps()


@pytest.mark.long
def test_one_two_and_one_again_are_one_run_with_its_commands(tmp_path: Path) -> None:
    """Begun alone, gone on with by two, which are told everything there is to tell, ended alone."""
    store = Runs(tmp_path)
    parent = start(store, "smoke", "pretrain", None, ["steps=2", "samples.every=0"])
    list(train(parent.config, parent))
    pairs = [
        "steps=30",
        "batch.micro_batch=2",
        "samples.max_tokens=2",
        "validate_every=5",
        "checkpoint_every=50",
    ]
    changing, whole = (start(store, "smoke", "finetune", None, pairs) for _ in range(2))
    half = ScaleLearningRate(factor=0.5)

    def go(run: Run, at: dict[int, list]) -> None:  # type: ignore[type-arg]
        waiting: list = []  # type: ignore[type-arg]

        def read() -> list:  # type: ignore[type-arg]
            given = list(waiting)
            waiting.clear()
            return given

        for event in train(run.config, run, read):
            if isinstance(event, TrainMeasured):
                waiting += at.get(event.step, [])

    go(changing, {8: [Stop()]})
    with two_processes(tmp_path, "finetune", "--resume", changing.name) as process:
        wait_for(lambda: changing, lambda events: of_kind(events, TrainMeasured)[-1].step >= 9)
        for command in (
            Pause(),
            AddNote(text="two\u2028lines"),
            SampleNow(),
            SaveNow(),
            half,
            Resume(),
            Stop(),
        ):
            changing.tell(command)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 0, output
    ended = of_kind(list(changing.events()), RunEnded)[-1]
    assert ended.reason == "stopped" and changing.checkpoint_steps()[-1] == ended.step
    go(changing, {})
    go(whole, {ended.step: [half]})
    assert_same(changing, whole)


@pytest.mark.long
def test_a_stop_ends_both_and_saves(tmp_path: Path) -> None:
    with two_processes(tmp_path, "pretrain", "--preset", "smoke", *settings("steps=100000")) as process:
        run = wait_for(lambda: only_run(tmp_path), lambda events: bool(of_kind(events, TrainMeasured)))
        run.tell(Stop())
        output = process.communicate(timeout=30)[0]
        assert process.returncode == 0, output
    assert run.summary().state == "stopped" and run.checkpoint_steps()[-1] == run.summary().step


def _kill_one(of_rank: str) -> Callable[["subprocess.Popen[str]"], None]:
    def kill(process: "subprocess.Popen[str]") -> None:
        for child in psutil.Process(process.pid).children(recursive=True):
            if child.environ().get("RANK") == of_rank:
                child.send_signal(signal.SIGKILL)

    return kill


@pytest.mark.long
@pytest.mark.parametrize(("rank", "state"), [("1", "failed"), ("0", "interrupted")])
def test_where_one_is_killed_all_end(tmp_path: Path, rank: str, state: str) -> None:
    """Within 30 s; the first, if it lives, says so and saves what was learned."""
    with two_processes(tmp_path, "pretrain", "--preset", "smoke", *settings("steps=100000")) as process:
        run = wait_for(lambda: only_run(tmp_path), lambda events: len(of_kind(events, TrainMeasured)) > 3)
        left = psutil.Process(process.pid).children(recursive=True)
        _kill_one(rank)(process)
        output = process.communicate(timeout=30)[0]
        assert process.returncode != 0
        assert not psutil.wait_procs(left, timeout=5)[1]
    assert run.summary().state == state and not run.is_held()
    if state == "failed":
        assert "Another process of this run has ended" in output
        assert "Another process" in run.summary().message
        assert run.checkpoint_steps()[-1] == run.summary().step


FAULTS = """
import os, sys
import torch
from core.model import GPT
from tui.cli import main

sound, calls, fault = GPT.loss_sum, 0, os.environ["FAULT"]

def loss_sum(self, tokens, *more):
    global calls
    loss = sound(self, tokens, *more)
    if self.training and os.environ["RANK"] == "1":
        calls += 1
        if fault == "memory" and len(tokens) > 1:
            raise torch.OutOfMemoryError
        if fault == "nan" and calls == 4:
            return loss * float("nan")
        if fault == "defect" and calls == 4:
            raise ValueError("a defect")
    return loss

GPT.loss_sum = loss_sum
main()
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "says", "state"),
    [
        ("memory", "going on with a micro-batch of 1 rows", "completed"),
        ("nan", "is not finite; no update was made", "completed"),
        ("defect", "Another process of this run has ended", "failed"),
    ],
)
def test_what_befalls_one_is_agreed_by_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, says: str, state: str
) -> None:
    """Memory that ran out, a loss that is no number, a defect: in the second process, and both act on it."""
    script = tmp_path / "faulty.py"
    script.write_text(FAULTS)
    monkeypatch.setenv("FAULT", fault)
    wanted = settings("steps=5", "batch.micro_batch=2", "samples.every=0", "model.dropout=0.0")
    with two_processes(tmp_path, "pretrain", "--preset", "smoke", *wanted, script=script) as process:
        output = process.communicate(timeout=60)[0]
    run = only_run(tmp_path)
    assert run and says in output and run.summary().state == state
    if fault == "memory":
        alone = start(
            Runs(tmp_path),
            "smoke",
            "pretrain",
            None,
            [*PACE, "steps=5", "samples.every=0", "model.dropout=0.0"],
        )
        list(train(alone.config, alone))
        assert_same(run, alone)


@pytest.mark.long
def test_what_cannot_be_begun_is_said_once_and_ends_both(tmp_path: Path) -> None:
    with two_processes(tmp_path, "finetune", "--preset", "smoke") as process:
        output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert output.count("No finished pretrain run") == 1 and "The first process could not begin" in output
