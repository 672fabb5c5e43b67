"""Keeping house in the Runs tab: marking, comparing, noting, removing; a wrong word keeps all."""

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from core.commands import AddNote
from core.events import NoteAdded
from core.housekeeping import add_note, remove
from core.runs import Run
from driving import a_run, drawn, ended, opened, told, until
from tui.messages import RunChanged
from tui.panes.runs import RunsPane
from tui.widgets.compare_page import ComparePage, comparison_lines
from tui.widgets.dialogs import ChoiceDialog
from tui.widgets.note_dialog import NoteDialog
from tui.widgets.remove_dialog import RemoveDialog
from tui.workers.find_runs import RunFinder


async def ready(pilot: Pilot[None], count: int) -> Any:
    app: Any = pilot.app
    await app.until(pilot, lambda: len(app.tab.rows) == count)
    await pilot.pause()
    return app


async def shown(pilot: Pilot[None], kind: type[Any]) -> Any:
    app: Any = pilot.app
    await app.until(pilot, lambda: isinstance(app.screen, kind) and app.screen.focused)
    await pilot.pause()
    return app.screen


# ---------------------------------------------------------------- comparing


async def test_the_marked_run_is_compared_with_the_one_under_the_cursor(open_tab: Any, runs: Any) -> None:
    """The mark is a sign, not a colour; it can be taken back; `a` shows what is equal too."""
    first = runs.add("pretrain")
    second = runs.add("finetune", first, reason="stopped")
    async with open_tab(RunsPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot, 2)
        await pilot.press("space", "down")
        assert app.tab.marked == second and f"◆{second.id[-4:]}" in app.drawn()
        await pilot.press("c")
        page = await shown(pilot, ComparePage)
        await app.until(pilot, lambda: "optim.learning_rate" in page.text)
        assert page.comparison.runs == (second, first)
        assert f"finetune/{second.id[-4:]}" in app.drawn() and "stopped" in app.drawn()
        assert "keep_last" not in page.text
        await pilot.press("a")
        assert "keep_last" in page.text and "≠ optim.learning_rate" in page.text
        text = page.text
        await pilot.press("y", "escape")
        assert app.copied == text
        await pilot.press("up", "space")
        assert app.tab.marked is None and "◆" not in app.drawn()


async def test_without_a_mark_a_run_is_compared_with_the_one_before_it(open_tab: Any, runs: Any) -> None:
    """The one before of the same stage; where there is none, the parent; where there is none, it says so."""
    first = runs.add("pretrain")
    other = runs.add("pretrain")
    child = runs.add("finetune", first)
    async with open_tab(RunsPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot, 3)
        pairs = []
        for row in sorted(app.tab.rows, key=lambda row: (row.run != child, row.run != app.tab.rows[1].run)):
            app.tab.table.move_cursor(row=app.tab.rows.index(row))
            await pilot.press("c")
            if row is not app.tab.rows[-1]:
                pairs.append((await shown(pilot, ComparePage)).comparison.runs)
                await pilot.press("escape")
        oldest = app.tab.rows[-1].run
        assert pairs == [(first, child), (oldest, other if oldest == first else first)]
        assert not isinstance(app.screen, ComparePage)


async def test_hostile_settings_are_only_text(open_tab: Any, runs: Any) -> None:
    """What a configuration holds is shown as it stands, and fits any width."""
    runs.add("pretrain")
    second = runs.add("pretrain")
    toml = (second.folder / "config.toml").read_text()
    hostile = '[samples]\nprompts = ["[@click=app.quit]x[/] \\u001b[2J' + "y" * 3000 + '"]\n'
    (second.folder / "config.toml").write_text(toml.partition("[samples]")[0] + hostile)
    async with open_tab(RunsPane).run_test(size=(60, 20)) as pilot:
        app = await ready(pilot, 2)
        await pilot.press("c")
        page = await shown(pilot, ComparePage)
        await app.until(pilot, lambda: "app.quit" in page.text.replace("\n", ""))
        assert "\x1b" not in page.text + app.drawn()
        for width in (30, 41, 60, 96):
            assert max(map(len, comparison_lines(page.comparison, width, True))) <= width


# ---------------------------------------------------------------- notes


async def test_a_note_is_written_and_shown(open_tab: Any, runs: Any) -> None:
    """On a run that is over it stands in the log; on a live one its trainer is told; Escape writes none."""
    run = runs.add("pretrain")
    async with open_tab(RunsPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot, 1)
        await pilot.press("n")
        await shown(pilot, NoteDialog)
        await pilot.press(*"no", "escape", "n")
        await shown(pilot, NoteDialog)
        await pilot.press(*"D x[/]", "enter")
        facts = app.query_one("#runs-facts", Static)
        await app.until(pilot, lambda: "note         step 20: D x[/]" in str(facts.visual))
        assert [event.text for event in run.events() if isinstance(event, NoteAdded)] == ["D x[/]"]
        with run.held():
            await pilot.press("n")
            await shown(pilot, NoteDialog)
            await pilot.press("w", "enter")
            await app.until(pilot, lambda: told(run) == [AddNote(text="w")])


# ---------------------------------------------------------------- removing


async def test_a_wrong_word_keeps_all(open_tab: Any, runs: Any) -> None:
    """Nothing typed, a wrong word, Escape and Cancel each leave every file where it was."""
    run = runs.add("pretrain")
    before = sorted(run.folder.rglob("*"))
    async with open_tab(RunsPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot, 1)
        for keys in (["enter", "enter"], ["enter", *"nope", "enter"], ["enter", "tab", "enter"]):
            await pilot.press("D")
            dialog = await shown(pilot, RemoveDialog)
            await pilot.press(*keys)
            await pilot.pause()
            assert app.screen is dialog
            assert "nothing was removed" in str(dialog.query_one("#removal-problem", Static).visual)
            await pilot.press("escape")
        await pilot.press("D")
        await shown(pilot, RemoveDialog)
        await pilot.press("enter", "tab", "tab", "enter")
        await app.until(pilot, lambda: len(app.screen_stack) == 1)
    assert sorted(run.folder.rglob("*")) == before


async def test_the_typed_word_removes_the_run(open_tab: Any, runs: Any) -> None:
    """It says first what goes and what starts from it; afterwards the list is without it."""
    first = runs.add("pretrain")
    child = runs.add("finetune", first)
    async with open_tab(RunsPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot, 2)
        await pilot.press("down", "space", "D")
        dialog = await shown(pilot, RemoveDialog)
        words = str(dialog.query_one("#removal-words", Static).visual)
        assert "The whole run goes" in words and child.name in words
        await pilot.press("enter", *first.id[-4:], "enter")
        await ready(pilot, 1)
        assert not first.folder.exists() and child.folder.is_dir() and app.tab.marked is None


async def test_a_policy_is_chosen_with_the_arrows(open_tab: Any, trained_copy: Path) -> None:
    """Each says what stays; the sizes that the table shows follow though the log has not changed."""
    async with open_tab(RunsPane, trained_copy).run_test(size=(120, 40)) as pilot:
        app = await ready(pilot, 4)
        run, before = app.tab.row.run, app.tab.row.bytes_used
        await pilot.press("D")
        dialog = await shown(pilot, RemoveDialog)
        await pilot.press("down", "down")
        assert dialog.chosen.keep == "last" and "step 6" in app.drawn()
        assert "● Keep last checkpoint" in app.drawn() and "○ Keep nothing" in app.drawn()
        await pilot.press("enter", *run.id[-4:], "enter")
        await app.until(pilot, lambda: len(app.screen_stack) == 1 and app.tab.row.bytes_used < before)
        assert run.checkpoint_steps() == [6] and app.tab.row.checkpoint_steps == (6,)


async def test_what_cannot_be_removed_says_why(open_tab: Any, runs: Any) -> None:
    """A live run is refused before the dialog; one that a child needs, in it; one that went live, after it."""
    first = runs.add("pretrain")
    child = runs.add("finetune", first)
    (child.checkpoint_folder(20) / "MANIFEST.json").unlink()
    child.checkpoint_folder(20).rmdir()
    async with open_tab(RunsPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot, 2)
        await pilot.press("down", "D")
        dialog = await shown(pilot, RemoveDialog)
        await pilot.press("enter", *first.id[-4:], "enter")
        await pilot.pause()
        assert app.screen is dialog and child.name in str(dialog.query_one("#removal-problem", Static).visual)
        await pilot.press("escape", "up", "D")
        await shown(pilot, RemoveDialog)
        with child.held():
            await pilot.press("enter", *child.id[-4:], "enter")
            error = await shown(pilot, ChoiceDialog)
            assert "is being trained" in error.text
            await pilot.press("escape")
            app.tab.look()
            await app.until(pilot, lambda: app.tab.rows[0].summary.is_live)
            await pilot.press("D")
            await pilot.pause()
            assert len(app.screen_stack) == 1
    assert child.folder.is_dir() and first.folder.is_dir()


async def test_the_dialog_fits_the_smallest_sizes(open_tab: Any, runs: Any) -> None:
    """At 60x20 the policies, the word and the buttons are on the screen together."""
    first = runs.add("pretrain")
    for _ in range(5):
        runs.add("finetune", first)
    async with open_tab(RunsPane).run_test(size=(60, 20)) as pilot:
        app = await ready(pilot, 6)
        app.tab.table.move_cursor(row=5)
        await pilot.press("D")
        dialog = await shown(pilot, RemoveDialog)
        assert dialog.query_one(OptionList).has_focus
        for words in (
            "Keep nothing",
            "Keep the log alone",
            f"Type {first.id[-4:]} to remove",
            "Cancel",
            "and 2 more",
        ):
            assert words in app.drawn()
        assert dialog.query_one(Input).region.bottom < 20


# ---------------------------------------------------------------- the rest of the app


async def test_a_stage_tab_forgets_a_removed_run_and_shows_the_one_before(tmp_path: Path) -> None:
    """The removed run stood on its tab, its curve drawn; the tab goes over to what is left, or to nothing."""
    old, new = a_run(tmp_path, [ended("completed")]), a_run(tmp_path, [ended("completed")])
    async with opened(tmp_path) as (app, pilot):
        pane = app.stage_pane("pretrain")
        run, rest = (new, old) if pane.state and pane.state.run == new else (old, new)
        await pilot.press("7")
        table = app.query_one(RunsPane)
        await until(pilot, lambda: len(table.rows) == 2)
        table.table.move_cursor(row=[row.run for row in table.rows].index(run))
        for gone in (run, rest):
            await remove_here(app, pilot, gone)
        await until(pilot, lambda: pane.state is None)
        await pilot.press("1", "R", "S", "escape", "y")
        await until(pilot, lambda: "Nothing is pretrained yet" in drawn(app))


async def remove_here(app: Any, pilot: Pilot[None], run: Run) -> None:
    await pilot.press("D")
    await until(pilot, lambda: isinstance(app.screen, RemoveDialog) and app.screen.focused)
    await pilot.press("enter", *run.id[-4:], "enter")
    await until(pilot, lambda: len(app.screen_stack) == 1 and not run.folder.exists())
    rest = app.store.all()
    table = app.query_one(RunsPane)
    await until(pilot, lambda: [row.run for row in table.rows] == rest)
    pane = app.stage_pane("pretrain")
    await until(pilot, lambda: (pane.state.run if pane.state else None) == (rest[0] if rest else None))


async def test_a_run_removed_by_another_process_does_no_harm(tmp_path: Path) -> None:
    """Its curve stays until another is shown; resuming it is refused in words, and makes no folder."""
    run = a_run(tmp_path, [ended("stopped")])
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("1")
        remove(app.store, run, "nothing")
        await pilot.press("y", "S", "escape", "l", "z", "R")
        await until(pilot, lambda: isinstance(app.screen, ChoiceDialog), 60)
        assert isinstance(app.screen, ChoiceDialog) and "no run" in app.screen.text
        await pilot.press("escape", "5", "6", "7")
        await until(pilot, lambda: "No run yet" in drawn(app))
    assert not run.folder.exists()


async def test_a_note_is_drawn_on_the_tab_that_shows_the_run(tmp_path: Path) -> None:
    """The tab had read the log to its end; a new line of it is shown all the same, and no run is newer for it."""
    run, other = a_run(tmp_path, [ended("completed")]), a_run(tmp_path, [ended("completed")])
    async with opened(tmp_path) as (app, pilot):
        pane = app.stage_pane("pretrain")
        assert pane.state is not None
        shown_run = pane.state.run
        # The other one's last, so that its log is the newest file.
        for noted in (shown_run, other if shown_run == run else run):
            noted.append(NoteAdded(step=41, tokens=41 * 4096, text="here"))
            app.post_message(RunChanged(noted, is_gone=False))
        await until(
            pilot, lambda: pane.state and [mark.label for mark in pane.state.series.marks] == ["here"]
        )
        assert pane.state.run == shown_run and app._finder.look()["pretrain"].run == shown_run


def test_a_note_wakes_nobody(runs: Any) -> None:
    """Whoever is alerted when a run gets on hears nothing of a note on one that is over."""
    run, watched = runs.add("pretrain"), []
    finder = RunFinder(runs.store, lambda message: None, lambda: "quickstart", watched.append)
    before = finder.look()
    add_note(run, "later")
    assert finder.look() == before and finder._active == []
    run.append(ended("stopped"))
    assert finder.look() != before and finder._active == [run]


def test_a_stage_of_which_only_a_log_is_left_is_not_done(runs: Any) -> None:
    """The next stage could not start from it."""
    runs.add("pretrain")
    finder = RunFinder(runs.store, lambda message: None, lambda: "quickstart", lambda runs: None)
    assert finder.look()["pretrain"].has_finished
    remove(runs.store, runs.store.all()[0], "log")
    assert not finder.look()["pretrain"].has_finished


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (160, 50)])
@pytest.mark.parametrize("has_run", [False, True])
async def test_the_keys_are_those_of_the_tab_that_is_seen(
    tmp_path: Path, size: tuple[int, int], has_run: bool
) -> None:
    """The list is still being read when the tab is shown, and an empty one has nothing to focus."""
    if has_run:
        a_run(tmp_path, [ended("completed")])
    async with opened(tmp_path, size=size) as (app, pilot):
        await pilot.press("7")
        await until(pilot, lambda: "last active" in drawn(app) if has_run else "No run yet" in drawn(app))
        await pilot.pause()
        pane = app.query_one(RunsPane)
        assert app.focused is None or pane in app.focused.ancestors
        assert app.focused is not None or not has_run
        await pilot.press("space", "s", "p")
        assert not app.notices and len(app.store.all()) == has_run
