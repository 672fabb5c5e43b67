"""A thread that reads the machine's figures once a second, while someone looks at them."""

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from textual.message import Message

from tui.workers.gpus import Gpu, GpuReader

_EVERY_S = 1.0
_FOLDER_EVERY_S = 30.0
_FOLDER_AT_ONCE_S = 0.05
"""The folder's size is gathered in slices, so that a large one holds nothing up."""


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    process_id: int
    cpu_percent: float
    """Of one core; above 100 for several."""
    memory_bytes: int
    threads: int
    files: int
    """Open descriptors; 0 where the system does not tell."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the machine did in the last second."""

    core_percents: tuple[float, ...]
    """Empty in the first reading: it takes two to tell."""
    memory_used_bytes: int
    memory_bytes: int
    swap_used_bytes: int
    swap_bytes: int
    load: tuple[float, float, float]
    disk_free_bytes: int
    disk_bytes: int
    checkpoints_bytes: int | None
    """None until it has been added up once."""
    app: ProcessFigures | None
    trainer: ProcessFigures | None
    """The process that trains the shown run, where it is another."""
    gpus: tuple[Gpu, ...]
    gpu_words: str
    """Why there is no figure of a GPU."""

    @property
    def cpu_percent(self) -> float | None:
        """Mean of all cores."""
        return sum(self.core_percents) / len(self.core_percents) if self.core_percents else None


class MetersRead(Message):
    """A second has gone by."""

    def __init__(self, reading: Reading) -> None:
        super().__init__()
        self.reading = reading


class Meters:
    """Reads while someone looks; at other times its threads sleep. One for the app.

    Args:
        root: the folder that holds `checkpoints/`, whose disk is meant.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._post: Callable[[Message], object] | None = None
        self._trainer_id = 0
        self._looked_at = threading.Event()
        self._thread: threading.Thread | None = None
        self._gpus = GpuReader()
        self._processes: dict[int, psutil.Process] = {}
        self._adding_up: Iterator[int | None] | None = None
        self._checkpoints_bytes: int | None = None
        self._add_up_at = 0.0

    def look(self, post: Callable[[Message], object], trainer_id: int) -> None:
        """Begin, or go on with another process.

        Args:
            post: a thread-safe function that takes MetersRead: a widget's `post_message`.
            trainer_id: the process that trains the shown run; 0 for none.
        """
        self._post, self._trainer_id = post, trainer_id
        if self._looked_at.is_set():
            return
        self._gpus.look()
        self._looked_at.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._read_on, name="read meters", daemon=True)
            self._thread.start()

    def look_away(self, post: Callable[[Message], object]) -> None:
        """End, unless another has begun to look in the meantime."""
        if self._post != post:
            return
        self._looked_at.clear()
        self._gpus.look_away()
        self._post = None

    def _read_on(self) -> None:
        while True:
            self._looked_at.wait()
            psutil.cpu_percent(percpu=True)  # its next answer is about the time from here on
            is_first = True
            while post := self._post:
                post(MetersRead(self.read(is_first)))
                is_first = False
                time.sleep(_EVERY_S)

    def read(self, is_first: bool = False) -> Reading:
        """The figures now; a share of a processor is of the time since the last reading."""
        memory, swap = psutil.virtual_memory(), _swap()
        disk_bytes = disk_free_bytes = 0
        with contextlib.suppress(OSError):
            disk_bytes, _, disk_free_bytes = shutil.disk_usage(self._root)
        own = os.getpid()
        trainer_id = self._trainer_id
        gpus, gpu_words = self._gpus.newest()
        return Reading(
            core_percents=() if is_first else tuple(psutil.cpu_percent(percpu=True)),
            memory_used_bytes=memory.total - memory.available,
            memory_bytes=memory.total,
            swap_used_bytes=swap[0],
            swap_bytes=swap[1],
            load=_load(),
            disk_free_bytes=disk_free_bytes,
            disk_bytes=disk_bytes,
            checkpoints_bytes=self._add_up(),
            app=self._process(own),
            trainer=self._process(trainer_id) if trainer_id not in (0, own) else None,
            gpus=gpus,
            gpu_words=gpu_words,
        )

    def _process(self, process_id: int) -> ProcessFigures | None:
        try:
            # Held on to: the share of a processor is measured between two questions to the same object.
            process = self._processes.get(process_id) or psutil.Process(process_id)
            self._processes = {**self._processes, process_id: process}
            with process.oneshot():
                return ProcessFigures(
                    process_id,
                    process.cpu_percent(),
                    process.memory_info().rss,
                    process.num_threads(),
                    process.num_fds() if hasattr(process, "num_fds") else 0,
                )
        except (psutil.Error, OSError):
            self._processes.pop(process_id, None)
            return None

    def _add_up(self) -> int | None:
        """The size of `checkpoints/` as last added up; a slice of the next sum is done."""
        now = time.monotonic()
        if self._adding_up is None and now >= self._add_up_at:
            self._adding_up = _sizes_below(self._root / "checkpoints")
        if self._adding_up:
            for size in self._adding_up:
                if size is not None:
                    self._checkpoints_bytes = size
                if time.monotonic() - now >= _FOLDER_AT_ONCE_S:
                    return self._checkpoints_bytes
            self._adding_up, self._add_up_at = None, now + _FOLDER_EVERY_S
        return self._checkpoints_bytes


def _sizes_below(folder: Path) -> Iterator[int | None]:
    """None after each folder looked at, and at the end the size of all files; links are not followed."""
    total, folders = 0, [str(folder)]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
        yield None
    yield total


def _swap() -> tuple[int, int]:
    try:
        swap = psutil.swap_memory()
    except (OSError, RuntimeError):  # a container that hides it
        return 0, 0
    return swap.used, swap.total


def _load() -> tuple[float, float, float]:
    try:
        return psutil.getloadavg()
    except OSError:
        return 0.0, 0.0, 0.0
