"""Protects the ways to look at a run: other series, ghosts, the effect of a change, the run told again, the film."""

import math
import re
from pathlib import Path

import pytest
from textual_plotext import Plot

from core.config import load_stage
from core.events import (
    AnswersScored,
    CheckpointSaved,
    Event,
    Heartbeat,
    LearningRateChanged,
    NoteAdded,
    SampleDrawn,
)
from core.runs import Runs
from core.series import RunSeries, Series
from driving import a_run, drawn, ended, live_run, opened, until
from test_loss_chart import measured, validated
from tui import chart
from tui.chart import Paint, View
from tui.run_state import RunState, thinned
from tui.shown import Ghost, choices_of, curves_of, is_by_share
from tui.widgets.film import FilmScreen

PAINT = Paint("default", "default", "default", "default", "default")
PROMPTS = ("What is a fastball?", "Who calls balls and strikes?")


def more(step: int) -> list[Event]:
    """What the other series are made of."""
    tokens = step * 4096
    beat = {"micro_batches_done": 1, "micro_batches": 4, "memory_bytes": 1_500_000_000}
    scored = {"items": 32, "elapsed_s": 0.1}
    return [
        Heartbeat(step=step, tokens=tokens, **beat),
        AnswersScored(
            step=step, tokens=tokens, questions="baseball-heldout", mean_probability=0.261, **scored
        ),
        AnswersScored(
            step=step, tokens=tokens, questions="general-heldout", mean_probability=0.112, **scored
        ),
    ]


def text_of(series: RunSeries, view: View, ghosts: tuple[Ghost, ...] = ()) -> str:
    curves = curves_of(series, view, PAINT, ghosts)
    text = chart.draw(Plot(), curves, series.shown_marks, view, PAINT, (80, 15))
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def a_series(steps: int = 300, floor: float = 3.0) -> RunSeries:
    series = RunSeries()
    for step in range(1, steps + 1):
        series.feed(measured(step, floor + 5 * math.exp(-step / 60)))
        if step % 20 == 0:
            series.feed(validated(step, floor + 0.2 + 5 * math.exp(-step / 60)))
    return series


def a_ghost(tokens: int, losses: list[float]) -> Ghost:
    series = Series()
    for place, loss in enumerate(losses):
        series.add(place, tokens * place // (len(losses) - 1), loss)
    return Ghost("pretrain/7f3a", "○", series)


# ---------------------------------------------------------------- the chart


def test_every_series_is_drawn_and_offered_only_where_it_was_measured() -> None:
    series = a_series()
    assert choices_of(series) == ["loss", "learning rate", "gradient norm", "tokens/s"]
    for event in more(100) + more(200):
        series.feed(event)
    assert choices_of(series)[-2:] == ["memory, GB", "right answers"]
    for name in choices_of(series):
        for view in (View(shows=name), View(is_log=True, smoothing=0.9, zoom=0.2, shows=name)):
            lines = text_of(series, view).splitlines()
            assert not lines or (len(lines) == 15 and {len(line) for line in lines} == {80})
    assert choices_of(RunSeries()) == ["loss"]


def test_right_answers_differ_by_marker() -> None:
    series = a_series()
    for step in (100, 200, 300):
        for event in more(step):
            series.feed(event)
    text = text_of(series, View(shows="right answers"))
    assert "●" in text and "▲" in text and ".25" in text


def test_only_the_newest_best_checkpoint_is_marked() -> None:
    series = a_series()
    for step, is_best in ((100, True), (200, True), (300, False)):
        series.feed(CheckpointSaved(step=step, path="step", bytes_written=1, is_best=is_best))
    assert [(mark.step, mark.label) for mark in series.shown_marks] == [(200, "best")]
    assert text_of(series, View()).count("best") == 1


def test_a_ghost_neither_widens_the_run_nor_squashes_it() -> None:
    """A longer run's curve ends with the shown one's axis; one far above it takes half the height at most."""
    series = a_series()
    alone, longer = text_of(series, View()), text_of(series, View(), (a_ghost(600_000, [9, 5, 4, 4, 4]),))
    assert longer.splitlines()[-1].strip() == alone.splitlines()[-1].strip() and "○" in longer
    high = text_of(series, View(), (a_ghost(300_000, [900.0, 12.0, 8.0, 8.0]),))
    rows = [
        row for row, line in enumerate(high.splitlines()) if any(0x2801 <= ord(c) <= 0x28FF for c in line)
    ]
    assert rows[-1] - rows[0] >= 6


def test_a_ghost_of_another_scale_is_drawn_by_share() -> None:
    """Five billion tokens stand beside 300,000: each from its beginning to its end."""
    series, published = a_series(), a_ghost(5_000_000_000, [8.0, 5.0, 4.0, 3.5, 3.4])
    assert is_by_share(published, series) and not is_by_share(a_ghost(600_000, [1.0, 2.0]), series)
    assert text_of(series, View(), (published,)).count("○") >= 3
    # A run that is a tenth done shows the tenth.
    ghost = curves_of(series, View(), PAINT, (published,), planned_tokens=3_000_000)[0]
    assert ghost.xs[-1] == pytest.approx(3_000_000)


# ---------------------------------------------------------------- the keys


async def test_x_steps_through_what_the_chart_shows(tmp_path: Path) -> None:
    """Each series in turn, named over the chart, with the answers' last values in words; then the losses again."""
    a_run(tmp_path, [*more(20), *more(40), ended("completed")])
    async with opened(tmp_path) as (app, pilot):
        await until(pilot, lambda: "right answers: baseball .261  general .112" in drawn(app))
        for name in ("learning rate", "gradient norm", "tokens/s", "memory, GB", "right answers", "loss"):
            await pilot.press("x")
            await until(pilot, lambda name=name: f"y: {name}" in drawn(app))
            if name == "right answers":
                assert "● baseball .261  ▲ general .112" in drawn(app)


async def test_o_draws_other_runs_behind(tmp_path: Path) -> None:
    """The runs before, then the published experiment, then none; a finetune run has its parent besides."""
    a_run(tmp_path, [ended("completed")])
    a_run(tmp_path, [ended("completed")])
    async with opened(tmp_path) as (app, pilot):
        pane = app.stage_pane("pretrain")
        await pilot.press("o")
        await until(pilot, lambda: "behind: ○ pretrain/" in drawn(app) and pane.chart.ghosts)
        await pilot.press("o")
        await until(pilot, lambda: "× published experiment, by share of the run" in drawn(app))
        await pilot.press("o")
        await until(pilot, lambda: "behind" not in drawn(app).replace("Behind", "") and not pane.chart.ghosts)


async def test_a_parent_is_among_the_ghosts(tmp_path: Path) -> None:
    parent = a_run(tmp_path, [ended("completed")])
    config = load_stage("quickstart", "finetune", tmp_path).model_copy(update={"parent": f"{parent.name}@40"})
    child = Runs(tmp_path).create(config)
    child.events_file.write_bytes(parent.events_file.read_bytes())
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("2", "o")
        await until(pilot, lambda: f"◇ parent {parent.short_name}" in drawn(app))


async def test_e_walks_through_what_was_done_by_hand(tmp_path: Path) -> None:
    """The newest change is told of unasked; the key goes back from there, over notes too, and round."""
    marks: list[Event] = [
        NoteAdded(step=10, tokens=10 * 4096, text="look"),
        LearningRateChanged(step=20, tokens=20 * 4096, before=2.0, after=1.0, multiplier=0.5),
    ]
    a_run(tmp_path, [*marks, ended("completed")])
    async with opened(tmp_path, size=(60, 20)) as (app, pilot):
        await until(pilot, lambda: "since rate ×½: " in drawn(app))
        await pilot.press("e")
        await until(pilot, lambda: "since look: too early to tell" in drawn(app))
        await pilot.press("e")
        await until(pilot, lambda: "since rate ×½: " in drawn(app))


async def test_w_tells_a_run_again_and_refuses_commands(tmp_path: Path) -> None:
    """The curve grows from nothing to its end; keys that steer say why not; w shows all of it again."""
    run = a_run(tmp_path, [])
    lines = run.events_file.read_text().splitlines()
    # An hour of steps: fast enough to see, slow enough to stop in the middle.
    ats = [f"2026-01-01T00:{minute:02}:00.000+00:00" for minute in range(len(lines))]
    spread = [re.sub(r'"at":"[^"]*"', f'"at":"{at}"', line) for line, at in zip(lines, ats, strict=True)]
    run.events_file.write_text("\n".join([*spread, ended("completed").to_line(ats[-1])]) + "\n")
    async with opened(tmp_path) as (app, pilot):
        pane = app.stage_pane("pretrain")
        await pilot.press("w", "space")
        await until(pilot, lambda: "▶ replay ×500, held" in drawn(app))
        assert pane.state and pane.state.step < 40 and pane.replay
        await pilot.press("p", "minus", "plus", "enter", "R")
        assert pane.replay.speed == 500 and not run.commands_file.exists() and not app.trainer.is_busy
        assert any("told again" in notice for notice in app.notices)
        await pilot.press(*["plus"] * 12, "space")
        await until(pilot, lambda: pane.replay is None and "✓ completed" in drawn(app))
        assert list(pane.state.series.train.steps) == list(range(1, 41))
        await pilot.press("w", "w")
        await until(pilot, lambda: pane.replay is None and pane.state and pane.state.step == 40)
        await pilot.press("w", "escape")
        await until(pilot, lambda: pane.replay is None and pane.state and pane.state.is_known)


async def test_a_live_run_is_not_told_again(tmp_path: Path) -> None:
    with live_run(tmp_path):
        async with opened(tmp_path) as (app, pilot):
            await until(pilot, lambda: app.stage_pane("pretrain").is_live)
            await pilot.press("w")
            assert app.stage_pane("pretrain").replay is None and "going on" in app.notices[-1]


# ---------------------------------------------------------------- the film


def answer(step: int, prompt: int = 0) -> SampleDrawn:
    return SampleDrawn(step=step, prompt=PROMPTS[prompt], text=f"answer {step} \x1b[31m[@click=app.quit]x[/]")


async def test_the_film_steps_through_time_and_prompts(tmp_path: Path) -> None:
    """Left and right in time, up and down through prompts, the loss of that time beside it; live runs add frames."""
    with live_run(tmp_path) as run:
        for step in (10, 20, 30):
            for prompt in range(2):
                run.append(answer(step, prompt))
        async with opened(tmp_path, size=(60, 20)) as (app, pilot):
            await until(pilot, lambda: len(app.stage_pane("pretrain").state.samples) == 6)  # type: ignore[union-attr]
            await pilot.press("f")
            assert isinstance(app.screen, FilmScreen)
            await until(pilot, lambda: "step 30" in drawn(app) and "answer 3 of 3" in drawn(app))
            await pilot.press("left", "left", "left", "down")
            await until(pilot, lambda: "step 10" in drawn(app) and PROMPTS[1] in drawn(app))
            assert "[@click=app.quit]" in drawn(app) and "\x1b" not in drawn(app)
            run.append(answer(40, 1))
            await until(pilot, lambda: "answer 1 of 4" in drawn(app))
            await pilot.press("end")
            await until(pilot, lambda: "answer 4 of 4" in drawn(app) and "validation 4.200" in drawn(app))
            await pilot.press("y", "escape")
            assert app.clipboard.startswith(PROMPTS[1]) and len(app.screen_stack) == 1


def test_samples_are_kept_thinned_with_the_first_and_the_last() -> None:
    samples: list[SampleDrawn] = []
    for step in range(5000):
        samples = thinned([*samples, answer(step)])
    assert len(samples) <= 500 and samples[0].step == 0 and samples[-1].step == 4999
    assert [sample.step for sample in samples] == sorted({sample.step for sample in samples})


def test_a_resume_takes_back_the_answers_of_steps_taken_again(tmp_path: Path) -> None:
    from driving import started

    run = a_run(tmp_path, [])
    state = RunState(run)
    for event in [started(run), answer(10), answer(30), started(run, 20), answer(25)]:
        state.feed(event)
    assert [sample.step for sample in state.samples] == [10, 25]


@pytest.mark.parametrize("key", ["x", "o", "e", "w", "f", "space", "plus"])
async def test_no_key_raises_where_there_is_no_run(tmp_path: Path, key: str) -> None:
    async with opened(tmp_path) as (app, pilot):
        await pilot.press(key)
        await pilot.pause()
        assert app.notices and app.is_running
