"""Runs the benchmarks one after the other and prints Markdown for the README: `make bench`.

    python -m tests.bench.everything [--pairs 5] [--nanogpt FOLDER] [--text FOLDER]

Nothing is written outside temporary folders. Time to a loss is measured only where --text names Parquet files to learn.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from core.bench.machine import Machine
from core.bench.measurement import FORMULA
from tests.bench import against_peers, growth, start_up, time_to_loss
from tests.bench.contest import contests_table, heading


def tell(line: str) -> None:
    """Progress, apart from the result."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    against_peers.add_options(parser)
    given = parser.parse_args()
    machine = Machine.here()
    tell(heading(machine))
    parts = [f"{heading(machine)} Pairs: {given.pairs}."]
    with tempfile.TemporaryDirectory() as folder:
        settings = against_peers.settings_of(given, Path(folder))
        done, limits = against_peers.run(list(against_peers.NAMES), settings, given.pairs, tell)
        parts.append(contests_table(done, limits))
        parts.append(
            f"Limits: the machine's own fastest products and reads. {FORMULA[0].upper()}{FORMULA[1:]}."
        )
        if given.text:
            tell("time to a loss")
            asked = ["--text", given.text, "--out", f"{folder}/curves.jsonl", "--work", f"{folder}/loss"]
            asked += ["--nanogpt", str(settings.nanogpt)] if settings.nanogpt else []
            options = time_to_loss.options().parse_args([*asked, "--precision", settings.precision])
            options.work.mkdir()
            parts.append("\n".join(time_to_loss.run(options, tell)))
    tell("start-up")
    parts.append("\n".join(start_up.run(given.pairs, 200, tell)))
    tell("growth")
    parts.append("\n".join(growth.run(given.pairs, 20, [10**6, 10**9], tell)))
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
