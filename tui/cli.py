"""The `bbtui` command: with no argument it opens the app; every tab's action is also a subcommand."""

import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from core.config import DEFAULT_PRESET, STAGES
from core.errors import BbtuiError, RetryLaterError, UsageError
from core.runs import Runs, find_root

app = typer.Typer(
    help="Train a GPT from scratch in the terminal, gear it to baseball, and see what it gained and lost.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
runs_app = typer.Typer(help="List the runs, show one, or play one again.", rich_markup_mode=None)
config_app = typer.Typer(help="Check configurations.", rich_markup_mode=None)
app.add_typer(runs_app, name="runs")
app.add_typer(config_app, name="config")

Root = Annotated[
    Path | None,
    typer.Option("--root", help="Folder that holds checkpoints/ (or BBTUI_ROOT).", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
General = Annotated[str | None, typer.Option(help="RUN of the general model; default: the newest pair's.")]
Baseball = Annotated[str | None, typer.Option(help="RUN of the domain's model; default: the newest pair's.")]


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
    from core.config import preset_file

    preset_file(preset, STAGES[0])  # an unknown preset is said before the screen opens
    from tui.app import BbtuiApp

    result = BbtuiApp(find_root(root), preset)
    result.run()
    raise typer.Exit(result.return_code or 0)


@runs_app.callback()
@config_app.callback()
def _group(context: typer.Context, root: Root = None) -> None:
    # --root may stand before the subcommand's own name, too.
    context.obj = root or context.obj


def _store(context: typer.Context, root: Path | None) -> Runs:
    return Runs(find_root(root or context.obj))


@app.command()
def quickstart(
    context: typer.Context,
    steps_scale: Annotated[float, typer.Option(help="Train this many times the usual steps.")] = 1.0,
    preset: Annotated[str, typer.Option(help="Preset whose four stages are run.")] = DEFAULT_PRESET,
    root: Root = None,
) -> None:
    """Run all four stages one after the other, then print the comparison."""
    from core.launch import scaled_overrides, start
    from tui import plain

    if not 0 < steps_scale <= 1000:
        raise UsageError(
            f"--steps-scale {steps_scale} is not above 0 and at most 1000.", "Try --steps-scale 0.5."
        )
    store, parent = _store(context, root), None
    for stage in STAGES:
        overrides = scaled_overrides(preset, stage, store.root, steps_scale)
        run = start(store, preset, stage, parent, overrides)
        parent = run.name
        code = _train_here(run, as_json=False)
        if code or run.summary().state != "completed":
            raise typer.Exit(code)
    general, baseball = (store.newest(stage, preset=preset) for stage in ("finetune", "baseball-finetune"))
    assert general and baseball
    plain.print_report(*_compared(store, general.name, baseball.name, []))
    print("Ask both models: bbtui chat --prompt 'What is a fastball?'   or open the app: bbtui")


@app.command()
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
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Train one stage without the app. Ctrl+C stops it and saves."""
    from core import launch
    from core.config import check_stage_name
    from tui.detached import train_detached

    store = _store(context, root)
    check_stage_name(stage)
    if resume is not None:
        if preset or from_run or settings:
            raise UsageError(
                "--resume takes its configuration from the run folder.",
                "Leave --preset, --from and --set out.",
            )
        run = launch.resume(store, resume, stage)
    else:
        run = launch.start(store, preset or DEFAULT_PRESET, stage, from_run, settings)
    if not detach:
        raise typer.Exit(_train_here(run, as_json))
    train_detached(run)
    print(
        json.dumps({"run": run.name})
        if as_json
        else f"{run.name} trains on. Watch it: bbtui runs show {run.id}"
    )


def _train_here(run, as_json: bool) -> int:  # type: ignore[no-untyped-def]
    """Train the run in this process; returns the exit code. A signal stops it after the last finished step."""
    import traceback

    from core.event_log import Follower
    from core.events import RunEnded, Stop
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
    show = plain.JsonLines() if as_json else plain.Progress(run)
    reason = "failed"
    try:
        for event in events_of(run.config, run, commands):
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


@app.command("eval")
def evaluate(
    context: typer.Context,
    general: General = None,
    baseball: Baseball = None,
    qa: Annotated[
        list[Path] | None, typer.Option(help="QA file to ask instead of the built-in sets.")
    ] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Compare how well both models know the answers to held-out questions."""
    from tui import plain

    report, domain = _compared(_store(context, root), general, baseball, qa or [], quiet=as_json)
    if as_json:
        print(json.dumps(report.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        plain.print_report(report, domain)


def _compared(store: Runs, general: str | None, baseball: str | None, files: list[Path], quiet: bool = False):  # type: ignore[no-untyped-def]
    """(report, the domain's name) of a pair on files, or on the built-in sets."""
    from core.evals.items import builtin_sets, read_set
    from core.evals.report import EvalFinished, default_entries, evaluate
    from tui import plain

    sets = [read_set(path) for path in files] if files else builtin_sets()
    entries = default_entries(store, general, baseball)
    show = plain.Counter(quiet)
    for event in evaluate(entries, sets):
        if isinstance(event, EvalFinished):
            show.done()
            return event.report, entries[-1].run.config.domain
        show.take(event)
    raise BbtuiError("The evaluation ended without a report.")


@app.command()
def chat(
    context: typer.Context,
    prompt: Annotated[str, typer.Option(help="The question to both models.")],
    general: General = None,
    baseball: Baseball = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from this many likeliest tokens; 0 from all.")] = 50,
    top_p: Annotated[float, typer.Option(help="Draw from the fewest tokens with this probability.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 120,
    seed: Annotated[int, typer.Option(help="Same seed, same answer.")] = 7,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Ask both models the same question and print both answers."""
    from core.evals.report import default_entries
    from core.generate import Sampling, TokenDrawn, load_voice, reply
    from tui import plain

    if not prompt.strip():
        raise UsageError("--prompt is empty.", "Ask something: --prompt 'What is a fastball?'")
    sampling = Sampling(temperature, top_k, top_p, max_tokens, seed)
    answers: dict[str, object] = {}
    for entry in default_entries(_store(context, root), general, baseball):
        voice = load_voice(entry.run, entry.at)
        pieces = list(reply(voice, [("user", prompt)], sampling))
        text = "".join(piece.text for piece in pieces if isinstance(piece, TokenDrawn))
        ended = pieces[-1]
        if not as_json:
            plain.print_answer(entry.label, voice.title, text, ended)
        answers[entry.label] = plain.answer_row(voice, text, ended)
    if as_json:
        print(json.dumps({"prompt": prompt, **answers}, ensure_ascii=False))


@runs_app.command("list")
def list_runs(context: typer.Context, as_json: AsJson = False, root: Root = None) -> None:
    """Every run with its state and last losses, oldest first."""
    from tui import plain

    rows = [plain.run_row(run) for run in _store(context, root).all()]
    print(json.dumps(rows)) if as_json else plain.print_runs(rows)


@runs_app.command("show")
def show_run(context: typer.Context, run: str, as_json: AsJson = False, root: Root = None) -> None:
    """One run: state, losses, lineage, checkpoints, settings."""
    from tui import plain

    store = _store(context, root)
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
    found, _ = _store(context, root).find(run)
    show = plain.JsonLines() if as_json else plain.Progress(found)
    for event in plain.paced(found, speed):
        show.take(event)


@config_app.command("check")
def check_configs(
    context: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(help="TOML files; default: every preset.")] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Report every problem of every file; exit code 2 if there is one."""
    from core.config import load_file, preset_file, preset_names

    wanted = [(path, {}) for path in files or []] or [
        (preset_file(preset, stage), {"preset": preset, "stage": stage})
        for preset in preset_names()
        for stage in STAGES
    ]
    base, results = _store(context, root).root, []
    for path, given in wanted:
        given = given or {"stage": path.stem if path.stem in STAGES else STAGES[0]}
        try:
            load_file(path, base, **given)
            problems: list[str] = []
        except UsageError as error:
            problems = getattr(error, "problems", [error.what])
        results.append({"file": str(path), "problems": problems})
        if not as_json:
            name = f"{path.parent.name}/{path.name}"
            print(
                "\n".join([f"{name}: {'ok' if not problems else ''}".rstrip(), *(f"  {p}" for p in problems)])
            )
    if as_json:
        print(json.dumps(results))
    raise typer.Exit(2 if any(result["problems"] for result in results) else 0)


if __name__ == "__main__":
    main()
