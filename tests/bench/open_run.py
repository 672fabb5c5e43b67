"""Measures how long a log of 200,000 events takes to open as a chart, to be drawn again, and what memory it adds.

    python -m tests.bench.open_run [EVENTS] [TIMES]

Each round is a process of its own: an app over an empty root, then the run opened in it, its first picture waited for.
"""

import asyncio
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from core.config import load_stage
from core.events import Event, Heartbeat, LearningRateChanged, RunEnded, RunStarted, TrainMeasured, Validated
from core.runs import Run, Runs
from tui.app import BbtuiApp
from tui.chart import View
from tui.messages import OpenRun
from tui.workers.follow import RunFollower

_SIZE = (120, 40)
_REDRAWS = 20


def make_run(root: Path, count: int) -> Run:
    """A run whose log holds so many events: a step each, a validation every 250, a heartbeat every 25, rate changes."""
    draw = random.Random(7)
    run = Runs(root).create(load_stage("quickstart", "pretrain", root))
    at = datetime(2026, 1, 1, tzinfo=UTC)
    started = {"run": run.id, "stage": "pretrain", "parent": "", "parameters": 4_200_000, "steps": count}
    events: list[Event] = [
        RunStarted(**started, resumed_from_step=0, device="cpu", precision="float32", process_id=1)  # type: ignore[arg-type]
    ]
    step = 0
    while len(events) < count - 1:
        step += 1
        loss = 3.2 + 5 * math.exp(-step / 20_000) + draw.gauss(0, 0.1)
        # As the trainer writes them: rate and loss whole, the other two rounded.
        pace = {
            "learning_rate": 1e-3 * draw.random(),
            "grad_norm": float(f"{draw.random():.6g}"),
            "tokens_per_s": round(5e3 + draw.random(), 1),
        }
        events.append(TrainMeasured(step=step, tokens=step * 32_768, loss=loss, **pace))
        if step % 25 == 0:
            beat = {"micro_batches_done": 1, "micro_batches": 8, "memory_bytes": 10**9 + step}
            events.append(Heartbeat(step=step, tokens=step * 32_768, **beat))
        if step % 250 == 0:
            events.append(
                Validated(step=step, tokens=step * 32_768, loss=loss, bits_per_byte=1.2, elapsed_s=1.0)
            )
        if step % 50_000 == 0:
            events.append(
                LearningRateChanged(step=step, tokens=step * 32_768, before=1e-3, after=5e-4, multiplier=0.5)
            )
    events.append(RunEnded(step=step, reason="completed", message="", elapsed_s=1.0 * step))
    with run.events_file.open("w", encoding="utf-8") as log:
        for place, event in enumerate(events):
            log.write(
                event.to_line((at + timedelta(seconds=place)).isoformat(timespec="milliseconds")) + "\n"
            )
    return run


async def open_run(root: Path, name: str) -> dict[str, float]:
    """Seconds and megabytes of one opening."""
    app = BbtuiApp(root / "nothing")
    async with app.run_test(size=_SIZE) as pilot:
        while not app.query("#runs") or "textual_plotext" not in sys.modules:
            await pilot.pause(0.01)
        pane = app.stage_pane("pretrain")
        run = Runs(root).find(name)[0]
        longest_s = 0.0
        rss_before = psutil.Process().memory_info().rss
        began_at, cpu_before_s = time.perf_counter(), time.process_time()
        app.post_message(OpenRun(run))

        async def beat() -> None:
            # How long the screen's thread was held by anything at all.
            nonlocal longest_s
            before = time.perf_counter()
            while True:
                await asyncio.sleep(0.002)
                now = time.perf_counter()
                longest_s, before = max(longest_s, now - before - 0.002), now

        beats = asyncio.create_task(beat())
        while not (pane.chart.drawings and pane.state and pane.state.ended):
            await asyncio.sleep(0.002)
        opened_s, cpu_s = time.perf_counter() - began_at, time.process_time() - cpu_before_s
        beats.cancel()
        pane.chart.look(View(is_log=True, smoothing=0.9))
        await pilot.pause()
        size = (pane.chart.size.width, pane.chart.size.height)
        redraws, redraws_cpu = [], []
        for turn in range(_REDRAWS):
            pane.chart.view = View(
                is_log=True, smoothing=(0.0, 0.6, 0.9)[turn % 3], zoom=(1.0, 0.5)[turn % 2]
            )
            began_at, cpu_before_s = time.perf_counter(), time.thread_time()
            pane.chart._draw(size)
            redraws.append(time.perf_counter() - began_at)
            redraws_cpu.append(time.thread_time() - cpu_before_s)
        added = psutil.Process().memory_info().rss - rss_before
    return {
        "open_s": opened_s,
        "open_cpu_s": cpu_s,
        "held_ms": longest_s * 1e3,
        "redraw_ms": statistics.median(redraws) * 1e3,
        "redraw_cpu_ms": statistics.median(redraws_cpu) * 1e3,
        "slowest_redraw_ms": max(redraws) * 1e3,
        "slowest_redraw_cpu_ms": max(redraws_cpu) * 1e3,
        "added_mb": added / 1e6,
    }


def traced_mb(run: Run) -> float:
    """Megabytes of Python's own that stay after the log is read."""
    tracemalloc.start()
    kept = []
    follower = RunFollower(run, kept.append)
    follower._follow()
    kept = kept[:1]
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / 1e6


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "once":
        print(json.dumps(asyncio.run(open_run(Path(sys.argv[2]), sys.argv[3]))))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), count)
        rounds = []
        for _ in range(times):
            command = [sys.executable, "-m", "tests.bench.open_run", "once", folder, run.name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rounds.append(json.loads(done.stdout.splitlines()[-1]))
        began_at = time.perf_counter()
        run.summary()
        summary_ms = (time.perf_counter() - began_at) * 1e3
        size_mb = run.events_file.stat().st_size / 1e6
        traced = traced_mb(run)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    print(
        f"load {os.getloadavg()[0]:.1f}; {count:,} events, {size_mb:.0f} MB; {times} rounds; screen {_SIZE}"
    )
    for name in rounds[0]:
        values = [each[name] for each in rounds]
        print(f"{name:>22}  median {statistics.median(values):8.2f}   {min(values):.2f} to {max(values):.2f}")
    print(f"{'summary_ms':>22}  {summary_ms:15.2f}")
    print(f"{'traced_mb':>22}  {traced:15.2f}")


if __name__ == "__main__":
    main()
