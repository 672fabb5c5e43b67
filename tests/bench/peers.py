"""The measuring process for peers: nanoGPT, transformers and llama.cpp do what `core.bench` has ours do.

nanoGPT is a folder on the process's path with its `model.py`. Each peer has the fused AdamW and PyTorch's fused
attention; what ours sets for its own process (`core.allocator`) is not set for them.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from core.bench.__main__ import answer
from core.bench.measurement import Measurement, Sizes
from core.device import Placement

_DECAY, _RATE, _BETAS, _CLIP = 0.1, 6e-4, (0.9, 0.95), 1.0
"""As nanoGPT's train.py has them."""


# ---------------------------------------------------------------- training


def nanogpt_train(
    sizes: Sizes, rounds: int, precision: str, compiled: bool, warm_up: int = 1
) -> Iterator[Measurement]:
    """An iteration of its train.py: forward, backward, clipping, step, gradients set to None."""
    model = nanogpt(sizes)
    optimizer = nanogpt_optimizer(model, _RATE)

    def loss(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return run(inputs, targets)[1]

    run = torch.compile(model) if compiled else model
    yield _trained("nanoGPT", model, optimizer, loss, sizes, rounds, precision, warm_up)


def transformers_train(
    sizes: Sizes, rounds: int, precision: str, compiled: bool, warm_up: int = 1
) -> Iterator[Measurement]:
    model = gpt2_of_transformers(sizes)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    groups = [
        {"params": decayed, "weight_decay": _DECAY},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=_RATE, betas=_BETAS, fused=True)

    def loss(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return run(input_ids=inputs, labels=inputs, shift_labels=targets, use_cache=False).loss

    run = torch.compile(model) if compiled else model
    yield _trained("transformers", model, optimizer, loss, sizes, rounds, precision, warm_up)


def nanogpt(sizes: Sizes) -> Any:
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    return GPT(
        GPTConfig(
            block_size=sizes.context,
            vocab_size=sizes.vocabulary,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            n_embd=sizes.width,
            dropout=0.0,
            bias=True,
        )
    )


def nanogpt_optimizer(model: Any, rate: float) -> torch.optim.Optimizer:
    # It takes the fused update for "cuda" only; torch has had one for the CPU since then, which is faster.
    return model.configure_optimizers(_DECAY, rate, _BETAS, "cuda")


def gpt2_of_transformers(sizes: Sizes, number: torch.dtype = torch.float32) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=sizes.vocabulary,
        n_positions=sizes.context,
        n_embd=sizes.width,
        n_layer=sizes.layers,
        n_head=sizes.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        # No text ends before its length.
        eos_token_id=None,
        attn_implementation="sdpa",
    )
    return GPT2LMHeadModel(config).to(number)  # type: ignore[arg-type]


def _placement(precision: str) -> Placement:
    # As nanoGPT's train.py does; `core.device.choose` would do more.
    torch.backends.cuda.matmul.allow_tf32 = True
    return Placement(torch.device("cuda" if torch.cuda.is_available() else "cpu"), precision)


def _trained(
    who: str,
    model: Any,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    sizes: Sizes,
    rounds: int,
    precision: str,
    warm_up: int,
) -> Measurement:
    placement = _placement(precision)
    model.to(placement.device).train()
    draw = torch.Generator().manual_seed(7)

    def step() -> float:
        started_s = time.perf_counter()
        ids = torch.randint(0, sizes.vocabulary, (sizes.micro_batch, sizes.context + 1), generator=draw)
        ids = ids.to(placement.device)
        with placement.autocast():
            found = loss(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        found.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        placement.synchronise()
        return time.perf_counter() - started_s

    for _ in range(warm_up):
        step()
    samples = tuple(sizes.tokens / step() for _ in range(rounds))
    return _measurement("train", who, samples, placement.precision, placement)


# ---------------------------------------------------------------- generation


def nanogpt_generate(sizes: Sizes, rounds: int, prompt_tokens: int, new_tokens: int) -> Iterator[Measurement]:
    """Its sample loop: float32, no cache."""
    model = nanogpt(sizes).eval().to(_placement("float32").device)
    ids = _prompt(sizes, prompt_tokens).to(model.lm_head.weight.device)
    yield _generated(
        "nanoGPT",
        lambda count: model.generate(ids, count, temperature=0.8, top_k=50),
        rounds,
        prompt_tokens,
        new_tokens,
        "float32",
    )


def transformers_generate(
    sizes: Sizes, rounds: int, prompt_tokens: int, new_tokens: int, precision: str
) -> Iterator[Measurement]:
    model = gpt2_of_transformers(sizes, getattr(torch, precision)).eval().to(_placement(precision).device)
    ids = _prompt(sizes, prompt_tokens).to(model.device)
    how = {"do_sample": True, "temperature": 0.8, "top_k": 50, "use_cache": True, "pad_token_id": 0}
    mask = torch.ones_like(ids)
    yield _generated(
        "transformers",
        lambda count: model.generate(ids, attention_mask=mask, max_new_tokens=count, **how),
        rounds,
        prompt_tokens,
        new_tokens,
        precision,
    )


def llama_cpp_generate(
    sizes: Sizes, rounds: int, prompt_tokens: int, new_tokens: int, precision: str
) -> Iterator[Measurement]:
    """llama.cpp on a file that holds our model's random weights."""
    from llama_cpp import Llama

    from tests.bench.gguf_file import write_gguf

    cores = len(os.sched_getaffinity(0))
    ids = _prompt(sizes, prompt_tokens)[0].tolist()
    with tempfile.TemporaryDirectory() as folder:
        file = write_gguf(sizes, Path(folder) / "model.gguf", precision)
        reader = Llama(
            str(file),
            n_ctx=sizes.context,
            n_batch=sizes.context,
            n_ubatch=sizes.context,
            n_threads=cores,
            n_threads_batch=cores,
            verbose=False,
        )

        def generate(count: int) -> None:
            drawn = reader.generate(ids, temp=0.8, top_k=50, top_p=1.0, min_p=0.0, reset=True)
            for _ in range(count):
                next(drawn)
            # What it has read of the prompt would be reused.
            reader.reset()

        found = _generated("llama.cpp", generate, rounds, prompt_tokens, new_tokens, precision)
        # This process has held the weights in PyTorch, too.
        yield replace(found, memory_bytes=0)


def _prompt(sizes: Sizes, tokens: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(7)
    return torch.randint(0, min(50256, sizes.vocabulary), (1, tokens), generator=draw)


def _generated(
    who: str,
    generate: Callable[[int], object],
    rounds: int,
    prompt_tokens: int,
    new_tokens: int,
    precision: str,
) -> Measurement:
    """Of a single new token the rate is that of the prompt's tokens, as in `core.bench.decoding`."""
    counted = prompt_tokens if new_tokens == 1 else new_tokens
    placement = _placement(precision)
    generate(min(new_tokens, 8))
    samples = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        generate(new_tokens)
        placement.synchronise()
        samples.append(counted / (time.perf_counter() - started_s))
    return _measurement("generate", who, tuple(samples), precision, placement)


# ---------------------------------------------------------------- data


def nanogpt_prepare(path: str, rounds: int) -> Iterator[Measurement]:
    """The way of its data/openwebtext/prepare.py on a Parquet file: one document a call, two processes, memmap."""
    samples = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            started_s = time.perf_counter()
            _write_bins(path, Path(folder))
            elapsed_s = time.perf_counter() - started_s
        samples.append(_text_bytes(path) / 1e6 / elapsed_s)
    yield _measurement("prepare", "nanoGPT", tuple(samples), "", _placement(""), "MB/s")


def _write_bins(path: str, folder: Path) -> None:
    import numpy as np
    import tiktoken
    from datasets import Dataset, DatasetDict, load_dataset

    from core.tokenizer import Tokenizer

    # Its vocabulary as tiktoken has it, from the files that are installed here: nothing is downloaded.
    encoding = Tokenizer.gpt2()._encoding
    assert isinstance(encoding, tiktoken.Encoding)

    def process(example: dict[str, str]) -> dict[str, Any]:
        ids = encoding.encode_ordinary(example["text"])
        ids.append(50256)
        return {"ids": ids, "len": len(ids)}

    files = [
        str(file) for file in ([Path(path)] if Path(path).is_file() else sorted(Path(path).glob("*.parquet")))
    ]
    loaded = load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "cache"))
    assert isinstance(loaded, Dataset)
    loaded = loaded.select_columns(["text"])
    split: DatasetDict = loaded.train_test_split(test_size=0.01, seed=2357, shuffle=True)
    split["val"] = split.pop("test")
    tokenised = split.map(process, remove_columns=["text"], num_proc=2)
    for name, part in tokenised.items():
        length = int(np.sum(part["len"], dtype=np.uint64))
        written = np.memmap(folder / f"{name}.bin", dtype=np.uint16, mode="w+", shape=(length,))
        shards, at = min(1024, len(part)), 0
        for index in range(shards):
            batch = part.shard(num_shards=shards, index=index, contiguous=True).with_format("numpy")
            ids = np.concatenate(batch["ids"])
            written[at : at + len(ids)] = ids
            at += len(ids)
        written.flush()


def _text_bytes(path: str) -> int:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    return int(pc.sum(pc.binary_length(pq.read_table(path, columns=["text"])["text"])).as_py())


def _measurement(
    name: str,
    who: str,
    samples: tuple[float, ...],
    precision: str,
    placement: Placement,
    unit: str = "tokens/s",
) -> Measurement:
    return Measurement(
        name=name,
        what=who,
        unit=unit,
        samples=samples,
        memory_bytes=placement.peak_memory_bytes(),
        device=placement.device.type,
        precision=precision,
    )


KINDS = {
    function.__name__: function
    for function in (
        nanogpt_train,
        transformers_train,
        nanogpt_generate,
        transformers_generate,
        llama_cpp_generate,
        nanogpt_prepare,
    )
}

if __name__ == "__main__":
    answer(KINDS.__getitem__)
