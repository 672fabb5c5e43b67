"""Measures how long the program takes to begin, and what an evaluation costs beyond the arithmetic.

    python -m tests.bench.start_up [--rounds 5] [--questions 200]

The app's first screen in a pseudo-terminal, `bbtui --help`, and `bbtui eval` of two models of 124M parameters with
random weights (2 GB in a temporary folder) against one forward pass of each over the same tokens, loading apart.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from core.bench.machine import Machine
from core.bench.measurement import GPT2_SMALL, Measurement, Sizes
from core.bench.process import measured
from core.bench.starting import until_ended
from core.bench.suite import Suite
from tests.bench.contest import heading, markdown_table
from tui.commands.bench import figure_text

_CHILD = "tests.bench.eval_run"
_PROGRAM = (sys.executable, "-m", "tui.cli")


def first_screens(rounds: int) -> list[Measurement]:
    """Of the app and of `--help`, in seconds."""
    with tempfile.TemporaryDirectory() as empty:
        suite = Suite([*_PROGRAM, "--help"], [*_PROGRAM, "--root", empty], "Pretrain", rounds=rounds)
        return list(suite.run(["start-up"]))


def evaluation(root: Path, rounds: int, questions: int, sizes: Sizes = GPT2_SMALL) -> list[Measurement]:
    """The eval without loading, forward passes alone, and the whole command, in seconds."""
    arguments = {"root": str(root), "questions": questions, "sizes": asdict(sizes)}
    (made,) = measured("make", arguments, _CHILD)
    if made.problem:
        return [made]
    general, baseball, file = json.loads(made.note)
    pair = {"root": str(root), "general": general, "baseball": baseball, "file": file}
    found = measured("compare", pair | {"rounds": rounds}, _CHILD)
    command = [
        *_PROGRAM,
        "eval",
        "--general",
        general,
        "--baseball",
        baseball,
        "--qa",
        file,
        "--root",
        str(root),
    ]
    whole = tuple(until_ended(command) for _ in range(rounds))
    return [*found, Measurement(name="eval", what="eval, the whole command", unit="s", samples=whole)]


def run(rounds: int, questions: int, tell: Callable[[str], None]) -> list[str]:
    """Lines of Markdown."""
    found = first_screens(rounds)
    for each in found:
        tell(f"  {each.what}: {each.problem or figure_text(each.median)}")
    with tempfile.TemporaryDirectory() as folder:
        evals = evaluation(Path(folder), rounds, questions)
    rows = [["what", "median", "lowest to highest"]]
    for each in [*found, *evals]:
        if each.problem:
            rows.append([each.what, "not measured", each.problem])
        else:
            spread = f"{figure_text(min(each.samples))} to {figure_text(max(each.samples))}"
            rows.append([each.what, f"{figure_text(each.median)} {each.unit}", spread])
    lines = [markdown_table(rows)]
    if len(evals) > 1 and not any(each.problem for each in evals):
        ratios = [whole / alone for whole, alone in zip(evals[0].samples, evals[1].samples, strict=True)]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(
            f"\nEval over forward passes: {statistics.median(ratios):.2f}x {spread}, {questions} questions."
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--questions", type=int, default=200)
    given = parser.parse_args()
    machine = Machine.here()
    lines = run(given.rounds, given.questions, lambda line: print(line, flush=True))
    print("\n".join(["", heading(machine), "", *lines]))


if __name__ == "__main__":
    main()
