"""Our GPT-2's random weights as a file that llama.cpp reads."""

from pathlib import Path

import torch

from core.bench.measurement import Sizes
from core.model import GPT, build

_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
"""Ours to theirs, after `h.3.` and `blk.3.`."""


def write_gguf(sizes: Sizes, file: Path, precision: str) -> Path:
    """Write the file without a vocabulary: ids go in and come out.

    Args:
        precision: of matrices, float32 or float16; biases, norms and positions stay in float32.
    Raises: ImportError where the package `gguf` is not installed.
    """
    import gguf

    config = sizes.config().model
    assert config
    model = build(config, sizes.vocabulary)
    assert isinstance(model, GPT)
    model.initialise(7)
    writer = gguf.GGUFWriter(str(file), "gpt2")
    writer.add_name("random weights")
    writer.add_context_length(sizes.context)
    writer.add_embedding_length(sizes.width)
    writer.add_block_count(sizes.layers)
    writer.add_feed_forward_length(4 * sizes.width)
    writer.add_head_count(sizes.heads)
    writer.add_layer_norm_eps(1e-5)
    is_half = precision == "float16"
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if is_half else gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(sizes.vocabulary)
    for name, tensor in model.state_dict().items():
        kept = tensor.dim() == 1 or name == "wpe.weight" or not is_half
        writer.add_tensor(_name_of(name), tensor.to(torch.float32 if kept else torch.float16).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _name_of(name: str) -> str:
    """`h.3.attn.c_attn.weight` -> `blk.3.attn_qkv.weight`."""
    outside = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm"}
    part, _, kind = name.rpartition(".")
    if part in outside:
        return f"{outside[part]}.{kind}"
    _, layer, inner = part.split(".", 2)
    return f"blk.{layer}.{_NAMES[inner]}.{kind}"
