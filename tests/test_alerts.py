"""Word when it matters: each cause once, by the means that were chosen; the user's command, and nobody else's."""

import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from textual.widgets import Input
from typer.testing import CliRunner

from core.config import load_stage
from core.errors import UsageError
from core.events import (
    CheckpointSaved,
    CheckpointSetAside,
    Event,
    Heartbeat,
    NonFiniteMet,
    RunContinued,
    RunEnded,
    RunPaused,
    Validated,
)
from core.runs import Run, Runs
from driving import a_run, drawn, ended, measured, opened, started, until
from tui import on_event
from tui.alerts import (
    CHECKPOINT,
    DIED,
    DISK,
    ENDED,
    KINDS,
    NON_FINITE,
    SILENT,
    TEST,
    Alert,
    DiskAlerts,
    RunAlerts,
)
from tui.cli import app as command_line
from tui.on_event import EventCommands, has_own_command, words_of
from tui.settings import AlertSettings
from tui.terminal import desktop_notification
from tui.widgets.alerts_panel import AlertsPanel, Tick
from tui.workers.watch import RunWatch

HEARTBEAT = Heartbeat(step=3, tokens=9, micro_batches_done=1, micro_batches=4, memory_bytes=1)
VALIDATED = Validated(step=3, tokens=9, loss=4.25, bits_per_byte=1.6, elapsed_s=0.5, steps=100)


def kinds(alerts: list[Alert]) -> list[str]:
    return [alert.kind for alert in alerts]


def bad_step(step: int) -> NonFiniteMet:
    return NonFiniteMet(step=step, what="loss")


# ---------------------------------------------------------------- what gives cause


@pytest.mark.parametrize(
    ("reason", "message", "words", "is_bad"),
    [
        ("completed", "", "is finished", False),
        ("stopped", "", "ended: stopped", False),
        ("SIGTERM", "", "ended: SIGTERM", False),
        ("failed", "The disk is full.", "failed", True),
    ],
)
def test_an_end_is_told_with_the_last_validation_loss(
    reason: str, message: str, words: str, is_bad: bool
) -> None:
    """Whatever the reason, one alert that names it, the step and the figure that one wants to know."""
    alerts = RunAlerts("pretrain/7f3a", 0.0)
    end = RunEnded(step=3, reason=reason, message=message, elapsed_s=1.0)
    (alert,) = alerts.take([measured(3), VALIDATED, end], 1.0)
    assert (alert.kind, alert.title, alert.is_bad) == (ENDED, f"pretrain/7f3a {words}", is_bad)
    assert (alert.step, alert.loss) == (3, 4.25)
    assert alert.text.startswith("Step 3 of 100, validation loss 4.250") and message in alert.text
    assert not alerts.gone() and not alerts.tick(1000.0)


def test_a_run_that_is_handed_on_is_no_news() -> None:
    """To detach is no end: the next process goes on, and only its end is one."""
    alerts = RunAlerts("r", 0.0)
    assert not alerts.take([measured(3), ended("detached")], 0.0)
    assert kinds(alerts.take([a_start(), ended("completed")], 1.0)) == [ENDED]


def test_silence_is_told_once_and_a_heartbeat_ends_it() -> None:
    """60 s without any event; the heartbeat counts as a sign of life, and the next silence is told again."""
    alerts = RunAlerts("r", 0.0)
    alerts.take([measured(7)], 10.0)
    assert not alerts.take([HEARTBEAT], 40.0) and not alerts.tick(99.9)
    (alert,) = alerts.tick(100.0)
    assert alert.kind == SILENT and "60 s" in alert.title and "step 7" in alert.text
    assert not alerts.tick(5000.0)
    alerts.take([HEARTBEAT], 5001.0)
    assert not alerts.tick(5060.0) and kinds(alerts.tick(5061.0)) == [SILENT]


def test_before_its_first_step_a_run_is_given_longer() -> None:
    """To fetch data or to compile a model may well take a minute, and says nothing meanwhile."""
    alerts = RunAlerts("r", 0.0)
    alerts.recall([measured(5)])
    alerts.take([a_start(), VALIDATED], 0.0)
    assert not alerts.tick(299.0)
    (alert,) = alerts.tick(300.0)
    assert alert.kind == SILENT and "300 s" in alert.title and "nothing yet" in alert.text


def test_a_run_that_paused_by_itself_says_why() -> None:
    """A pause by hand is no news; one that a full disk forced is, and it may be silent as well."""
    alerts = RunAlerts("r", 0.0)
    (alert,) = alerts.take([RunPaused(step=3, reason="Cannot write: no space left.")], 0.0)
    assert alert.kind == DISK and alert.is_bad and "no space left. Free some" in alert.text
    assert not alerts.tick(1000.0)


def test_a_paused_run_may_be_silent() -> None:
    alerts = RunAlerts("r", 0.0)
    alerts.take([measured(3), RunPaused(step=3)], 0.0)
    assert not alerts.tick(1000.0)
    alerts.take([RunContinued(step=3)], 1000.0)
    assert kinds(alerts.tick(1060.0)) == [SILENT]


def test_a_process_that_is_gone_without_a_last_word_has_died() -> None:
    """Told once; after a resume it can be told again."""
    alerts = RunAlerts("r", 0.0)
    alerts.take([a_start(), measured(8)], 0.0)
    (alert,) = alerts.gone()
    assert alert.kind == DIED and "step 8" in alert.text
    assert not alerts.gone()
    alerts.take([a_start()], 1.0)
    assert kinds(alerts.gone()) == [DIED]


def test_a_row_of_bad_steps_is_one_alert() -> None:
    """Not one a step, nor one for each of several with a sound step between; after ten sound ones it is news."""
    alerts = RunAlerts("r", 0.0)
    bad = [bad_step(1), bad_step(2), measured(3), bad_step(4)]
    assert kinds(alerts.take(bad, 0.0)) == [NON_FINITE]
    assert not alerts.take([*(measured(step) for step in range(5, 14)), bad_step(14)], 0.0)
    assert kinds(alerts.take([*(measured(step) for step in range(15, 25)), bad_step(25)], 0.0)) == [
        NON_FINITE
    ]


def test_a_damaged_checkpoint_is_told() -> None:
    alerts = RunAlerts("r", 0.0)
    (alert,) = alerts.take([CheckpointSetAside(path="step-0000020", reason="a hash differs")], 0.0)
    assert alert.kind == CHECKPOINT and "step-0000020" in alert.text and "a hash differs" in alert.text


def test_what_is_recalled_is_known_and_no_news() -> None:
    """The history of an old run gives no alert, but its figures stand in the alerts to come."""
    alerts = RunAlerts("r", 0.0)
    alerts.recall([a_start(), bad_step(2), VALIDATED, ended("failed"), a_start(), measured(5)])
    (alert,) = alerts.take([ended("completed")], 1.0)
    assert alert.loss == 4.25


def test_the_disk_is_low_below_two_checkpoints_or_a_gigabyte() -> None:
    """Once until there is room again; before the first checkpoint its size is guessed from the parameters."""
    disk, alerts = DiskAlerts(), RunAlerts("r", 0.0)
    alerts.take([a_start()], 0.0)
    assert alerts.bytes_ahead == 2 * 12 * 3_100_000
    alerts.take([CheckpointSaved(step=1, path="step-0000001", bytes_written=3 * 10**9, is_best=True)], 0.0)
    assert alerts.bytes_ahead == 6 * 10**9
    assert not disk.take(6 * 10**9, alerts.bytes_ahead)
    (alert,) = disk.take(5_900_000_000, alerts.bytes_ahead)
    assert alert.kind == DISK and "5.9 GB left" in alert.title and "6.0 GB" in alert.text
    assert not disk.take(100, alerts.bytes_ahead)
    assert not disk.take(7 * 10**9, alerts.bytes_ahead)
    assert kinds(disk.take(999_999_999, 0)) == [DISK]


def a_start(step: int = 0) -> Event:
    return started(Run(Path("checkpoints/pretrain/r")), step)


# ---------------------------------------------------------------- the watch over live runs


def test_the_watch_tells_what_is_new_and_not_what_is_old(tmp_path: Path) -> None:
    """An old end and an old bad step are history; what comes after is told, across a kill and a resume."""
    run = a_run(tmp_path, [bad_step(41), ended("failed")])
    heard: list[Alert] = []
    watch = RunWatch(tmp_path, heard.append, since="9999")
    with run.held():
        watch.watch([run])
        watch.turn(0.0)
        run.append(started(run, 20))
        run.append(measured(21))
        watch.turn(1.0)
        assert not heard
        watch.turn(61.0)
        assert kinds(heard) == [SILENT]
        run.append(bad_step(22))
        watch.turn(62.0)
    watch.turn(63.0)
    assert kinds(heard) == [SILENT, NON_FINITE, DIED] and heard[-1].run == run.short_name
    assert all(alert.is_own and not alert.is_told for alert in heard[1:])
    watch.watch([run])  # found again because its log has changed: nothing of it is news
    with run.held():
        run.append(started(run, 20))
        watch.turn(64.0)
        run.append(ended("completed"))
        watch.turn(65.0)
    watch.turn(66.0)
    assert kinds(heard[3:]) == [ENDED]


def test_a_run_that_began_and_ended_between_two_looks_is_told(tmp_path: Path) -> None:
    """It was never seen alive, but all of it happened after the watch had begun."""
    heard: list[Alert] = []
    watch = RunWatch(tmp_path, heard.append, since="2000")
    watch.watch([a_run(tmp_path, [ended("completed")])])
    watch.turn(0.0)
    watch.turn(100.0)
    assert kinds(heard) == [ENDED] and heard[0].loss == 4.2


def test_the_watch_looks_at_the_disk_while_a_run_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 5})())
    run = a_run(tmp_path, [])
    heard: list[Alert] = []
    watch = RunWatch(tmp_path, heard.append, since="9999")
    watch.watch([run])
    watch.turn(0.0)
    assert not heard
    with run.held():
        for now in range(1, 30):
            watch.turn(float(now))
    assert kinds(heard) == [DISK]


def test_a_process_with_a_command_of_its_own_is_known() -> None:
    """So that an app which watches it does not run another for the same alert; this very process does not count."""
    wait = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    environment = {**os.environ, "BBTUI_ON_EVENT": "true"}
    for command, surroundings, expected in (
        (wait, environment, True),
        ([*wait, "--on-event=true"], None, True),
        (wait, None, False),
    ):
        with subprocess.Popen(command, stdin=-1, stdout=-1, env=surroundings) as process:
            assert process.stdout and process.stdin
            process.stdout.readline()
            assert has_own_command(process.pid) is expected
            process.stdin.close()
    ask = "import os; from tui.on_event import has_own_command as has; print(has(os.getpid()), has(0))"
    asked = subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True)
    assert asked.stdout == "False False\n", asked.stderr


# ---------------------------------------------------------------- the user's command

ALERT = Alert(NON_FINITE, "pretrain/7f3a", "pretrain/7f3a: $(touch x); `id`", "a\x1b]0;b\x07\nc", 12, None)


class Ends:
    """Collects how commands ended; `commands.wait` is what a test waits with."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.commands = EventCommands(lambda _, problem: self.problems.append(problem))

    def run(self, command: str, alert: Alert = ALERT) -> str:
        self.commands.run(command, alert)
        self.commands.wait()
        return self.problems.pop() if self.problems else "nothing was run"


def python(code: str, *arguments: str) -> str:
    return shlex.join([sys.executable, "-c", code, *arguments])


def test_the_command_is_told_in_its_environment_and_on_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shell sees the alert's words, nothing in them can be obeyed, and the command does not run itself again."""
    monkeypatch.setenv("BBTUI_ON_EVENT", "something")
    told = tmp_path / "told"
    code = """
import json, os, sys
facts = {name: value for name, value in os.environ.items() if name.startswith("BBTUI_")}
open(sys.argv[1], "w").write(json.dumps([facts, json.load(sys.stdin), sys.argv[2:]]))
"""
    assert Ends().run(python(code, str(told), "$(id)", "*")) == ""
    facts, row, arguments = json.loads(told.read_text())
    assert arguments == ["$(id)", "*"]
    assert facts["BBTUI_EVENT"] == row["event"] == NON_FINITE
    assert facts["BBTUI_TEXT"] == row["text"] == "a␛]0;b␇ c"
    assert facts["BBTUI_TITLE"] == ALERT.title and not (Path.cwd() / "x").exists()
    assert (facts["BBTUI_STEP"], facts["BBTUI_LOSS"], row["loss"]) == ("12", "", None)
    assert "BBTUI_ON_EVENT" not in facts


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (python("import sys; sys.exit('no such host')"), "ended with 1. no such host"),
        ("/nowhere/program --flag", "no program '/nowhere/program'"),
        ("echo 'open", "quote"),
        ("  ", "nothing was run"),
        (python("import os; os.close(0)"), ""),
    ],
)
def test_a_command_that_fails_is_a_sentence(command: str, words: str) -> None:
    problem = Ends().run(command)
    assert words in problem and "Traceback" not in problem and (words or not problem)


def test_a_command_that_hangs_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it left in the background too."""
    monkeypatch.setattr(on_event, "LIMIT_S", 1.0)
    told = tmp_path / "child"
    line = f"sleep 60 & echo $! > {shlex.quote(str(told))}; wait"
    assert "took longer" in Ends().run(shlex.join(["sh", "-c", line]))
    child, tick = int(told.read_text()), threading.Event()
    for _ in range(1000):
        if not lives(child):
            return
        tick.wait(0.01)
    raise AssertionError("its child lives on")


def lives(process_id: int) -> bool:
    try:
        return psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_nobody_waits_for_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` comes back at once, and a storm of alerts starts no storm of processes."""
    release = threading.Event()
    monkeypatch.setattr(on_event, "_problem_of", lambda *_: release.wait(10) and "")
    ends = Ends()
    for _ in range(9):
        ends.commands.run("true", ALERT)
    assert ends.problems == ["8 alerts' commands run still; this one was left out."]
    release.set()
    ends.commands.wait()
    assert ends.problems[1:] == [""] * 8


def test_a_program_is_looked_for_before_it_is_needed() -> None:
    assert words_of("sh -c 'a; b'") == ["sh", "-c", "a; b"] and words_of("") == []
    with pytest.raises(UsageError, match="no program"):
        words_of("no-such-program-here")


def test_no_preset_and_no_root_brings_a_command_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders and presets are handed on: a command in one of them must never be run."""
    (tmp_path / ".data").mkdir()
    (tmp_path / ".data" / "app.json").write_text(json.dumps({"command": "evil", "on_event": "evil"}))
    assert AlertSettings().command == ""
    for key in ("on_event", "alerts.command", "command"):
        with pytest.raises(UsageError):
            load_stage("quickstart", "pretrain", tmp_path, [f"{key}=evil"])
    monkeypatch.setenv("BBTUI_ON_EVENT", "true")
    assert AlertSettings().command == "true"


# ---------------------------------------------------------------- the terminal


@pytest.mark.parametrize(
    ("surroundings", "expected"),
    [
        ({"TERM": "xterm-256color"}, "\x1b]9;bbtui: a, b␛]c\a"),
        ({"TERM": "xterm", "TMUX": "/x"}, "\x1bPtmux;\x1b\x1b]9;bbtui: a, b␛]c\a\x1b\\"),
        ({"TERM": "tmux-256color"}, "\x1bPtmux;\x1b\x1b]9;bbtui: a, b␛]c\a\x1b\\"),
        ({"TERM": "linux"}, ""),
        ({}, ""),
    ],
)
def test_a_notification_holds_nothing_that_a_terminal_would_obey(
    surroundings: dict[str, str], expected: str
) -> None:
    """One sequence whose text can neither end it nor be another command; in tmux in its envelope."""
    assert desktop_notification("a; b\x1b]c\n", surroundings) == expected


def test_a_notification_is_short() -> None:
    assert len(desktop_notification("x" * 10_000, {"TERM": "xterm"})) < 200


# ---------------------------------------------------------------- in the app


class Means:
    """What the app would have sent to the terminal and to the user's command."""

    def __init__(self, app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[str] = []
        monkeypatch.setattr(app, "bell", lambda: self.sent.append("bell"))
        monkeypatch.setattr(app, "notify_desktop", lambda text: self.sent.append(f"desktop: {text}"))
        monkeypatch.setattr(
            app.alerts._commands, "run", lambda command, alert: self.sent.append(f"{command}: {alert.kind}")
        )


async def test_every_live_run_is_watched_whichever_tab_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of one stage live, another tab is shown: the death of the one that no tab shows is told."""
    first, second = a_run(tmp_path, []), a_run(tmp_path, [])
    with second.held(), first.held():
        async with opened(tmp_path) as (app, pilot):
            means = Means(app, monkeypatch)
            await pilot.press("7")
            await until(pilot, lambda: len(app.alerts.watch._active()) == 2)
            await until(pilot, lambda: all(w.was_live for w in app.alerts.watch._active()))
            (hidden,) = (run for run in (first, second) if not app.stage_pane("pretrain").is_following(run))
            assert not means.sent
            hidden.append(ended("completed"))
            await until(pilot, lambda: means.sent)
            assert means.sent[0] == "bell" and f"{hidden.short_name} is finished" in means.sent[1]
            assert means.sent[2:] == [f": {ENDED}"]
            assert hidden.short_name not in "".join(app.notices)  # trained by this process: it says so itself


async def test_what_is_switched_off_is_still_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notice always; bell, desktop and command as chosen, and not for a kind that is off."""
    async with opened(tmp_path) as (app, _):
        means = Means(app, monkeypatch)
        settings = app.alerts.settings
        assert [settings.gives(kind) for kind in KINDS] == [True] * 5 + [False]
        app.alerts.tell(Alert(CHECKPOINT, "r", "r damaged", "Look."))
        assert means.sent == [] and "r damaged: Look." in app.notices[-1]
        settings.switch("bell", False)
        settings.keep_command("true")
        app.alerts.tell(Alert(DIED, "r", "r died", "Look."))
        assert means.sent == ["desktop: r died. Look.", "true: died"]
        app.alerts.tell(Alert(ENDED, "r", "r ended", "Look.", is_told=True))
        assert means.sent[2:] == ["desktop: r ended. Look."]
        assert AlertSettings().command == "true" and not AlertSettings().bell


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
async def test_the_panel_switches_keeps_and_tries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    """By keyboard alone; a tick is told by its sign, and a command that cannot be run is not kept."""
    async with opened(tmp_path, size=size) as (app, pilot):
        means = Means(app, monkeypatch)
        await pilot.press("f6")
        assert isinstance(app.screen, AlertsPanel)
        screen = drawn(app)
        assert "[x] Ring the bell" in screen and "[ ] Checkpoint damaged" in screen and "Try it" in screen
        await pilot.press("space")
        assert "[ ] Ring the bell" in drawn(app)
        entry = app.screen.query_one("#alerts-command", Input)
        while not entry.has_focus:
            await pilot.press("down")
        entry.value = "no-such-program-here"
        await pilot.press("enter")
        assert "There is no program" in drawn(app) and AlertSettings().command == ""
        entry.value = "true"
        await pilot.press("enter")
        next(b for b in app.screen.query("Button") if b.name == "try").press()  # type: ignore[attr-defined]
        await until(pilot, lambda: len(means.sent) == 2)
        assert means.sent[0].startswith("desktop: A test") and means.sent[1] == f"true: {TEST}"
        entry.value = "false"
        await pilot.press("escape")
        assert not isinstance(app.screen, AlertsPanel)
        assert AlertSettings().command == "true" and not AlertSettings().bell
        await pilot.press("f6")
        assert not app.screen.query(Tick).first().value


async def test_the_end_of_a_tried_command_is_said(tmp_path: Path) -> None:
    """Also that it went well: silence would prove nothing."""
    async with opened(tmp_path) as (app, pilot):
        app.alerts.settings.keep_command(python(""))
        app.alerts.try_them()
        await until(pilot, lambda: "ran without a fault" in "".join(app.notices))
        app.alerts.settings.keep_command(python("raise SystemExit(3)"))
        app.alerts.try_them()
        await until(pilot, lambda: "ended with 3" in "".join(app.notices))


# ---------------------------------------------------------------- without the app


def trained(root: Path, *options: str) -> Any:
    return CliRunner().invoke(
        command_line, ["train", "pretrain", "--preset", "smoke", "--root", str(root), *options]
    )


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_command_line_runs_the_command_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """At the end of the run, with its figures, before the program comes back."""
    told = tmp_path / "told"
    command = python(f"import sys; open({str(told)!r}, 'w').write(sys.stdin.read())")
    if by == "environment":
        monkeypatch.setenv("BBTUI_ON_EVENT", command)
    result = trained(tmp_path, *(["--on-event", command] if by == "option" else []), "--set", "steps=2")
    assert result.exit_code == 0, result.output
    row = json.loads(told.read_text())
    (run,) = Runs(tmp_path).all("pretrain")
    assert (row["event"], row["run"], row["step"]) == (ENDED, run.short_name, 2)
    assert row["loss"] == pytest.approx(run.summary().validation_loss)


def test_a_command_that_cannot_be_run_is_said_before_there_is_a_run(tmp_path: Path) -> None:
    result = trained(tmp_path, "--on-event", "no-such-program-here")
    assert isinstance(result.exception, UsageError) and not Runs(tmp_path).all()
