"""Protects the measurement: batched scores equal a slow loop's, the figures equal their definitions."""

import gc
import math
import random
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from core import checkpoint, generate
from core.config import BatchConfig, DataConfig, ModelConfig, OptimConfig, StageConfig, TokenizerConfig
from core.data.pairs import Pair
from core.errors import CheckpointError, DataError, MissingError, UsageError
from core.evals.items import QuestionSet, builtin_sets, read_set
from core.evals.probability import interval95, model_result, resampled_means, score
from core.evals.report import Entry, EvalFinished, EvalProgressed, Report, evaluate
from core.generate import Voice, load_voice
from core.model import GPT
from core.runs import Run, Runs
from core.tokenizer import Tokenizer

CONTEXT = 128
WORDS = [
    "a",
    "ball",
    "bat",
    "base",
    "runner",
    "pitcher",
    "throws",
    "the",
    "home",
    "plate",
    "out",
    "café",
    "⚾",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products on several threads mostly wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sentence(words: int, seed: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([sentence(40, seed) for seed in range(20)], 330)


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """50 pairs of 1 to 12 words a side."""
    draw = random.Random(5)
    return [
        Pair(f"q{i}", sentence(draw.randint(1, 12), 2 * i), sentence(draw.randint(1, 12), 2 * i + 1))
        for i in range(50)
    ]


def save_run(
    store: Runs, tokenizer: Tokenizer, prompt_format: str = "markers", seed: int = 1, poison: bool = False
) -> Run:
    """A finetune run with one checkpoint of a tiny model."""
    model_config = ModelConfig(layers=2, heads=4, width=32, context=CONTEXT)
    config = StageConfig(
        preset="tiny",
        stage="finetune",
        steps=3,
        prompt_format=prompt_format,  # type: ignore[arg-type]
        device="cpu",
        model=model_config,
        tokenizer=TokenizerConfig(kind="trained", vocabulary=330),
        data=DataConfig(source="sandlot"),
        batch=BatchConfig(examples=4),
        optim=OptimConfig(learning_rate=1e-3),
    )
    run = store.create(config)
    model = GPT(model_config, tokenizer.padded_size)
    model.initialise(seed)
    with torch.no_grad():
        # Fresh weights give every token about 1/V whatever stands before it: a wrong context would not show.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
        if poison:
            model.ln_f.weight[0] = math.nan
    state = checkpoint.TrainState(step=3, tokenizer=tokenizer.fingerprint)
    checkpoint.save(run, state, tokenizer, model.state_dict(), {"nothing": torch.zeros(1)})
    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def run(store: Runs, tokenizer: Tokenizer) -> Run:
    return save_run(store, tokenizer)


@pytest.fixture(scope="module")
def other_run(store: Runs, tokenizer: Tokenizer) -> Run:
    return save_run(store, tokenizer, seed=2)


@torch.no_grad()
def slow_log_probabilities(voice: Voice, pair: Pair) -> list[float]:
    """The same by hand: one token fed at a time, nothing batched, the sequence written out here."""
    tokenizer = voice.tokenizer
    question = tokenizer.encode(pair.question)
    if voice.config.prompt_format == "markers":
        question = [tokenizer.user, *question, tokenizer.assistant]
    answer = [*tokenizer.encode(pair.answer), tokenizer.end_of_text]
    cache = voice.model.new_cache()
    for token in question[:-1]:
        voice.model(torch.tensor([[token]]), cache)
    found = []
    for before, token in zip([question[-1], *answer[:-1]], answer, strict=True):
        logits = voice.model(torch.tensor([[before]]), cache)[0, -1].double()
        found.append(float(logits.log_softmax(0)[token]))
    return found


def collect(voice: Voice, pairs: list[Pair], batch_tokens: int | None = None) -> dict[int, np.ndarray]:
    found: dict[int, np.ndarray] = {}
    for batch in score(voice, pairs, batch_tokens=batch_tokens):
        assert not found.keys() & batch.keys()
        found |= batch
    return found


def finish(entries: list[Entry], sets: list[QuestionSet]) -> Report:
    *progress, last = evaluate(entries, sets)
    assert all(isinstance(step, EvalProgressed) and 0 <= step.done <= step.total for step in progress)
    assert isinstance(last, EvalFinished)
    return last.report


# ---------------------------------------------------------------- scores


@pytest.mark.parametrize("prompt_format", ["markers", "plain"])
def test_batched_scores_equal_a_slow_loop(
    store: Runs, tokenizer: Tokenizer, pairs: list[Pair], prompt_format: str
) -> None:
    voice = load_voice(save_run(store, tokenizer, prompt_format))
    slow = [slow_log_probabilities(voice, pair) for pair in pairs]
    mean = np.exp(np.concatenate(slow)).mean()
    for batch_tokens in (1, 300, None):
        found = collect(voice, pairs, batch_tokens)
        assert sorted(found) == list(range(50))
        for i, expected in enumerate(slow):
            np.testing.assert_allclose(found[i], expected, atol=1e-4)
        assert np.exp(np.concatenate(list(found.values()))).mean() == pytest.approx(mean, abs=1e-6)


def test_the_tiny_models_scores_depend_on_the_question(run: Run) -> None:
    """Without this the comparison with the slow loop would prove little."""
    found = collect(load_voice(run), [Pair("a", "ball", "the base"), Pair("b", "glove", "the base")])
    assert abs(found[0] - found[1]).max() > 0.05


def test_a_pair_is_left_out_only_when_it_passes_the_context(run: Run) -> None:
    voice = load_voice(run)
    encode = voice.tokenizer.encode

    def of_length(ids: int) -> Pair:
        answer = "b"
        while len(encode("ball")) + len(encode(answer)) + 3 < ids:
            answer += "\n"
        assert len(encode("ball")) + len(encode(answer)) + 3 == ids
        return Pair("x", "ball", answer)

    longest, too_long = of_length(CONTEXT + 1), of_length(CONTEXT + 2)
    found = collect(voice, [too_long, longest])
    assert list(found) == [1]
    np.testing.assert_allclose(found[1], slow_log_probabilities(voice, longest), atol=1e-4)


def test_scoring_stops_when_asked(run: Run, pairs: list[Pair]) -> None:
    voice = load_voice(run)
    is_stopped = False
    batches = score(voice, pairs, lambda: is_stopped, batch_tokens=100)
    next(batches)
    is_stopped = True
    assert list(batches) == []


def test_dropout_is_off(run: Run, pairs: list[Pair]) -> None:
    voice = load_voice(run)
    voice.model.train()
    collect(voice, pairs[:2])
    assert not voice.model.training


def test_damaged_weights_are_an_error(store: Runs, tokenizer: Tokenizer, pairs: list[Pair]) -> None:
    poisoned = save_run(store, tokenizer, poison=True)
    with pytest.raises(CheckpointError, match=poisoned.name):
        collect(load_voice(poisoned), pairs)


# ---------------------------------------------------------------- figures


def test_figures_by_hand() -> None:
    """Two answers: probabilities 1/2, 1/4, end 1/8; and 1, end 1/2; 7 bytes of text."""
    logs = [np.log([0.5, 0.25, 0.125]), np.log([1.0, 0.5])]
    result = model_result(logs, 7, (0.1, 0.9))
    assert result.mean_probability == pytest.approx(2.375 / 5)
    assert result.ci95 == (0.1, 0.9)
    assert result.nats_per_byte == pytest.approx(7 * math.log(2) / 7)
    assert result.per_question_mean == pytest.approx((0.875 / 3 + 0.75) / 2)
    assert result.geometric_mean == pytest.approx(2 ** (-7 / 5))
    assert result.mean_probability_without_end == pytest.approx(1.75 / 3)
    assert result.perplexity == pytest.approx(2 ** (7 / 5))


def test_resampling_is_deterministic_and_paired() -> None:
    draw = np.random.default_rng(0)
    counts = draw.integers(2, 9, size=(1, 40)).astype(float)
    sums = counts * draw.random((1, 40))
    first = resampled_means(sums, counts)
    assert first.shape == (2000, 1)
    both = resampled_means(np.vstack([sums, sums * 2]), np.vstack([counts, counts]))
    np.testing.assert_array_equal(both[:, :1], first)
    # Twice the probability is twice the mean in each resample only if both models meet the same questions.
    np.testing.assert_allclose(both[:, 1] / both[:, 0], 2)


def test_interval_agrees_with_the_normal_one() -> None:
    """For many questions of equal length, the bootstrap's interval is mean ± 1.96 standard errors."""
    values = np.random.default_rng(1).random((1, 400))
    low, high = interval95(resampled_means(values, np.ones((1, 400))))
    error = values.std() / math.sqrt(400)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


# ---------------------------------------------------------------- evaluation


def test_report_holds_what_its_definitions_say(run: Run, other_run: Run, pairs: list[Pair]) -> None:
    entries = [Entry("general", run), Entry("baseball", other_run, "3")]
    report = finish(entries, [QuestionSet("mine", pairs)])
    result = report.sets["mine"]
    voices = [load_voice(run), load_voice(other_run)]
    means = []
    for entry, voice in zip(entries, voices, strict=True):
        slow = [slow_log_probabilities(voice, pair) for pair in pairs]
        found = result.by_model[entry.label]
        means.append(np.exp(np.concatenate(slow)).mean())
        assert found.mean_probability == pytest.approx(means[-1], abs=1e-6)
        assert found.ci95[0] < found.mean_probability < found.ci95[1]
        answer_bytes = sum(len(pair.answer.encode()) for pair in pairs)
        assert found.nats_per_byte == pytest.approx(-np.concatenate(slow).sum() / answer_bytes, rel=1e-5)
        assert report.models[entry.label].run == voice.run.name
        assert report.models[entry.label].sha256 == voice.sha256
        by_hand = [np.exp(answer).mean() for answer in slow]
        assert [row.mean_probability[entry.label] for row in report.questions] == pytest.approx(
            by_hand, abs=1e-5
        )
    assert result.ratio is not None and result.ratio_ci95 is not None
    assert result.ratio == pytest.approx(means[1] / means[0], rel=1e-5)
    assert result.ratio_ci95[0] < result.ratio < result.ratio_ci95[1]
    assert (result.items, result.skipped) == (50, 0)
    assert result.tokens == sum(len(voices[0].tokenizer.encode(pair.answer)) + 1 for pair in pairs)
    assert [row.id for row in report.questions] == [pair.id for pair in pairs]
    assert {row.set for row in report.questions} == {"mine"}


def test_equal_models_have_a_ratio_of_one(run: Run, pairs: list[Pair]) -> None:
    report = finish([Entry("general", run), Entry("baseball", run)], [QuestionSet("mine", pairs)])
    assert (report.sets["mine"].ratio, report.sets["mine"].ratio_ci95) == (1.0, (1.0, 1.0))


def test_two_evaluations_agree_to_the_bit(run: Run, other_run: Run, pairs: list[Pair]) -> None:
    entries = [Entry("general", run), Entry("baseball", other_run)]
    sets = [QuestionSet("mine", pairs)]
    assert finish(entries, sets) == finish(entries, sets)


def test_a_model_that_stands_alone_has_no_ratio(run: Run, pairs: list[Pair]) -> None:
    report = finish([Entry("pretrain", run)], [QuestionSet("mine", pairs)])
    assert report.sets["mine"].ratio is None
    assert set(report.to_json()["sets"]["mine"]) == {"items", "tokens", "skipped", "by_model"}


def test_a_question_too_long_for_one_model_is_left_out_for_all(
    store: Runs, tokenizer: Tokenizer, run: Run, pairs: list[Pair]
) -> None:
    """Role markers take two tokens, so one pair fits the model without them only."""
    plain = save_run(store, tokenizer, "plain")
    answer = "b" + "\n" * (CONTEXT - len(tokenizer.encode("ball")) - 1)
    assert len(tokenizer.encode("ball") + tokenizer.encode(answer)) == CONTEXT
    long_pair = Pair("long", "ball", answer)
    assert list(collect(load_voice(plain), [long_pair])) == [0]
    with_long = finish(
        [Entry("general", plain), Entry("baseball", run)], [QuestionSet("mine", [long_pair, *pairs])]
    )
    result = with_long.sets["mine"]
    assert (result.items, result.skipped) == (50, 1)
    without = finish([Entry("general", plain), Entry("baseball", run)], [QuestionSet("mine", pairs)])
    for label, found in without.sets["mine"].by_model.items():
        assert result.by_model[label].mean_probability == pytest.approx(found.mean_probability, abs=1e-6)
    assert "long" not in {row.id for row in with_long.questions}


def test_a_set_without_a_question_that_fits_is_an_error(run: Run) -> None:
    with pytest.raises(DataError, match="mine"):
        finish([Entry("general", run)], [QuestionSet("mine", [Pair("x", "ball", "base " * 300)])])


def test_one_model_is_in_memory_at_a_time(
    run: Run, other_run: Run, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[GPT]] = []
    alive_at_load = []

    def watched(run: Run, at: str) -> Voice:
        gc.disable()  # a model that only the collector frees would double the memory for a while
        alive_at_load.append(sum(model() is not None for model in models))
        voice = load_voice(run, at)
        models.append(weakref.ref(voice.model))
        return voice

    monkeypatch.setattr(generate, "load_voice", watched)
    try:
        entries = [Entry("general", run), Entry("rules", run), Entry("baseball", other_run)]
        finish(entries, [QuestionSet("mine", pairs), QuestionSet("few", pairs[:3])])
    finally:
        gc.enable()
    assert alive_at_load == [0, 0, 0]


def test_progress_rises_to_the_total_and_a_stop_ends_it(run: Run, other_run: Run, pairs: list[Pair]) -> None:
    entries = [Entry("general", run), Entry("baseball", other_run)]
    sets = [QuestionSet("mine", pairs), QuestionSet("few", pairs[:3])]
    steps = list(evaluate(entries, sets))
    done = [step.done for step in steps if isinstance(step, EvalProgressed)]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 2 * 53)
    for stop_after in range(1, len(steps)):
        seen: list[EvalProgressed | EvalFinished] = []
        for step in evaluate(entries, sets, lambda: len(seen) >= stop_after):  # noqa: B023
            seen.append(step)
        assert not any(isinstance(step, EvalFinished) for step in seen)
        assert len(seen) <= stop_after + 2


def test_names_must_differ(run: Run, pairs: list[Pair]) -> None:
    mine = QuestionSet("mine", pairs)
    with pytest.raises(UsageError, match="mine"):
        evaluate([Entry("general", run)], [mine, QuestionSet("mine", pairs[:2])])
    with pytest.raises(UsageError, match="general"):
        evaluate([Entry("general", run), Entry("general", run)], [mine])
    for entries, sets in (([], [mine]), ([Entry("general", run)], [])):
        with pytest.raises(UsageError):
            evaluate(entries, sets)
    with pytest.raises(DataError, match="none"):
        evaluate([Entry("general", run)], [QuestionSet("none", [])])


def test_a_checkpoint_that_is_not_there(run: Run, pairs: list[Pair]) -> None:
    with pytest.raises(MissingError, match="@99"):
        finish([Entry("general", run, "99")], [QuestionSet("mine", pairs)])


# ---------------------------------------------------------------- sets


def test_builtin_sets_are_the_held_out_pairs() -> None:
    sets = builtin_sets()
    assert [question_set.name for question_set in sets] == ["baseball-heldout", "general-heldout"]
    for question_set in sets:
        assert len(question_set.pairs) > 50
        assert {pair.split for pair in question_set.pairs} == {"heldout"}


def test_a_files_set_bears_its_name(tmp_path: Path) -> None:
    path = tmp_path / "my rules.txt"
    path.write_text("Q: What is a ball?\nA: A pitch outside the zone.\n", encoding="utf-8")
    question_set = read_set(path)
    assert question_set.name == "my rules"
    assert [pair.question for pair in question_set.pairs] == ["What is a ball?"]
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        read_set(tmp_path / "absent.jsonl")
