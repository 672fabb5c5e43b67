"""What tests share: runs that are trained already, and a guard that keeps every test out of the project."""

import asyncio
import json
import os
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Models this small gain nothing from threads, and where workers share the cores they wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _away_from_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names no root gets one that lies under the test's own folder, as do data and the user's settings."""
    monkeypatch.setenv("BBTUI_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("BBTUI_DATA", "BBTUI_ON_EVENT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _nothing_trains_on() -> Iterator[None]:
    """A training that outlives its test would draw from the random numbers of the next one, and slow it down."""
    yield
    left = [thread for thread in threading.enumerate() if thread.name.startswith("train ")]
    for thread in left:
        thread.join(10)
    assert not [thread.name for thread in left if thread.is_alive()], "a training goes on after its test"


@pytest.fixture(scope="session")
def trained_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root in which the four stages of preset `smoke` are finished. Only to be read: see `trained_copy`."""
    from core.config import STAGES
    from core.launch import start
    from core.runs import Runs
    from core.train import train

    root = tmp_path_factory.mktemp("trained")
    parent = None
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BBTUI_DATA", raising=False)
        for stage in STAGES:
            run = start(Runs(root), "smoke", stage, parent)
            deque(train(run.config, run), maxlen=0)
            parent = run.name
    return root


@pytest.fixture
def trained_copy(trained_root: Path, tmp_path: Path) -> Path:
    """A copy of `trained_root` to change at will; it is also what BBTUI_ROOT names."""
    return Path(shutil.copytree(trained_root, tmp_path / "root"))


@pytest.fixture
def bbtui(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs the command line in this process; a traceback anywhere fails the test."""
    import tui.cli
    from commanding import Result, checked

    def run(*words: object) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["bbtui", *map(str, words)])
        code = 0
        try:
            tui.cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return Result(code, *checked(*capfd.readouterr()))

    return run


# ---------------------------------------------------------------- tabs


class RunMaker:
    """Makes run folders as trainings leave them, but for the weights."""

    def __init__(self, root: Path) -> None:
        from core.runs import Runs

        self.store = Runs(root)

    def add(self, stage: str, parent: Any = None, reason: str = "completed", sha256: str = "") -> Any:
        """A run with a checkpoint at its step 20; an empty reason leaves it interrupted."""
        from core.config import load_stage
        from core.events import RunEnded, RunStarted, TrainMeasured, Validated

        parent_name = f"{parent.name}@20" if parent else ""
        config = load_stage("quickstart", stage, self.store.root).model_copy(update={"parent": parent_name})
        run = self.store.create(config)
        started = {"run": run.id, "stage": stage, "parent": parent_name, "parameters": 10, "steps": 20}
        run.append(
            RunStarted(**started, resumed_from_step=0, device="cpu", precision="float32", process_id=1)  # type: ignore[arg-type]
        )
        rates = {"learning_rate": 1e-3, "grad_norm": 1.0, "tokens_per_s": 100.0}
        run.append(TrainMeasured(step=20, tokens=51_200, loss=2.5, **rates))
        run.append(Validated(step=20, tokens=51_200, loss=2.75, bits_per_byte=1.5, elapsed_s=0.5))
        if reason:
            run.append(RunEnded(step=20, reason=reason, message="", elapsed_s=1.0))
        files = {"model.safetensors": {"bytes": 1, "sha256": sha256 or run.id[-4:] * 16}}
        run.checkpoint_folder(20).mkdir()
        (run.checkpoint_folder(20) / "MANIFEST.json").write_text(json.dumps({"format": 1, "files": files}))
        return run

    def add_pair(self, sha256: str = "") -> tuple[Any, Any]:
        """A whole line of four stages: (general, baseball)."""
        line = [self.add("pretrain")]
        for stage in ("finetune", "baseball-pretrain", "baseball-finetune"):
            line.append(self.add(stage, line[-1], sha256=sha256))
        return line[1], line[3]


@pytest.fixture
def runs(tmp_path: Path) -> RunMaker:
    """Run folders under the test's own root."""
    return RunMaker(tmp_path)


@pytest.fixture
def open_tab(tmp_path: Path) -> Callable[..., Any]:
    """An app of one tab, the kind given, over the runs under the test's own root or another."""
    from textual.app import App, ComposeResult
    from textual.message import Message
    from textual.pilot import Pilot
    from textual.widgets import Footer

    import tui
    from core.runs import Runs

    class TabApp(App[None]):
        CSS_PATH = sorted((Path(tui.__file__).parent / "styles").glob("*.tcss"))
        BINDINGS = [("q", "quit", "Quit"), ("1", "note('1')", "First tab")]  # noqa: RUF012
        preset, domain = "quickstart", "baseball"

        def __init__(self, kind: Any, root: Path = tmp_path) -> None:
            super().__init__()
            self.store = Runs(root)
            self.tab = kind()
            self.noted: list[Any] = []
            self.copied = ""

        def compose(self) -> ComposeResult:
            yield self.tab
            yield Footer()

        def action_note(self, what: str) -> None:
            self.noted.append(what)

        def on_open_run(self, message: Message) -> None:
            self.noted.append(message)

        def on_resume_run(self, message: Message) -> None:
            self.noted.append(message)

        def copy_to_clipboard(self, text: str) -> None:
            self.copied = text

        async def until(self, pilot: Pilot[None], holds: Callable[[], object]) -> None:
            """Wait for the screen to come to a state, 10 s at most."""
            async with asyncio.timeout(10):
                while not holds():
                    await pilot.pause(0.01)

        def drawn(self) -> str:
            """Every character that is on the screen now."""
            strips = self.screen._compositor.render_strips()
            return "\n".join("".join(part.text for part in strip) for strip in strips)

    return TabApp
