"""A thread that asks NVIDIA's driver for figures; a call into it can hang, and then nothing else may wait."""

import importlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_EVERY_S = 1.0
_STALE_S = 5.0
NO_GPU = "no NVIDIA GPU seen"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU's figures; None for what it does not tell."""

    name: str
    busy_percent: float | None
    memory_used_bytes: int | None
    memory_bytes: int | None
    celsius: float | None
    watts: float | None
    most_watts: float | None


class GpuReader:
    """Keeps the newest figures of all GPUs, while someone looks."""

    def __init__(self) -> None:
        self._gpus: tuple[Gpu, ...] = ()
        self._words = "asking the driver…"
        self._answered_at = time.monotonic()
        self._is_over = False
        """No driver was found: nobody asks again."""
        self._looked_at = threading.Event()
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Begin to ask. A thread that still hangs in the driver is waited for; there is never a second."""
        self._answered_at = time.monotonic()
        self._looked_at.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._ask, name="read GPUs", daemon=True)
            self._thread.start()

    def look_away(self) -> None:
        self._looked_at.clear()

    def newest(self) -> tuple[tuple[Gpu, ...], str]:
        """The figures, and why there are none where there are none."""
        if not self._is_over and time.monotonic() - self._answered_at > _STALE_S:
            return (), "the GPU's driver does not answer"
        return self._gpus, self._words

    def _ask(self) -> None:
        nvml, handles = _devices()
        if not handles:
            self._words, self._is_over = NO_GPU, True
            return
        while True:
            self._looked_at.wait()
            self._gpus, self._words = tuple(_figures_of(nvml, handle) for handle in handles), ""
            self._answered_at = time.monotonic()
            time.sleep(_EVERY_S)


def _devices() -> tuple[Any, list[Any]]:
    """The library and a handle for each GPU; none without the library, or without a driver."""
    try:
        nvml: Any = importlib.import_module("pynvml")  # the package is nvidia-ml-py
        nvml.nvmlInit()
        return nvml, [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except Exception:  # its own errors, a function that an old driver lacks, a library that does not load
        return None, []


def _figures_of(nvml: Any, handle: Any) -> Gpu:
    busy = _told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
    memory = _told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
    milliwatts = _told(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
    most = _told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
    name = _told(lambda: nvml.nvmlDeviceGetName(handle)) or "GPU"
    return Gpu(
        name=name.decode(errors="replace") if isinstance(name, bytes) else str(name),
        busy_percent=float(busy.gpu) if busy else None,
        memory_used_bytes=int(memory.used) if memory else None,
        memory_bytes=int(memory.total) if memory else None,
        celsius=_told(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        watts=milliwatts / 1000 if milliwatts is not None else None,
        most_watts=most / 1000 if most else None,
    )


def _told(question: Callable[[], Any]) -> Any:
    """The driver's answer, or None where this GPU or this driver has none."""
    try:
        return question()
    except Exception:
        return None
