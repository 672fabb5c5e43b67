"""The page of the machine: every figure in words, bars and courses that need no colour, at every width."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from textual.containers import VerticalScroll

from core.events import RunPaused
from driving import drawn, live_run, opened, until
from tui.widgets.system_panel import Minute, ShownRun, SystemPanel, levels, page
from tui.workers.gpus import NO_GPU, Gpu
from tui.workers.meters import ProcessFigures, Reading

RTX = Gpu("NVIDIA GeForce RTX 4070", 97.0, 10 * 10**9, 12 * 10**9, 71.0, 185.4, 200.0)
OLD = Gpu("Tesla \x1b]0;K80\x07", None, None, None, None, None, None)
RUN = ShownRun("pretrain/7f3a", 77, 5900.0)


@pytest.fixture(autouse=True)
def _no_real_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def a_reading(**others: Any) -> Reading:
    figures: dict[str, Any] = {
        "core_percents": (100.0, 24.0),
        "memory_used_bytes": 3 * 10**9,
        "memory_bytes": 12 * 10**9,
        "swap_used_bytes": 0,
        "swap_bytes": 0,
        "load": (1.5, 1.25, 0.5),
        "disk_free_bytes": 79 * 10**9,
        "disk_bytes": 100 * 10**9,
        "checkpoints_bytes": 1_200_000_000,
        "app": ProcessFigures(12, 3.0, 180 * 10**6, 14, 40),
        "trainer": ProcessFigures(77, 180.0, 2 * 10**9, 30, 60),
        "gpus": (),
        "gpu_words": NO_GPU,
    }
    return Reading(**{**figures, **others})


def drawn_page(width: int, run: ShownRun | None = RUN, **others: Any) -> str:
    reading, minute = a_reading(**others), Minute()
    for _ in range(100):
        minute.add(reading, run)
    return page(reading, minute, run, width).plain


@pytest.mark.parametrize("width", [100, 74, 53])
def test_every_figure_stands_in_words(width: int) -> None:
    """Nothing that a bar shows is told by the bar alone, and no line is wider than the page."""
    text = drawn_page(width)
    assert max(map(len, text.splitlines())) <= width
    for words in (
        "62 %",
        "2 cores",
        "1.50  1.25  0.50",
        "25 %",
        "3.0 GB of 12 GB",
        "79 GB free of 100 GB",
        "1.2 GB",
    ):
        assert words in text
    for words in (
        "CPU 3 %",
        "180 MB",
        "14 threads",
        "CPU 180 %",
        "5.9k tokens/s",
        NO_GPU,
        "Swap        none",
    ):
        assert words in text
    assert "━" in text and "█▂" in text and "▅▅▅▅" in text


def test_each_gpu_has_its_lines() -> None:
    """As many figures as it tells; its name is cleaned like any foreign text."""
    text = drawn_page(74, gpus=(RTX, OLD), gpu_words="")
    assert "GPU 0       NVIDIA GeForce RTX 4070  71 °C  185 of 200 W" in text
    assert "97 %" in text and "10 GB of 12 GB" in text and "83 %" in text
    assert "GPU 1       Tesla ␛]0;K80␇" in text and NO_GPU not in text
    assert "\nGPU         NVIDIA" in drawn_page(74, gpus=(RTX,), gpu_words="")


def test_what_is_not_known_yet_is_said() -> None:
    text = drawn_page(74, RUN, core_percents=(), checkpoints_bytes=None, trainer=None, app=None)
    assert (
        "CPU         …" in text
        and "adding up…" in text
        and "in this app's process" in text
        and "gone" in text
    )
    paused = drawn_page(74, ShownRun("pretrain/7f3a", 77, None))
    assert "paused, or not begun" in paused
    assert "Pace" not in drawn_page(74, None)


def test_many_cores_take_several_lines() -> None:
    text = drawn_page(53, core_percents=(50.0,) * 96)
    assert "96 cores" in text and text.count("▅") >= 96 and max(map(len, text.splitlines())) <= 53


def test_levels_rise_with_the_values() -> None:
    assert levels([0, 12.5, 50, 99, 100, 200], 100) == "▁▂▅███"
    assert levels([0.0, 0.0], 0.0) == "▁▁" and levels([], 1.0) == ""


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (40, 12)])
async def test_f5_shows_the_machine_and_the_live_run(tmp_path: Path, size: tuple[int, int]) -> None:
    """Figures come without a key, the run's pace among them; y copies them; closed, nothing is read any more."""
    with live_run(tmp_path) as run:
        async with opened(tmp_path, size=size) as (app, pilot):
            await pilot.press("f5")
            panel = app.screen
            assert isinstance(panel, SystemPanel)
            await until(pilot, lambda: panel.reading)
            if size[1] >= 20:
                for words in ("CPU", "Memory", "Disk", "GPU", "This app", "Training"):
                    assert words in drawn(app)
            assert panel._run == ShownRun(run.short_name, os.getpid(), 5900.0)
            await pilot.press("y")
            for words in ("CPU", "Checkpoints", "5.9k tokens/s", run.short_name, NO_GPU):
                assert words in app.clipboard
            scroll = panel.query_one(VerticalScroll)
            await pilot.press("end")
            await until(pilot, lambda: scroll.scroll_y > 0 or not scroll.max_scroll_y)
            await pilot.press("f5")
            assert len(app.screen_stack) == 1
            await until(pilot, lambda: not app._meters._looked_at.is_set())


async def test_a_paused_run_has_no_pace(tmp_path: Path) -> None:
    with live_run(tmp_path) as run:
        async with opened(tmp_path) as (app, pilot):
            await until(pilot, lambda: app._shown_run())
            run.append(RunPaused(step=40))
            await until(pilot, lambda: (shown := app._shown_run()) and shown.tokens_per_s is None)


async def test_without_a_run_the_page_is_of_the_machine(tmp_path: Path) -> None:
    async with opened(tmp_path) as (app, pilot):
        await pilot.press("f5", "y")
        assert isinstance(app.screen, SystemPanel)
        panel = app.screen
        await until(pilot, lambda: panel.reading)
        await pilot.resize_terminal(60, 20)
        assert "Training" not in drawn(app)
        async with asyncio.timeout(10):
            await pilot.press("escape")
        assert not isinstance(app.screen, SystemPanel)
