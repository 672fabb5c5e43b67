"""The app as a person uses it: tabs, keys, dialogs, sizes, and what it does with runs that are there."""

import random
from pathlib import Path

import pytest
from textual.widgets import Button, Input

from core.commands import AddNote, Pause, SaveNow, ScaleLearningRate, Stop
from core.config import STAGES
from core.events import LearningRateChanged, NoteAdded, RunEnded, RunPaused, SampleDrawn
from driving import a_run, drawn, ended, live_run, measured, opened, shown, started, told, until
from tui.app import BbtuiApp
from tui.messages import OpenRun, StopOwnRun
from tui.panes.stage import StagePane
from tui.widgets.dialogs import ChoiceDialog, TextScreen
from tui.widgets.header_bar import HeaderBar
from tui.widgets.hint_bar import HintBar
from tui.widgets.loss_chart import LossChart
from tui.widgets.settings_form import SettingsForm
from tui.widgets.steer_panel import SteerPanel
from tui.workers.training import StageRequest

# ---------------------------------------------------------------- the frame


async def test_why_a_run_ended_is_said_and_copied(tmp_path: Path) -> None:
    """The reason has a line of its own, so that it is read on a narrow screen; copying takes all of it."""
    why = "Memory ran out with a micro-batch of one row. Lower model.context."
    run = a_run(tmp_path, [RunEnded(step=40, reason="failed", message=why, elapsed_s=60.0)])
    async with opened(tmp_path) as (app, pilot):
        await until(pilot, lambda: why in drawn(app))
        await pilot.press("y")
        assert run.name in app.clipboard and why in app.clipboard


async def test_keys_go_to_tabs_and_focus_is_never_lost(tmp_path: Path) -> None:
    """1 to 7 show their tabs, the header says which, and something has the focus on each."""
    async with opened(tmp_path) as (app, pilot):
        for key, name in enumerate([*STAGES, "chat", "eval", "runs"], 1):
            await pilot.press(str(key))
            await pilot.pause()
            assert app.pane is not None and app.pane.id == name
            assert app.query_one(HeaderBar).active == name
            # The Runs tab has nothing to focus while there are no runs.
            await until(pilot, lambda: not app.screen.focus_chain or app.focused)
            await pilot.press("escape")
            assert app.is_running
        await pilot.click(HeaderBar, offset=(10, 0))
        await until(pilot, lambda: app.pane is not None and app.pane.id == "pretrain")


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (60, 20), (40, 12), (39, 11), (1, 1)])
async def test_every_tab_is_drawn_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    """All tabs compose from a large terminal down to none, and a small one is told to grow."""
    a_run(tmp_path, [ended("completed")])
    async with opened(tmp_path, size=size) as (app, pilot):
        for key in "1234567":
            await pilot.press(key)
            await pilot.pause()
            lines = drawn(app).splitlines()
            assert len(lines) == size[1] and all(len(line) <= size[0] for line in lines)
        if size == (39, 11):
            assert "Make me bigger" in drawn(app)


async def test_random_resizes_raise_nothing(tmp_path: Path) -> None:
    """60 sizes in a row while a run is shown, on changing tabs."""
    draw = random.Random(7)
    with live_run(tmp_path):
        async with opened(tmp_path) as (app, pilot):
            for turn in range(60):
                await pilot.resize_terminal(draw.randint(1, 140), draw.randint(1, 50))
                if turn % 10 == 0:
                    app.action_tab(draw.choice([*STAGES, "chat", "eval", "runs"]))
            await pilot.resize_terminal(80, 24)
            await pilot.pause()
            assert len(drawn(app).splitlines()) == 24


async def test_every_action_is_in_palette_and_help(tmp_path: Path) -> None:
    """Each binding of the app and of its tabs is listed with words of help, under a title of its own."""
    async with opened(tmp_path) as (app, pilot):
        commands = list(app.get_system_commands(app.screen))
        titles = [command.title for command in commands]
        assert len(set(titles)) == len(titles)
        assert all(command.help.strip() for command in commands)
        for wanted in ("Quit", "Theme", "Go to Baseball finetune", "Pretrain: Halve rate", "Chat: New"):
            assert wanted in titles
        await pilot.press("question_mark")
        assert isinstance(app.screen, TextScreen)
        page = app.screen.content_text.plain
        for pane in app._switcher.children:
            for binding in type(pane).BINDINGS:
                assert binding.tooltip and binding.tooltip in page  # type: ignore[union-attr]
        await pilot.press("escape")
        assert len(app.screen_stack) == 1


async def test_the_palette_runs_an_action_of_another_tab(tmp_path: Path) -> None:
    """Choosing an action in the palette shows its tab."""
    async with opened(tmp_path) as (app, pilot):
        command = next(c for c in app.get_system_commands(app.screen) if c.title.startswith("Runs: "))
        await command.callback()  # type: ignore[misc]
        await until(pilot, lambda: app.pane is not None and app.pane.id == "runs")


async def test_footer_has_six_hints_at_most(tmp_path: Path) -> None:
    """Every tab's footer is short and ends in the key for help."""
    a_run(tmp_path, [ended("stopped")])
    async with opened(tmp_path) as (app, pilot):
        for key in "1234567":
            await pilot.press(key)
            await pilot.pause()
            hints = app.query_one(HintBar).hints
            assert len(hints) <= 6 and hints[-1][0] == "question_mark"


async def test_notices_are_short_obey_no_markup_and_are_kept(tmp_path: Path) -> None:
    """A notice fits two lines, and a page shows it again."""
    async with opened(tmp_path) as (app, pilot):
        app.notify("[@click=app.quit]x[/] \x1b[31m" + "very long " * 50)
        assert len(app.notices[-1]) < 120 and "\x1b" not in app.notices[-1]
        await pilot.press("f3")
        assert isinstance(app.screen, TextScreen) and "[@click=app.quit]" in drawn(app)


async def test_the_theme_is_kept(tmp_path: Path) -> None:
    """A chosen theme holds the next time; a damaged file of choices is no error."""
    async with opened(tmp_path) as (app, pilot):
        app.theme = "textual-light"
        await until(pilot, lambda: app.choices.text("theme") == "textual-light")
    async with opened(tmp_path) as (app, _):
        assert app.theme == "textual-light"
    app.choices.path.write_text("{nonsense")
    async with opened(tmp_path) as (app, _):
        assert app.theme == "textual-dark"


# ---------------------------------------------------------------- runs that are there


async def test_an_empty_root_says_what_to_press(tmp_path: Path) -> None:
    """The first tab offers Enter and Q; a later stage names what is missing and starts nothing."""
    async with opened(tmp_path) as (app, pilot):
        await pilot.pause()
        assert "Press Q: all four stages" in drawn(app)
        await pilot.press("2", "enter")
        await pilot.pause()
        assert "Press 1, then Enter, to pretrain." in drawn(app)
        assert not app.trainer.is_busy and not app.store.all()


@pytest.mark.parametrize("reason", ["completed", "stopped", "failed", ""])
async def test_a_run_that_is_over_is_shown(tmp_path: Path, reason: str) -> None:
    """Its curve and its figures stand there at opening; only an unfinished one can be resumed."""
    run = a_run(tmp_path, [ended(reason)] if reason else [])
    async with opened(tmp_path) as (app, pilot):
        pane = app.stage_pane("pretrain")
        await until(pilot, lambda: (reason or "interrupted") in drawn(app))
        assert pane.state is not None and pane.state.run == run
        assert len(pane.state.series.train.values) == 40
        assert pane.query_one("#button-start", Button).display
        assert pane.query_one("#button-resume", Button).display == (reason != "completed")
        assert sum(0x2801 <= ord(c) <= 0x28FF for c in drawn(app)) > 20
        assert "4.200" in drawn(app)


async def test_steps_taken_again_after_a_resume_are_counted_once(tmp_path: Path) -> None:
    """The log of a resumed run gives one curve without a step back."""
    run = a_run(tmp_path, [])
    run.append(started(run, step=20))
    for step in range(21, 31):
        run.append(measured(step, 3.0))
    run.append(RunEnded(step=30, reason="stopped", message="", elapsed_s=9.0))
    async with opened(tmp_path) as (app, _):
        state = app.stage_pane("pretrain").state
        assert state is not None and list(state.series.train.steps) == list(range(1, 31))
        assert state.step == 30 and state.validated is None


async def test_a_run_of_another_process_is_watched_and_commanded(tmp_path: Path) -> None:
    """Keys become commands in its folder, and what the trainer does about them shows on the chart."""
    with live_run(tmp_path) as run:
        async with opened(tmp_path) as (app, pilot):
            pane = app.stage_pane("pretrain")
            await until(pilot, lambda: pane.is_live and "another process" in drawn(app))
            await pilot.press("minus", "p", "c")
            await until(pilot, lambda: len(told(run)) == 3)
            assert [type(command) for command in told(run)] == [ScaleLearningRate, Pause, SaveNow]
            run.append(RunPaused(step=40))
            run.append(LearningRateChanged(step=41, tokens=41, before=1e-3, after=5e-4, multiplier=0.5))
            await until(pilot, lambda: "rate ×½" in drawn(app) and "‖ paused" in drawn(app))
            await pilot.press("s")
            assert isinstance(app.screen, ChoiceDialog)
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(told(run)[-1], Stop))
            run.append(ended("stopped"))
            await until(pilot, lambda: not pane.is_live and app.query_one(HeaderBar).status == "○ idle")


async def test_keys_open_the_panel_that_steers(tmp_path: Path) -> None:
    """Whole on a small screen; what is typed there becomes a command of the run."""
    with live_run(tmp_path) as run:
        async with opened(tmp_path, size=(60, 20)) as (app, pilot):
            await until(pilot, lambda: app.stage_pane("pretrain").is_live)
            await pilot.press("r")
            assert isinstance(app.screen, SteerPanel)
            await pilot.pause()
            box = app.screen.query_one(".dialog").region
            assert box.x == (60 - box.width) // 2 and box.y == (20 - box.height) // 2 >= 0
            for words in ("The rate is 1e-3 now", "New rate", "Plan anew over", "Cosine to 0", "Note"):
                assert words in drawn(app)
            await pilot.press("escape", "n", *"warm", "enter")
            await until(pilot, lambda: told(run) == [AddNote(text="warm")])
            run.append(NoteAdded(step=41, tokens=40 * 4096, text="warm"))
            await until(pilot, lambda: "warm" in drawn(app))


async def test_a_run_that_appears_later_is_found(tmp_path: Path) -> None:
    """A training begun in another terminal shows up in its tab."""
    async with opened(tmp_path) as (app, pilot):
        with live_run(tmp_path) as run:
            app._finder.look_now()
            await until(pilot, lambda: app.stage_pane("pretrain").is_live)
            state = app.stage_pane("pretrain").state
            assert state is not None and state.run == run


async def test_open_run_shows_that_run_in_its_tab(tmp_path: Path) -> None:
    """An older run is replayed whole where its stage is shown."""
    older = a_run(tmp_path, [ended("completed")], "finetune")
    a_run(tmp_path, [ended("completed")], "finetune")
    async with opened(tmp_path) as (app, pilot):
        app.post_message(OpenRun(older))
        await until(pilot, lambda: app.pane is app.stage_pane("finetune") and shown(app, "finetune"))
        state = app.stage_pane("finetune").state
        assert state is not None and state.run == older


async def test_hostile_text_of_a_run_does_nothing(tmp_path: Path) -> None:
    """What stands in a log cannot command the terminal, nor the app by markup."""
    hostile = "\x1b[2J\x1b]52;c;eA==\x07[@click=app.quit]quit[/] \u202e\x9b31m[/x]\r\n\x00 " + "x" * 5000
    sample = SampleDrawn(step=40, prompt=hostile, text=hostile)
    a_run(tmp_path, [sample, RunEnded(step=40, reason=hostile, message=hostile, elapsed_s=1.0)])
    async with opened(tmp_path) as (app, pilot):
        await until(pilot, lambda: "[@click=app.quit]" in drawn(app))
        text = drawn(app)
        assert all(c == "\n" or (c.isprintable() and c not in "\u202e") for c in text)
        await pilot.press("y", "f3")
        await pilot.pause()
        assert "\x1b" not in drawn(app) and "\x1b" not in app.clipboard


# ---------------------------------------------------------------- settings


async def test_settings_are_checked_as_they_are_typed(tmp_path: Path) -> None:
    """A wrong value is named with its reason, starting with it is refused, and a changed one is an override."""
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("S")
        form = app.stage_pane("pretrain").query_one(SettingsForm)
        await until(pilot, lambda: isinstance(app.focused, Input))
        entry = form.query_one("#form-rows").query(Input).filter("Input").first()
        assert entry.name == "steps"
        entry.value = "banana"
        await until(pilot, lambda: form.problems)
        assert "steps" in form.problems[0] and entry.has_class("-wrong")
        await pilot.press("escape", "enter")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        await pilot.pause()
        assert "banana" in drawn(app)
        await pilot.press("escape")
        entry.value = "30"
        await until(pilot, lambda: not form.problems)
        assert form.overrides == ["steps=30"]
        assert not app.trainer.is_busy


async def test_keys_typed_into_a_setting_stay_there(tmp_path: Path) -> None:
    """Digits and letters in an entry neither change the tab nor leave the app."""
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.focused, Input))
        assert isinstance(app.focused, Input)
        app.focused.value = ""
        await pilot.press("7", "q", "p")
        assert app.focused.value == "7qp" and app.pane is app.stage_pane("pretrain")


async def test_the_preset_can_be_changed(tmp_path: Path) -> None:
    """Choosing another preset changes what all training tabs would start."""
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("S")
        form = app.stage_pane("pretrain").query_one(SettingsForm)
        await until(pilot, lambda: form.is_filled)
        form.post_message(SettingsForm.PresetChosen("smoke"))
        panes = [app.stage_pane(stage) for stage in STAGES]
        await until(pilot, lambda: all(pane.config and pane.config.preset == "smoke" for pane in panes))
        assert app.preset == form.preset == "smoke"


# ---------------------------------------------------------------- training


async def test_enter_trains_the_first_stage(tmp_path: Path) -> None:
    """Enter, and again on the plan, starts a real run; its curve is drawn and it ends as completed."""
    async with opened(tmp_path, "smoke") as (app, pilot):
        pane = app.stage_pane("pretrain")
        await pilot.press("enter", "enter")
        await until(pilot, lambda: pane.word == "completed" and not app.trainer.is_busy, 90)
        assert pane.state is not None and pane.state.step == pane.state.steps > 0
        await until(pilot, lambda: "✓ completed" in drawn(app))
        await until(pilot, lambda: "pretrain" in app.finished_stages)
        assert pane.query_one(LossChart).drawings >= 1
        await pilot.press("2")
        await until(pilot, lambda: "Ready to finetune" in drawn(app))


async def test_quitting_while_training_asks_then_saves(tmp_path: Path) -> None:
    """Escape goes on training; Enter on the dialog's first button stops, saves and leaves."""
    async with opened(tmp_path, "smoke") as (app, pilot):
        app.begin(StageRequest("pretrain", "smoke", None, ("steps=1000000",)))
        pane = app.stage_pane("pretrain")
        await until(pilot, lambda: pane.state is not None and pane.state.step > 0, 90)
        await pilot.press("q")
        assert isinstance(app.screen, ChoiceDialog)
        await pilot.press("q", "escape")
        assert app.trainer.is_busy and len(app.screen_stack) == 1
        await pilot.press("ctrl+q")
        await until(pilot, lambda: isinstance(app.focused, Button))
        assert app.focused is not None and app.focused.name == "save"
        await pilot.press("enter")
        await until(pilot, lambda: not app.trainer.is_busy, 60)
        assert pane.state is not None
        run = pane.state.run
    assert run.summary().state == "stopped"
    assert run.checkpoint_steps() and not run.is_held()
    assert app.return_code == 0


async def test_a_stopped_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Stop and save, then Resume: the same run takes its next step, and its curve has no gap."""
    async with opened(tmp_path, "smoke") as (app, pilot):
        app.begin(StageRequest("pretrain", "smoke", None, ("steps=1000000",)))
        pane = app.stage_pane("pretrain")
        await until(pilot, lambda: pane.state is not None and pane.state.step > 0, 90)
        await pilot.press("s", "enter")
        await until(pilot, lambda: pane.word == "stopped" and not app.trainer.is_busy, 60)
        assert pane.state is not None
        run, stopped_at = pane.state.run, pane.state.step
        await pilot.press("R")
        assert pane.word in ("starting", "running")
        await until(pilot, lambda: pane.state and pane.state.step > stopped_at and pane.word == "running", 60)
        assert pane.state.run == run
        await pilot.press("s", "right", "right", "enter")
        await until(pilot, lambda: not app.trainer.is_busy, 60)
        await until(pilot, lambda: pane.word == "stopped")
        steps = list(pane.state.series.train.steps)
        assert steps == list(range(1, steps[-1] + 1))


async def test_one_key_trains_all_four_stages(tmp_path: Path) -> None:
    """Q runs stage after stage, the view goes along, and the chat opens with both models."""
    async with opened(tmp_path, "smoke") as (app, pilot):
        seen: list[str] = []
        app.watch(app._switcher, "current", lambda name: seen.append(name))
        await pilot.press("Q")
        await until(pilot, lambda: seen[-1] == "chat", 180)
        assert seen == [*STAGES, "chat"]
        assert app.store.newest_pair() is not None
        assert "Both models are ready" in app.notices[-1]


async def test_a_stop_ends_the_quickstart(tmp_path: Path) -> None:
    """No later stage begins after a stop, and the app says so."""
    async with opened(tmp_path, "smoke") as (app, pilot):
        app.action_quickstart()
        app.post_message(StopOwnRun(save=True))
        await until(pilot, lambda: not app.trainer.is_busy, 60)
        await until(pilot, lambda: not app.stage_pane("pretrain").is_live)
        assert not app.store.all("finetune") and not app.trainer.is_queue


async def test_a_start_that_fails_ends_in_a_dialog(tmp_path: Path) -> None:
    """The dialog names the culprit; a defect's traceback stands in a file, not on the screen."""
    async with opened(tmp_path, "smoke") as (app, pilot):
        app.begin(StageRequest("pretrain", "smoke", None, ("data.source=files", "data.path=/nowhere/at/all")))
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog), 60)
        await pilot.pause()
        assert "nowhere" in drawn(app) and "Traceback" not in drawn(app)
        assert not app.trainer.is_busy and not app.stage_pane("pretrain").is_live
        await pilot.press("y", "escape")
        assert "nowhere" in app.clipboard
        assert len(app.screen_stack) == 1


def test_stage_panes_are_four(tmp_path: Path) -> None:
    """One class serves all four stages."""
    app = BbtuiApp(tmp_path)
    assert [StagePane(stage).stage for stage in STAGES] == list(STAGES)
    assert [tab.key for tab in app.tabs()] == list("1234567")
