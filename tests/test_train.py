"""The loop: exact to the bit over stops, kills and rate changes; obedient; honest about its loss."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from core import checkpoint
from core.commands import Command, Pause, Resume, SampleNow, SaveNow, ScaleLearningRate, SetLearningRate, Stop
from core.errors import RunBusyError, RunFailedError
from core.events import (
    CheckpointSaved,
    CheckpointSetAside,
    Event,
    LearningRateChanged,
    NonFiniteMet,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    SampleDrawn,
    TrainMeasured,
    Validated,
    Warned,
)
from core.launch import start
from core.runs import Run, Runs
from core.train import train

STEPS = 30
PACE = ["steps=30", "validate_every=5", "checkpoint_every=7", "samples.every=0", "model.dropout=0.1"]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    # Prepared shards are the same for every test here.
    monkeypatch.setenv("BBTUI_DATA", str(tmp_path_factory.getbasetemp() / "train-shards"))
    return Runs(tmp_path)


def launch(store: Runs, stage: str = "pretrain", *overrides: str) -> Run:
    return start(store, "smoke", stage, None, [*PACE, *overrides])


class Script:
    """Commands given when the consumer has seen a step."""

    def __init__(self) -> None:
        self.waiting: list[Command] = []

    def __call__(self) -> list[Command]:
        given, self.waiting = self.waiting, []
        return given


def go(run: Run, at: dict[int, list[Command]] | None = None) -> list[Event]:
    """Train to the end; the commands of `at[n]` are given once step n is done."""
    script, events = Script(), []
    for event in train(run.config, run, script):
        events.append(event)
        if isinstance(event, TrainMeasured) and at and event.step in at:
            script.waiting += at.pop(event.step)
    return events


def losses(run: Run) -> dict[tuple[str, int], tuple[float, ...]]:
    """What the log holds now of training and validation, by step."""
    found: dict[tuple[str, int], tuple[float, ...]] = {}
    for event in run.present_events():
        if isinstance(event, TrainMeasured):
            found["train", event.step] = (event.loss, event.learning_rate, event.grad_norm, event.tokens)
        elif isinstance(event, Validated):
            found["validation", event.step] = (event.loss, event.bits_per_byte)
    return found


def of_kind(events: list[Event], kind: type[Event]) -> list:  # type: ignore[type-arg]
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture
def parented(store: Runs) -> Runs:
    """A root with a finished pretraining run."""
    go(start(store, "smoke", "pretrain", None, ["steps=4", "samples.every=0"]))
    return store


@pytest.mark.parametrize(
    ("stage", "more"),
    [
        ("pretrain", []),
        ("finetune", []),
        ("pretrain", ["optim.matrices=muon", "model.architecture=modern"]),
    ],
)
def test_stopped_twice_with_a_rate_change_equals_uninterrupted(
    store: Runs, stage: str, more: list[str]
) -> None:
    """Stop at 13, resume, change the rate at 17, stop at 21, resume: bit for bit the uninterrupted run."""
    if stage == "finetune":
        go(start(store, "smoke", "pretrain", None, ["steps=4", "samples.every=0"]))
    half = [ScaleLearningRate(factor=0.5)]
    whole = launch(store, stage, *more)
    go(whole, {17: list(half)})
    parts = launch(store, stage, *more)
    go(parts, {13: [Stop()]})
    go(parts, {17: list(half), 21: [Stop()]})
    assert of_kind(go(parts), RunStarted)[0].resumed_from_step == 21
    assert losses(parts) == losses(whole)
    assert len([key for key in losses(whole) if key[0] == "train"]) == STEPS
    last = [checkpoint.load_at(run).tensors for run in (whole, parts)]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_a_rate_change_after_the_last_checkpoint_survives_a_kill(store: Runs) -> None:
    """The change stands in the log alone; it comes again at its step."""
    whole, cut = launch(store), launch(store)
    go(whole, {16: [SetLearningRate(learning_rate=1e-4)]})
    script = Script()
    for event in train(cut.config, cut, script):
        if isinstance(event, TrainMeasured) and event.step == 16:
            script.waiting.append(SetLearningRate(learning_rate=1e-4))
        if isinstance(event, TrainMeasured) and event.step == 19:
            break  # as if killed: the newest checkpoint is of step 14
    resumed = go(cut)
    assert of_kind(resumed, RunStarted)[0].resumed_from_step == 14
    assert of_kind(resumed, LearningRateChanged)[0].step == 17
    assert losses(cut) == losses(whole)


def test_a_rate_change_survives_two_kills_before_the_next_checkpoint(store: Runs) -> None:
    whole, cut = launch(store), launch(store)
    go(whole, {16: [SetLearningRate(learning_rate=1e-4)]})
    script = Script()
    for event in train(cut.config, cut, script):
        if isinstance(event, TrainMeasured) and event.step == 16:
            script.waiting.append(SetLearningRate(learning_rate=1e-4))
        if isinstance(event, TrainMeasured) and event.step == 19:
            break
    for event in train(cut.config, cut, Script()):
        if isinstance(event, TrainMeasured) and event.step == 15:
            break
    go(cut)
    assert losses(cut) == losses(whole)


KILLED = """
import sys, time
from pathlib import Path
from core.runs import Run
from core.train import train
run = Run(Path(sys.argv[1]))
for event in train(run.config, run):
    pass
"""


def test_sigkill_at_random_steps_changes_nothing(store: Runs) -> None:
    """Eight kills in a run of 200 steps; every loss equals the uninterrupted run's, with no manual step."""
    settings = ["steps=200", "validate_every=40", "checkpoint_every=5", "samples.every=0", "model.width=16",
                "model.context=32", "batch.tokens=64", "data.max_tokens=20000"]  # fmt: skip
    whole, killed = (start(store, "smoke", "pretrain", None, settings) for _ in range(2))
    go(whole)
    draw = random.Random(5)
    kills = sorted(draw.sample(range(10, 195), 8))
    for number, at in enumerate(kills, 1):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(killed.folder)], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        # A kill may come late and pass the next one's step; each process is let begin all the same.
        while (
            time.monotonic() < deadline
            and process.poll() is None
            and not (
                killed.summary().step >= at and len(of_kind(list(killed.events()), RunStarted)) == number
            )
        ):
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert killed.summary().state == "interrupted"
    starts = of_kind(list(killed.events()), RunStarted)
    assert len(starts) == len(kills)
    go(killed)
    assert losses(killed) == losses(whole)
    assert killed.summary().state == "completed"


def test_accumulated_gradient_equals_the_big_batch(store: Runs) -> None:
    """1000 pairs of mixed length in micro-batches of 7 and of 250: one gradient, one loss."""
    from core.data.batches import PairBatches
    from core.data.prepare import prepare
    from core.model import GPT
    from core.tokenizer import Tokenizer

    draw = random.Random(1)
    words = [
        "ball",
        "bat",
        "base",
        "run",
        "pitch",
        "throw",
        "catch",
        "the",
        "a",
        "of",
        "over",
        "under",
        "first",
        "second",
        "third",
    ]
    rows = [
        {"question": " ".join(draw.choices(words, k=draw.randint(2, 25))) + f" {i}?",
         "answer": " ".join(draw.choices(words, k=draw.randint(1, 60)))}
        for i in range(1112)
    ]  # fmt: skip
    path = store.root / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    go(start(store, "smoke", "pretrain", None, ["steps=1", "samples.every=0"]))
    config = start(store, "smoke", "finetune", None, ["data.source=files", f"data.path={path}"]).config
    tokenizer = Tokenizer.load(store.all("pretrain")[0].folder)
    pairs = _returned(prepare(config, tokenizer, 128, store.root / "shards", lambda: False))
    batches = PairBatches(pairs, 0, 1, "answers", tokenizer.end_of_text)
    assert config.model
    model = GPT(config.model.model_copy(update={"dropout": 0.0}), tokenizer.padded_size)
    model.initialise(1)
    gradients, sums = [], []
    for micro_batch in (7, 250):
        model.zero_grad()
        parts = list(batches.micro_batches(0, micro_batch))
        supervised = sum(part.supervised for part in parts)
        assert sum(len(part.inputs) for part in parts) == 1000 or len(parts) > 3
        total = 0.0
        for part in parts:
            positions = (part.targets.flatten() >= 0).nonzero().squeeze(1)
            loss = model.loss_sum(part.inputs, part.targets, positions) / supervised
            loss.backward()
            total += float(loss.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))  # type: ignore[union-attr]
        sums.append((total, supervised))
    assert sums[0][1] == sums[1][1]
    assert math.isclose(sums[0][0], sums[1][0], rel_tol=1e-5)
    relative = ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item()
    assert relative < 1e-5


def _returned(generator: Iterator):  # type: ignore[type-arg, no-untyped-def]
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


def test_training_equals_whatever_the_micro_batch(store: Runs) -> None:
    first, second = (
        launch(store, "pretrain", "steps=6", "model.dropout=0.0", f"batch.micro_batch={n}") for n in (1, 4)
    )
    for run in (first, second):
        go(run)
    for (key, one), (_, other) in zip(losses(first).items(), losses(second).items(), strict=True):
        assert math.isclose(one[0], other[0], rel_tol=1e-4), key


def test_loss_starts_near_ln_v_and_falls(store: Runs) -> None:
    """Step 0 is measured; what is learned shows in the held-back text, too."""
    run = launch(store, "pretrain", "steps=60", "optim.learning_rate=1e-2")
    events = go(run)
    measured = of_kind(events, Validated)
    assert measured[0].step == 0 and abs(measured[0].loss - math.log(512)) < 0.15
    assert measured[-1].step == 60 and measured[-1].loss < measured[0].loss - 0.4
    assert [event.step for event in of_kind(events, TrainMeasured)] == list(range(1, 61))


def test_the_log_holds_every_event_that_was_yielded(store: Runs) -> None:
    run = launch(store, "pretrain", "steps=5")
    assert go(run) == list(run.events())


def test_golden_losses(store: Runs) -> None:
    """Twenty tiny steps on fixed text: a change of mathematics shows here first."""
    text = store.root / "golden.txt"
    text.write_text(
        "\n\n".join(
            f"Line {i}: the batter waits for pitch {i % 7} and runs {i * 31 % 90} feet." for i in range(400)
        )
    )
    run = launch(
        store, "pretrain", "steps=20", "data.source=files", f"data.path={text}", "optim.learning_rate=1e-2"
    )
    measured = of_kind(go(run), TrainMeasured)
    golden = json.loads((Path(__file__).parent / "golden_losses.json").read_text())
    assert [event.tokens for event in measured] == golden["tokens"]
    for event, expected in zip(measured, golden["losses"], strict=True):
        # The last bits differ between processors.
        assert math.isclose(event.loss, expected, rel_tol=2e-3), event.step


def test_the_rate_is_set_recorded_and_kept(store: Runs) -> None:
    run = launch(store)
    events = go(run, {10: [SetLearningRate(learning_rate=5e-4)], 12: [Stop()]})
    changed = of_kind(events, LearningRateChanged)[0]
    assert changed.step == 11 and math.isclose(changed.after, 5e-4)
    measured = {event.step: event for event in of_kind(events, TrainMeasured)}
    assert math.isclose(measured[11].learning_rate, 5e-4) and measured[10].learning_rate > 1e-3
    after = {event.step: event for event in of_kind(go(run), TrainMeasured)}
    assert after[13].learning_rate < 5e-4


def test_a_rate_that_cannot_be_is_refused_in_words(store: Runs) -> None:
    run = launch(store, "pretrain", "steps=4")
    events = go(run, {1: [SetLearningRate(learning_rate=math.nan), ScaleLearningRate(factor=-1.0)]})
    assert len(of_kind(events, Warned)) == 2 and not of_kind(events, LearningRateChanged)


def test_pause_holds_until_resume_and_costs_nothing(store: Runs) -> None:
    whole, paused = launch(store, "pretrain", "steps=8"), launch(store, "pretrain", "steps=8")
    go(whole)
    events = go(paused, {3: [Pause(), Resume()]})
    kinds = [type(event) for event in events]
    assert kinds.index(RunPaused) < kinds.index(RunContinued)
    assert losses(paused) == losses(whole)


def test_stop_is_obeyed_within_one_micro_batch(store: Runs) -> None:
    """A step under way is given up, and what is saved is the last finished one."""
    run = launch(store, "pretrain", "batch.micro_batch=1")
    polls, script = 0, Script()

    def commands() -> list[Command]:
        nonlocal polls
        polls += bool(script.waiting)
        return script()

    events = []
    for event in train(run.config, run, commands):
        events.append(event)
        if isinstance(event, TrainMeasured) and event.step == 4:
            script.waiting.append(Stop())
    assert polls == 1 and of_kind(events, TrainMeasured)[-1].step == 4
    assert of_kind(events, CheckpointSaved)[-1].step == 4
    assert events[-1].reason == "stopped" and run.checkpoint_steps()[-1] == 4


def test_stop_without_saving_keeps_the_earlier_checkpoint(store: Runs) -> None:
    run = launch(store)
    go(run, {9: [Stop(save=False)]})
    assert run.checkpoint_steps() == [7]


def test_save_now_and_sample_now(store: Runs) -> None:
    run = launch(store)
    events = go(run, {3: [SaveNow()], 4: [SampleNow()], 5: [Stop(save=False)]})
    assert of_kind(events, CheckpointSaved)[0].step == 3
    assert [event.step for event in of_kind(events, SampleDrawn)] == [4, 4]


def test_commands_come_from_the_runs_file(store: Runs) -> None:
    """A stop left from an earlier process is not obeyed by the next one."""
    run = launch(store, "pretrain", "steps=9")
    for event in train(run.config, run):
        if isinstance(event, TrainMeasured) and event.step == 3:
            run.tell(ScaleLearningRate(factor=0.5))
            run.tell(Stop())
    assert run.summary().state == "stopped"
    for _ in train(run.config, run):
        pass
    assert run.summary().state == "completed" and len(of_kind(run.present_events(), LearningRateChanged)) == 1


def test_a_child_starts_from_its_parents_weights(parented: Runs) -> None:
    parent = parented.all("pretrain")[0]
    child = launch(parented, "finetune", "optim.learning_rate=1e-12", "steps=1")
    events = go(child)
    assert of_kind(events, RunStarted)[0].parent == f"{parent.name}@4"
    ours, theirs = checkpoint.load_at(child), checkpoint.load_at(parent)
    assert ours.state.tokenizer == theirs.state.tokenizer
    assert all(torch.allclose(ours.tensors[name], theirs.tensors[name], atol=1e-6) for name in ours.tensors)


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(store: Runs) -> None:
    whole, run = launch(store), launch(store)
    go(whole)
    go(run, {15: [Stop()]})
    model = run.checkpoint_folder(15) / checkpoint.MODEL
    data = bytearray(model.read_bytes())
    data[-5] ^= 4
    model.write_bytes(bytes(data))
    events = go(run)
    assert "SHA-256" in of_kind(events, CheckpointSetAside)[0].reason
    assert of_kind(events, RunStarted)[0].resumed_from_step == 14
    assert losses(run) == losses(whole)


def test_checkpoints_are_pruned_but_for_the_best(store: Runs) -> None:
    run = launch(store, "pretrain", "steps=40", "checkpoint_every=5", "keep_last=2")
    script = Script()
    for event in train(run.config, run, script):
        if isinstance(event, CheckpointSaved) and event.step == 10:
            script.waiting.append(SetLearningRate(learning_rate=1.0))  # from here on it gets worse
    steps = run.checkpoint_steps()
    assert steps[-2:] == [35, 40] and checkpoint.best_step(run) in steps and len(steps) == 3


def _poisoned(monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[int], bool]) -> None:
    """Make the loss of the chosen calls a nan, gradient and all."""
    from core.model import GPT

    calls, sound = 0, GPT.loss_sum

    def loss_sum(self: GPT, *args: object) -> torch.Tensor:
        nonlocal calls
        if self.training:
            calls += 1
        loss = sound(self, *args)  # type: ignore[arg-type]
        return loss * math.nan if self.training and is_bad(calls) else loss

    monkeypatch.setattr(GPT, "loss_sum", loss_sum)


def test_a_nan_is_an_event_and_never_an_update(store: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    _poisoned(monkeypatch, lambda call: call == 5)
    run = launch(store, "pretrain", "steps=8", "batch.micro_batch=4", "batch.tokens=512")
    events = go(run)
    assert [event.step for event in of_kind(events, NonFiniteMet)] == [5]
    assert [event.step for event in of_kind(events, TrainMeasured)] == [1, 2, 3, 4, 6, 7, 8]
    assert all(tensor.isfinite().all() for tensor in checkpoint.load_at(run).tensors.values())


def test_a_loss_that_stays_nan_fails_the_run(store: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    _poisoned(monkeypatch, lambda call: call >= 9)
    run = launch(store, "pretrain", "batch.micro_batch=4", "batch.tokens=512")
    with pytest.raises(RunFailedError, match="not finite"):
        go(run)
    assert run.summary().state == "failed" and run.checkpoint_steps() == [7]


def test_out_of_memory_halves_the_micro_batch(store: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same step is done again with the same rows; the run goes on."""
    from core.model import GPT

    sound = GPT.loss_sum

    def loss_sum(self: GPT, tokens: torch.Tensor, *args: object) -> torch.Tensor:
        if self.training and len(tokens) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return sound(self, tokens, *args)  # type: ignore[arg-type]

    whole, short = (launch(store, "pretrain", "steps=4", "model.dropout=0.0") for _ in range(2))
    go(whole)
    monkeypatch.setattr(GPT, "loss_sum", loss_sum)
    events = go(short)
    assert "micro-batch of 2" in of_kind(events, Warned)[0].message
    for key, values in losses(whole).items():
        assert math.isclose(values[0], losses(short)[key][0], rel_tol=1e-5)


def test_two_trainers_never_share_a_run(store: Runs) -> None:
    run = launch(store, "pretrain", "steps=4")
    first = train(run.config, run)
    next(first)
    with pytest.raises(RunBusyError):
        next(train(run.config, run))
    first.close()
    assert go(run)[-1] == of_kind(list(run.events()), RunEnded)[-1]
