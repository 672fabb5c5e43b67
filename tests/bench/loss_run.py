"""The processes of `tests.bench.time_to_loss`: nanoGPT's recipe, or ours, on the same shards and validation windows.

Each answers with a measurement a point of its curve: wall time without validation, tokens, validation loss.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core.bench.__main__ import answer
from core.bench.measurement import Measurement, Sizes
from core.config import StageConfig, load_stage
from core.data.batches import WindowBatches
from core.data.prepare import prepare
from core.data.shards import TokenShards
from core.data.vocabulary import vocabulary_texts
from core.device import Placement
from core.events import TrainMeasured, Validated
from core.runs import Runs, data_folder
from core.tokenizer import Tokenizer
from core.train import train
from tests.bench.peers import nanogpt, nanogpt_optimizer

_CLIP = 1.0
_FINAL_SHARE = 0.1
_SEED = 1337
_VALIDATED_AT_ONCE = 8


def prepared(config: StageConfig, root: Path) -> tuple[Tokenizer, TokenShards]:
    """The vocabulary and the shards that a run of this configuration under the root would make, or has made."""
    kept = root / "vocabulary"
    if not (kept / "tokenizer.json").is_file():
        assert config.tokenizer
        kept.mkdir(parents=True, exist_ok=True)
        Tokenizer.train(vocabulary_texts(config), config.tokenizer.vocabulary).save(kept)
    tokenizer = Tokenizer.load(kept)
    assert config.model
    steps = prepare(config, tokenizer, config.model.context, data_folder(root), lambda: False)
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            assert isinstance(ended.value, TokenShards)
            return tokenizer, ended.value


def our_config(root: str, text: str, sizes: Sizes, overrides: list[str]) -> StageConfig:
    """The quickstart's recipe at these sizes, on this text."""
    given = [
        *(f"model.{name}={getattr(sizes, name)}" for name in ("layers", "heads", "width", "context")),
        f"tokenizer.vocabulary={sizes.vocabulary}",
        "data.source=files",
        f"data.path={text}",
        "data.validation_share=0.01",
        "samples.every=0",
        *overrides,
    ]
    return load_stage("quickstart", "pretrain", Path(root), given)


# ---------------------------------------------------------------- nanoGPT


def peer(
    root: str,
    text: str,
    sizes: Sizes,
    precision: str,
    tokens: int,
    batch_tokens: int,
    rate: float,
    warm_up: float,
    compiled: bool,
    points: int,
    validation_rows: int,
) -> Iterator[Measurement]:
    """nanoGPT's train.py: its model, its random windows, AdamW, warm-up, cosine down to a tenth at the last step.

    Args:
        rate: the highest.
        warm_up: share of the steps.
        points: times that the validation loss is measured, the end included.
    """
    tokenizer, shards = prepared(our_config(root, text, sizes, []), Path(root))
    windows = WindowBatches(shards, sizes.context, 1, 0)
    torch.manual_seed(_SEED)
    placement = Placement(torch.device("cuda" if torch.cuda.is_available() else "cpu"), precision)
    own = replace(sizes, vocabulary=tokenizer.padded_size)
    model = nanogpt(own).to(placement.device)
    optimizer = nanogpt_optimizer(model, rate)
    run = torch.compile(model) if compiled else model
    draw = _Windows(shards, sizes)
    steps = math.ceil(tokens / batch_tokens)
    parts = max(1, batch_tokens // sizes.tokens)
    # Compiling, and the first use of memory, are left out of its time.
    _step(run, model, None, [draw.batch() for _ in range(parts)], placement.autocast)
    wall_s = 0.0
    for step in range(steps):
        started_s = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = nanogpt_rate(step, steps, rate, max(1, round(warm_up * steps)))
        _step(run, model, optimizer, [draw.batch() for _ in range(parts)], placement.autocast)
        wall_s += time.perf_counter() - started_s
        if (step + 1) * points // steps > step * points // steps:
            loss = _validated(model, windows, validation_rows, placement)
            yield _point(wall_s, (step + 1) * parts * sizes.tokens, loss)


def nanogpt_rate(step: int, steps: int, rate: float, warm_up_steps: int) -> float:
    """Its get_lr, with lr_decay_iters = max_iters and min_lr a tenth of the highest."""
    if step < warm_up_steps:
        return rate * (step + 1) / (warm_up_steps + 1)
    done = (step - warm_up_steps) / max(1, steps - warm_up_steps)
    return rate * (_FINAL_SHARE + (1 - _FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * done)))


class _Windows:
    """Its get_batch: windows from random places of the training text."""

    def __init__(self, shards: TokenShards, sizes: Sizes) -> None:
        self._stream, self._sizes = shards.train, sizes

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        length = self._sizes.context
        starts = torch.randint(len(self._stream) - length, (self._sizes.micro_batch,)).tolist()
        ids = torch.stack([torch.from_numpy(self._stream.slice(at, at + length + 1)) for at in starts])
        return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def _step(
    run: Any,
    model: Any,
    optimizer: torch.optim.Optimizer | None,
    batches: list[tuple[torch.Tensor, torch.Tensor]],
    autocast: Any,
) -> None:
    """An optimizer step over micro-batches; without an optimizer the gradients are thrown away."""
    for inputs, targets in batches:
        with autocast():
            loss = run(inputs, targets)[1] / len(batches)
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
    if optimizer:
        optimizer.step()
    model.zero_grad(set_to_none=True)


@torch.no_grad()
def _validated(model: Any, windows: WindowBatches, rows: int, placement: Placement) -> float:
    model.eval()
    nats, count = 0.0, 0
    for batch in windows.validation(_VALIDATED_AT_ONCE, rows):
        with placement.autocast():
            loss = model(batch.inputs.to(placement.device), batch.targets.to(placement.device))[1]
        nats += float(loss) * batch.supervised
        count += batch.supervised
    model.train()
    return nats / count


# ---------------------------------------------------------------- ours


def ours(
    root: str,
    text: str,
    sizes: Sizes,
    precision: str,
    tokens: int,
    settings: list[str],
    validation_rows: int,
    points: int,
) -> Iterator[Measurement]:
    """A run of the product on that many tokens."""
    config = our_config(root, text, sizes, [f"precision={precision}", *settings])
    steps = max(1, tokens // config.batch.tokens)
    tokenizer, _ = prepared(config, Path(root))
    whole = [
        f"steps={steps}",
        f"validate_every={max(1, steps // points)}",
        f"validation_rows={validation_rows}",
    ]
    config = our_config(
        root, text, sizes, [f"precision={precision}", *whole, f"checkpoint_every={steps}", *settings]
    )
    run = Runs(Path(root)).create(config)
    tokenizer.save(run.folder)
    wall_s, done = 0.0, 0
    events = train(config, run)
    while True:
        started_s = time.perf_counter()
        event = next(events, None)
        elapsed_s = time.perf_counter() - started_s
        if event is None:
            return
        if isinstance(event, TrainMeasured):
            # All that happened since the event before: the step, and what it took to log it.
            wall_s += elapsed_s
            done = event.tokens
        elif isinstance(event, Validated) and event.step:
            yield _point(wall_s, done, event.loss)


def _point(wall_s: float, tokens: int, loss: float) -> Measurement:
    return Measurement(name="point", what=str(tokens), unit="nats", samples=(loss,), cost=wall_s)


if __name__ == "__main__":
    answer({"peer": peer, "ours": ours}.__getitem__)
