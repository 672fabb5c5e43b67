"""`bbtui eval`, `bbtui chat`, `bbtui export`: what the models know, what they say, and how they leave."""

import json
from pathlib import Path
from typing import Annotated

import typer

from core.errors import BbtuiError, UsageError
from core.runs import Runs
from core.sampling import Precision
from tui.commands.options import AsJson, Baseball, General, Root, store_of


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

    report, domain = compared(store_of(context, root), general, baseball, qa or [], quiet=as_json)
    if as_json:
        print(json.dumps(report.to_json(), ensure_ascii=False, allow_nan=False))
    else:
        plain.print_report(report, domain)


def compared(store: Runs, general: str | None, baseball: str | None, files: list[Path], quiet: bool = False):  # type: ignore[no-untyped-def]
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
    precision: Annotated[
        Precision,
        typer.Option(help="Of the weights that answers are drawn with; auto: int8 where that is faster."),
    ] = "auto",
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
    for entry in default_entries(store_of(context, root), general, baseball):
        voice = load_voice(entry.run, entry.at, precision)
        pieces = list(reply(voice, [("user", prompt)], sampling))
        text = "".join(piece.text for piece in pieces if isinstance(piece, TokenDrawn))
        ended = pieces[-1]
        if not as_json:
            plain.print_answer(entry.label, voice.title, text, ended)
        answers[entry.label] = plain.answer_row(voice, text, ended)
    if as_json:
        print(json.dumps({"prompt": prompt, **answers}, ensure_ascii=False))


def export(
    context: typer.Context,
    run: str,
    to: Annotated[Path, typer.Option(help="The folder to make.")],
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Write a checkpoint (RUN, RUN@best, RUN@STEP) as a folder that transformers loads."""
    from core.export import export
    from tui.clean import clean_line
    from tui.figures import bytes_text

    found, at = store_of(context, root).find(run)
    done = export(found, at, to.expanduser().absolute())
    if as_json:
        row = {"run": found.name, "step": done.step, "folder": str(done.folder), "bytes": done.bytes_written}
        print(json.dumps(row | {"notes": done.notes}))
        return
    print(f"{found.name}@{done.step} is written: {bytes_text(done.bytes_written)}. To load it:")
    print(f"  AutoModelForCausalLM.from_pretrained({clean_line(str(done.folder), 300)!r})")
    for note in done.notes:
        print(note)
