"""`bbtui queue`: the four stages as a plan that can be stopped after a stage and gone on with the next day."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from core.config import check_stage_name
from core.errors import BbtuiError, MissingError, UsageError
from core.runs import Run
from core.stage_queue import QueueFile, Standing
from tui.clean import clean_line
from tui.commands.on_event import OnEvent
from tui.commands.options import AsJson, Root, keep_root, store_of
from tui.on_event import words_of
from tui.queue_words import halt_words

queue_app = typer.Typer(help="Show, go on with, stop or clear the queue of stages.", rich_markup_mode=None)
queue_app.callback()(keep_root)


@queue_app.command("show")
def show_queue(context: typer.Context, as_json: AsJson = False, root: Root = None) -> None:
    """The stages in order, how far each is, and what comes next."""
    queue = QueueFile(store_of(context, root))
    standing = _standing(queue)
    print(json.dumps(_document(queue, standing)) if as_json else "\n".join(_lines(queue, standing)))


@queue_app.command("run")
def run_queue(
    context: typer.Context, as_json: AsJson = False, on_event: OnEvent = "", root: Root = None
) -> None:
    """Go on with the queue where it stopped. Ctrl+C stops it and saves."""
    words_of(on_event)
    queue = QueueFile(store_of(context, root))
    with queue.held():
        code = work_off(queue, as_json, on_event)
    if not as_json:
        standing = _standing(queue)
        print("All stages are done. Compare: bbtui eval" if standing.is_done else rest_words(standing))
    raise typer.Exit(code)


@queue_app.command("stop-after")
def stop_after(
    context: typer.Context,
    stage: Annotated[
        str | None, typer.Argument(help="By default the present one.", show_default=False)
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Let it go on to the end after all.")] = False,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Let no further stage begin after this one, until `bbtui queue run`."""
    queue = QueueFile(store_of(context, root))
    standing = _standing(queue)
    if off and stage:
        raise UsageError("--off takes no stage.", "Leave one of the two out.")
    ahead = standing.stages_ahead
    chosen = "" if off else check_stage_name(stage or (ahead[0] if ahead else standing.stages[-1]))
    if chosen and chosen not in ahead[:-1]:
        raise UsageError(
            f"The queue cannot stop after {chosen}: that is past, or the last stage.",
            f"It can stop after: {', '.join(ahead[:-1]) or 'none; it is at its last stage'}.",
        )
    queue.stop_after(chosen)
    if as_json:
        print(json.dumps(_document(queue, _standing(queue))))
    else:
        print(f"The queue stops after {chosen}." if chosen else "The queue goes on to its end.")


@queue_app.command("clear")
def clear_queue(context: typer.Context, as_json: AsJson = False, root: Root = None) -> None:
    """Forget the queue. Its runs stay."""
    had_one = QueueFile(store_of(context, root)).clear()
    if as_json:
        print(json.dumps({"cleared": had_one}))
    else:
        print("The queue is cleared; its runs stay." if had_one else "There is no queue.")


def work_off(queue: QueueFile, as_json: bool, on_event: str) -> int:
    """Train stage after stage in this process, and return the exit code. The caller holds the queue."""
    from core.launch import begin
    from tui.commands.training import train_here

    for task in queue.tasks():
        if code := train_here(begin(queue, task), as_json, on_event):
            return code
    return 0


def rest_words(standing: Standing) -> str:
    """What to say when the work on a queue ends before its end."""
    task = standing.next
    return f"The queue {halt_words(standing, task.stage if task else '')}. Go on: bbtui queue run"


def replaced_words(queue: QueueFile) -> str:
    """What to say of a queue that a new one is about to replace; empty where nothing is lost with it."""
    try:
        standing = queue.standing()
    except BbtuiError as error:
        return f"{error.what} A new one takes its place."
    task = standing.next if standing else None
    if standing is None or task is None or not any(standing.summaries):
        return ""
    way = f" Its last one goes on with: bbtui train {task.stage} --resume {task.run}" if task.run else ""
    return (
        f"An earlier queue {halt_words(standing, task.stage)}; a new one takes its place. Its runs stay.{way}"
    )


def _standing(queue: QueueFile) -> Standing:
    standing = queue.standing()
    if standing is None:
        raise MissingError("There is no queue.", "Begin one: bbtui quickstart")
    return standing


def _document(queue: QueueFile, standing: Standing) -> dict[str, Any]:
    """The queue as plain JSON values."""
    from tui.run_tables import run_row

    plan, task = standing.queue, standing.next
    return {
        "preset": plan.preset,
        "steps_scale": plan.steps_scale,
        "made_at": plan.made_at,
        "is_worked": standing.is_worked,
        "is_done": task is None,
        "stop_after": standing.stop_after or None,
        "next": {"stage": task.stage, "run": task.run or None} if task else None,
        "stages": [
            run_row(Run(queue.store.folder / entry.run))
            if summary
            else {"run": None, "stage": entry.stage, "state": "to come", "step": 0, "steps": 0}
            for entry, summary in zip(plan.entries, standing.summaries, strict=True)
        ],
    }


def _lines(queue: QueueFile, standing: Standing) -> Iterator[str]:
    document = _document(queue, standing)
    scale = f", {document['steps_scale']:g} times the steps" if document["steps_scale"] != 1 else ""
    yield clean_line(f"Queue of preset {document['preset']}{scale}", 150)
    for number, row in enumerate(document["stages"], 1):
        loss = row.get("validation_loss")
        step = f"{row['step']}/{row['steps'] or '?'}" if row["run"] else "-"
        line = f"{number} {row['stage']:<18} {clean_line(row['state'], 12):<12} {step:>13}"
        line += f" {'-' if loss is None else f'{loss:.4f}':>8}"
        stops = "  then it stops" if row["stage"] == document["stop_after"] else ""
        yield f"  {line}  {row['run'] or ''}{stops}".rstrip()
    if document["is_worked"]:
        yield "A process works it off."
    elif document["is_done"]:
        yield "All stages are done. Compare: bbtui eval"
    else:
        yield rest_words(standing)
