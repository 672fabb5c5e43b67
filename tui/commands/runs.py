"""`bbtui runs`: list the runs, show one, play one again, compare two, write a note, remove one."""

import json
import sys
from typing import Annotated

import typer

from core.errors import UsageError
from core.runs import Run, Runs
from tui.commands.options import AsJson, Root, keep_root, store_of

runs_app = typer.Typer(help="List, show, replay, compare, annotate and remove runs.", rich_markup_mode=None)
runs_app.callback()(keep_root)


@runs_app.command("list")
def list_runs(context: typer.Context, as_json: AsJson = False, root: Root = None) -> None:
    """Every run with its state and last losses, oldest first."""
    from tui import run_tables

    rows = [run_tables.run_row(run) for run in store_of(context, root).all()]
    print(json.dumps(rows)) if as_json else run_tables.print_runs(rows)


@runs_app.command("show")
def show_run(context: typer.Context, run: str, as_json: AsJson = False, root: Root = None) -> None:
    """One run: state, losses, lineage, checkpoints, settings."""
    from tui import run_tables

    store = store_of(context, root)
    found, _ = store.find(run)
    row = run_tables.run_row(found) | {
        "lineage": [ancestor.name for ancestor in store.lineage(found)],
        "checkpoints": found.checkpoint_steps(),
        "folder": str(found.folder),
        "config": found.config.model_dump(exclude_none=True),
    }
    print(json.dumps(row)) if as_json else run_tables.print_run(row)


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


@runs_app.command("published")
def make_published(context: typer.Context, root: Root = None) -> None:
    """Make a run of the published experiment's validation losses, to look at and to replay. It has no weights."""
    from core.published import make_run

    run = make_run(store_of(context, root))
    print(f"{run.name} is made. Open it in the Runs tab, or: bbtui runs replay {run.name} --speed 1000")


@runs_app.command("sizes")
def show_sizes(context: typer.Context, as_json: AsJson = False, root: Root = None) -> None:
    """What every run takes on the disk, by part; prepared data, and which of it no run uses."""
    from core.housekeeping import bytes_of, prepared_data
    from tui import run_tables

    store = store_of(context, root)
    sizes, data = {run: bytes_of(run) for run in store.all()}, prepared_data(store)
    print(json.dumps(run_tables.sizes_row(sizes, data))) if as_json else run_tables.print_sizes(sizes, data)


@runs_app.command("diff")
def compare_runs(
    context: typer.Context, left: str, right: str, as_json: AsJson = False, root: Root = None
) -> None:
    """Two runs side by side: what came of them, and the settings in which they differ."""
    from core.comparison import compare
    from tui import run_tables

    store = store_of(context, root)
    comparison = compare(store.find(left)[0], store.find(right)[0])
    if as_json:
        print(json.dumps(run_tables.comparison_row(comparison)))
    else:
        run_tables.print_comparison(comparison)


@runs_app.command("note")
def note_on_run(context: typer.Context, run: str, text: str, root: Root = None) -> None:
    """Write something down about where a run is; it stands on its chart."""
    from core.housekeeping import add_note

    found, _ = store_of(context, root).find(run)
    is_told = add_note(found, text)
    print(f"{found.name}: " + ("the process that trains it will note it." if is_told else "noted."))


@runs_app.command("rm")
def remove_run(
    context: typer.Context,
    run: str,
    keep: Annotated[
        str,
        typer.Option(
            help="What stays: nothing; the best and the last checkpoint (best); the last one (last); "
            "everything but the weights (log)."
        ),
    ] = "nothing",
    yes: Annotated[
        str | None,
        typer.Option(
            "--yes", metavar="WORD", help="The four characters that end the run's id: asks nothing."
        ),
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Remove a run, or some of its checkpoints. Asks for the four characters that end its id."""
    from core.housekeeping import check_allowed, check_keep, removal_of, remove
    from tui import run_tables
    from tui.figures import bytes_text

    policy = check_keep(keep)
    store = store_of(context, root)
    found = _whole_run(store, run)
    plan = removal_of(store, found, policy)
    check_allowed(plan)
    _confirm(found, [run_tables.removal_words(plan), *plan.consequences], yes)
    done = remove(store, found, policy)
    if as_json:
        print(json.dumps(run_tables.removal_row(done)))
    else:
        what = "is removed" if policy == "nothing" else "is thinned"
        print(f"{found.name} {what}: {bytes_text(done.bytes_freed)} freed.")


def _whole_run(store: Runs, reference: str) -> Run:
    if "@" in reference:
        raise UsageError(
            f"{reference[:80]!r} names one checkpoint; they are removed by a policy.",
            "Leave the @ out, and say what stays with --keep best, last or log.",
        )
    return store.find(reference)[0]


def _confirm(run: Run, words: list[str], given: str | None) -> None:
    """Raises: UsageError unless the word that removes the run was given, or is typed now."""
    from core.housekeeping import word_of
    from tui.clean import clean_line

    word = word_of(run)
    typed = given or ""
    if given is None:
        if not sys.stdin.isatty():
            raise UsageError(
                f"Removing {run.name} has to be confirmed, and there is no terminal to ask on.",
                f"Add --yes {word}.",
            )
        for line in (run.name, *words):
            print(f"  {clean_line(line, 300)}", file=sys.stderr)
        print(f"Type {word} to remove it: ", end="", file=sys.stderr, flush=True)
        typed = sys.stdin.readline()
    if typed.strip() != word:
        raise UsageError(
            f"{typed.strip()[:40]!r} is not {word}; nothing was removed.",
            f"Type the end of {run.name}, or add --yes {word}.",
        )
