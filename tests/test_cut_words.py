"""Words that were cut or ran into each other on a small screen."""

from pathlib import Path

from core.events import RunEnded, RunPaused, TrainMeasured
from driving import a_run, drawn, live_run, opened, until

WHY = (
    "Loss or gradient was not finite for 3 steps in a row (step 43). "
    "Resume with a lower rate: the checkpoints before it are sound."
)


async def test_the_advice_after_a_failure_is_read_in_80_columns(tmp_path: Path) -> None:
    """Why it failed and what to do about it take two lines where they do not fit into one."""
    a_run(tmp_path, [RunEnded(step=43, reason="failed", message=WHY, elapsed_s=60.0)])
    async with opened(tmp_path) as (app, pilot):
        await until(pilot, lambda: "are sound." in " ".join(drawn(app).split()))
        assert WHY in " ".join(drawn(app).split())
        await pilot.resize_terminal(60, 20)
        await until(pilot, lambda: "Loss or gradient" in drawn(app) and "…" in drawn(app))


async def test_a_run_that_paused_by_itself_says_why_on_its_tab(tmp_path: Path) -> None:
    with live_run(tmp_path) as run:
        run.append(
            RunPaused(step=40, reason="Cannot write the checkpoint of step 40: No space left on device.")
        )
        async with opened(tmp_path) as (app, pilot):
            said = "No space left on device. Free some space, then p."
            await until(pilot, lambda: said in " ".join(drawn(app).split()))
            assert "‖ paused" in drawn(app)


async def test_the_stages_do_not_touch_the_buttons(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        for width in range(40, 121, 8):
            await pilot.resize_terminal(width, 24)
            await pilot.pause()
            controls = app.stage_pane("pretrain").controls
            rail = controls.rail.render().plain
            assert len(rail) < controls.rail.size.width or controls.rail.size.width < 20, width


async def test_a_column_of_the_runs_is_shown_whole_or_not_at_all(tmp_path: Path) -> None:
    """A long count of steps pushes preset and parent out; the panel below names both."""
    run = a_run(tmp_path, [])
    run.append(
        TrainMeasured(
            step=123_456, tokens=1_000_000, loss=4.0, learning_rate=1e-3, grad_norm=0.4, tokens_per_s=5900.0
        )
    )
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("7")
        await until(pilot, lambda: "checkpoints  none" in drawn(app))
        header = next(line for line in drawn(app).splitlines() if "tokens" in line and "val" in line)
        assert header.split()[-1] in ("started", "preset") and "preset quickstart" in drawn(app)
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "parent" in drawn(app).splitlines()[1])
