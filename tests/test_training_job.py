"""The thread that trains a stage inside the app: what it posts, and that it spares the screen's thread."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.message import Message

from core.runs import Runs
from tui.messages import RunOpened, StageFinished
from tui.workers.training import StageRequest, TrainingJob, _keep_collections_short


@pytest.fixture
def _thawed() -> Iterator[None]:
    gc.unfreeze()
    _keep_collections_short.cache_clear()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_thawed")
def test_training_keeps_collections_short_for_the_screen(tmp_path: Path) -> None:
    """A full collection over all that torch has loaded would hold the screen's thread for 200 ms, every few seconds."""
    posted: list[Message] = []
    store = Runs(tmp_path)
    job = TrainingJob(store, StageRequest("pretrain", "smoke"), posted.append, tmp_path / "logs").start()
    assert job.join(60)
    assert [type(message) for message in posted] == [RunOpened, StageFinished]
    assert gc.get_freeze_count() > 10 * len(gc.get_objects(generation=2))
