"""The sampler: the cache changes nothing, a seed fixes everything, bounds hold, no marker becomes text."""

from pathlib import Path

import pytest
import torch

from core.chat_format import render_prompt
from core.config import ModelConfig
from core.errors import CheckpointError, MissingError, UsageError
from core.generate import ReplyEnded, Sampling, TokenDrawn, Voice, draw, load_voice, reply
from core.model import GPT
from core.runs import Runs
from core.tokenizer import Tokenizer

GREEDY = Sampling(temperature=0, max_tokens=60)
PROMPTS = ["The pitcher", "What is a fastball?", "naïve café ⚾", "x"]


@pytest.fixture(scope="module")
def tokenizer(trained_root: Path) -> Tokenizer:
    return Tokenizer.load(Runs(trained_root).all("pretrain")[0].folder)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> GPT:
    return made_model(tokenizer)


@pytest.fixture(scope="module")
def voice(trained_root: Path) -> Voice:
    return load_voice(Runs(trained_root).all("baseball-finetune")[0])


def made_model(tokenizer: Tokenizer, never: list[int] | None = None) -> GPT:
    """A model of random weights with opinions, so that its likeliest token is no near tie.

    Args:
        never: ids that it almost never draws.
    """
    gpt = GPT(ModelConfig(layers=3, heads=4, width=64, context=128), tokenizer.padded_size)
    gpt.initialise(3)
    with torch.no_grad():
        gpt.wte.weight[: tokenizer.end_of_text] *= 12
        # A row of zeros has the logit 0, far below the likeliest token's.
        gpt.wte.weight[never or []] = 0
    return gpt.eval()


def run_out(pieces: object) -> tuple[list[TokenDrawn], ReplyEnded]:
    """The tokens of a reply and how it ended, which stands last and only there."""
    *tokens, ended = pieces  # type: ignore[misc]
    assert isinstance(ended, ReplyEnded)
    assert all(isinstance(token, TokenDrawn) for token in tokens)
    return tokens, ended


def ids_of(tokens: list[TokenDrawn]) -> list[int]:
    return [token.token for token in tokens if token.token >= 0]


def logits_after(model: GPT, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]))[0, -1]


# ---------------------------------------------------------------- the same, however it is computed


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(max_tokens=60, seed=3)], ids=["greedy", "drawn"])
def test_the_cache_changes_no_token(
    model: GPT, tokenizer: Tokenizer, prompt: str, sampling: Sampling
) -> None:
    ids = tokenizer.encode(prompt)
    cached, _ = run_out(draw(model, tokenizer, ids, sampling))
    uncached, _ = run_out(draw(model, tokenizer, ids, sampling, use_cache=False))
    assert ids_of(cached) == ids_of(uncached)
    assert [t.probability for t in cached] == pytest.approx([t.probability for t in uncached], abs=1e-5)
    assert len(cached) > 5


def test_greedy_takes_the_likeliest_token_each_time(model: GPT, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("The umpire")
    tokens, _ = run_out(draw(model, tokenizer, ids, Sampling(temperature=0, max_tokens=12)))
    for token in (t for t in tokens if t.token >= 0):
        logits = logits_after(model, ids)[: tokenizer.size]
        assert token.token == int(logits.argmax())
        assert token.probability == pytest.approx(float(logits.softmax(-1)[token.token]), abs=1e-5)
        ids.append(token.token)


def test_a_seed_fixes_the_answer(voice: Voice) -> None:
    def answer(seed: int) -> list[int]:
        return ids_of(
            run_out(reply(voice, [("user", "What is a bunt?")], Sampling(seed=seed, max_tokens=30)))[0]
        )

    assert answer(7) == answer(7)
    assert len({tuple(answer(seed)) for seed in range(4)}) > 1


def test_the_global_random_state_is_neither_used_nor_changed(voice: Voice) -> None:
    turns = [("user", "What is a bunt?")]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = ids_of(run_out(reply(voice, turns, Sampling(max_tokens=10)))[0])
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert ids_of(run_out(reply(voice, turns, Sampling(max_tokens=10)))[0]) == first


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize("top_k", [1, 3, 1_000_000])
def test_top_k_draws_from_the_k_likeliest(voice: Voice, top_k: int) -> None:
    """Of a model that has learned little, so that any token might come if the bound did not hold."""
    model, tokenizer = voice.model, voice.tokenizer
    ids = tokenizer.encode("A strike is")
    tokens, _ = run_out(draw(model, tokenizer, ids, Sampling(temperature=2.0, top_k=top_k, max_tokens=20)))
    assert len(tokens) > 5
    for token in ids_of(tokens):
        allowed = logits_after(model, ids)[: tokenizer.size].topk(min(top_k, tokenizer.size)).indices
        assert token in allowed
        ids.append(token)


@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9])
def test_top_p_draws_from_the_fewest_that_hold_the_share(voice: Voice, top_p: float) -> None:
    model, tokenizer = voice.model, voice.tokenizer
    ids = tokenizer.encode("A strike is")
    sampling = Sampling(temperature=1.0, top_k=0, top_p=top_p, max_tokens=20)
    tokens, _ = run_out(draw(model, tokenizer, ids, sampling))
    for token in ids_of(tokens):
        shares = logits_after(model, ids)[: tokenizer.size].softmax(-1)
        # What is likelier than the token drawn must not already hold the share.
        assert float(shares[shares > shares[token]].sum()) < top_p + 1e-5
        ids.append(token)


@pytest.mark.parametrize("temperature", [1e-45, 1e-30, 1e-6])
def test_a_temperature_near_zero_is_greedy(model: GPT, tokenizer: Tokenizer, temperature: float) -> None:
    ids = tokenizer.encode("The batter")
    near = Sampling(temperature=temperature, top_k=0, max_tokens=30)
    greedy, _ = run_out(draw(model, tokenizer, ids, Sampling(temperature=0, max_tokens=30)))
    assert ids_of(run_out(draw(model, tokenizer, ids, near))[0]) == ids_of(greedy)


def test_the_highest_temperature_still_draws(model: GPT, tokenizer: Tokenizer) -> None:
    hot = Sampling(temperature=10, top_k=0, max_tokens=30)
    tokens, _ = run_out(draw(model, tokenizer, tokenizer.encode("The batter"), hot))
    assert all(token.token < tokenizer.end_of_text for token in tokens)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_k": -1}, "top-k"),
        ({"top_p": 0.0}, "top-p"),
        ({"top_p": 1.01}, "top-p"),
        ({"top_p": float("nan")}, "top-p"),
        ({"max_tokens": 0}, "longest answer"),
        ({"seed": 10**30}, "seed"),
        ({"seed": -(10**30)}, "seed"),
    ],
    ids=str,
)
def test_a_setting_out_of_bounds_is_named(wrong: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Sampling(**wrong)


# ---------------------------------------------------------------- how a reply ends


def test_the_longest_answer_ends_it(tokenizer: Tokenizer) -> None:
    model = made_model(tokenizer, never=[tokenizer.end_of_text, tokenizer.user, tokenizer.assistant])
    tokens, ended = run_out(draw(model, tokenizer, [1, 2, 3], Sampling(temperature=0, max_tokens=9)))
    assert (ended.reason, ended.tokens, len(ids_of(tokens))) == ("length", 9, 9)
    assert ended.elapsed_s > 0 and ended.note == ""


@pytest.mark.parametrize("prompt_tokens", [1, 127, 128])
def test_a_full_context_ends_it(tokenizer: Tokenizer, prompt_tokens: int) -> None:
    model = made_model(tokenizer, never=[tokenizer.end_of_text, tokenizer.user, tokenizer.assistant])
    _, ended = run_out(draw(model, tokenizer, [5] * prompt_tokens, Sampling(temperature=0, max_tokens=1000)))
    assert (ended.reason, ended.tokens) == ("length", 128 - prompt_tokens)


def test_it_stops_when_told(voice: Voice) -> None:
    drawn: list[TokenDrawn | ReplyEnded] = []
    for piece in reply(voice, [("user", "Hello")], Sampling(max_tokens=60), lambda: len(drawn) >= 3):
        drawn.append(piece)
    tokens, ended = run_out(drawn)
    assert (ended.reason, ended.tokens, len(ids_of(tokens))) == ("stopped", 3, 3)


def test_it_may_be_stopped_before_the_first_token(voice: Voice) -> None:
    assert run_out(reply(voice, [("user", "Hello")], Sampling(), lambda: True))[1].tokens == 0


def test_an_empty_prompt_begins_after_an_end_of_text(model: GPT, tokenizer: Tokenizer) -> None:
    from_nothing = run_out(draw(model, tokenizer, [], GREEDY))[0]
    assert ids_of(from_nothing) == ids_of(run_out(draw(model, tokenizer, [tokenizer.end_of_text], GREEDY))[0])


# ---------------------------------------------------------------- text


@pytest.mark.parametrize("marker", ["end_of_text", "user", "assistant"])
def test_a_marker_ends_the_reply_and_is_never_text(tokenizer: Tokenizer, marker: str) -> None:
    model = made_model(tokenizer)
    marker_id = getattr(tokenizer, marker)
    with torch.no_grad():
        # What the last norm adds along one axis makes the marker likeliest everywhere.
        model.ln_f.bias[0] = 50.0
        model.wte.weight[:, 0] = 0
        model.wte.weight[marker_id, 0] = 10.0
    tokens, ended = run_out(draw(model, tokenizer, tokenizer.encode("So"), GREEDY))
    assert (tokens, ended.reason, ended.tokens) == ([], "end", 0)


def test_ids_past_the_vocabulary_are_never_drawn() -> None:
    tokenizer = Tokenizer.train(["the ball and the bat, the bat and the ball"], 290)
    model = made_model(tokenizer, never=[tokenizer.end_of_text, tokenizer.user, tokenizer.assistant])
    assert tokenizer.padded_size > tokenizer.size
    with torch.no_grad():
        model.ln_f.bias[0] = 50.0
        model.wte.weight[:, 0] = 0
        model.wte.weight[tokenizer.size :, 0] = 10.0
    tokens, ended = run_out(draw(model, tokenizer, tokenizer.encode("So"), GREEDY))
    assert ended.reason == "length" and all(token < tokenizer.end_of_text for token in ids_of(tokens))


def test_a_markers_name_typed_is_plain_text(voice: Voice) -> None:
    typed = "<|endoftext|><|user|><|assistant|> hi"
    ids, _ = render_prompt(voice.tokenizer, [("user", typed)], voice.config.prompt_format, 120)
    markers = [i for i in ids if i >= voice.tokenizer.end_of_text]
    assert markers == [voice.tokenizer.user, voice.tokenizer.assistant]
    assert voice.tokenizer.decode(ids) == typed


@pytest.mark.parametrize("seed", range(6))
def test_the_pieces_join_to_the_text_of_all_ids(model: GPT, tokenizer: Tokenizer, seed: int) -> None:
    """Random weights draw every byte there is, so characters are cut in all ways."""
    sampling = Sampling(temperature=3.0, top_k=0, max_tokens=120, seed=seed)
    tokens, ended = run_out(draw(model, tokenizer, tokenizer.encode("né"), sampling))
    ids = ids_of(tokens)
    assert len(ids) == ended.tokens
    assert "".join(token.text for token in tokens) == tokenizer.decode(ids)


def test_a_stream_never_splits_a_character(tokenizer: Tokenizer) -> None:
    text = "Ünïcödé ⚾🏟️ 打者 – done"
    stream = tokenizer.stream()
    pieces = [stream.feed(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + stream.finish() == text
    assert "\ufffd" not in "".join(pieces) and "" in pieces


# ---------------------------------------------------------------- chats and voices


def test_old_turns_that_no_longer_fit_are_left_out_and_said(voice: Voice) -> None:
    turns = [("user", "What is a ball? " * 2), ("assistant", "It is thrown. " * 2)] * 8
    _, ended = run_out(reply(voice, [*turns, ("user", "And a bat?")], Sampling(max_tokens=20)))
    assert "turns no longer fit" in ended.note
    _, ended = run_out(reply(voice, [("user", "And a bat?")], Sampling(max_tokens=20)))
    assert ended.note == ""


def test_a_question_longer_than_the_context_is_refused_with_its_length(voice: Voice) -> None:
    with pytest.raises(UsageError, match="tokens long") as caught:
        reply(voice, [("user", "ball " * 2000)], Sampling())
    assert "Shorten" in caught.value.fix


def test_half_of_the_context_is_the_questions_however_long_the_answer_may_be(voice: Voice) -> None:
    question = voice.tokenizer.decode(voice.tokenizer.encode("the ball " * 60)[:50])
    _, ended = run_out(reply(voice, [("user", question)], Sampling(max_tokens=4096, temperature=0)))
    assert ended.tokens > 0


def test_a_voice_says_who_it_is(trained_root: Path, voice: Voice) -> None:
    run = Runs(trained_root).all("baseball-finetune")[0]
    assert voice.title == f"baseball-finetune/{run.id[-4:]}  step {voice.step}  {voice.sha256[:6]}"
    assert voice.step == run.checkpoint_steps()[-1]
    assert len(voice.sha256) == 64
    assert not voice.model.training


def test_a_voice_is_of_the_checkpoint_asked_for(trained_root: Path) -> None:
    run = Runs(trained_root).all("pretrain")[0]
    voices = {step: load_voice(run, str(step)) for step in run.checkpoint_steps()}
    assert len({voice.sha256 for voice in voices.values()}) == len(voices) > 1
    assert [voice.step for voice in voices.values()] == list(voices)
    assert load_voice(run, "best").step in voices
    with pytest.raises(MissingError, match="no checkpoint @3"):
        load_voice(run, "3")


def test_a_configuration_of_other_sizes_is_refused_before_memory_is_taken(trained_copy: Path) -> None:
    """The sizes stand in a text file: what they ask for must not be built before the weights are compared."""
    run = Runs(trained_copy).all("pretrain")[0]
    path = run.folder / "config.toml"
    path.write_text(
        path.read_text().replace("width = 32", "width = 16384").replace("layers = 2", "layers = 200")
    )
    with pytest.raises(CheckpointError, match="other sizes"):
        load_voice(run)
