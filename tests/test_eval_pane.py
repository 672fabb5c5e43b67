"""The evaluation: gain and loss in words, figures and bars; a report that says which models it is of."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from core.errors import CheckpointError
from core.evals.results import ModelInfo, ModelResult, QuestionResult, Report, SetResult
from core.runs import Run, Runs
from tui.panes.evals import EvalPane
from tui.widgets.bar_chart import Bar, bar_lines
from tui.widgets.dialogs import ChoiceDialog
from tui.widgets.file_dialog import FileDialog
from tui.widgets.report_words import question_lines, verdicts
from tui.workers import evaluate
from tui.workers.evaluate import Finished, Progress, keep_report


def result(mean: float, nats: float = 1.234) -> ModelResult:
    return ModelResult(mean, (mean - 0.01, mean + 0.012), nats, mean + 0.01, mean / 2, mean - 0.002, 9.5)


def make_report(
    general: Run,
    baseball: Run,
    gain: float = 1.88,
    kept: float = 0.95,
    sha256: str = "",
    nats: float = 1.234,
) -> Report:
    """A report as core.evals makes it, of any gain and loss."""
    models = {
        "general": ModelInfo(general.name, 20, sha256 or general.id[-4:] * 16),
        "baseball": ModelInfo(baseball.name, 20, sha256 or baseball.id[-4:] * 16),
    }
    sets = {}
    for name, before, ratio in (("baseball-heldout", 0.2, gain), ("general-heldout", 0.26, kept)):
        means = {"general": result(before), "baseball": result(before * ratio, nats)}
        sets[name] = SetResult(100, 4321, 0, means, ratio, (ratio - 0.03, ratio + 0.03))
    questions = [
        QuestionResult(
            "baseball-heldout", str(i), f"Question {i}?", "Yes.", {"general": 0.2, "baseball": 0.1 * i}
        )
        for i in range(5)
    ]
    return Report(models, sets, questions)


async def ready(pilot: Pilot[None]) -> Any:
    app: Any = pilot.app
    await app.until(pilot, lambda: app.tab.outlook is not None)
    await pilot.pause()
    return app


def shown(app: Any, selector: str) -> str:
    return str(app.query_one(selector, Static).visual)


# ---------------------------------------------------------------- words and bars


def test_words_follow_the_intervals(runs: Any) -> None:
    """Gain and loss are claimed only where the interval leaves 1 out."""
    general, baseball = runs.add_pair()
    gained, forgot = verdicts(make_report(general, baseball), "baseball")
    assert gained.startswith("▲") and "×1.88" in gained and ".200 → .376" in gained
    assert forgot.startswith("▼") and "kept 95 %" in forgot
    same, kept = verdicts(make_report(general, baseball, 1.01, 0.99), "baseball")
    assert same.startswith("=") and "within chance" in same
    assert kept.startswith("=") and "kept 99 %" in kept
    assert verdicts(make_report(general, baseball, 0.8), "chess")[0].startswith("▼ Lost on chess")


def test_a_gain_that_costs_surprise_is_called_mixed(runs: Any) -> None:
    """A higher mean probability beside clearly more nats is no plain gain; a plain loss stays one."""
    pair = runs.add_pair()
    gained, kept = verdicts(make_report(*pair, kept=1.09, nats=1.74), "baseball")
    assert gained.startswith("▼ Mixed on baseball") and "nats/byte 1.23 → 1.74" in gained
    assert kept.startswith("▼ Mixed on general") and "kept 109 %" in kept and len(kept) < 80
    assert "Forgot" in verdicts(make_report(*pair, nats=1.74), "baseball")[1]
    assert verdicts(make_report(*pair, kept=1.09, nats=1.2), "baseball")[1].startswith("▲ Gained")


def test_questions_stand_most_gained_first(runs: Any) -> None:
    """Behind the figures stand the questions, each with both models' probability and the change."""
    lines = question_lines(make_report(*runs.add_pair()), "baseball")
    assert [line[:10] for line in lines[2:]] == [f"Question {i}" for i in (4, 3, 2, 1, 0)]
    assert lines[2].endswith("▲ .200") and lines[-1].endswith("▼ .200")


@pytest.mark.parametrize("width", [24, 40, 58, 78, 110])
def test_bars_are_as_long_as_their_values(width: int) -> None:
    """Lengths are in proportion, the value stands behind, and the models differ by glyph."""
    bars = [Bar("set", "general", 0.2, ".200", is_shaded=True), Bar("set", "baseball", 0.4, ".400")]
    shaded, full = bar_lines(bars, width)
    assert shaded.endswith(".200") and full.endswith(".400")
    assert abs(2 * shaded.count("▒") - full.count("█")) <= 1
    assert not bar_lines([], width)
    assert "nan" in bar_lines([Bar("set", "general", float("nan"), "nan")], width)[0]


# ---------------------------------------------------------------- the tab


async def test_empty_root_names_what_is_missing(open_tab: Any) -> None:
    """Without a pair the tab says what to press; evaluating all the same gives a dialog with the fix."""
    async with open_tab(EvalPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        assert "No general model yet. Press 1, then Enter, to pretrain." in shown(app, "#eval-standing")
        await pilot.press("e")
        await app.until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        assert "no pair of models" in app.screen.text


async def test_report_is_kept_and_shown_again(open_tab: Any, runs: Any) -> None:
    """A kept report stands at the next opening, all of it in one look at 80x24, and `y` copies it as Markdown."""
    general, baseball = runs.add_pair()
    assert keep_report(make_report(general, baseball), baseball) == ""
    async with open_tab(EvalPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        assert "Report of the newest pair" in shown(app, "#eval-standing")
        drawn = app.drawn()
        for words in ("×1.88", "kept 95 %", "nats/byte", "▒▒▒", "███", general.id[-4:], baseball.id[-4:]):
            assert words in drawn
        await pilot.press("y")
        assert app.copied.startswith("Mean probability") and "| ratio |" in app.copied


async def test_report_of_older_models_says_so(open_tab: Any, runs: Any) -> None:
    """With a newer pair, or the same runs trained further, the report is out of date, in words."""
    general, baseball = runs.add_pair()
    keep_report(make_report(general, baseball), baseball)
    _, newer = runs.add_pair()
    async with open_tab(EvalPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        assert "Out of date" in shown(app, "#eval-standing") and newer.short_name in shown(
            app, "#eval-standing"
        )
        assert "×1.88" in app.drawn()
        keep_report(make_report(general, newer, sha256="0" * 64), newer)
        app.tab.outlook = None
        app.tab.look()
        await ready(pilot)
        assert "Out of date" in shown(app, "#eval-standing")


def test_damaged_report_is_passed_over(runs: Any) -> None:
    """A torn or foreign eval.json is no report, and no error."""
    _, baseball = runs.add_pair()
    for text in (
        "",
        "{",
        "[]",
        '{"sets": 1, "models": {}}',
        "[" * 100_000,
        '{"models": {}, "sets": {"a": {}}}',
    ):
        (baseball.folder / "eval.json").write_text(text)
        assert evaluate.look(runs.store).report is None


async def test_evaluation_can_be_stopped(open_tab: Any, runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is shown, `s` stops, and what was there before stays."""
    general, baseball = runs.add_pair()
    keep_report(make_report(general, baseball), baseball)
    may_end = threading.Event()

    def slow(
        _store: Runs, _files: list[Path], should_stop: Callable[[], bool]
    ) -> Iterator[Progress | Finished]:
        yield Progress(50, 200, "general on baseball-heldout")
        while not should_stop() and not may_end.wait(0.01):
            pass
        if not should_stop():
            yield Finished(make_report(general, baseball, 2.5))

    monkeypatch.setattr(evaluate, "evaluate_pair", slow)
    async with open_tab(EvalPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        await pilot.press("enter")
        await app.until(pilot, lambda: "25 %" in shown(app, "#eval-standing"))
        assert "50/200" in shown(app, "#eval-standing")
        await pilot.press("s")
        await app.until(pilot, lambda: not app.tab.is_evaluating)
        assert "×1.88" in shown(app, "#eval-verdicts")
        may_end.set()
        await pilot.press("e")
        await app.until(pilot, lambda: "×2.50" in shown(app, "#eval-verdicts"))


async def test_errors_become_dialogs(open_tab: Any, runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged checkpoint is said with its fix; a defect names the log."""
    runs.add_pair()
    errors: list[Exception] = [CheckpointError("step-20 is damaged.", "Train again."), KeyError("[/x]")]

    def broken(*_: object) -> Iterator[Progress | Finished]:
        raise errors.pop(0)

    monkeypatch.setattr(evaluate, "evaluate_pair", broken)
    async with open_tab(EvalPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        for words in ("Train again.", "stderr.log"):
            await pilot.press("e")
            await app.until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
            assert words in app.screen.text
            await pilot.press("escape")
            await app.until(pilot, lambda: not isinstance(app.screen, ChoiceDialog))


async def test_question_files_are_tried_before_they_are_taken(
    open_tab: Any, runs: Any, tmp_path: Path
) -> None:
    """A good file is added with its count; a bad one is a dialog naming file and line; the typed path is kept."""
    runs.add_pair()
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('{"question": "Who?", "answer": "Me."}\n')
    bad.write_text('{"question": "Who?", "answer": "Me."}\n{"question": 3}\n')
    async with open_tab(EvalPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)

        async def add(path: Path) -> None:
            await pilot.press("a")
            await app.until(pilot, lambda: isinstance(app.screen, FileDialog))
            app.screen.query_one(Input).value = str(path)
            await pilot.press("enter")

        await add(bad)
        await app.until(pilot, lambda: isinstance(app.screen, ChoiceDialog))
        assert "bad.jsonl" in app.screen.text and "2" in app.screen.text
        await pilot.press("escape")
        await app.until(pilot, lambda: not isinstance(app.screen, ChoiceDialog))
        assert not app.tab.qa_files
        await add(good)
        await app.until(pilot, lambda: app.tab.qa_files)
        assert app.tab.qa_files == {good: 1}
        assert "good.jsonl (1)" in shown(app, "#eval-files")
        await pilot.press("x")
        assert not app.tab.qa_files


@pytest.mark.parametrize("size", [(60, 20), (100, 30), (40, 12)])
async def test_every_size_composes(open_tab: Any, runs: Any, size: tuple[int, int]) -> None:
    """The words and the bars are there at any size; the table scrolls where it is wider than the screen."""
    general, baseball = runs.add_pair()
    keep_report(make_report(general, baseball), baseball)
    async with open_tab(EvalPane).run_test(size=size) as pilot:
        app = await ready(pilot)
        assert "×1.88" in app.drawn()
        await pilot.press("right", "pagedown", "end")
        await pilot.resize_terminal(120, 40)
        await pilot.pause()
        assert "without end" in app.drawn()


async def test_real_pair_is_measured(open_tab: Any, trained_copy: Path) -> None:
    """With real models the report comes, is kept beside the newer model, and is what the tab shows."""
    async with open_tab(EvalPane, trained_copy).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        await pilot.press("e")
        await app.until(pilot, lambda: app.tab.report is not None)
        await app.until(pilot, lambda: "Report of the newest pair" in shown(app, "#eval-standing"))
        pair = app.store.newest_pair()
        kept = json.loads((pair[1].folder / "eval.json").read_text())
        assert set(kept["sets"]) == {"baseball-heldout", "general-heldout"}
        assert kept["models"]["general"]["run"] == pair[0].name
