"""Measures what the app costs a training in its own thread, and how long a key takes to be seen while it trains.

    python -m tests.bench.app_overhead [--pairs 5] [--steps 60] [--keys 200]

Throughput: the same stage headless and in the app, in turns, each a process of its own in a pseudo-terminal; tokens a
second from the first counted step to the last. Keys: letters typed into the note over a live chart, and changes of the
tab; from the write to the terminal until the read that brings the letter, or the tab's words.
"""

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from core.events import TrainMeasured, event_from_line
from core.records import instant_of_line
from core.runs import Run, Runs
from tests.pseudo_terminal import PseudoTerminal

_WARM_UP_STEPS = 10
_SIZE = (100, 30)
_PACE = ("checkpoint_every=1000000", "validate_every=1000000", "samples.every=0")
_LETTERS = [chr(code) for code in (*range(0x0531, 0x0557), *range(0x10D0, 0x10F1), *range(0x0410, 0x0430))]
"""Armenian, Georgian, Cyrillic: the app draws none of them by itself."""
_LETTERS_A_NOTE = 20
# The letters before are drawn again with each new one; tabs cost the most, and come one to four letters.
_KEYS_A_TAB = 5


def _starting(steps: int) -> str:
    """Python that has the app train a stage as soon as it stands."""
    return f"""
from tui.app import BbtuiApp
from tui.workers.training import StageRequest
def all_mounted(self, original=BbtuiApp.all_mounted):
    original(self)
    self.begin(StageRequest("pretrain", "quickstart", None, {(f"steps={steps}", *_PACE)!r}))
BbtuiApp.all_mounted = all_mounted
"""


def _terminal(root: Path, patch: str = "", arguments: tuple[str, ...] = ()) -> PseudoTerminal:
    threads = str(os.cpu_count() or 1)
    return PseudoTerminal(root, patch, size=_SIZE, arguments=arguments, OMP_NUM_THREADS=threads)


def _run_of(terminal: PseudoTerminal, root: Path) -> Run:
    terminal.until(lambda: Runs(root).all("pretrain"), 120)
    return Runs(root).all("pretrain")[0]


def tokens_per_s(steps: int, is_app: bool) -> float:
    """How fast one fresh process trains; the steps of the warm-up are not counted."""
    settings = [part for setting in (f"steps={steps}", *_PACE) for part in ("--set", setting)]
    headless = ("train", "pretrain", "--preset", "quickstart", *settings)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        terminal = _terminal(root, _starting(steps)) if is_app else _terminal(root, arguments=headless)
        with terminal:
            run = _run_of(terminal, root)
            _wait_for(run, '"RunEnded"')
        return _pace(run)


def _wait_for(run: Run, words: str) -> None:
    """Look at the end of the log now and then: often would slow what is measured."""
    while not run.events_file.is_file() or words.encode() not in run.events_file.read_bytes()[-5000:]:
        time.sleep(0.5)


def _pace(run: Run) -> float:
    points = []
    for line in run.events_file.read_bytes().splitlines():
        event = event_from_line(line)
        if isinstance(event, TrainMeasured) and event.step >= _WARM_UP_STEPS:
            points.append((datetime.fromisoformat(instant_of_line(line)).timestamp(), event.tokens))
    (began_at, before), (ended_at, after) = points[0], points[-1]
    return (after - before) / (ended_at - began_at)


class KeyTimer:
    """Presses keys and notes when what they bring has come."""

    def __init__(self, terminal: PseudoTerminal) -> None:
        self._terminal = terminal
        self._draw = random.Random(7)
        self.delays_s: dict[str, list[float]] = {"letter": [], "tab": []}

    def press(self, kind: str, key: str, words: str) -> None:
        """Press a key some time after the last one, and wait for what it brings."""
        time.sleep(self._draw.uniform(0.05, 0.35))
        pressed_at = time.perf_counter()
        self._terminal.press(key)
        self.delays_s[kind].append(self._terminal.arrival(words) - pressed_at)


def key_delays_s(num_keys: int) -> dict[str, list[float]]:
    """From key to paint, by kind, while the quickstart's first stage trains in the app."""
    with tempfile.TemporaryDirectory() as folder, _terminal(Path(folder), _starting(10**6)) as terminal:
        run = _run_of(terminal, Path(folder))
        _wait_for(run, f'"step":{_WARM_UP_STEPS},')
        timer = KeyTimer(terminal)
        letters = iter(_LETTERS * (num_keys // len(_LETTERS) + 1))
        for _ in range(-(-num_keys // (_LETTERS_A_NOTE + _KEYS_A_TAB))):
            terminal.press("n")
            terminal.until_shown("Steer the run")
            for _ in range(_LETTERS_A_NOTE):
                letter = next(letters)
                timer.press("letter", letter, letter)
            terminal.press("\x1b")
            time.sleep(0.5)
            for _ in range(_KEYS_A_TAB // 2 + 1):
                timer.press("tab", "2", "No pretrained model yet")
                timer.press("tab", "1", "tok/s")
        return timer.delays_s


def _said_of(delays_s: list[float]) -> str:
    ordered = sorted(delays_s)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return (
        f"{len(ordered):>4} keys  p50 {statistics.median(ordered) * 1e3:6.1f} ms  "
        f"p99 {p99 * 1e3:6.1f} ms  max {ordered[-1] * 1e3:6.1f} ms"
    )


def _machine() -> str:
    """Processor, cores, load and versions."""
    info = Path("/proc/cpuinfo")
    models = (
        [line for line in info.read_text().splitlines() if "model name" in line] if info.is_file() else []
    )
    name = models[0].partition(":")[2].strip() if models else platform.processor()
    versions = " ".join(f"{package} {version(package)}" for package in ("torch", "textual"))
    load = os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores, load {load:.1f}; Python {platform.python_version()}, {versions}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--keys", type=int, default=200)
    given = parser.parse_args()
    print(_machine(), flush=True)
    ratios = []
    for pair in range(given.pairs):
        # Whichever comes first in one pair comes second in the next: a machine that warms up favours neither.
        order = (False, True) if pair % 2 == 0 else (True, False)
        found = {is_app: tokens_per_s(given.steps, is_app) for is_app in order}
        ratios.append(found[True] / found[False])
        print(
            f"pair {pair + 1}: headless {found[False]:7.0f}  app {found[True]:7.0f} tokens/s  "
            f"ratio {ratios[-1]:.3f}",
            flush=True,
        )
    if ratios:
        print(
            f"throughput in the app: median {statistics.median(ratios):.3f} of headless, "
            f"{min(ratios):.3f} to {max(ratios):.3f}; asked: 0.97"
        )
    if given.keys:
        delays_s = key_delays_s(given.keys)
        for kind, delays in delays_s.items():
            print(f"key to paint, {kind + 's':<8} {_said_of(delays)}")
        every = [delay for delays in delays_s.values() for delay in delays]
        print(f"key to paint, all      {_said_of(every)}; asked: p99 < 100 ms")


if __name__ == "__main__":
    main()
