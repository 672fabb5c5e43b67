"""Measures what grows with the data and with the checkpoints, and should not.

    python -m tests.bench.growth [--pairs 5] [--steps 20] [--tokens 1e6,1e9]

Training on shards of a million and of a billion tokens (2 GB in a temporary folder), in turns, each a fresh process;
and the time that `bbtui runs list` takes where there are 1,000 checkpoints.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from core.bench.machine import Machine
from core.bench.measurement import SMALL, Measurement, Sizes
from core.bench.process import measured
from core.bench.starting import until_ended
from core.config import load_stage
from core.errors import BbtuiError
from core.events import CheckpointSaved, RunEnded, RunStarted, TrainMeasured, Validated
from core.runs import Run, Runs
from tests.bench.contest import Contender, Contest, contests_table, heading
from tui.figures import count_text

_CHILD = "tests.bench.growth_run"
_WARM_UP = 3
_FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "tokenizer.json")


def training(root: Path, tokens: list[int], steps: int, sizes: Sizes = SMALL) -> Contest:
    """Training on so many tokens, and on as many more; the fewest come first."""
    contenders = []
    for count in tokens:
        label = f"{count_text(count)} tokens"
        arguments = {"tokens": count, "steps": steps + _WARM_UP, "sizes": asdict(sizes)}
        contenders.append(Contender(label, _fresh(root / str(count), arguments)))
    return Contest("growth", f"training, {sizes.in_words()}", contenders)


def _fresh(root: Path, arguments: dict[str, object]) -> Callable[[], Measurement]:
    def measure() -> Measurement:
        # The shards stay; each turn is a new run on them.
        root.mkdir(parents=True, exist_ok=True)
        if not (kept := root / "run.json").is_file():
            (made,) = measured("make", {"root": str(root), **arguments}, _CHILD)
            if made.problem:
                return made
            kept.write_text(json.dumps(made.note), encoding="utf-8")
        run = Runs(root).find(json.loads(kept.read_text(encoding="utf-8")))[0]
        (found,) = measured("train_on", {"root": str(root), "run": run.name, "warm_up": _WARM_UP}, _CHILD)
        for path in run.folder.iterdir():
            if path.name not in ("config.toml", "tokenizer.json"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return found

    return measure


# ---------------------------------------------------------------- many checkpoints


def make_checkpoints(root: Path, runs: int, checkpoints: int) -> None:
    """Finished runs with so many checkpoints each, their files empty."""
    store = Runs(root)
    config = load_stage("quickstart", "pretrain", root)
    for _ in range(runs):
        run = store.create(config)
        _fill(run, checkpoints)


def _fill(run: Run, checkpoints: int) -> None:
    steps = checkpoints * 100
    started = {"run": run.id, "stage": "pretrain", "parent": "", "parameters": 4_200_000, "steps": steps}
    run.append(RunStarted(**started, resumed_from_step=0, device="cpu", precision="float32", process_id=1))  # type: ignore[arg-type]
    for step in range(100, steps + 1, 100):
        rates = {"learning_rate": 1e-3, "grad_norm": 1.0, "tokens_per_s": 4e3}
        run.append(TrainMeasured(step=step, tokens=step * 2048, loss=3.0, **rates))
        run.append(Validated(step=step, tokens=step * 2048, loss=3.0, bits_per_byte=1.2, elapsed_s=1.0))
        folder = run.checkpoint_folder(step)
        folder.mkdir()
        for name in _FILES:
            (folder / name).touch()
        listed = {name: {"bytes": 0, "sha256": "0" * 64} for name in _FILES}
        (folder / "MANIFEST.json").write_text(json.dumps({"format": 1, "files": listed}), encoding="utf-8")
        run.append(
            CheckpointSaved(
                step=step, path=folder.name, bytes_written=0, is_best=False, best_by="validation_loss"
            )
        )
    run.append(RunEnded(step=steps, reason="completed", message="", elapsed_s=60.0))


def listing_s(root: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of `bbtui runs list` there, of the same where there is nothing, and of `bbtui --help`."""
    program = [sys.executable, "-m", "tui.cli"]
    with tempfile.TemporaryDirectory() as empty:
        commands = {
            "runs list, 1,000 checkpoints": [*program, "runs", "list", "--root", str(root)],
            "runs list, nothing there": [*program, "runs", "list", "--root", empty],
            "--help": [*program, "--help"],
        }
        found: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, command in commands.items():
                elapsed_s = until_ended(command)
                # The first time the system reads the files from the disk.
                found[name] += [elapsed_s] if number else []
    return found


# ---------------------------------------------------------------- the command


def run(pairs: int, steps: int, tokens: list[int], tell: Callable[[str], None]) -> list[str]:
    """Lines of Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        contest = training(Path(folder), tokens, steps)
        for line in contest.run(pairs):
            tell(line)
    lines = [contests_table([contest], [], "the first is faster by"), ""]
    for label, found in contest.found.items():
        held = statistics.median(float(each.note) for each in found)
        lines.append(f"- {label}: {held:.0f} MB held by the process itself, without the mapped shards")
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoints(Path(folder), 50, 20)
        try:
            for name, found_s in listing_s(Path(folder), pairs).items():
                spread = f"({min(found_s):.2f} to {max(found_s):.2f})"
                lines.append(f"- `bbtui {name}`: {statistics.median(found_s):.2f} s {spread}")
        except BbtuiError as error:
            lines.append(f"- not measured: {error}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="measured in each process")
    parser.add_argument("--tokens", default="1e6,1e9", help="of the shards that are compared")
    given = parser.parse_args()
    machine = Machine.here()
    tokens = [round(float(count)) for count in given.tokens.split(",")]
    lines = run(given.pairs, given.steps, tokens, lambda line: print(line, flush=True))
    print("\n".join(["", heading(machine), "", *lines]))


if __name__ == "__main__":
    main()
