"""`bbtui quickstart` and `bbtui train`: stages without the app."""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from core.config import DEFAULT_PRESET, STAGES
from core.errors import BbtuiError, UsageError
from core.runs import Run, Runs
from tui.commands.models import compared
from tui.commands.on_event import OnEvent, alerting
from tui.commands.options import AsJson, Root, store_of
from tui.on_event import words_of

if TYPE_CHECKING:
    from core.distributed import World


def quickstart(
    context: typer.Context,
    steps_scale: Annotated[float, typer.Option(help="Train this many times the usual steps.")] = 1.0,
    preset: Annotated[str, typer.Option(help="Preset whose four stages are run.")] = DEFAULT_PRESET,
    on_event: OnEvent = "",
    root: Root = None,
) -> None:
    """Run all four stages one after the other, then print the comparison."""
    from core.config import preset_file
    from core.stage_queue import LARGEST_SCALE, QueueFile, new_queue
    from tui import plain
    from tui.commands.queues import replaced_words, rest_words, work_off

    if _processes() > 1:
        raise UsageError(
            "Several processes train one stage at a time.", "Give torchrun a stage: -m tui.cli train STAGE."
        )
    if not 0 < steps_scale <= LARGEST_SCALE:
        raise UsageError(
            f"--steps-scale {steps_scale} is not above 0 and at most 1000.", "Try --steps-scale 0.5."
        )
    preset_file(preset, STAGES[0])  # an unknown preset is said before the queue of another is replaced
    words_of(on_event)
    queue = QueueFile(store_of(context, root))
    with queue.held():
        if words := replaced_words(queue):
            print(words)
        queue.write(new_queue(preset, steps_scale))
        code = work_off(queue, as_json=False, on_event=on_event)
        standing = queue.standing()
    assert standing
    if not standing.is_done:
        print(rest_words(standing))
        raise typer.Exit(code)
    runs = {entry.stage: entry.run for entry in standing.queue.entries}
    plain.print_report(*compared(queue.store, runs["finetune"], runs["baseball-finetune"], []))
    print("Ask both models: bbtui chat --prompt 'What is a fastball?'   or open the app: bbtui")


def train(
    context: typer.Context,
    stage: Annotated[str, typer.Argument(help=", ".join(STAGES))],
    preset: Annotated[
        str | None, typer.Option(help=f"Default: {DEFAULT_PRESET}.", show_default=False)
    ] = None,
    from_run: Annotated[
        str | None, typer.Option("--from", help="RUN to start from, with @best or @STEP.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, as in the preset's file.")
    ] = None,
    resume: Annotated[str | None, typer.Option(help="RUN to go on with, or `latest`.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Train in a process of its own and return.")
    ] = False,
    on_event: OnEvent = "",
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Train one stage without the app. Ctrl+C stops it and saves. Under torchrun, its processes share the work."""
    from core import launch
    from core.config import check_stage_name
    from tui.detached import train_detached

    words_of(on_event)  # one that cannot be run is said before there is a run
    store = store_of(context, root)
    check_stage_name(stage)
    if resume is not None and (preset or from_run or settings):
        raise UsageError(
            "--resume takes its configuration from the run folder.", "Leave --preset, --from and --set out."
        )

    def wanted() -> Run:
        if resume is not None:
            return launch.resume(store, resume, stage)
        return launch.start(store, preset or DEFAULT_PRESET, stage, from_run, settings)

    if _processes() > 1:
        if detach:
            raise UsageError("torchrun's processes stay with it.", "Leave --detach out.")
        _train_together(store, wanted, as_json, on_event)
    run = wanted()
    if not detach:
        raise typer.Exit(train_here(run, as_json, on_event))
    train_detached(run, on_event)
    print(
        json.dumps({"run": run.name})
        if as_json
        else f"{run.name} trains on. Watch it: bbtui runs show {run.id}"
    )


def _processes() -> int:
    """How many processes torchrun started to train together, this one included."""
    given = os.environ.get("WORLD_SIZE", "1")
    return int(given) if given.isdecimal() else 1


def _train_together(store: Runs, wanted: Callable[[], Run], as_json: bool, on_event: str) -> NoReturn:
    """Train in all of torchrun's processes the run that the first one makes or finds; ends with its exit code."""
    from core.distributed import World

    world = World.joined()
    if world.is_first:
        name = ""
        try:
            name = wanted().name
        finally:
            world.say(name)
    else:
        name = world.say()
        if not name:
            raise UsageError("The first process could not begin.", "It says why.")
    code = train_here(store.find(name)[0], as_json, on_event if world.is_first else "", world)
    world.leave()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # Threads of torch.distributed can abort an interpreter that is being taken down; all is written by now.
    os._exit(code)


def train_here(run: Run, as_json: bool, on_event: str = "", world: "World | None" = None) -> int:
    """Train the run in this process; returns the exit code. A signal stops it after the last finished step.

    Args:
        world: the processes that train it together, of which only the first prints.
    """
    import traceback

    from core.commands import Stop
    from core.distributed import World
    from core.event_log import Follower
    from core.events import RunEnded
    from core.train import train as events_of
    from tui import plain

    codes = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
    # Read from here on: a signal may ask for the end before the training listens.
    commands = Follower(run.commands_file, from_end=run.events_file.exists()).commands
    earlier = {name: signal.getsignal(getattr(signal, name)) for name in codes if hasattr(signal, name)}
    if earlier.get("SIGHUP") == signal.SIG_IGN:
        del earlier["SIGHUP"]  # started by nohup, to outlive its terminal
    for name in earlier:
        # The request goes the way of every other: through the run's command file.
        signal.signal(getattr(signal, name), lambda *_, name=name: run.tell(Stop(reason=name)))
    world = world or World()
    show = plain.JsonLines() if as_json else plain.Progress(run)
    reason = "failed"
    try:
        with alerting(run, on_event):
            for event in events_of(run.config, run, commands, world):
                if world.is_first:
                    show.take(event)
                if isinstance(event, RunEnded):
                    reason = event.reason
    except BbtuiError:
        raise
    except Exception:
        log = run.folder / "stderr.log"
        with log.open("a", encoding="utf-8") as file:
            traceback.print_exc(file=file)
        raise BbtuiError(f"{run.name} failed unexpectedly.", f"Its traceback is in {log}.") from None
    finally:
        for name, handler in earlier.items():
            signal.signal(getattr(signal, name), handler)
    return codes.get(reason, 0)
