"""`--on-event`: the user's command for alerts of a run that is trained without the app."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from core.runs import Run
from tui.on_event import ON_EVENT, EventCommands, words_of

OnEvent = Annotated[
    str,
    typer.Option(
        "--on-event",
        envvar=ON_EVENT,
        show_envvar=False,
        help=f"Command to run when the run ends, falls silent, or the disk runs low (or {ON_EVENT}).",
        show_default=False,
    ),
]


@contextlib.contextmanager
def alerting(run: Run, command: str) -> Iterator[None]:
    """While it lasts, the command is run at each of the run's alerts; at the end it is given the time to end.

    Raises: UsageError, before anything else, where the command cannot be run.
    """
    if not words_of(command):
        yield
        return
    from tui.settings import AlertSettings
    from tui.workers.watch import RunWatch

    settings = AlertSettings()
    commands = EventCommands(lambda _, problem: problem and print(f"warning: {problem}", file=sys.stderr))
    root = run.folder.parents[2]
    watch = RunWatch(root, lambda alert: settings.gives(alert.kind) and commands.run(command, alert))
    watch.watch([run])
    watch.start()
    try:
        yield
    finally:
        watch.finish()
        commands.wait()
