"""Measures how soon our recipe reaches the loss at which nanoGPT's ends.

    python -m tests.bench.time_to_loss --text FOLDER --nanogpt FOLDER --out FILE [--tokens 2e6]

nanoGPT trains with each of the rates, its schedule ending at that many tokens; the best end is the loss to reach. Ours
trains on fewer tokens, with the quickstart's recipe. Both learn the same shards, made from Parquet text with a
vocabulary of their own, and are measured on the same windows; time spent on that is left out. What stands in the file
already is not done again, so that contenders can be run apart (--contenders).
"""

import argparse
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.bench.machine import Machine
from core.bench.measurement import Sizes
from core.bench.process import measured
from core.errors import BbtuiError
from tests.bench.contest import heading, markdown_table

_CHILD = "tests.bench.loss_run"


@dataclass(frozen=True, slots=True)
class Curve:
    """One training, from its line in the file."""

    contender: str
    settings: dict[str, Any]
    points: list[dict[str, float]]
    """wall_s, tokens and loss, in the order of the training."""

    @property
    def end(self) -> dict[str, float]:
        return self.points[-1]

    def first_below(self, loss: float) -> dict[str, float] | None:
        return next((point for point in self.points if point["loss"] < loss), None)


def curves_of(file: Path) -> list[Curve]:
    """Those that the file holds; a line that was cut off is passed over."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            row = json.loads(line)
            found.append(Curve(row["contender"], row["settings"], row["points"]))
        except (ValueError, KeyError):
            continue
    return found


def train_once(
    contender: str, settings: dict[str, Any], work: Path, nanogpt: Path | None, file: Path
) -> Curve:
    """The training, from the file if it holds one of these settings. Raises: BbtuiError where it failed."""
    for curve in curves_of(file):
        if (curve.contender, curve.settings) == (contender, settings):
            return curve
    folders = [nanogpt] if nanogpt else []
    found = measured(contender, {**settings, "root": str(work)}, _CHILD, folders)
    if found[0].problem:
        raise BbtuiError(f"{contender}: {found[0].problem}")
    points = [
        {"wall_s": round(each.cost, 3), "tokens": int(each.what), "loss": each.samples[0]} for each in found
    ]
    machine = Machine.here().in_words()
    with file.open("a", encoding="utf-8") as out:
        row = {"contender": contender, "settings": settings, "points": points, "machine": machine}
        out.write(json.dumps(row) + "\n")
    return Curve(contender, settings, points)


def verdict(peers: list[Curve], ours: list[Curve]) -> list[str]:
    """Lines of Markdown: each curve's end, and when each of ours was below the best peer's end."""
    best = min(peers, key=lambda curve: curve.end["loss"], default=None)
    rows = [["who", "settings", "tokens", "seconds", "loss at its end", "below the best peer's end after"]]
    for curve in [*peers, *ours]:
        kept = {
            name: curve.settings[name]
            for name in ("rate", "batch_tokens", "settings")
            if name in curve.settings
        }
        words = ", ".join(f"{name} {value}" for name, value in kept.items() if value) or "as the quickstart"
        when = ""
        if best and curve.contender == "ours":
            point = curve.first_below(best.end["loss"])
            when = "not reached"
            if point:
                tokens, wall = point["tokens"] / best.end["tokens"], point["wall_s"] / best.end["wall_s"]
                when = f"{100 * wall:.0f} % of its seconds, {100 * tokens:.0f} % of its tokens"
        end = curve.end
        rows.append(
            [curve.contender, words, f"{end['tokens']:,}", f"{end['wall_s']:.0f}", f"{end['loss']:.4f}", when]
        )
    return [markdown_table(rows)]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--text", type=Path, required=True, help="folder of Parquet files with a column `text`")
    add("--nanogpt", type=Path, default=os.environ.get("NANOGPT") or None, help="folder with model.py")
    add("--out", type=Path, required=True, help="JSON Lines, one a training; gone on with")
    add("--work", type=Path, required=True, help="folder for shards and runs, kept")
    add("--contenders", default="peer,ours")
    add("--tokens", type=float, default=2e6, help="at which nanoGPT's schedule ends")
    add("--our-tokens", type=float, default=0, help="of our training; default: three tenths of the others'")
    add("--rates", default="6e-4,1.2e-3,2.4e-3,4.8e-3", help="nanoGPT's, to choose the best of")
    add("--batches", default="8192", help="nanoGPT's tokens a step, to choose the best of")
    add("--warm-up", type=float, default=0.05, help="nanoGPT's, as a share of its steps")
    add("--compile", action="store_true", help="nanoGPT by torch.compile")
    add(
        "--set",
        action="append",
        default=[],
        help="key=value of our recipe, as in the quickstart's pretrain.toml",
    )
    add("--precision", choices=("float32", "bfloat16"), default="float32", help="of both")
    add("--points", type=int, default=25, help="times that each is validated")
    add("--validation-rows", type=int, default=256)
    for name, value in (("layers", 6), ("heads", 4), ("width", 256), ("context", 256), ("vocabulary", 8192)):
        add(f"--{name}", type=int, default=value)
    add("--micro-batch", type=int, default=32, help="rows that nanoGPT computes at once")
    return parser


def trainings(given: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every training that was asked for: the contender and its settings."""
    sizes = Sizes(
        given.layers, given.heads, given.width, given.context, given.vocabulary, micro_batch=given.micro_batch
    )
    both = {
        "text": str(given.text.absolute()),
        "sizes": asdict(sizes),
        "precision": given.precision,
        "points": given.points,
        "validation_rows": given.validation_rows,
    }
    if "peer" in given.contenders:
        peer = both | {"tokens": round(given.tokens), "warm_up": given.warm_up, "compiled": given.compile}
        for batch in given.batches.split(","):
            for rate in given.rates.split(","):
                yield "peer", peer | {"batch_tokens": int(batch), "rate": float(rate)}
    if "ours" in given.contenders:
        tokens = round(given.our_tokens or 0.3 * given.tokens)
        yield "ours", both | {"tokens": tokens, "settings": given.set}


def run(given: argparse.Namespace, tell: Callable[[str], None]) -> list[str]:
    """Every training, then the verdict as lines of Markdown."""
    found: dict[str, list[Curve]] = {"peer": [], "ours": []}
    for contender, settings in trainings(given):
        nanogpt = Path(given.nanogpt).absolute() if given.nanogpt else None
        try:
            curve = train_once(contender, settings, given.work.absolute(), nanogpt, given.out)
        except BbtuiError as error:
            tell(f"  {error}")
            continue
        found[contender].append(curve)
        end = curve.end
        tell(f"  {contender}  {end['tokens']:,} tokens in {end['wall_s']:.0f} s: loss {end['loss']:.4f}")
    return verdict(found["peer"], found["ours"])


def main() -> None:
    given = options().parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    machine = Machine.here()
    print(heading(machine), flush=True)
    print("\n".join(["", *run(given, lambda line: print(line, flush=True))]))


if __name__ == "__main__":
    main()
