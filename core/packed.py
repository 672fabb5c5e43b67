"""A model whose matrices are packed in int8, to read one token at a time: what costs is to read the weights.

Each row of a matrix has a scale of its own; what a matrix is multiplied with is brought to int8 as it comes. Norms,
embeddings and all that lies between stay in float32. A quarter of the bytes, and nearly a quarter of the time.
"""

import warnings
from functools import cache

import torch
from torch import Tensor, nn

from core.errors import UsageError
from core.model import Transformer, build, capped
from core.sampling import Precision

LEAST_PARAMETERS = 16_000_000
"""Below that the weights fit into the processor's caches and packing hardly pays."""


class PackedLinear(nn.Module):
    """A linear layer in int8: (.., C) -> (.., N), float32 in and out.

    Args:
        weight: (N, C), in float32.
        bias: (N,), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        weight = weight.detach().float()
        # A row of zeros keeps a scale that can be divided by.
        scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        rows = torch.quantize_per_channel(
            weight, scales.double(), torch.zeros(len(weight), dtype=torch.long), 0, torch.qint8
        )
        self._packed = torch.ops.quantized.linear_prepack(rows, None if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.quantized.linear_dynamic(x, self._packed, _overflows())  # type: ignore[no-any-return]


@cache
def _overflows() -> bool:
    """Whether this processor adds pairs of products in 16 bits, so that inputs must do with 7 bits."""
    return not torch.cpu._is_vnni_supported()


@cache
def can_pack() -> bool:
    """Whether this processor and this PyTorch offer such products, and they are right."""
    weight = torch.linspace(-1, 1, 32 * 48).view(32, 48)
    x = torch.linspace(-2, 3, 48)[None]
    try:
        with warnings.catch_warnings(action="ignore"), torch.inference_mode():
            found = PackedLinear(weight)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return torch.allclose(found, x @ weight.T, atol=0.03 * float((x @ weight.T).abs().max()))


def pack(model: Transformer) -> Transformer:
    """The same model with packed matrices, everything else shared with it: for reading with a cache, without gradients.

    Only `hidden` and `logits` of it may be used.
    """
    config = model.config
    twin = build(config, model.head.size(0), device="meta")
    head = None
    with warnings.catch_warnings(action="ignore"):
        for name, module in list(model.named_modules()):
            owner = twin.get_submodule(name.rpartition(".")[0])
            leaf = name.rpartition(".")[2]
            if isinstance(module, nn.Linear):
                layer = PackedLinear(module.weight, module.bias)
                setattr(owner, leaf, layer)
                head = layer if module.weight is model.head else head
            elif name and not list(module.children()):
                setattr(owner, leaf, module)
        head = head or PackedLinear(model.head)
    for name, parameter in model.named_parameters(recurse=False):
        setattr(twin, name, parameter)
    twin.logits = lambda hidden: capped(head(hidden), model.logit_cap)  # type: ignore[method-assign]
    return twin.eval()


def packed(model: Transformer, precision: Precision) -> Transformer | None:
    """The model packed, where that is asked for or pays; otherwise None.

    Raises: UsageError for int8 where it cannot be had.
    """
    can = precision != "float32" and model.device.type == "cpu" and can_pack()
    if precision == "int8" and not can:
        raise UsageError("precision: this device offers no int8 products.", "Take float32, or auto.")
    return (
        pack(model) if can and (precision == "int8" or model.num_parameters() >= LEAST_PARAMETERS) else None
    )
