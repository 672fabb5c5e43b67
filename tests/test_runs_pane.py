"""The list of runs: every run with its state in words, up to date without being asked, a key for each action."""

from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from core.events import RunEnded, RunStarted
from core.runs import Run
from tui.messages import OpenRun, ResumeRun
from tui.panes.runs import RunsPane
from tui.workers.listing import Lister


async def ready(pilot: Pilot[None], count: int) -> Any:
    app: Any = pilot.app
    await app.until(pilot, lambda: len(app.tab.rows) == count)
    await pilot.pause()
    return app


def facts(app: Any) -> str:
    return str(app.query_one("#runs-facts", Static).visual)


async def test_empty_root_says_what_to_press(open_tab: Any, runs: Any) -> None:
    """An empty tab names the key that makes a run; its own keys do no harm; the first run takes the focus."""
    async with open_tab(RunsPane).run_test(size=(80, 24)) as pilot:
        app: Any = pilot.app
        await app.until(pilot, lambda: "Press 1, then Enter, to pretrain." in app.drawn())
        for action in ("open_run", "resume_run", "copy_name"):
            await app.run_action(action, app.tab)
        assert app.noted == [] and app.copied == ""
        runs.add("pretrain")
        app.tab.look()
        await ready(pilot, 1)
        assert app.tab.table.has_focus


async def test_every_run_is_listed_newest_first(open_tab: Any, runs: Any) -> None:
    """State stands as sign and word, beside step, losses, tokens and parent; the focused run's path below."""
    first = runs.add("pretrain")
    second = runs.add("finetune", first, reason="stopped")
    third = runs.add("finetune", first, reason="")
    async with open_tab(RunsPane).run_test(size=(160, 30)) as pilot:
        app = await ready(pilot, 3)
        assert [row.run for row in app.tab.rows] == [third, second, first]
        drawn = app.drawn()
        for words in ("✓ completed", "stopped", "interrupted", "20/20", "2.500", "2.750", "51.2k", first.id):
            assert words in drawn
        await app.until(pilot, lambda: str(third.folder.parent) in facts(app).replace("\n", ""))
        assert f"finetune/{third.id[-4:]} ← pretrain/{first.id[-4:]}" in facts(app)
        assert "resumes it" in facts(app)


async def test_keys_open_copy_and_resume(open_tab: Any, runs: Any) -> None:
    """Enter opens, `y` copies the name, `r` resumes what is unfinished and refuses what is finished."""
    done = runs.add("pretrain")
    cut = runs.add("finetune", done, reason="")
    async with open_tab(RunsPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot, 2)
        await pilot.press("r", "y", "enter")
        await app.until(pilot, lambda: len(app.noted) == 2)
        assert app.copied == cut.name
        assert [type(message) for message in app.noted] == [ResumeRun, OpenRun]
        assert {message.run for message in app.noted} == {cut}
        await pilot.press("down", "r", "enter")
        await app.until(pilot, lambda: len(app.noted) == 3)
        assert isinstance(app.noted[2], OpenRun) and app.noted[2].run == done


async def test_table_keeps_up_and_keeps_the_cursor(open_tab: Any, runs: Any) -> None:
    """A new run and a new state appear; the cursor stays on the run that it was on."""
    old = runs.add("pretrain")
    async with open_tab(RunsPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot, 1)
        new = runs.add("finetune", old, reason="")
        app.tab.look()
        await ready(pilot, 2)
        assert app.tab.row.run == old and app.query_one(DataTable).cursor_row == 1
        new.append(RunEnded(step=20, reason="failed", message="out of [/memory]", elapsed_s=1.0))
        app.tab.look()
        await app.until(pilot, lambda: "✗ failed" in app.drawn())
        assert app.tab.row.run == old
        await pilot.press("up")
        await app.until(pilot, lambda: "out of [/memory]" in facts(app))


async def test_hostile_names_are_only_text(open_tab: Any, runs: Any) -> None:
    """A folder somebody named with markup and escapes is shown as text and kills nothing."""
    run = runs.add("pretrain")
    run.folder.rename(run.folder.with_name("[red]x[@click=app.quit]\x1b[2J"))
    async with open_tab(RunsPane).run_test(size=(160, 24)) as pilot:
        app = await ready(pilot, 1)
        await app.until(pilot, lambda: "checkpoints" in facts(app))
        assert "[red]x[@click=app.quit]␛[2J" in facts(app)
        assert "\x1b" not in app.drawn()


@pytest.mark.parametrize("size", [(60, 20), (40, 12), (120, 40)])
async def test_every_size_composes(open_tab: Any, runs: Any, size: tuple[int, int]) -> None:
    """Stage, run and state are seen at any size, and resizing loses neither rows nor cursor."""
    runs.add_pair()
    async with open_tab(RunsPane).run_test(size=size) as pilot:
        app = await ready(pilot, 4)
        await pilot.press("down")
        chosen = app.tab.row.run
        assert "baseball-finetune" in app.drawn() and "completed" in app.drawn()
        await pilot.resize_terminal(160, 40)
        await pilot.resize_terminal(*size)
        await pilot.pause()
        assert app.tab.row.run == chosen and app.query_one(DataTable).row_count == 4


def test_only_what_changed_is_read_again(runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking again at runs that ended costs no reading of their logs; a run that goes on is read."""
    done = runs.add("pretrain")
    read: list[Run] = []
    summary = Run.summary

    def counted(run: Run) -> object:
        read.append(run)
        return summary(run)

    monkeypatch.setattr(Run, "summary", counted)
    lister = Lister(runs.store)
    first = lister.rows()
    assert lister.rows() == first and read == [done]
    started = {"run": done.id, "stage": "pretrain", "parent": "", "parameters": 10, "steps": 40}
    done.append(RunStarted(**started, resumed_from_step=20, device="cpu", precision="float32", process_id=1))
    with done.held():
        assert [row.summary.state for row in lister.rows()] == ["running"]
    assert [row.summary.state for row in lister.rows()] == ["interrupted"]


def test_run_folders_in_disorder_are_listed(runs: Any) -> None:
    """A damaged configuration, an empty log or a vanished folder is a row or no row, never an exception."""
    damaged, empty, vanished = (runs.add("pretrain") for _ in range(3))
    (damaged.folder / "config.toml").write_text("not = [toml")
    empty.events_file.write_text("")
    lister = Lister(runs.store)
    rows = {row.run: row for row in lister.rows()}
    assert rows[damaged].preset == "unreadable" and rows[empty].summary.state == "new"
    for path in sorted(vanished.folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    Path(vanished.folder).rmdir()
    assert lister.details(rows[vanished]).bytes_used == 0
    assert len(lister.rows()) == 2
