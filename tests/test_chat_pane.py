"""The chat: two sides that cannot be confused, answers as they come, text that cannot do harm."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.widgets import Footer, OptionList, Static

import tui
from core.config import load_stage
from core.errors import UsageError
from core.events import RunEnded, RunStarted, TrainMeasured
from core.runs import Run, Runs
from tui.panes.chat import ChatPane
from tui.widgets.model_chat import Bubble, ModelChat, Transcript
from tui.widgets.run_list import RunList
from tui.widgets.sampling_form import SamplingForm
from tui.workers import reply
from tui.workers.reply import AnswerEnded, SamplingChoice, TextDrawn, VoiceOpened, joined

STYLES = sorted((Path(tui.__file__).parent / "styles").glob("*.tcss"))


class ChatApp(App[None]):
    """The pane alone, with what it asks of its app."""

    CSS_PATH = [path for path in STYLES if path.stem in ("chat", "evals", "runs")]
    BINDINGS = [("q", "quit", "Quit"), ("1", "note('1')", "First tab")]
    preset, domain = "quickstart", "baseball"

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.store = Runs(root)
        self.noted: list[str] = []
        self.copied = ""

    def compose(self) -> ComposeResult:
        yield ChatPane()
        yield Footer()

    def action_note(self, what: str) -> None:
        self.noted.append(what)

    def copy_to_clipboard(self, text: str) -> None:
        self.copied = text

    @property
    def pane(self) -> ChatPane:
        return self.query_one(ChatPane)

    def side(self, name: str) -> ModelChat:
        return self.query_one(f"#chat-{name}", ModelChat)


def add_run(root: Path, stage: str, parent: str = "", steps: int = 20, sha256: str = "") -> Run:
    """A run folder as a finished training leaves it, without weights."""
    store = Runs(root)
    config = load_stage("quickstart", stage, root).model_copy(update={"parent": parent})
    run = store.create(config)
    run.append(
        RunStarted(
            run=run.id, stage=stage, parent=parent, parameters=10, resumed_from_step=0, steps=steps,
            device="cpu", precision="float32", process_id=1,
        )
    )  # fmt: skip
    run.append(
        TrainMeasured(step=steps, tokens=512, loss=2.5, learning_rate=1e-3, grad_norm=1.0, tokens_per_s=100.0)
    )
    run.append(RunEnded(step=steps, reason="completed", message="", elapsed_s=1.0))
    folder = run.checkpoint_folder(steps)
    folder.mkdir()
    digest = sha256 or (run.id[-4:] * 16)
    (folder / "MANIFEST.json").write_text('{"files": {"model.safetensors": {"sha256": "%s"}}}' % digest)
    return run


def add_pair(root: Path, **first: str) -> tuple[Run, Run]:
    """A whole lineage: (general, baseball)."""
    line = [add_run(root, "pretrain")]
    for stage in ("finetune", "baseball-pretrain", "baseball-finetune"):
        line.append(add_run(root, stage, f"{line[-1].name}@20", **first))
    return line[1], line[3]


class Script:
    """Stands in for the model: answers with given words, as fast as the test lets it."""

    def __init__(self, words: list[str], sha256: str = "") -> None:
        self.words = words
        self.sha256 = sha256
        self.asked: list[tuple[str, list[tuple[str, str]], SamplingChoice]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(
        self,
        run: Run,
        at: str,
        turns: list[tuple[str, str]],
        sampling: SamplingChoice,
        should_stop: Callable[[], bool],
    ) -> Iterator[reply.Heard]:
        assert at == "last"
        self.asked.append((run.stage, list(turns), sampling))
        if len(turns[-1][1]) > 5000:
            raise UsageError("The prompt is 2,600 tokens long; this model can take 128.", "Shorten the question.")
        yield VoiceOpened(20, self.sha256 or run.id[-4:] * 16)
        for count, word in enumerate(self.words):
            if count == 2:
                while not self.may_go_on.wait(0.01) and not should_stop():
                    pass
            if should_stop():
                yield AnswerEnded("stopped", count, 0.5)
                return
            yield TextDrawn(word)
        yield AnswerEnded("end", len(self.words), 0.5)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    it = Script(["A fast", "ball ", "is a ", "pitch."])
    monkeypatch.setattr(reply, "stream_reply", it)
    return it


async def until(pilot: Pilot[None], holds: Callable[[], object]) -> None:
    """Wait for the screen to come to a state."""
    async with asyncio.timeout(10):
        while not holds():
            await pilot.pause(0.01)


async def ready(pilot: Pilot[None]) -> ChatApp:
    app = pilot.app
    assert isinstance(app, ChatApp)
    await until(pilot, lambda: app.pane.models is not None)
    await pilot.pause()
    return app


async def ask(pilot: Pilot[None], app: ChatApp, prompt: str) -> None:
    app.pane.box.focus()
    app.pane.box.fill(prompt)
    await pilot.press("enter")
    await until(pilot, lambda: not app.pane.is_answering)
    await pilot.pause()


def said(app: ChatApp, name: str) -> list[str]:
    return [bubble.text for bubble in app.side(name).query(Bubble)]


def shown(app: ChatApp, selector: str) -> str:
    return str(app.query_one(selector, Static).visual)


# ---------------------------------------------------------------- which models


async def test_empty_root_names_what_is_missing_and_keeps_the_keys(tmp_path: Path) -> None:
    """Without a model the tab says what to press, and digits still switch tabs."""
    async with ChatApp(tmp_path).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        assert "No general model yet. Press 1, then Enter, to pretrain." in shown(app, "#chat-left .empty")
        assert "No baseball model yet." in shown(app, "#chat-right .empty")
        await pilot.press("1")
        assert app.noted == ["1"]


async def test_half_way_names_the_stage_that_is_missing(tmp_path: Path, script: Script) -> None:
    """With the general model alone, it can be talked to, and the other side names the next stage."""
    first = add_run(tmp_path, "pretrain")
    add_run(tmp_path, "finetune", f"{first.name}@20")
    async with ChatApp(tmp_path).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        assert "Press 3, then Enter, for Baseball pretrain" in shown(app, "#chat-right .empty")
        await ask(pilot, app, "What is a fastball?")
        assert said(app, "left") == ["What is a fastball?", "A fastball is a pitch."]
        assert said(app, "right") == []


async def test_titles_name_run_step_and_weights(tmp_path: Path) -> None:
    """Each side says which run, which step, which weights, at every width."""
    general, baseball = add_pair(tmp_path)
    async with ChatApp(tmp_path).run_test(size=(140, 30)) as pilot:
        app = await ready(pilot)
        for name, run in (("left", general), ("right", baseball)):
            for width in (200, 46, 38):
                title = app.side(name).title_for(width)
                assert run.short_name in title and "step 20" in title and run.id[-4:] * 1 in title
                assert len(title) <= max(width, 40)


async def test_same_weights_are_called_out(tmp_path: Path, script: Script) -> None:
    """Two sides that are one model say so in words, before and after the weights are loaded."""
    add_pair(tmp_path, sha256="ab" * 32)
    async with ChatApp(tmp_path).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        assert "the same weights (ababab)" in shown(app, "#chat-notice")
        await ask(pilot, app, "Why?")
        assert "the same weights" not in shown(app, "#chat-notice")
        script.sha256 = "cd" * 32
        await ask(pilot, app, "Why?")
        assert "the same weights (cdcdcd)" in shown(app, "#chat-notice")


async def test_model_of_a_side_can_be_chosen(tmp_path: Path) -> None:
    """`m` lists every run with a checkpoint; the chosen one takes the focused side."""
    add_pair(tmp_path)
    async with ChatApp(tmp_path).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        await pilot.press("escape", "m")
        await until(pilot, lambda: isinstance(app.screen, RunList) and app.screen.rows)
        options = app.screen.query_one(OptionList)
        assert options.option_count == 5
        rows = app.screen.rows if isinstance(app.screen, RunList) else []
        wanted = next(i for i, row in enumerate(rows) if row.run.stage == "pretrain")
        options.highlighted = wanted + 1
        await pilot.press("enter")
        await until(pilot, lambda: app.side("left").model and app.side("left").role == "Pretrain")


# ---------------------------------------------------------------- asking


async def test_one_prompt_goes_to_both_with_the_same_sampling(tmp_path: Path, script: Script) -> None:
    """Same prompt, same seed, same settings for both sides, and each keeps its own conversation."""
    add_pair(tmp_path)
    async with ChatApp(tmp_path).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        assert app.pane.box.has_focus
        await pilot.press("W", "1", "q")
        assert app.pane.box.text == "W1q" and app.noted == []
        await pilot.press("enter")
        await until(pilot, lambda: len(script.asked) == 2 and not app.pane.is_answering)
        assert {stage for stage, _, _ in script.asked} == {"finetune", "baseball-finetune"}
        assert script.asked[0][1:] == script.asked[1][1:]
        assert "4 tokens · 8 tok/s" in shown(app, "#chat-left .status")
        await ask(pilot, app, "And then?")
        turns = script.asked[-1][1]
        assert turns == [("user", "W1q"), ("assistant", "A fastball is a pitch."), ("user", "And then?")]
        await pilot.press("escape", "n")
        await until(pilot, lambda: not said(app, "left") and not said(app, "right"))


async def test_stop_keeps_what_was_said(tmp_path: Path, script: Script) -> None:
    """Escape stops the answers and does not quit; the words so far stay, and count as the answer."""
    add_pair(tmp_path)
    script.may_go_on.clear()
    async with ChatApp(tmp_path).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        app.pane.box.fill("Why?")
        await pilot.press("enter")
        await until(pilot, lambda: all("A fast" in text for text in (said(app, "left") + ["", ""])[1:2]))
        await pilot.press("escape")
        await until(pilot, lambda: not app.pane.is_answering)
        assert "stopped" in shown(app, "#chat-left .status")
        assert app.side("left").last_reply.startswith("A fast")
        assert app.is_running
        script.may_go_on.set()
        await ask(pilot, app, "Go on")
        assert len(script.asked[-1][1]) == 3


async def test_answer_again_takes_the_next_seed(tmp_path: Path, script: Script) -> None:
    """The same seed would draw the same answer, so `g` takes the next one, in place of the old answer."""
    add_pair(tmp_path)
    async with ChatApp(tmp_path).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "Why?")
        await pilot.press("escape", "g")
        await until(pilot, lambda: len(script.asked) == 4 and not app.pane.is_answering)
        assert [sampling.seed for _, _, sampling in script.asked] == [7, 7, 8, 8]
        assert script.asked[-1][1] == [("user", "Why?")]
        await until(pilot, lambda: len(said(app, "left")) == 2)
        assert "seed 8" in shown(app, "#chat-sampling")


async def test_up_in_the_empty_box_edits_the_last_prompt(tmp_path: Path, script: Script) -> None:
    """The edited prompt takes the old one's place in both conversations."""
    add_pair(tmp_path)
    async with ChatApp(tmp_path).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "Why?")
        await pilot.press("up")
        await until(pilot, lambda: app.pane.box.text == "Why?")
        await pilot.press("!", "enter")
        await until(pilot, lambda: len(script.asked) == 4 and not app.pane.is_answering)
        assert script.asked[-1][1] == [("user", "Why?!")]
        await until(pilot, lambda: said(app, "left") == ["Why?!", "A fastball is a pitch."])
        await pilot.press("up", "escape")
        assert app.pane.box.text == ""
        assert said(app, "left")[0] == "Why?!"


async def test_too_long_a_prompt_is_a_message(tmp_path: Path, script: Script) -> None:
    """10,000 characters give an error with its fix in the pane, and the conversation goes on without them."""
    add_pair(tmp_path)
    async with ChatApp(tmp_path).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "x" * 10_000)
        assert "this model can take 128" in app.side("left").last_reply
        assert "Shorten the question." in app.side("right").last_reply
        await ask(pilot, app, "Why?")
        assert script.asked[-1][1] == [("user", "Why?")]


async def test_unknown_failure_names_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in the model's code is a message with the log's path, never a dead app or a traceback."""

    def broken(*_: object) -> Iterator[reply.Heard]:
        raise ZeroDivisionError("[/red] division")

    general, _ = add_pair(tmp_path)
    monkeypatch.setattr(reply, "stream_reply", broken)
    async with ChatApp(tmp_path).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "Why?")
        assert "ZeroDivisionError" in app.side("left").last_reply
        assert str(general.folder / "stderr.log") in app.side("left").last_reply
        assert "Traceback" in (general.folder / "stderr.log").read_text()


# ---------------------------------------------------------------- the screen


async def test_hostile_text_is_only_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Escapes, markup and bidi marks of a model do nothing; what is copied is clean as well."""
    nasty = "[/x][@click=app.quit]go[/] \x1b[2J\x1b]52;c;AA\x07 \u202e\u200b\x00 \x9b31m done"
    monkeypatch.setattr(reply, "stream_reply", Script([nasty, " ", "ok"]))
    add_pair(tmp_path)
    async with ChatApp(tmp_path).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "[/x][b]Why?")
        drawn = "".join(
            segment.text for strip in app.screen._compositor.render_strips() for segment in strip
        )
        assert "[@click=app.quit]go[/]" in drawn and "[/x][b]Why?" in drawn
        assert not set(drawn) & set("\x1b\x07\x00\x9b\u202e\u200b")
        await pilot.press("escape", "y")
        assert app.copied.endswith("ok") and "\x1b" not in app.copied


async def test_scroll_is_not_stolen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text follows its end while the user is there, and stays put once the user has scrolled up."""
    add_pair(tmp_path)
    long = Script([f"line {i}\n" for i in range(60)])
    monkeypatch.setattr(reply, "stream_reply", long)
    async with ChatApp(tmp_path).run_test(size=(100, 24)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "Count")
        transcript = app.side("left").query_one(Transcript)
        await until(pilot, lambda: transcript.scroll_y == transcript.max_scroll_y > 0)
        long.may_go_on.clear()
        app.pane.box.fill("Count on")
        await pilot.press("enter")
        await until(pilot, lambda: app.pane.is_answering and len(said(app, "left")) == 4)
        await until(pilot, lambda: transcript.scroll_y == transcript.max_scroll_y)
        transcript.focus()
        await pilot.press("home")
        await until(pilot, lambda: transcript.scroll_y == 0)
        long.may_go_on.set()
        await until(pilot, lambda: not app.pane.is_answering)
        await pilot.pause(0.1)
        assert transcript.scroll_y == 0


@pytest.mark.parametrize(
    ("size", "visible", "is_wide"), [((120, 40), 2, True), ((80, 24), 2, False), ((60, 20), 1, False)]
)
async def test_layout_follows_the_size(
    tmp_path: Path, size: tuple[int, int], visible: int, is_wide: bool
) -> None:
    """Side by side from 100 columns, stacked below, one at a time where it is small; a key shows the other."""
    add_pair(tmp_path)
    async with ChatApp(tmp_path).run_test(size=size) as pilot:
        app = await ready(pilot)
        assert sum(app.side(name).display for name in ("left", "right")) == visible
        left, right = app.side("left").region, app.side("right").region
        if visible == 2:
            assert (left.y == right.y) is is_wide
        await pilot.press("ctrl+o")
        await pilot.pause()
        assert app.side("right").display
        assert app.side("left").display is (visible == 2)


async def test_sampling_form_checks_and_takes(tmp_path: Path, script: Script) -> None:
    """A value out of range is named; good ones stand in the line and go to both models."""
    add_pair(tmp_path)
    async with ChatApp(tmp_path).run_test(size=(60, 20)) as pilot:
        app = await ready(pilot)
        await pilot.press("escape", "t")
        await until(pilot, lambda: isinstance(app.screen, SamplingForm))
        await pilot.pause()
        await pilot.press("end", *["backspace"] * 5, *"99", "enter")
        await pilot.pause()
        assert "temperature" in str(app.screen.query_one(".form-problem", Static).visual)
        await pilot.press("end", *["backspace"] * 5, *"0", "enter")
        await until(pilot, lambda: not isinstance(app.screen, SamplingForm))
        assert app.pane.sampling.temperature == 0
        assert "temperature 0 " in shown(app, "#chat-sampling")


def test_pieces_are_joined() -> None:
    """However fast tokens come, the screen hears at most once in 50 ms, and nothing is lost or out of order."""
    now = iter(x * 0.01 for x in range(1000))
    words = [TextDrawn(f"{i} ") for i in range(40)]
    heard = list(joined(iter([VoiceOpened(1, "ab"), *words, AnswerEnded("end", 40, 1.0)]), 0.05, lambda: next(now)))
    pieces = [item for item in heard if isinstance(item, TextDrawn)]
    assert "".join(piece.text for piece in pieces) == "".join(word.text for word in words)
    assert sum(piece.tokens for piece in pieces) == 40
    assert len(pieces) <= 15
    assert isinstance(heard[0], VoiceOpened) and isinstance(heard[-1], AnswerEnded)
