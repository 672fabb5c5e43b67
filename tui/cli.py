"""The `bbtui` command: with no argument it opens the app; every tab's action is also a subcommand."""

import io
import os
import sys
from typing import Annotated

import typer

from core.config import DEFAULT_PRESET, STAGES
from core.errors import BbtuiError, RetryLaterError, UsageError
from core.runs import find_root
from tui.commands import bench, configs, models, plans, queues, runs, training
from tui.commands.options import Root

app = typer.Typer(
    help="Train a GPT from scratch in the terminal, gear it to baseball, and see what it gained and lost.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(training.quickstart)
app.command()(plans.plan)
app.command()(training.train)
app.command("eval")(models.evaluate)
app.command()(models.chat)
app.command()(models.export)
app.command()(bench.bench)
app.add_typer(queues.queue_app, name="queue")
app.add_typer(runs.runs_app, name="runs")
app.add_typer(configs.config_app, name="config")


def main() -> None:
    """Run the command line; an error becomes a message on stderr and an exit code, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a pipe of another alphabet gets a `?` for what it cannot write.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="bbtui")
    except BbtuiError as error:
        from tui.clean import clean

        print(clean(f"error: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`); nothing more may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: {error.strerror or error}: {str(error.filename or '')[:200]!r}", file=sys.stderr)
        print("Check the path, its permissions, and the free disk space.", file=sys.stderr)
        sys.exit(RetryLaterError.exit_code)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"bbtui {version('bbtui')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def open_app(
    context: typer.Context,
    root: Root = None,
    preset: Annotated[str, typer.Option(help="Preset that the app opens with.")] = DEFAULT_PRESET,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Train a GPT from scratch, gear it to baseball, and see what it gained and lost."""
    del version
    context.obj = root
    if context.invoked_subcommand is not None:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "There is no terminal to open the app in.",
            "Run `bbtui quickstart`, or see `bbtui --help` for the commands.",
        )
    from core.allocator import keep_freed_memory
    from core.config import preset_file

    keep_freed_memory()
    preset_file(preset, STAGES[0])  # an unknown preset is said before the screen opens
    from tui.app import BbtuiApp

    result = BbtuiApp(find_root(root), preset)
    result.run()
    raise typer.Exit(result.return_code or 0)


if __name__ == "__main__":
    main()
