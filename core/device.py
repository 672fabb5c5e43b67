"""Where the model computes and in which precision, chosen once."""

import contextlib
from dataclasses import dataclass

import torch

from core.config import StageConfig
from core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Placement:
    device: torch.device
    precision: str
    """float32 or bfloat16; weights and optimizer stay in float32 either way."""

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """A context in which the forward pass computes in this precision."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def synchronise(self) -> None:
        """Wait for the device, so that a clock read next is honest."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def choose(device: str = "auto", precision: str = "auto") -> Placement:
    """The device and precision to compute with. Raises: UsageError for a device that is not there."""
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = next(kind for kind in ("cuda", "mps", "cpu") if has[kind]) if device == "auto" else device
    if not has[name]:
        raise UsageError(f"device: this machine offers no {name}.", "Set device=auto or device=cpu.")
    if name == "cuda":
        # Matrix products of what stays in float32 may use the tensor cores' TF32.
        torch.set_float32_matmul_precision("high")
    if precision == "auto":
        precision = "bfloat16" if gains_from_bfloat16(name) else "float32"
    return Placement(torch.device(name), precision)


def of(config: StageConfig) -> Placement:
    """The placement that a stage's configuration asks for."""
    return choose(config.device, config.precision)


def gains_from_bfloat16(name: str) -> bool:
    """Whether a device of that kind computes bfloat16 faster than float32."""
    if name == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without instructions for it (AMX, or AVX-512 BF16), a CPU converts back and forth and ends slower.
    return name == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
