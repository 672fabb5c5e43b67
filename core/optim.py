"""AdamW with GPT-2's parameter groups, Muon for matrices, and the schedule of their rate."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from core import device
from core.config import OptimConfig
from core.errors import CheckpointError
from core.model import Transformer

_SHARE = "share_of_rate"


class Optimizers:
    """One or more optimizers used as one; each parameter belongs to one of them."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self._parts = parts
        self._owner = {
            parameter: part for part in parts for group in part.param_groups for parameter in group["params"]
        }

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self._parts for group in part.param_groups]

    def memory_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        """What is remembered of a parameter's gradients; empty before the first step. It may be written to."""
        return self._owner[parameter].state[parameter]

    def step(self) -> None:
        for part in self._parts:
            part.step()

    def zero_grad(self) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none=True)


class Muon(torch.optim.Muon):
    """PyTorch's Muon, its iteration in float32 where the device has no fast bfloat16: there that takes fifty times as
    long."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # noqa: ARG002 - the base class has it
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        memory = self.state[parameter]
        if "momentum_buffer" not in memory:
            memory["momentum_buffer"] = torch.zeros_like(gradient)
        mean: Tensor = memory["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(mean, group["momentum"]) if group["nesterov"] else mean
        update = orthogonalised(ahead, group["ns_coefficients"], group["ns_steps"])
        # An update as large as AdamW's, whatever the matrix's shape.
        size = 0.2 * math.sqrt(max(parameter.shape))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update, alpha=-group["lr"] * size)


def orthogonalised(matrix: Tensor, coefficients: tuple[float, float, float], rounds: int) -> Tensor:
    """A matrix of the same singular vectors, its singular values near 1 (between .5 and 1.5); float32 or bfloat16.

    By the Newton-Schulz iteration X <- (a + b XX' + c (XX')^2) X, the product made from the shorter side.
    """
    a, b, c = coefficients
    x = matrix.bfloat16() if device.gains_from_bfloat16(matrix.device.type) else matrix.float()
    is_tall = x.size(0) > x.size(1)
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(rounds):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x


def make_optimizer(model: Transformer, config: OptimConfig) -> Optimizers:
    """AdamW over the model, or Muon over its blocks' matrices and AdamW over the rest.

    Weight decay falls on matrices and embeddings, none on biases and norms. Muon makes the update of a matrix
    orthogonal, so that no direction is left behind; scaled to the size of AdamW's updates, it takes the same rate.
    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the scale is that of
    Liu et al. 2025, "Muon is Scalable for LLM Training", arXiv 2502.16982.
    """
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2] if config.matrices == "muon" else []
    taken = set(matrices)
    others = [p for p in model.parameters() if p not in taken]
    groups = [
        {"params": [p for p in others if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
    ]
    fuses = others[0].device.type in ("cpu", "cuda")
    adamw = torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=1e-8, fused=fuses or None
    )
    if not matrices:
        return Optimizers([adamw])
    muon = Muon(matrices, lr=config.learning_rate, weight_decay=config.weight_decay)
    for group in muon.param_groups:
        group[_SHARE] = config.muon_share
    return Optimizers([muon, adamw])


def scheduled_rate(config: OptimConfig, step: int, steps: int) -> float:
    """The rate of the update that makes `step` (1 to `steps`), before any change by hand."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    return config.learning_rate * (
        config.final_share + (1 - config.final_share) * shaped(config.schedule, done)
    )


def shaped(shape: str, done: float) -> float:
    """Where between its end (0) and its beginning (1) a schedule stands after this share of its way."""
    if shape == "constant":
        return 1.0
    return 1 - done if shape == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def set_rate(optimizer: Optimizers, rate: float) -> None:
    """Make this the rate of the next step; Muon's follows by its share."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(_SHARE, 1.0)


def optimizer_tensors(model: Transformer, optimizer: Optimizers) -> dict[str, Tensor]:
    """The optimizer's memory under names that say whose it is: `h.0.attn.c_attn.weight/exp_avg`."""
    return {
        f"{name}/{key}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.memory_of(parameter).items()
        if isinstance(value, Tensor)
    }


def load_optimizer_tensors(model: Transformer, optimizer: Optimizers, tensors: dict[str, Tensor]) -> None:
    """Give an optimizer its memory back. Raises: CheckpointError for the memory of another model."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        parameter = parameters.get(name)
        if parameter is None or (value.dim() and value.shape != parameter.shape):
            raise CheckpointError(f"The optimizer's {key[:80]!r} does not belong to this model.")
        # A copy of our own: the loaded tensor may be a view of the file.
        optimizer.memory_of(parameter)[slot] = value.to(parameter.device, copy=True)
