"""Where the model computes and in which precision, chosen once."""

import contextlib
import sys
from dataclasses import dataclass

import torch

from core.allocator import keep_freed_memory
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

    def peak_memory_bytes(self) -> int:
        """Most memory that this process ever held, or on an NVIDIA GPU had allocated there."""
        return peak_memory_bytes(self.device)


def choose(device: str = "auto", precision: str = "auto", gpu: int | None = None) -> Placement:
    """The device and precision to compute with. Raises: UsageError for a device that is not there.

    Args:
        gpu: the number of the GPU, where there may be several.
    """
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    name = next(kind for kind in ("cuda", "mps", "cpu") if has[kind]) if device == "auto" else device
    if not has[name]:
        raise UsageError(f"device: this machine offers no {name}.", "Set device=auto or device=cpu.")
    keep_freed_memory()
    if name == "cuda":
        # Matrix products of what stays in float32 may use the tensor cores' TF32.
        torch.set_float32_matmul_precision("high")
        if gpu is not None:
            if gpu >= torch.cuda.device_count():
                raise UsageError(
                    f"This machine has {torch.cuda.device_count()} GPUs: too few for a process {gpu + 1}.",
                    "Start as many processes as there are GPUs, or set device=cpu.",
                )
            torch.cuda.set_device(gpu)
    if precision == "auto":
        precision = "bfloat16" if gains_from_bfloat16(name) else "float32"
    return Placement(torch.device(name if gpu is None or name != "cuda" else f"cuda:{gpu}"), precision)


def of(config: StageConfig, gpu: int | None = None) -> Placement:
    """The placement that a stage's configuration asks for."""
    return choose(config.device, config.precision, gpu)


def gains_from_bfloat16(name: str) -> bool:
    """Whether a device of that kind computes bfloat16 faster than float32."""
    if name == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without instructions for it (AMX, or AVX-512 BF16), a CPU converts back and forth and ends slower.
    return name == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def peak_memory_bytes(device: torch.device) -> int:
    """As `Placement.peak_memory_bytes`; what is held now where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:
        import psutil

        return psutil.Process().memory_info().rss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def ran_out_of_memory(error: Exception) -> bool:
    """Whether that is what the error says: on a GPU by its kind, on a CPU by its words."""
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)
