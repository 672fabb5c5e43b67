"""Cross-entropy from hidden vectors and the head, in chunks: logits for a whole micro-batch never exist at once.

Letters as in `core.model`: N supervised positions, C width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Logits computed at once: 64 MB in float32, whatever the vocabulary.
_LOGITS_AT_ONCE = 1 << 24


def capped(logits: Tensor, cap: float | None) -> Tensor:
    """Logits of any shape, bent towards the bounds cap and -cap; None leaves them as they are."""
    return logits if cap is None else cap * torch.tanh(logits / cap)


def summed_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, cap: float | None = None) -> Tensor:
    """Summed nats of the targets, a float32 scalar. Shapes: hidden (N, C), head (V, C), targets (N,).

    Args:
        cap: the logits' bound, as in `capped`.
    """
    return _ChunkedCrossEntropy.apply(hidden, head, targets, cap)  # type: ignore[no-any-return]


def target_log_probabilities(
    hidden: Tensor, head: Tensor, targets: Tensor, cap: float | None = None
) -> Tensor:
    """Log probability of each target, (N,) float32; shapes as in `summed_cross_entropy`."""
    pieces = [
        -F.cross_entropy(capped(F.linear(h, head).float(), cap), t, reduction="none")
        for h, t in _chunks(hidden, targets, head.size(0))
    ]
    return torch.cat(pieces) if pieces else hidden.new_zeros(0)


def _chunks(hidden: Tensor, targets: Tensor, vocabulary: int) -> zip:  # type: ignore[type-arg]
    rows = max(16, _LOGITS_AT_ONCE // vocabulary)
    return zip(hidden.split(rows), targets.split(rows), strict=True)


def _logs(logits: Tensor, cap: float | None) -> tuple[Tensor, Tensor | None]:
    """Log probabilities of logits, which are used up; and tanh(logits / cap), which the cap's slope is made of."""
    if cap is None:
        return logits.log_softmax(dim=-1), None
    bent = logits.div_(cap).tanh_()
    return (cap * bent).log_softmax(dim=-1), bent


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy that never holds more than a chunk of logits.

    A chunk's logits give its loss and, at once, the gradients of what made them: (softmax - one-hot) is all the
    backward pass needs, so nothing is recomputed. The idea is that of fused linear cross-entropy kernels
    (Hsu et al. 2024, arXiv 2410.10989), here in plain tensors.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, cap: float | None) -> Tensor:
        device = hidden.device.type
        autocasts = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocasts else hidden.dtype
        h_all, w = hidden.to(dtype), weight.to(dtype)
        needs_gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        total = torch.zeros((), device=hidden.device, dtype=torch.float32)
        grad_hidden = torch.empty_like(hidden) if needs_gradient else None
        grad_weight = torch.zeros_like(weight) if needs_gradient else None
        start = 0
        with torch.autocast(device, enabled=False):
            for h, t in _chunks(h_all, targets, weight.size(0)):
                logs, bent = _logs((h @ w.t()).float(), cap)
                total -= logs.gather(-1, t[:, None]).sum()
                if grad_hidden is not None and grad_weight is not None:
                    # Gradient of the summed loss by the logits: softmax, less one at the target.
                    slope = logs.exp_()
                    slope.scatter_add_(-1, t[:, None], slope.new_full((len(t), 1), -1.0))
                    if bent is not None:
                        # cap * tanh(x / cap) has the slope 1 - tanh^2.
                        slope.mul_(bent.square_().neg_().add_(1))
                    slope = slope.to(dtype)
                    grad_hidden[start : start + len(t)] = slope @ w
                    if dtype == grad_weight.dtype:
                        # Into the sum at once: a product of its own would be as large as the head.
                        grad_weight.addmm_(slope.t(), h)
                    else:
                        grad_weight += slope.t() @ h
                start += len(t)
        if grad_hidden is not None and grad_weight is not None:
            ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        # In place: backward comes once, and the head's gradient is as large as the head.
        return grad_hidden.mul_(grad_total), grad_weight.mul_(grad_total), None, None
