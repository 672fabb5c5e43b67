"""Generation: tokens a second that are drawn one by one, and that are read at once as a prompt."""

import time
from collections.abc import Iterator

import torch

from core import device
from core.bench import operations
from core.bench.measurement import Measurement, Sizes
from core.generate import TokenDrawn, draw
from core.model import Transformer, build
from core.packed import packed
from core.sampling import Precision, Sampling
from core.tokenizer import Tokenizer

PROMPT_TOKENS = 16


def decode(
    sizes: Sizes, rounds: int, new_tokens: int, precision: Precision = "auto"
) -> Iterator[Measurement]:
    """Tokens drawn after a short prompt, the prompt's own time included; `precision` as `load_voice` takes it."""
    model = _model(sizes)
    swift = packed(model, precision)
    tokenizer = Tokenizer.gpt2()
    _drawn(model, tokenizer, PROMPT_TOKENS, 8, swift)
    samples = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        drawn = _drawn(model, tokenizer, PROMPT_TOKENS, new_tokens, swift)
        samples.append(drawn / (time.perf_counter() - started_s))
    yield Measurement(
        name="decode",
        what=f"generation, {new_tokens} tokens",
        unit="tokens/s",
        samples=tuple(samples),
        memory_bytes=device.peak_memory_bytes(model.device),
        device=model.device.type,
        precision="int8" if swift else _precision(model),
        limit="bytes",
        cost=operations.bytes_per_drawn_token(
            model, PROMPT_TOKENS + new_tokens / 2, 1 if swift else model.head.element_size()
        ),
        note=sizes.in_words(),
    )


def prefill(sizes: Sizes, rounds: int, prompt_tokens: int) -> Iterator[Measurement]:
    """A prompt's tokens over the time until the first token after it is drawn."""
    model = _model(sizes)
    tokenizer = Tokenizer.gpt2()
    _drawn(model, tokenizer, prompt_tokens, 1)
    samples = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        _drawn(model, tokenizer, prompt_tokens, 1)
        samples.append(prompt_tokens / (time.perf_counter() - started_s))
    yield Measurement(
        name="prefill",
        what=f"reading a prompt of {prompt_tokens} tokens",
        unit="tokens/s",
        samples=tuple(samples),
        memory_bytes=device.peak_memory_bytes(model.device),
        device=model.device.type,
        precision=_precision(model),
        limit="operations",
        cost=operations.per_prompt_token(model, prompt_tokens),
        note=sizes.in_words(),
    )


def _model(sizes: Sizes) -> Transformer:
    """Random weights, as `load_voice` gives those of a checkpoint."""
    config = sizes.config()
    assert config.model
    model = build(config.model, sizes.vocabulary)
    model.initialise(7)
    return model.to(device.choose().device).eval()


def _drawn(
    model: Transformer,
    tokenizer: Tokenizer,
    prompt_tokens: int,
    new_tokens: int,
    swift: Transformer | None = None,
) -> int:
    """How many tokens were drawn: fewer where the model ended its text."""
    numbers = torch.Generator().manual_seed(7)
    ids = torch.randint(
        0, min(tokenizer.end_of_text, model.head.size(0)), (prompt_tokens,), generator=numbers
    )
    pieces = draw(model, tokenizer, ids.tolist(), Sampling(max_tokens=new_tokens), packed=swift)
    return sum(isinstance(piece, TokenDrawn) and piece.token >= 0 for piece in pieces)


def _precision(model: Transformer) -> str:
    return str(model.head.dtype).removeprefix("torch.")
