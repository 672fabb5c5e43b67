"""What the figures were measured on. Loads without torch."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Machine:
    processor: str
    cores: int
    """That this process may use."""
    memory_bytes: int
    load: float
    """Processes that ran or waited on average in the last minute, before anything was measured."""
    python: str
    torch: str
    gpu: str
    """Names of NVIDIA GPUs, or empty."""

    @classmethod
    def here(cls) -> "Machine":
        return cls(
            processor=_processor(),
            cores=_cores(),
            memory_bytes=psutil.virtual_memory().total,
            load=round(psutil.getloadavg()[0], 2),
            python=platform.python_version(),
            torch=version("torch"),
            gpu=_gpus(),
        )

    def in_words(self) -> str:
        gpu = self.gpu or "no GPU"
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_bytes / 2**30:.0f} GiB, {gpu}; load {self.load:g}; "
            f"Python {self.python}, torch {self.torch}"
        )


def _cores() -> int:
    # A container or `taskset` may leave fewer than there are.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if platform.system() == "Darwin":
        return _first_line(["sysctl", "-n", "machdep.cpu.brand_string"]) or platform.machine()
    return platform.processor() or platform.machine()


def _gpus() -> str:
    """By its own tool: torch would take seconds to load."""
    return _first_line(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else next(iter(done.stdout.strip().splitlines()), "")
