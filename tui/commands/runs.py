"""`bbtui runs`: list the runs, show one, play one again."""

import json
from typing import Annotated

import typer

from core.errors import UsageError
from tui.commands.options import AsJson, Root, keep_root, store_of

runs_app = typer.Typer(help="List the runs, show one, or play one again.", rich_markup_mode=None)
runs_app.callback()(keep_root)


@runs_app.command("list")
def list_runs(context: typer.Context, as_json: AsJson = False, root: Root = None) -> None:
    """Every run with its state and last losses, oldest first."""
    from tui import plain

    rows = [plain.run_row(run) for run in store_of(context, root).all()]
    print(json.dumps(rows)) if as_json else plain.print_runs(rows)


@runs_app.command("show")
def show_run(context: typer.Context, run: str, as_json: AsJson = False, root: Root = None) -> None:
    """One run: state, losses, lineage, checkpoints, settings."""
    from tui import plain

    store = store_of(context, root)
    found, _ = store.find(run)
    row = plain.run_row(found) | {
        "lineage": [ancestor.name for ancestor in store.lineage(found)],
        "checkpoints": found.checkpoint_steps(),
        "folder": str(found.folder),
        "config": found.config.model_dump(exclude_none=True),
    }
    print(json.dumps(row)) if as_json else plain.print_run(row)


@runs_app.command("replay")
def replay_run(
    context: typer.Context,
    run: str,
    speed: Annotated[float, typer.Option(help="Times real time; 0 prints all at once.")] = 0.0,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Print what happened in a run, as it was printed then."""
    from tui import plain

    if speed < 0:
        raise UsageError(f"--speed {speed} is below 0.", "Use 0 for all at once, or for example 100.")
    found, _ = store_of(context, root).find(run)
    show = plain.JsonLines() if as_json else plain.Progress(found)
    for event in plain.paced(found, speed):
        show.take(event)
