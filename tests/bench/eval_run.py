"""The processes of `tests.bench.start_up`: one makes a pair of models, another times its eval and forward passes."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from core import checkpoint
from core.bench.__main__ import answer
from core.bench.measurement import Measurement, Sizes
from core.chat_format import render_example
from core.checkpoint import TrainState
from core.config import load_stage
from core.data.sources import sandlot_pairs
from core.evals.items import read_set
from core.evals.report import Entry, default_entries, evaluate
from core.events import RunEnded, RunStarted
from core.generate import Voice, load_voice
from core.model import build
from core.runs import Run, Runs
from core.tokenizer import Tokenizer

_BATCH_TOKENS = 4096


def make(root: str, questions: int, sizes: Sizes) -> Iterator[Measurement]:
    """A general and a baseball model with random weights, and a file of questions. The note names all three."""
    store = Runs(Path(root))
    runs = [_model(store, stage, sizes, seed) for seed, stage in enumerate(("finetune", "baseball-finetune"))]
    pairs = [*sandlot_pairs("baseball", "heldout"), *sandlot_pairs("general", "heldout")][:questions]
    file = store.root / "questions.jsonl"
    rows = (json.dumps({"question": pair.question, "answer": pair.answer}) for pair in pairs)
    file.write_text("\n".join(rows), encoding="utf-8")
    note = json.dumps([*(run.name for run in runs), str(file)])
    yield Measurement(name="make", what="a pair", unit="questions", samples=(float(len(pairs)),), note=note)


def _model(store: Runs, stage: str, sizes: Sizes, seed: int) -> Run:
    tokenizer = Tokenizer.gpt2()
    given = {"model": sizes.config().model, "tokenizer": sizes.config().tokenizer}
    run = store.create(load_stage("gpt2-small", stage, store.root).model_copy(update=given))
    assert run.config.model
    model = build(run.config.model, tokenizer.padded_size)
    model.initialise(seed)
    state = TrainState(step=1, model=run.config.model.model_dump(), tokenizer=tokenizer.fingerprint)
    started = {"run": run.id, "stage": stage, "parent": "", "parameters": model.num_parameters(), "steps": 1}
    run.append(RunStarted(**started, resumed_from_step=0, device="cpu", precision="float32", process_id=1))  # type: ignore[arg-type]
    checkpoint.save(run, state, tokenizer, model.state_dict(), {})
    run.append(RunEnded(step=1, reason="completed", message="", elapsed_s=1.0))
    return run


def compare(root: str, general: str, baseball: str, file: str, rounds: int) -> Iterator[Measurement]:
    """Seconds of an evaluation without loading, and of one forward pass of each model over the same tokens."""
    entries = default_entries(Runs(Path(root)), general, baseball)
    sets = [read_set(Path(file))]
    for entry in entries:
        load_voice(entry.run, entry.at)  # from now on the files lie in the system's memory
    evals: list[float] = []
    passes: list[float] = []
    for _ in range(rounds):
        load_s, pass_s = 0.0, 0.0
        for entry in entries:
            voice_s, voice = _loaded(entry)
            load_s += voice_s
            batches = _batches(voice, file)
            started_s = time.perf_counter()
            _read(voice, batches)
            pass_s += time.perf_counter() - started_s
        passes.append(pass_s)
        started_s = time.perf_counter()
        list(evaluate(entries, sets))
        evals.append(time.perf_counter() - started_s - load_s)
    yield Measurement(name="eval", what="eval without loading", unit="s", samples=tuple(evals))
    yield Measurement(name="eval", what="one forward pass of each model", unit="s", samples=tuple(passes))


def _loaded(entry: Entry) -> tuple[float, Voice]:
    started_s = time.perf_counter()
    voice = load_voice(entry.run, entry.at)
    return time.perf_counter() - started_s, voice


def _batches(voice: Voice, file: str) -> list[tuple[Tensor, Tensor]]:
    """(tokens (B, T), indices of the answers' positions), rows of like length together."""
    rows = []
    for pair in read_set(Path(file)).pairs:
        rows.append(render_example(voice.tokenizer, pair.question, pair.answer, voice.config.prompt_format))
    rows.sort(key=lambda row: len(row[0]), reverse=True)
    batches = []
    while rows:
        count = max(1, _BATCH_TOKENS // len(rows[0][0]))
        part, rows = rows[:count], rows[count:]
        width = len(part[0][0]) - 1
        tokens = torch.zeros(len(part), width, dtype=torch.long)
        wanted = torch.zeros(len(part), width, dtype=torch.bool)
        for index, (ids, start) in enumerate(part):
            tokens[index, : len(ids) - 1] = torch.tensor(ids[:-1])
            wanted[index, start - 1 : len(ids) - 1] = True
        batches.append((tokens, wanted.flatten().nonzero().squeeze(1)))
    return batches


@torch.inference_mode()
def _read(voice: Voice, batches: list[tuple[Tensor, Tensor]]) -> None:
    for tokens, positions in batches:
        hidden = voice.model.hidden(tokens.to(voice.model.device)).flatten(0, 1)
        F.linear(hidden[positions], voice.model.head)


if __name__ == "__main__":
    answer({"make": make, "compare": compare}.__getitem__)
