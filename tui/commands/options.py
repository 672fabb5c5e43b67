"""Options that several subcommands take, and the runs that they mean."""

from pathlib import Path
from typing import Annotated

import typer

from core.runs import Runs, find_root

Root = Annotated[
    Path | None,
    typer.Option("--root", help="Folder that holds checkpoints/ (or BBTUI_ROOT).", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
General = Annotated[str | None, typer.Option(help="RUN of the general model; default: the newest pair's.")]
Baseball = Annotated[str | None, typer.Option(help="RUN of the domain's model; default: the newest pair's.")]


def keep_root(context: typer.Context, root: Root = None) -> None:
    """The callback of a group of subcommands: --root may stand before the subcommand's own name, too."""
    context.obj = root or context.obj


def store_of(context: typer.Context, root: Path | None) -> Runs:
    """The runs under the root that was named, before or after the subcommand."""
    return Runs(find_root(root or context.obj))
