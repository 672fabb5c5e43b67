"""Protects the published experiment's figures as a run: both rate changes marked, and nothing ever trained from it."""

from pathlib import Path

import pytest

from commanding import Command, refused
from core.errors import BbtuiError
from core.events import LearningRateChanged, RunStarted, Validated
from core.launch import resume, start
from core.published import events, make_run, published_curve
from core.runs import Runs
from core.series import RunSeries
from driving import a_run, drawn, ended, opened, until
from tui.messages import OpenRun
from tui.workers.find_runs import RunFinder


def fed(stage: str) -> RunSeries:
    series = RunSeries()
    for event in events(stage):
        series.feed(event)
    return series


def test_the_curve_is_the_published_one_each_step_once() -> None:
    """The figures that are quoted of it stand at their steps, and restarts leave no step twice."""
    curve = published_curve("pretrain")
    assert curve is not None
    losses = dict(zip(curve.steps, curve.values, strict=True))
    assert [losses[step] for step in (0, 600, 2900, 6300, 9600)] == [10.8507, 4.6466, 3.4612, 3.2406, 3.1744]
    assert list(curve.steps) == list(range(0, 9701, 50)) and curve.tokens[1] == 50 << 19
    later = published_curve("finetune")
    assert later is not None and later.values[0] == 2.9843 and later.values[-1] == 2.2927
    assert list(later.steps) == sorted(set(later.steps)) and published_curve("baseball-finetune") is None


def test_both_rate_changes_and_the_restarts_are_events() -> None:
    found = list(events("pretrain"))
    changes = [event for event in found if isinstance(event, LearningRateChanged)]
    assert [(event.step, event.after) for event in changes][1] == (6700, 1e-5) and changes[0].step == 2950
    assert [(mark.step, mark.label) for mark in fed("pretrain").marks] == [
        (2950, "rate changed"),
        (6700, "rate changed"),
    ]
    assert sum(isinstance(event, RunStarted) for event in found) > 10
    assert sum(isinstance(event, Validated) for event in found) >= len(fed("pretrain").validation.steps)


def test_nothing_is_trained_from_it(tmp_path: Path) -> None:
    """No stage begins from it, no resume takes it up, no look under the root takes it for the newest run."""
    store = Runs(tmp_path)
    run = make_run(store)
    assert run.summary().state == "completed" and run.config.preset == "published"
    assert (run.summary().step, run.summary().tokens) == (9700, 9700 << 19)
    assert store.newest("pretrain") is None and store.newest("pretrain", finished=False) is None
    assert store.newest("pretrain", preset="published") is None and run in store.all("pretrain")
    assert RunFinder(store, lambda _: None, lambda: "published", lambda _: None).look() == {}
    for wrong in (
        lambda: start(store, "gpt2-small", "finetune"),
        lambda: start(store, "gpt2-small", "finetune", from_run="published"),
        lambda: resume(store, "published"),
        lambda: resume(store, "latest"),
        lambda: make_run(store),
    ):
        with pytest.raises(BbtuiError):
            wrong()


def test_the_command_line_makes_it_and_plays_it(bbtui: Command) -> None:
    assert bbtui("runs", "published").code == 0
    played = bbtui("runs", "replay", "published")
    assert "step 2950: learning rate changed\n" in played.out and "nan" not in played.out
    assert "validation 3.1744" in played.out and "published figures, no weights" in played.out
    assert bbtui("runs", "replay", "published", "--json").lines[-1]["event"] == "RunEnded"
    refused(bbtui("runs", "published"), "is there already", "bbtui runs replay")


async def test_the_app_shows_it_with_both_changes_marked(tmp_path: Path) -> None:
    a_run(tmp_path, [ended("completed")])
    run = make_run(Runs(tmp_path))
    async with opened(tmp_path) as (app, pilot):
        assert app.stage_pane("pretrain").state.run != run  # type: ignore[union-attr]
        app.post_message(OpenRun(run))
        await until(pilot, lambda: drawn(app).count("rate changed") >= 2)
        assert "step 9700/9700" in drawn(app) and "3.200" in drawn(app)
