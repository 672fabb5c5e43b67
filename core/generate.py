"""The only sampler: prompts become tokens, one event each."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core import checkpoint, device
from core import packed as packing
from core.chat_format import Turn, render_prompt
from core.config import StageConfig
from core.errors import UsageError
from core.events import SampleDrawn
from core.model import Transformer, build
from core.runs import Run
from core.sampling import Precision, Sampling
from core.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TokenDrawn:
    text: str
    """What this token completes; empty in the middle of a character."""
    token: int
    probability: float
    """The model's own, before temperature and cuts."""


@dataclass(frozen=True, slots=True)
class ReplyEnded:
    reason: str
    """end: the model ended its text; length: no more tokens allowed, or the context is full; stopped."""
    tokens: int
    elapsed_s: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Voice:
    """A checkpoint loaded to answer."""

    run: Run
    step: int
    sha256: str
    """Of the weights' file."""
    model: Transformer
    tokenizer: Tokenizer
    config: StageConfig
    packed: Transformer | None = None
    """The same model with its matrices in int8, which reads what it draws; None where float32 does."""

    @property
    def precision(self) -> str:
        """Of the matrices that drawn tokens are read with."""
        return "int8" if self.packed else "float32"

    @property
    def title(self) -> str:
        return f"{self.run.short_name}  step {self.step}  {self.sha256[:6]}"


def load_voice(run: Run, at: str = "last", precision: Precision = "float32") -> Voice:
    """The run's checkpoint, on its device.

    Args:
        precision: of the matrices that drawn tokens are read with. int8 reads a large model several times as fast on a
            CPU; auto takes it where it pays. The prompt, and whatever is scored, is read in float32.
    Raises: MissingError, CheckpointError; UsageError for int8 where the device does not offer it.
    """
    weights = checkpoint.load_at(run, at)
    tokenizer = Tokenizer.load(weights.folder)
    config = run.config
    if config.model is None:
        raise UsageError(f"{run.name}: its configuration names no model.", "Start this stage again.")
    # Compared without memory first: the configuration is a text file, and its sizes may be anything.
    checkpoint.check_fits(weights, build(config.model, tokenizer.padded_size, device="meta"), tokenizer)
    model = build(config.model, tokenizer.padded_size)
    model.load_state_dict(weights.tensors)
    model.to(device.choose(config.device).device).eval()
    packed = packing.packed(model, precision)
    return Voice(run, weights.state.step, weights.sha256, model, tokenizer, config, packed)


def reply(
    voice: Voice, turns: list[Turn], sampling: Sampling, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[TokenDrawn | ReplyEnded]:
    """The answer to the last turn, token by token, and how it ended.

    Raises: UsageError where the question alone does not fit into the context.
    """
    context = voice.model.config.context
    # At least half of the context is the question's; the answer has what is left, up to the longest allowed.
    limit = context - min(sampling.max_tokens, context // 2)
    ids, dropped = render_prompt(voice.tokenizer, turns, voice.config.prompt_format, limit)
    notes = [f"the oldest {dropped} turns no longer fit and were left out"] if dropped else []
    if voice.packed:
        notes.append("int8")
    note = " · ".join(notes)
    return draw(voice.model, voice.tokenizer, ids, sampling, should_stop, note, packed=voice.packed)


def draw(
    model: Transformer,
    tokenizer: Tokenizer,
    ids: list[int],
    sampling: Sampling,
    should_stop: Callable[[], bool] = lambda: False,
    note: str = "",
    use_cache: bool = True,
    packed: Transformer | None = None,
) -> Iterator[TokenDrawn | ReplyEnded]:
    """What follows the ids. The model must be in eval mode; an empty prompt begins after an end-of-text.

    Args:
        packed: the same model, packed: reads the tokens drawn, one at a time.
    """
    ids = ids or [tokenizer.end_of_text]
    generator = torch.Generator().manual_seed(sampling.seed)
    decoder = tokenizer.stream()
    reader = _Reader(model, packed, use_cache)
    started, drawn, reason = time.monotonic(), 0, "length"
    room = min(sampling.max_tokens, model.config.context - len(ids))
    logits = reader.read(ids)
    while drawn < room:
        if should_stop():
            reason = "stopped"
            break
        token, probability = _choose(logits[: tokenizer.size], sampling, generator)
        if token >= tokenizer.end_of_text:
            reason = "end"
            break
        drawn += 1
        yield TokenDrawn(decoder.feed(token), token, probability)
        if drawn < room:
            logits = reader.read([token])
    if rest := decoder.finish():
        yield TokenDrawn(rest, -1, 1.0)
    yield ReplyEnded(reason, drawn, time.monotonic() - started, note)


def samples(voice: Voice) -> Iterator[SampleDrawn | None]:
    """What follows each of the configuration's prompts: a None after each token, where whoever asks may leave.

    The model must be in eval mode.
    """
    wanted, tokenizer = voice.config.samples, voice.tokenizer
    sampling = Sampling(wanted.temperature, wanted.top_k, 1.0, wanted.max_tokens, voice.config.seed)
    limit = max(1, voice.model.config.context - wanted.max_tokens)
    for prompt in wanted.prompts:
        if voice.config.learns_pairs:
            ids, _ = render_prompt(tokenizer, [("user", prompt)], voice.config.prompt_format, limit)
        else:
            ids = tokenizer.encode(prompt)[-limit:]
        pieces = []
        for drawn in draw(voice.model, tokenizer, ids, sampling):
            yield None
            if isinstance(drawn, TokenDrawn):
                pieces.append(drawn.text)
        yield SampleDrawn(step=voice.step, prompt=prompt, text="".join(pieces))


class _Reader:
    """Feeds ids to the model and gives the logits of the next one, with a cache or by reading all again."""

    def __init__(self, model: Transformer, packed: Transformer | None, use_cache: bool) -> None:
        self._model = model
        self._packed = packed or model
        self._cache = model.new_cache() if use_cache else None
        self._ids: list[int] = []

    @torch.inference_mode()
    def read(self, ids: list[int]) -> Tensor:
        """Logits (V,) on the CPU, in float32."""
        self._ids += ids
        seen = ids if self._cache else self._ids
        model = self._packed if self._cache and len(seen) == 1 else self._model
        hidden = model.hidden(torch.tensor([seen], device=self._model.device), self._cache)
        # Only the last position is asked for: the head is the largest product of a short pass.
        return model.logits(hidden[0, -1:])[0].float().cpu()


def _choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[int, float]:
    """The next token and the model's own probability of it. Only what can be drawn is sorted and summed."""
    total = logits.logsumexp(dim=-1)
    # Dividing by less would overflow, and draws the likeliest token all the same.
    if sampling.temperature < 1e-4:
        token = int(logits.argmax())
        return token, float((logits[token] - total).exp())
    kept = min(sampling.top_k or len(logits), len(logits))
    is_cut = kept < len(logits) or sampling.top_p < 1
    # The likeliest first, as the cut by share needs them.
    values, tokens = logits.topk(kept) if is_cut else (logits, None)
    shares = (values / sampling.temperature).softmax(dim=-1)
    if sampling.top_p < 1:
        # A token goes once those before it already hold the share; the first always stays.
        shares = shares.masked_fill(shares.cumsum(dim=-1) - shares >= sampling.top_p, 0.0)
    drawn = int(torch.multinomial(shares, 1, generator=generator))
    token = drawn if tokens is None else int(tokens[drawn])
    return token, float((logits[token] - total).exp())
