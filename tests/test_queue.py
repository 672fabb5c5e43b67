"""The queue: what comes next in every state, and that it goes on the next day as if nothing had been."""

import dataclasses
import itertools
import json
import sys
from collections import deque
from pathlib import Path

import pytest

import tui.cli
from core.commands import Stop
from core.config import STAGES
from core.errors import BbtuiError, MissingError, RetryLaterError, RunBusyError, UsageError
from core.events import RunEnded, TrainMeasured
from core.launch import begin
from core.runs import Run, Runs, Summary
from core.stage_queue import QueueEntry, QueueFile, QueueTask, StageQueue, Standing, new_queue
from core.train import train


def losses(run: Run) -> dict[int, float]:
    return {e.step: e.loss for e in run.present_events() if isinstance(e, TrainMeasured)}


def standing(*states: str, stop_after: str = "") -> Standing:
    """A queue whose stages are in these states; the rest, and those with an empty one, have no run."""
    entries = tuple(QueueEntry(stage, f"{stage}/r" if state else "") for stage, state in _padded(states))
    summaries = tuple(
        Summary(state, 3, 6, 0, None, None, None, "", "", "", "") if state else None
        for _, state in _padded(states)
    )
    return Standing(StageQueue("smoke", 1.0, entries, stop_after), summaries)


def _padded(states: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(itertools.zip_longest(STAGES, states, fillvalue=""))


@pytest.mark.parametrize(
    ("states", "task"),
    [
        ((), QueueTask("pretrain")),
        (("new",), QueueTask("pretrain", run="pretrain/r")),
        (("running",), QueueTask("pretrain", run="pretrain/r")),
        (("completed",), QueueTask("finetune", parent="pretrain/r")),
        (("completed", "stopped"), QueueTask("finetune", run="finetune/r")),
        (("completed", "failed"), QueueTask("finetune", run="finetune/r")),
        (("completed", "interrupted"), QueueTask("finetune", run="finetune/r")),
        (("completed", "SIGTERM"), QueueTask("finetune", run="finetune/r")),
        (("completed", "detached"), QueueTask("finetune", run="finetune/r")),
        # An earlier run that was removed is not trained again: its child is all that is needed.
        (("", "completed"), QueueTask("baseball-pretrain", parent="finetune/r")),
        (("completed",) * 4, None),
    ],
)
def test_what_comes_next(states: tuple[str, ...], task: QueueTask | None) -> None:
    """An unfinished run is gone on with, whatever ended it; the next stage begins from the one before."""
    now = standing(*states)
    assert now.next == task and now.is_done == (task is None)
    assert now.stages_ahead == (list(STAGES[STAGES.index(task.stage) :]) if task else [])


def test_a_stage_to_stop_after_that_is_past_says_nothing() -> None:
    assert standing("completed", stop_after="finetune").stop_after == "finetune"
    assert standing("completed", stop_after="pretrain").stop_after == ""
    assert standing(*["completed"] * 4, stop_after="baseball-pretrain").stop_after == ""


# ---------------------------------------------------------------- the file


def file_with(root: Path, content: str | bytes) -> QueueFile:
    queue = QueueFile(Runs(root))
    queue.path.parent.mkdir(parents=True, exist_ok=True)
    queue.path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return queue


def test_it_is_read_back_as_written(tmp_path: Path) -> None:
    queue = QueueFile(Runs(tmp_path))
    assert queue.read() is None and queue.standing() is None
    plan = dataclasses.replace(new_queue("smoke", 0.1), stop_after="finetune")
    queue.write(plan)
    assert queue.read() == plan and [entry.stage for entry in plan.entries] == list(STAGES)


def _with(**changes: object) -> str:
    rows = [{"stage": stage, "run": ""} for stage in STAGES]
    return json.dumps({"preset": "smoke", "steps_scale": 1.0, "entries": rows} | changes)


def _with_run(name: object) -> str:
    return _with(entries=[{"stage": "pretrain", "run": name}])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        b"\xff\xfe\x00",
        "[" * 60_000,
        " " * 100_000 + "{}",
        _with(preset=7),
        _with(preset="x" * 5000),
        _with(steps_scale=0),
        _with(steps_scale=-1.0),
        _with(steps_scale=1e9),
        _with(steps_scale=True),
        _with().replace("1.0", "NaN"),
        _with().replace("1.0", "1e400"),
        _with(entries=[]),
        _with(entries="pretrain"),
        _with(entries=[{"stage": "nonsense"}]),
        _with(entries=[{"stage": "finetune"}, {"stage": "pretrain"}]),
        _with(entries=[{"stage": "pretrain"}] * 2),
        _with(entries=[{"stage": stage} for stage in STAGES[::2]]),
        _with(stop_after="nonsense"),
        _with(stop_after=["pretrain"]),
        _with_run("../../etc"),
        _with_run("pretrain/.."),
        _with_run("pretrain/a/../../b"),
        _with_run("/etc/passwd"),
        _with_run("finetune/2026-x"),
        _with_run("pretrain/a\0b"),
        _with_run("pretrain/a\n"),
        _with_run("pretrain/" + "x" * 5000),
        _with_run(7),
    ],
)
def test_a_damaged_file_is_refused_with_the_way_out(tmp_path: Path, content: str | bytes) -> None:
    """Neither a traceback nor a look at a path that it names; clearing it is always possible."""
    queue = file_with(tmp_path, content)
    with pytest.raises(UsageError, match="damaged") as caught:
        queue.standing()
    assert "bbtui queue clear" in caught.value.fix
    assert queue.clear() and queue.read() is None and not queue.clear()


def test_a_file_of_a_newer_version_and_a_run_that_is_gone_are_no_damage(tmp_path: Path) -> None:
    queue = file_with(tmp_path, _with(colour="blue", entries=[{"stage": "pretrain", "run": "pretrain/gone"}]))
    now = queue.standing()
    assert now and now.summaries == (None,) and now.next == QueueTask("pretrain")


def test_two_processes_do_not_work_off_one_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused, clearing too; a request to stop after a stage is not."""
    monkeypatch.setattr("core.hold._PATIENCE_S", 0.05)
    queue, other = QueueFile(Runs(tmp_path)), QueueFile(Runs(tmp_path))
    queue.write(new_queue("smoke"))
    with queue.held():
        assert other.is_held()
        with pytest.raises(RunBusyError, match="queue"), other.held():
            raise AssertionError
        with pytest.raises(RunBusyError):
            other.clear()
        assert other.stop_after("pretrain").stop_after == "pretrain"
    assert not other.is_held()


def test_there_is_nothing_to_work_off_or_change_without_a_queue(tmp_path: Path) -> None:
    queue = QueueFile(Runs(tmp_path))
    with pytest.raises(MissingError, match="no queue"):
        next(queue.tasks())
    with pytest.raises(MissingError, match="no queue"):
        queue.stop_after("pretrain")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    queue = QueueFile(Runs(tmp_path))
    queue.path.parent.write_text("in the way")
    assert queue.read() is None and not queue.is_held()
    for refused in (queue.held().__enter__, lambda: queue.write(new_queue("smoke"))):
        with pytest.raises(RetryLaterError, match="Cannot"):
            refused()


# ---------------------------------------------------------------- working it off


def test_days_of_stops_and_kills_come_to_the_same_as_one_go(tmp_path: Path, trained_root: Path) -> None:
    """Killed in one stage, stopped in the next, stopped after the third: each loss is the uninterrupted one's."""
    store, days = Runs(tmp_path), []
    QueueFile(store).write(new_queue("smoke"))
    QueueFile(store).stop_after("baseball-pretrain")
    while True:
        queue = QueueFile(Runs(tmp_path))  # as another process, the next day, would
        day = []
        with queue.held():
            for task in queue.tasks():
                day.append((task.stage, bool(task.run)))
                run = begin(queue, task)
                events = train(run.config, run)
                for event in events:
                    if not isinstance(event, TrainMeasured) or task.run:
                        continue
                    if (run.stage, event.step) == ("pretrain", 7):
                        events.close()  # as after a kill: no word of an end
                    elif (run.stage, event.step) == ("finetune", 3):
                        run.tell(Stop())
        if not day:
            break
        days.append(day)
    assert days == [
        [("pretrain", False)],
        [("pretrain", True), ("finetune", False)],
        [("finetune", True), ("baseball-pretrain", False)],
        [("baseball-finetune", False)],
    ]
    ends = [[e.reason for e in run.events() if isinstance(e, RunEnded)] for run in store.all()]
    assert ends == [["completed"], ["stopped", "completed"], ["completed"], ["completed"]]
    whole = [losses(run) for run in Runs(trained_root).all()]
    assert [losses(run) for run in store.all()] == whole


def test_a_stage_that_fails_is_offered_again(tmp_path: Path) -> None:
    """The queue ends there for now; nothing later begins."""
    queue = QueueFile(Runs(tmp_path))
    queue.write(new_queue("smoke", 0.1))
    with queue.held():
        for task in queue.tasks():
            run = begin(queue, task)
            (run.folder / "tokenizer.json").write_text("{}")
            with pytest.raises(BbtuiError):
                deque(train(run.config, run))
    now = queue.standing()
    assert now and now.next == QueueTask("pretrain", run=queue.store.all()[0].name)
    assert len(queue.store.all()) == 1


# ---------------------------------------------------------------- the command line


@pytest.fixture
def bbtui(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["bbtui", *words])
        code = 0
        try:
            tui.cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return code, out, err

    return run


def test_a_queue_is_stopped_after_a_stage_shown_and_gone_on_with(bbtui, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """`quickstart` leaves one that `queue run` goes on with; its end is said, and a finished one has nothing to do."""
    store = Runs(tmp_path / "root")
    queue = QueueFile(store)
    for command in ("show", "run", "stop-after"):
        code, out, err = bbtui("queue", command)
        assert (code, out) == (2, "") and "bbtui quickstart" in err
    queue.write(new_queue("smoke", 0.1))
    code, out, _ = bbtui("queue", "stop-after")
    assert code == 0 and "stops after pretrain" in out
    code, out, err = bbtui("queue", "run")
    assert (code, err) == (0, "") and out.splitlines()[-1] == (
        "The queue waits before finetune. Go on: bbtui queue run"
    )
    assert [run.stage for run in store.all()] == ["pretrain"]
    code, out, err = bbtui("queue", "stop-after", "pretrain")
    assert code == 2 and "past" in err and "finetune, baseball-pretrain" in err
    assert json.loads(bbtui("queue", "stop-after", "baseball-pretrain", "--json")[1])["stop_after"]
    assert bbtui("queue", "stop-after", "--off")[0] == 0
    document = json.loads(bbtui("queue", "show", "--json")[1])
    assert document["next"] == {"stage": "finetune", "run": None} and document["stop_after"] is None
    assert [row["state"] for row in document["stages"]] == ["completed", *["to come"] * 3]
    code, out, err = bbtui("queue", "run", "--json")
    assert (code, err) == (0, "")
    kinds = [json.loads(line)["event"] for line in out.splitlines()]
    assert kinds.count("RunEnded") == 3
    code, out, _ = bbtui("queue", "show")
    assert "All stages are done" in out and out.count("completed") == 4
    assert bbtui("queue", "run")[:2] == (0, "All stages are done. Compare: bbtui eval\n")


def test_quickstart_begins_anew_and_says_what_it_replaces(bbtui, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """It works wherever no process works on the queue; there it is refused, and the queue is left alone."""
    monkeypatch.setattr("core.hold._PATIENCE_S", 0.05)
    store = Runs(tmp_path / "root")
    queue = QueueFile(store)
    queue.write(new_queue("smoke", 0.1))
    task = next(queue.tasks())
    before = begin(queue, task)
    with queue.held():
        code, out, err = bbtui("quickstart", "--preset", "smoke")
        assert (code, out) == (2, "") and "Another process" in err
    assert bbtui("quickstart", "--preset", "nonsense")[0] == 2
    now = queue.standing()
    assert now and now.next == QueueTask("pretrain", run=before.name)
    code, out, err = bbtui("quickstart", "--preset", "smoke", "--steps-scale", "0.1")
    assert (code, err) == (0, "")
    assert "An earlier queue" in out and f"--resume {before.name}" in out
    assert before.summary().state == "new" and len(store.all("pretrain")) == 2
    now = queue.standing()
    assert now and now.is_done
    file_with(tmp_path / "root", "{")
    assert bbtui("queue", "show")[0] == 2
    assert bbtui("queue", "clear")[:2] == (0, "The queue is cleared; its runs stay.\n")
