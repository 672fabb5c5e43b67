"""A checkpoint as the folder that other programs load: transformers' configuration, weights and vocabulary.

Two architectures have a counterpart there, GPT-2 and nanochat; their logits are the same. Nothing of transformers is
imported: its folder is JSON and safetensors.
"""

import json
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from core.checkpoint import check_fits, load_at, sync
from core.config import ModelConfig
from core.errors import RetryLaterError, UsageError
from core.model import build
from core.runs import Run
from core.tokenizer import MARKERS, Tokenizer


@dataclass(frozen=True, slots=True)
class Export:
    """What was written, and what to know of it."""

    folder: Path
    step: int
    bytes_written: int
    notes: list[str]


def export(run: Run, at: str, target: Path) -> Export:
    """Write a run's last, best or numbered checkpoint to a folder that `AutoModelForCausalLM` loads.

    The folder appears whole or not at all. Raises: UsageError where it exists, or the architecture has no counterpart;
    MissingError, CheckpointError; RetryLaterError where it cannot be written.
    """
    config = run.config.model
    if config is None:
        raise UsageError(f"{run.name}: its configuration names no model.", "Choose another run.")
    if config.architecture == "modern":
        raise UsageError(
            f"{run.name} has the architecture modern, which transformers does not know: it smears tokens.",
            "Train a first stage with --set model.architecture=nanochat, and export that.",
        )
    if target.exists():
        raise UsageError(f"{str(target)[:200]!r} exists already.", "Name a folder that does not.")
    weights = load_at(run, at)
    tokenizer = Tokenizer.load(weights.folder)
    model = build(config, tokenizer.padded_size, "meta")
    check_fits(weights, model, tokenizer)
    is_gpt2 = config.architecture == "gpt2"
    tensors = _gpt2_tensors(weights.tensors) if is_gpt2 else _nanochat_tensors(weights.tensors)
    documents = {
        "config.json": _gpt2_config(config, tokenizer)
        if is_gpt2
        else _nanochat_config(config, tokenizer) | {"final_logit_softcapping": model.logit_cap},
        "generation_config.json": _special_ids(tokenizer),
        "tokenizer.json": _vocabulary(tokenizer),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.context,
            **dict.fromkeys(("bos_token", "eos_token", "pad_token"), MARKERS[0]),
        },
    }
    return Export(target, weights.state.step, _write(target, tensors, documents), _notes(run, tokenizer))


def _write(target: Path, tensors: dict[str, Tensor], documents: dict[str, Any]) -> int:
    """Returns the bytes written."""
    temporary = target.with_name(f".{target.name}.saving-{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
        for name, document in documents.items():
            (temporary / name).write_text(json.dumps(document, indent=1), encoding="utf-8")
        files = sorted(temporary.iterdir())
        for path in [*files, temporary]:
            sync(path)
        size = sum(path.stat().st_size for path in files)
        temporary.rename(target)
        sync(target.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or str(error)[:120]
        raise RetryLaterError(
            f"Cannot write {str(target)[:200]!r}: {reason}.", "Check the path and the free disk space."
        ) from None
    return size


def _notes(run: Run, tokenizer: Tokenizer) -> list[str]:
    turns = "<|user|>question<|assistant|>" if run.config.prompt_format == "markers" else "the question alone"
    return [
        f"The vocabulary has {tokenizer.size} ids; embedding and head have {tokenizer.padded_size} rows, the last of "
        "which stand for nothing and are never to be drawn.",
        "Its tokenizer takes a marker that is typed in a text for the marker; ours never does.",
        f"No chat template is written. A prompt is {turns}."
        if run.config.learns_pairs
        else "It goes on with a text; it has not learned to answer.",
    ]


# ---------------------------------------------------------------- the two architectures


def _gpt2_tensors(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    # GPT-2's matrices were released to be multiplied from the other side.
    return {
        f"transformer.{name}": tensor.t().contiguous()
        if name.startswith("h.") and tensor.dim() == 2
        else tensor
        for name, tensor in ours.items()
    }


def _gpt2_config(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": tokenizer.padded_size,
        "n_positions": config.context,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        "tie_word_embeddings": True,
        "dtype": "float32",
        **_special_ids(tokenizer),
    }


def _nanochat_tensors(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name if name.startswith("lm_head.") else f"model.{name}": tensor for name, tensor in ours.items()}


def _nanochat_config(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "vocab_size": tokenizer.padded_size,
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "max_position_embeddings": config.context,
        "hidden_act": "relu2",
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "dtype": "float32",
        **_special_ids(tokenizer),
    }


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.end_of_text)


# ---------------------------------------------------------------- the vocabulary


def _vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    """The vocabulary as the library tokenizers reads it: byte pairs, each byte written as a printable character."""
    letters = _letters_of_bytes()
    written = {token: "".join(letters[byte] for byte in token) for token in tokenizer.ranks}
    # Any two neighbours that make a token are merged, the lowest rank first: each way to cut a token is a merge.
    merges = [
        [written[token[:cut]], written[token[cut:]]]
        for token in sorted(tokenizer.ranks, key=tokenizer.ranks.__getitem__)
        for cut in range(1, len(token))
        if token[:cut] in written and token[cut:] in written
    ]
    markers = [
        {"id": tokenizer.end_of_text + i, "content": name, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i, name in enumerate(MARKERS)
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": markers,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {written[token]: rank for token, rank in tokenizer.ranks.items()},
            "merges": merges,
        },
    }


def _letters_of_bytes() -> list[str]:
    """GPT-2's way to write the 256 bytes: a printable Latin-1 one as itself, the others as letters from 256 on."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
