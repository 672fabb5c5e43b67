"""The machine's figures: read while someone looks and not otherwise; a driver that hangs holds nothing up."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from textual.message import Message

from tui.workers import gpus, meters
from tui.workers.gpus import NO_GPU, Gpu, GpuReader
from tui.workers.meters import Meters, MetersRead, Reading


@pytest.fixture(autouse=True)
def _no_real_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' machine may have a GPU, or none."""
    monkeypatch.setitem(sys.modules, "pynvml", None)


class Eye:
    """Someone who looks: takes what is posted."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self.has_come = threading.Semaphore(0)

    def post(self, message: Message) -> None:
        assert isinstance(message, MetersRead)
        self.readings.append(message.reading)
        self.has_come.release()

    def wait(self) -> Reading:
        assert self.has_come.acquire(timeout=10)
        return self.readings[-1]


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meters, "_EVERY_S", 0.01)
    monkeypatch.setattr(gpus, "_EVERY_S", 0.01)


def test_a_reading_is_of_this_machine(tmp_path: Path) -> None:
    """Shares lie between 0 and 100, parts below the whole, and this process is there with its figures."""
    reader = Meters(tmp_path)
    assert reader.read(is_first=True).cpu_percent is None
    reading = reader.read()
    assert reading.core_percents and all(0 <= percent <= 100 for percent in reading.core_percents)
    assert 0 < reading.memory_used_bytes <= reading.memory_bytes
    assert 0 <= reading.swap_used_bytes <= reading.swap_bytes
    assert 0 < reading.disk_free_bytes <= reading.disk_bytes
    assert reading.app and reading.app.process_id == os.getpid()
    assert reading.app.memory_bytes > 10**6 and reading.app.threads >= 1
    assert reading.trainer is None


def test_a_root_that_is_gone_gives_no_disk_and_no_error(tmp_path: Path) -> None:
    reading = Meters(tmp_path / "gone").read()
    assert (reading.disk_bytes, reading.checkpoints_bytes) == (0, 0)


def test_it_reads_only_while_someone_looks(
    tmp_path: Path, fast: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reading comes at once; after the last look none comes, and a second look goes on."""
    reader, eye = Meters(tmp_path), Eye()
    reader.look(eye.post, 0)
    assert eye.wait().cpu_percent is None
    assert eye.wait().cpu_percent is not None
    reader.look_away(eye.post)
    reads = threading.Semaphore(0)
    monkeypatch.setattr(reader, "read", lambda is_first=False: reads.release())
    asleep = threading.Event()
    # Once the thread waits for the next look it reads nothing; it may have been in the middle of a reading.
    monkeypatch.setattr(reader._looked_at, "wait", lambda: asleep.set() or threading.Event().wait())
    assert asleep.wait(10)
    while reads.acquire(blocking=False):
        pass
    assert not reads.acquire(timeout=0.1)


def test_a_late_goodbye_does_not_end_another_s_look(tmp_path: Path, fast: None) -> None:
    """A page that is taken down after the next one is up must not leave that one blind."""
    reader, before, after = Meters(tmp_path), Eye(), Eye()
    reader.look(before.post, 0)
    reader.look(after.post, 0)
    reader.look_away(before.post)
    after.wait()
    after.wait()
    reader.look_away(after.post)


def test_the_training_process_is_read_where_it_is_another(tmp_path: Path) -> None:
    """Its figures while it lives, none once it is gone, and none for the app's own process twice."""
    reader, wait = Meters(tmp_path), [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(wait, stdin=-1, stdout=-1) as process:
        assert process.stdout and process.stdin
        process.stdout.readline()
        reader._trainer_id = process.pid
        reading = reader.read()
        assert reading.trainer and reading.trainer.process_id == process.pid
        process.stdin.close()
    assert reader.read().trainer is None
    reader._trainer_id = os.getpid()
    assert reader.read().trainer is None


def test_checkpoints_are_added_up_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large folder takes several readings and no link is followed; it is added up again only after a while."""
    folder = tmp_path / "checkpoints"
    for number in range(5):
        (folder / f"run-{number}").mkdir(parents=True)
        (folder / f"run-{number}" / "model").write_bytes(b"x" * 100)
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    links = (folder / "loop").lstat().st_size
    monkeypatch.setattr(meters, "_FOLDER_AT_ONCE_S", 0.0)
    reader = Meters(tmp_path)
    sums = [reader._add_up() for _ in range(10)]
    assert sums[0] is None and sums[-1] == 500 + links
    (folder / "more").write_bytes(b"x")
    assert reader._add_up() == 500 + links
    monkeypatch.setattr(reader, "_add_up_at", 0.0)
    assert [reader._add_up() for _ in range(10)][-1] == 501 + links


# ---------------------------------------------------------------- GPUs, by a library that is not there


class FakeNvml:
    """As much of nvidia-ml-py as is asked for; the second GPU is an old one that tells less."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        self.calls = 0
        self.hangs: threading.Event | None = None

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, handle: int) -> Any:
        self.calls += 1
        return ["NVIDIA GeForce RTX 4070", b"Tesla K80"][handle]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if self.hangs:
            self.hangs.wait(10)
        return SimpleNamespace(gpu=97, memory=40) if handle == 0 else self._fail()

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=10 * 10**9, total=12 * 10**9)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return 71 if handle == 0 else self._fail()

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:
        return 185_400 if handle == 0 else self._fail()

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: int) -> int:
        return 200_000 if handle == 0 else self._fail()

    def _fail(self) -> Any:
        raise RuntimeError("Not Supported")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch, fast: None) -> Iterator[FakeNvml]:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    yield fake
    if fake.hangs:
        fake.hangs.set()


def newest(reader: GpuReader, wanted: Any) -> tuple[tuple[Gpu, ...], str]:
    """The newest answer once it is as wanted."""
    tick = threading.Event()
    for _ in range(1000):
        answer = reader.newest()
        if wanted(answer):
            return answer
        tick.wait(0.01)
    raise AssertionError(f"still {answer}")


def test_every_gpu_is_read_as_far_as_it_tells(nvml: FakeNvml) -> None:
    """A full set of figures of a new one; None for each that an old one or its driver does not give."""
    reader = GpuReader()
    reader.look()
    found, words = newest(reader, lambda answer: answer[0])
    reader.look_away()
    memory = (10 * 10**9, 12 * 10**9)
    assert words == ""
    assert found == (
        Gpu("NVIDIA GeForce RTX 4070", 97.0, *memory, 71.0, 185.4, 200.0),
        Gpu("Tesla K80", None, *memory, None, None, None),
    )


def test_without_the_library_or_a_driver_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once, and the thread is over."""
    broken = SimpleNamespace(nvmlInit=lambda: (_ for _ in ()).throw(OSError("no driver")))
    for library in (None, broken):
        monkeypatch.setitem(sys.modules, "pynvml", library)
        reader = GpuReader()
        reader.look()
        assert newest(reader, lambda answer: answer[1] == NO_GPU) == ((), NO_GPU)
        assert reader._thread
        reader._thread.join(10)
        assert not reader._thread.is_alive()
        monkeypatch.setattr(gpus, "_STALE_S", -1.0)
        assert reader.newest()[1] == NO_GPU


def test_a_driver_that_hangs_holds_nothing_up(
    nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other figures go on, the page says that the driver does not answer, and no second thread hangs too."""
    nvml.hangs = threading.Event()
    monkeypatch.setattr(gpus, "_STALE_S", 0.05)
    reader, eye = Meters(tmp_path), Eye()
    threads = []
    for _ in range(2):
        reader.look(eye.post, 0)
        for _ in range(1000):
            if "does not answer" in eye.wait().gpu_words:
                break
        assert eye.readings[-1].gpus == () and "does not answer" in eye.readings[-1].gpu_words
        reader.look_away(eye.post)
        threads.append(reader._gpus._thread)
    assert threads[0] and threads[0] is threads[1] and threads[0].is_alive()
    nvml.hangs.set()
    reader.look(eye.post, 0)
    for _ in range(1000):
        if eye.wait().gpus:
            break
    assert len(eye.readings[-1].gpus) == 2
    reader.look_away(eye.post)
