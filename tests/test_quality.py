"""Protects live quality: the eval's own figure on a fixed part of the held-out sets, and checkpoints rated by it."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from core import checkpoint
from core.commands import Command, Stop
from core.config import QualityConfig, load_file, load_stage, to_toml
from core.errors import ConfigError, DataError, UsageError
from core.evals.items import QuestionSet, builtin_sets
from core.evals.live import fixed_part, sets_to_ask
from core.evals.report import Entry, EvalFinished, evaluate
from core.events import (
    AnswersScored,
    CheckpointSaved,
    Event,
    NonFiniteMet,
    RunStarted,
    SampleDrawn,
    TrainMeasured,
    Validated,
)
from core.launch import start
from core.runs import Run, Runs
from core.train import train

SETS = ["baseball-heldout", "general-heldout"]
SHORT = ["samples.max_tokens=1", "validation_rows=4"]


@pytest.fixture
def store(trained_copy: Path) -> Runs:
    return Runs(trained_copy)


def finetune(store: Runs, *overrides: str) -> Run:
    return start(store, "smoke", "finetune", None, [*SHORT, *overrides])


def go(run: Run, stop_at: Callable[[Event], bool] = lambda _: False) -> list[Event]:
    """Train to the end, or until the event after which a stop is given."""
    waiting: list[Command] = []

    def poll() -> list[Command]:
        given = list(waiting)
        waiting.clear()
        return given

    events: list[Event] = []
    for event in train(run.config, run, poll):
        events.append(event)
        if stop_at(event):
            waiting.append(Stop())
    return events


def of_kind(events: list[Event], kind: type[Event]) -> list:  # type: ignore[type-arg]
    return [event for event in events if isinstance(event, kind)]


def figures(run: Run) -> list[tuple[object, ...]]:
    """What the log holds of losses and answers, instants and spans left out."""
    found: list[tuple[object, ...]] = []
    for event in run.present_events():
        if isinstance(event, TrainMeasured):
            found.append(("train", event.step, event.loss, event.grad_norm))
        elif isinstance(event, Validated):
            found.append(("validation", event.step, event.loss))
        elif isinstance(event, AnswersScored):
            found.append(("answers", event.step, event.questions, event.items, event.mean_probability))
    return found


# ---------------------------------------------------------------- which questions


def test_the_part_asked_is_the_same_in_whatever_order() -> None:
    whole = builtin_sets()[0]
    mixed = QuestionSet(whole.name, whole.pairs[::-1])
    assert fixed_part(whole, 16) == fixed_part(mixed, 16)
    assert fixed_part(whole, 16).pairs == fixed_part(whole, 64).pairs[:16], (
        "more are asked besides, not others"
    )
    assert fixed_part(whole, 16).pairs != whole.pairs[:16]
    assert len(fixed_part(whole, 10**6).pairs) == len(whole.pairs)


def test_no_questions_ask_no_set_and_files_stand_in_for_the_built_in_ones(tmp_path: Path) -> None:
    assert sets_to_ask(QualityConfig()) == []
    assert [s.name for s in sets_to_ask(QualityConfig(questions=3))] == SETS
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"question": "What?", "answer": "That."}\n')
    asked = sets_to_ask(QualityConfig(questions=3, files=[str(mine)]))
    assert [(s.name, len(s.pairs)) for s in asked] == [("mine", 1)]
    with pytest.raises(UsageError, match="2 sets"):
        sets_to_ask(QualityConfig(questions=3, files=[str(mine), str(mine)]))
    with pytest.raises(DataError, match="nowhere"):
        sets_to_ask(QualityConfig(questions=3, files=[str(tmp_path / "nowhere.jsonl")]))


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"best_by": "balance"}, "questions above 0"),
        ({"best_by": "general_probability", "questions": 4, "files": ["a"]}, "second file"),
        ({"questions": 4, "files": ["a", "b", "c"]}, "at most 2"),
    ],
)
def test_a_rule_that_nothing_could_be_rated_by_is_refused(values: dict[str, object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        QualityConfig.model_validate(values)


def test_a_files_questions_stay_under_the_root_and_typed_ones_need_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    root.mkdir()
    sound = to_toml(load_stage("smoke", "finetune", root).model_copy(update={"quality": QualityConfig()}))
    path = root / "own.toml"
    path.write_text(sound.replace("files = []", 'files = ["qa/a.jsonl", "../b.jsonl"]'))
    with pytest.raises(ConfigError, match=r"quality.files: '../b\.jsonl' lies outside"):
        load_file(path, root)
    path.write_text(sound.replace("files = []", 'files = ["qa/a.jsonl"]'))
    assert load_file(path, root).quality.files == [str(root / "qa/a.jsonl")]
    for typed, expected in [
        ("b.jsonl", ["b.jsonl"]),
        ('["b.jsonl", "../c.jsonl"]', ["b.jsonl", "../c.jsonl"]),
        ('"b.jsonl"', ["b.jsonl"]),
        ("", []),
    ]:
        loaded = load_file(path, root, [f"quality.files={typed}"]).quality.files
        assert loaded == [str(tmp_path / name) for name in expected]


# ---------------------------------------------------------------- measured while training


def test_the_figure_is_the_evals(store: Runs) -> None:
    """One code measures both: asked all questions, the last validation says what `bbtui eval` says."""
    run = finetune(store, "quality.questions=1000", "steps=2", "validate_every=2")
    scored = of_kind(go(run), AnswersScored)
    assert [(e.step, e.questions) for e in scored] == [(s, name) for s in (0, 2) for name in SETS]
    *_, last = evaluate([Entry("general", run)], builtin_sets())
    assert isinstance(last, EvalFinished)
    for event in scored[2:]:
        result = last.report.sets[event.questions]
        assert event.items == result.items
        assert math.isclose(event.mean_probability, result.by_model["general"].mean_probability, rel_tol=1e-6)
    assert checkpoint.load_at(run).state.probabilities == [e.mean_probability for e in scored[2:]]


def test_asking_changes_no_loss(store: Runs) -> None:
    asked, silent = finetune(store, "quality.questions=8"), finetune(store, "quality.questions=0")
    events = go(asked), go(silent)
    assert len(of_kind(events[0], AnswersScored)) == 6 and not of_kind(events[1], AnswersScored)
    assert [f for f in figures(asked) if f[0] != "answers"] == figures(silent)


@pytest.mark.parametrize("set_name", SETS)
def test_a_stop_between_the_questions_is_obeyed_and_leaves_no_gap(store: Runs, set_name: str) -> None:
    """Stopped when step 4 was validated, or asked one set of two: the resumed run asks what is left."""
    whole, parts = finetune(store), finetune(store)
    go(whole)
    is_first = set_name == SETS[0]
    stopped = go(parts, lambda e: isinstance(e, Validated if is_first else AnswersScored) and e.step == 4)  # type: ignore[attr-defined]
    assert len([e for e in of_kind(stopped, AnswersScored) if e.step == 4]) == (0 if is_first else 1)
    resumed = go(parts)
    assert of_kind(resumed, RunStarted)[0].resumed_from_step == 4
    assert figures(parts) == figures(whole)
    saved = [checkpoint.load_at(run, "4").state for run in (parts, whole)]
    assert saved[0] == saved[1] and len(saved[0].probabilities) == 2


def test_questions_that_no_context_holds_are_said_at_once(store: Runs, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"question": "what " * 500, "answer": "that"}) + "\n")
    with pytest.raises(DataError, match="No question of long fits"):
        go(finetune(store, "quality.questions=1", f"quality.files={path}"))


def test_probabilities_that_are_no_numbers_are_an_event(store: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from core.evals import probability

    monkeypatch.setattr(probability, "_score_batch", lambda *_: {0: np.array([math.nan])})
    events = go(finetune(store, "steps=1"))
    assert "baseball-heldout" in of_kind(events, NonFiniteMet)[0].what
    assert checkpoint.load_at(store.newest("finetune")).state.probabilities == []  # type: ignore[arg-type]


# ---------------------------------------------------------------- which checkpoint is best


def test_each_rule_chooses_its_own_best(store: Runs) -> None:
    """Three checkpoints: lowest loss, surest on the domain, surest elsewhere; and the fairest of them."""
    run = finetune(store)
    tokenizer = checkpoint.load_at(store.newest("pretrain")).state.tokenizer  # type: ignore[arg-type]
    sound = checkpoint.load_at(store.newest("pretrain"))  # type: ignore[arg-type]
    from core.tokenizer import Tokenizer

    kept = Tokenizer.load(sound.folder)
    figures_of = {
        1: (1.0, [0.1, 0.1]),
        2: (2.0, [0.9, 0.02]),
        3: (3.0, [0.1, 0.5]),
        4: (4.0, [0.4, 0.4]),
        5: (0.1, []),
    }
    for step, (loss, found) in figures_of.items():
        state = checkpoint.TrainState(
            step=step, validation_loss=None if step == 5 else loss, probabilities=found, tokenizer=tokenizer
        )
        checkpoint.save(run, state, kept, sound.tensors, {})
    rules = {"validation_loss": 1, "domain_probability": 2, "general_probability": 3, "balance": 4}
    assert {rule: checkpoint.best_step(run, rule) for rule in rules} == rules  # type: ignore[arg-type]
    checkpoint.prune(run, 1, "balance")
    assert run.checkpoint_steps() == [4, 5]


def test_a_run_marks_and_keeps_the_best_by_its_own_rule(store: Runs) -> None:
    run = finetune(
        store, "quality.best_by=domain_probability", "checkpoint_every=1", "steps=5", "keep_last=1",
        "optim.learning_rate=0.3",
    )  # fmt: skip
    events = go(run)
    saved, scored = of_kind(events, CheckpointSaved), of_kind(events, AnswersScored)
    by_step = {e.step: e.mean_probability for e in scored if e.questions == SETS[0] and e.step}
    best = max(by_step, key=lambda step: by_step[step])
    assert {e.best_by for e in saved} == {"domain_probability"}
    assert [e.is_best for e in saved] == [
        by_step[e.step] == max(p for step, p in by_step.items() if step <= e.step) for e in saved
    ]
    assert checkpoint.load_at(run, "best").state.step == best and best in run.checkpoint_steps()


def test_a_checkpoint_from_before_questions_were_asked_still_loads(store: Runs) -> None:
    run = store.newest("finetune")
    assert run
    folder = run.checkpoint_folder(run.checkpoint_steps()[-1])
    old = dataclasses.asdict(checkpoint.load(folder).state)
    del old["probabilities"]
    (folder / checkpoint.STATE).write_text(json.dumps(old))
    assert checkpoint._read_state(folder).probabilities == []


# ---------------------------------------------------------------- frames of a film


def test_the_prompts_are_answered_at_every_validation_of_a_finetune_stage(store: Runs) -> None:
    """And at no validation where `samples.every` is 0; text stages keep to the steps that it names."""
    pace = ["steps=6", "validate_every=2", "checkpoint_every=6"]
    prompts = finetune(store).config.samples.prompts
    film = of_kind(go(finetune(store, *pace, "samples.every=5")), SampleDrawn)
    assert [(e.step, e.prompt) for e in film] == [(s, p) for s in (0, 2, 4, 5, 6) for p in prompts]
    assert not of_kind(go(finetune(store, *pace, "samples.every=0")), SampleDrawn)
    text = start(store, "smoke", "pretrain", None, [*SHORT, *pace, "samples.every=5"])
    assert {e.step for e in of_kind(go(text), SampleDrawn)} == {5, 6}
