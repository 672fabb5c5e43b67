"""`bbtui bench`: how fast this machine trains and answers, and how near to its limits that comes."""

import json
import sys
import tempfile
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from core.errors import BbtuiError, UsageError
from tui.commands.options import AsJson, Root, store_of

if TYPE_CHECKING:
    from core.bench.measurement import Measurement

_PLAIN_WIDTH = 118


def bench(
    context: typer.Context,
    only: Annotated[
        str,
        typer.Option(
            help="Names with commas between: matmul, bandwidth, train-small, train-124m, decode, prefill, prepare, "
            "start-up. Default: all of them; some minutes."
        ),
    ] = "",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Measured so often, after a warm-up.")] = 3,
    precision: Annotated[str, typer.Option(help="Of training: auto, float32 or bfloat16.")] = "auto",
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Measure this machine: matrix products, memory, training, generation, data, start-up."""
    from core.bench.machine import Machine
    from core.bench.measurement import Precision
    from core.bench.suite import Suite, chosen
    from core.probe import busy_words

    names = chosen(only)
    if precision not in (known := get_args(Precision)):
        raise UsageError(f"--precision: {precision[:40]!r} is none of {', '.join(known)}.")
    machine, notice = Machine.here(), busy_words(store_of(context, root))
    if notice:
        print(notice, file=sys.stderr)
    found: list[Measurement] = []
    with tempfile.TemporaryDirectory() as empty:
        program = [sys.executable, "-m", "tui.cli"]
        suite = Suite(
            help_command=[*program, "--help"],
            app_command=[*program, "--root", empty],
            app_words="Pretrain",
            rounds=rounds,
            precision=precision,  # type: ignore[arg-type]
        )
        show = not as_json and sys.stderr.isatty()
        for measurement in suite.run(names):
            found.append(measurement)
            if show:
                print(f"\r{measurement.what[:60]:<64}", end="", file=sys.stderr, flush=True)
        if show:
            print("\r" + " " * 64 + "\r", end="", file=sys.stderr, flush=True)
    if as_json:
        print(json.dumps(_row(machine, found, notice), allow_nan=False))
    else:
        _print_table(machine.in_words(), found)
    if not any(each.samples for each in found):
        raise BbtuiError("Nothing could be measured.", found[0].problem)


def _row(machine: object, found: "list[Measurement]", notice: str) -> dict[str, object]:
    from core.bench.measurement import FORMULA

    return {
        "machine": asdict(machine),  # type: ignore[call-overload]
        "notice": notice,
        "formula": FORMULA,
        "measurements": [each.to_row() | {"share": each.share(found)} for each in found],
    }


def _print_table(machine: str, found: "list[Measurement]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from core.bench.measurement import FORMULA
    from tui.clean import clean_line

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for heading in ("what", "", "median", "lowest to highest", "unit", "of the limit", "memory"):
        table.add_column(heading, justify="left" if heading in ("what", "", "unit") else "right")
    for each in found:
        table.add_row(*(Text(clean_line(cell, 60)) for cell in _cells(each, found)))
    console.print(Text(clean_line(machine, 300)))
    console.print(table)
    for each in found:
        if each.problem:
            console.print(Text(f"{clean_line(each.what, 60)}: not measured. {clean_line(each.problem, 300)}"))
    rounds = max((len(each.samples) for each in found), default=0)
    console.print(
        Text(f"{rounds} rounds each. Limits: the fastest products, of the same precision, and reads above.")
    )
    console.print(Text(FORMULA))


def _cells(each: "Measurement", found: "list[Measurement]") -> list[str]:
    from tui.figures import bytes_text

    if not each.samples:
        return [each.what, each.precision, "–", "–", each.unit, "–", "–"]
    share = each.share(found)
    return [
        each.what,
        each.precision,
        figure_text(each.median),
        f"{figure_text(min(each.samples))} to {figure_text(max(each.samples))}",
        each.unit,
        f"{share:.0%}".replace("%", " %") if share is not None else "",
        bytes_text(each.memory_bytes) if each.memory_bytes else "",
    ]


def figure_text(value: float) -> str:
    """A measured figure with three to four digits that count: 0.213, 4.71, 93.4, 2,431."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"
