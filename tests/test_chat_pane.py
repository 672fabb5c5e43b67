"""The chat: two sides that cannot be confused, answers as they come, text that cannot do harm."""

import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.events import Paste
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from core.errors import UsageError
from core.runs import Run
from core.sampling import Sampling
from tui.panes.chat import ChatPane
from tui.widgets.model_chat import Bubble, ModelChat, Transcript
from tui.widgets.run_list import RunList
from tui.widgets.sampling_form import SamplingForm
from tui.workers import reply
from tui.workers.reply import AnswerEnded, TextDrawn, VoiceOpened, joined


class Script:
    """Stands in for the model: answers with given words, as fast as the test lets it."""

    def __init__(self, words: list[str], sha256: str = "") -> None:
        self.words = words
        self.sha256 = sha256
        self.asked: list[tuple[str, list[tuple[str, str]], Sampling]] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def __call__(
        self,
        run: Run,
        at: str,
        turns: list[tuple[str, str]],
        sampling: Sampling,
        should_stop: Callable[[], bool],
    ) -> Iterator[reply.Heard]:
        assert at == "last"
        self.asked.append((run.stage, list(turns), sampling))
        if len(turns[-1][1]) > 5000:
            raise UsageError(
                "The prompt is 2,600 tokens long; this model can take 128.", "Shorten the question."
            )
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


async def ready(pilot: Pilot[None]) -> Any:
    app: Any = pilot.app
    await app.until(pilot, lambda: app.tab.models is not None)
    await pilot.pause()
    return app


async def ask(pilot: Pilot[None], app: Any, prompt: str) -> None:
    app.tab.box.focus()
    app.tab.box.fill(prompt)
    await pilot.press("enter")
    await app.until(pilot, lambda: not app.tab.is_answering)
    await pilot.pause()


def side(app: Any, name: str) -> ModelChat:
    return app.query_one(f"#chat-{name}", ModelChat)


def said(app: Any, name: str) -> list[str]:
    return [bubble.text for bubble in side(app, name).query(Bubble)]


def shown(app: Any, selector: str) -> str:
    return str(app.query_one(selector, Static).visual)


# ---------------------------------------------------------------- which models


async def test_empty_root_names_what_is_missing_and_keeps_the_keys(open_tab: Any, runs: Any) -> None:
    """Without a model the tab says what to press, and digits still switch tabs."""
    async with open_tab(ChatPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        assert "No general model yet. Press 1, then Enter, to pretrain." in shown(app, "#chat-left .empty")
        assert "No baseball model yet." in shown(app, "#chat-right .empty")
        await pilot.press("1")
        assert app.noted == ["1"]


async def test_half_way_names_the_stage_that_is_missing(open_tab: Any, runs: Any, script: Script) -> None:
    """With the general model alone, it can be talked to, and the other side names the next stage."""
    first = runs.add("pretrain")
    runs.add("finetune", first)
    async with open_tab(ChatPane).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        assert "Press 3, then Enter, for Baseball pretrain" in shown(app, "#chat-right .empty")
        await ask(pilot, app, "What is a fastball?")
        assert said(app, "left") == ["What is a fastball?", "A fastball is a pitch."]
        assert said(app, "right") == []


async def test_titles_name_run_step_and_weights(open_tab: Any, runs: Any) -> None:
    """Each side says which run, which step, which weights, at every width."""
    general, baseball = runs.add_pair()
    async with open_tab(ChatPane).run_test(size=(140, 30)) as pilot:
        app = await ready(pilot)
        for name, run in (("left", general), ("right", baseball)):
            for width in (200, 46, 38):
                title = side(app, name).title_for(width)
                assert run.short_name in title and "step 20" in title and run.id[-4:] * 1 in title
                assert len(title) <= max(width, 40)


async def test_same_weights_are_called_out(open_tab: Any, runs: Any, script: Script) -> None:
    """Two sides that are one model say so in words, before and after the weights are loaded."""
    runs.add_pair(sha256="ab" * 32)
    async with open_tab(ChatPane).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        assert "the same weights (ababab)" in shown(app, "#chat-notice")
        await ask(pilot, app, "Why?")
        assert "the same weights" not in shown(app, "#chat-notice")
        script.sha256 = "cd" * 32
        await ask(pilot, app, "Why?")
        assert "the same weights (cdcdcd)" in shown(app, "#chat-notice")


async def test_model_of_a_side_can_be_chosen(open_tab: Any, runs: Any) -> None:
    """`m` lists every run with a checkpoint; the chosen one takes the focused side."""
    runs.add_pair()
    async with open_tab(ChatPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        await pilot.press("escape", "m")
        await app.until(pilot, lambda: isinstance(app.screen, RunList) and app.screen.rows)
        options = app.screen.query_one(OptionList)
        assert options.option_count == 5
        rows = app.screen.rows if isinstance(app.screen, RunList) else []
        wanted = next(i for i, row in enumerate(rows) if row.run.stage == "pretrain")
        options.highlighted = wanted + 1
        await pilot.press("enter")
        await app.until(pilot, lambda: side(app, "left").model and side(app, "left").role == "Pretrain")


# ---------------------------------------------------------------- asking


async def test_one_prompt_goes_to_both_with_the_same_sampling(
    open_tab: Any, runs: Any, script: Script
) -> None:
    """Same prompt, same seed, same settings for both sides, and each keeps its own conversation."""
    runs.add_pair()
    async with open_tab(ChatPane).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        assert app.tab.box.has_focus
        await pilot.press("W", "1", "q")
        assert app.tab.box.text == "W1q" and app.noted == []
        await pilot.press("enter")
        await app.until(pilot, lambda: len(script.asked) == 2 and not app.tab.is_answering)
        assert {stage for stage, _, _ in script.asked} == {"finetune", "baseball-finetune"}
        assert script.asked[0][1:] == script.asked[1][1:]
        assert "4 tokens · 8 tok/s" in shown(app, "#chat-left .status")
        await ask(pilot, app, "And then?")
        turns = script.asked[-1][1]
        assert turns == [("user", "W1q"), ("assistant", "A fastball is a pitch."), ("user", "And then?")]
        await pilot.press("escape", "n")
        await app.until(pilot, lambda: not said(app, "left") and not said(app, "right"))


async def test_stop_keeps_what_was_said(open_tab: Any, runs: Any, script: Script) -> None:
    """Escape stops the answers and does not quit; the words so far stay, and count as the answer."""
    runs.add_pair()
    script.may_go_on.clear()
    async with open_tab(ChatPane).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        app.tab.box.fill("Why?")
        await pilot.press("enter")
        await app.until(pilot, lambda: "A fast" in "".join(said(app, "left")))
        await pilot.press("escape")
        await app.until(pilot, lambda: not app.tab.is_answering)
        assert "stopped" in shown(app, "#chat-left .status")
        assert side(app, "left").last_reply.startswith("A fast")
        assert app.is_running
        script.may_go_on.set()
        await ask(pilot, app, "Go on")
        assert len(script.asked[-1][1]) == 3


async def test_answer_again_takes_the_next_seed(open_tab: Any, runs: Any, script: Script) -> None:
    """The same seed would draw the same answer, so `g` takes the next one, in place of the old answer."""
    runs.add_pair()
    async with open_tab(ChatPane).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "Why?")
        await pilot.press("escape", "g")
        await app.until(pilot, lambda: len(script.asked) == 4 and not app.tab.is_answering)
        assert [sampling.seed for _, _, sampling in script.asked] == [7, 7, 8, 8]
        assert script.asked[-1][1] == [("user", "Why?")]
        await app.until(pilot, lambda: len(said(app, "left")) == 2)
        assert "seed 8" in shown(app, "#chat-sampling")


async def test_up_in_the_empty_box_edits_the_last_prompt(open_tab: Any, runs: Any, script: Script) -> None:
    """The edited prompt takes the old one's place in both conversations."""
    runs.add_pair()
    async with open_tab(ChatPane).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "Why?")
        await pilot.press("up")
        await app.until(pilot, lambda: app.tab.box.text == "Why?")
        await pilot.press("!", "enter")
        await app.until(pilot, lambda: len(script.asked) == 4 and not app.tab.is_answering)
        assert script.asked[-1][1] == [("user", "Why?!")]
        await app.until(pilot, lambda: said(app, "left") == ["Why?!", "A fastball is a pitch."])
        await pilot.press("up", "escape")
        assert app.tab.box.text == ""
        assert said(app, "left")[0] == "Why?!"


async def test_too_long_a_prompt_is_a_message(open_tab: Any, runs: Any, script: Script) -> None:
    """10,000 characters give an error with its fix in the pane, and the conversation goes on without them."""
    runs.add_pair()
    async with open_tab(ChatPane).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "x" * 10_000)
        assert "this model can take 128" in side(app, "left").last_reply
        assert "Shorten the question." in side(app, "right").last_reply
        await ask(pilot, app, "Why?")
        assert script.asked[-1][1] == [("user", "Why?")]


async def test_unknown_failure_names_the_log(
    open_tab: Any, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in the model's code is a message with the log's path, never a dead app or a traceback."""

    def broken(*_: object) -> Iterator[reply.Heard]:
        raise ZeroDivisionError("[/red] division")

    general, _ = runs.add_pair()
    monkeypatch.setattr(reply, "stream_reply", broken)
    async with open_tab(ChatPane).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "Why?")
        assert "ZeroDivisionError" in side(app, "left").last_reply
        assert str(general.folder / "stderr.log") in side(app, "left").last_reply
        assert "Traceback" in (general.folder / "stderr.log").read_text()


# ---------------------------------------------------------------- the screen


async def test_hostile_text_is_only_text(open_tab: Any, runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Escapes, markup and bidi marks of a model do nothing; what is copied is clean as well."""
    nasty = "[/x][@click=app.quit]go[/] \x1b[2J\x1b]52;c;AA\x07 \u202e\u200b\x00 \x9b31m done"
    monkeypatch.setattr(reply, "stream_reply", Script([nasty, " ", "ok"]))
    runs.add_pair()
    async with open_tab(ChatPane).run_test(size=(100, 30)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "[/x][b]Why?")
        drawn = app.drawn()
        assert "[@click=app.quit]go[/]" in drawn and "[/x][b]Why?" in drawn
        assert not set(drawn) & set("\x1b\x07\x00\x9b\u202e\u200b")
        await pilot.press("escape", "y")
        assert app.copied.endswith("ok") and "\x1b" not in app.copied


async def test_pasted_text_is_clean_and_keeps_its_lines(open_tab: Any, runs: Any, script: Script) -> None:
    """What is pasted loses its control characters before it is drawn; Ctrl+J makes a line by hand."""
    runs.add_pair()
    async with open_tab(ChatPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        app.tab.box.post_message(Paste("one\r\ntwo\x1b[2J\u202e"))
        await app.until(pilot, lambda: app.tab.box.text)
        await pilot.press("ctrl+j", "3", "enter")
        await app.until(pilot, lambda: len(script.asked) == 2)
        assert script.asked[0][1] == [("user", "one\ntwo␛[2J\n3")]


async def test_scroll_is_not_stolen(open_tab: Any, runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text follows its end while the user is there, and stays put once the user has scrolled up."""
    runs.add_pair()
    long = Script([f"line {i}\n" for i in range(60)])
    monkeypatch.setattr(reply, "stream_reply", long)
    async with open_tab(ChatPane).run_test(size=(100, 24)) as pilot:
        app = await ready(pilot)
        await ask(pilot, app, "Count")
        transcript = side(app, "left").query_one(Transcript)
        await app.until(pilot, lambda: transcript.scroll_y == transcript.max_scroll_y > 0)
        long.may_go_on.clear()
        app.tab.box.fill("Count on")
        await pilot.press("enter")
        await app.until(pilot, lambda: app.tab.is_answering and len(said(app, "left")) == 4)
        await app.until(pilot, lambda: transcript.scroll_y == transcript.max_scroll_y)
        transcript.focus()
        await pilot.press("home")
        await app.until(pilot, lambda: transcript.scroll_y == 0)
        long.may_go_on.set()
        await app.until(pilot, lambda: not app.tab.is_answering)
        await pilot.pause(0.1)
        assert transcript.scroll_y == 0


@pytest.mark.parametrize(
    ("size", "visible", "is_wide"), [((120, 40), 2, True), ((80, 24), 2, False), ((60, 20), 1, False)]
)
async def test_layout_follows_the_size(
    open_tab: Any, runs: Any, size: tuple[int, int], visible: int, is_wide: bool
) -> None:
    """Side by side from 100 columns, stacked below, one at a time where it is small; a key shows the other."""
    runs.add_pair()
    async with open_tab(ChatPane).run_test(size=size) as pilot:
        app = await ready(pilot)
        assert sum(side(app, name).display for name in ("left", "right")) == visible
        left, right = side(app, "left").region, side(app, "right").region
        if visible == 2:
            assert (left.y == right.y) is is_wide
        await pilot.press("ctrl+o")
        await pilot.pause()
        assert side(app, "right").display
        assert side(app, "left").display is (visible == 2)


async def test_resizing_while_answers_come(open_tab: Any, runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any sizes, one after the other, in the middle of an answer: no exception, and the whole answer at the end."""
    words = [f"word {i} " for i in range(80)]
    monkeypatch.setattr(reply, "stream_reply", Script(words))
    runs.add_pair()
    sizes = random.Random(7)
    async with open_tab(ChatPane).run_test(size=(80, 24)) as pilot:
        app = await ready(pilot)
        app.tab.box.fill("Count")
        await pilot.press("enter")
        for _ in range(20):
            await pilot.resize_terminal(sizes.randint(10, 170), sizes.randint(4, 50))
        await app.until(pilot, lambda: not app.tab.is_answering)
        assert side(app, "left").last_reply == side(app, "right").last_reply == "".join(words)


async def test_sampling_form_checks_and_takes(open_tab: Any, runs: Any, script: Script) -> None:
    """A value out of range is named; good ones stand in the line and go to both models."""
    runs.add_pair()
    async with open_tab(ChatPane).run_test(size=(60, 20)) as pilot:
        app = await ready(pilot)
        await pilot.click("#chat-sampling")
        await app.until(pilot, lambda: isinstance(app.screen, SamplingForm))
        await pilot.pause()
        await pilot.press("end", *["backspace"] * 5, *"99", "enter")
        await pilot.pause()
        assert "temperature" in str(app.screen.query_one(".form-problem", Static).visual)
        await pilot.press("end", *["backspace"] * 5, *"0", "enter")
        await app.until(pilot, lambda: not isinstance(app.screen, SamplingForm))
        assert app.tab.sampling.temperature == 0
        assert "temperature 0 " in shown(app, "#chat-sampling")


def test_pieces_are_joined() -> None:
    """However fast tokens come, the screen hears at most once in 50 ms, and nothing is lost or out of order."""
    now = iter(x * 0.01 for x in range(1000))
    words = [TextDrawn(f"{i} ") for i in range(40)]
    heard = list(
        joined(iter([VoiceOpened(1, "ab"), *words, AnswerEnded("end", 40, 1.0)]), 0.05, lambda: next(now))
    )
    pieces = [item for item in heard if isinstance(item, TextDrawn)]
    assert "".join(piece.text for piece in pieces) == "".join(word.text for word in words)
    assert sum(piece.tokens for piece in pieces) == 40
    assert len(pieces) <= 15
    assert isinstance(heard[0], VoiceOpened) and isinstance(heard[-1], AnswerEnded)


async def test_real_models_answer(open_tab: Any, trained_copy: Path) -> None:
    """Two real models answer the same prompt; their titles bear the hashes of what was loaded."""
    async with open_tab(ChatPane, trained_copy).run_test(size=(120, 30)) as pilot:
        app = await ready(pilot)
        app.tab.sampling = Sampling(max_tokens=12)
        await ask(pilot, app, "What is a fastball?")
        await ask(pilot, app, "x" * 10_000)
        for name in ("left", "right"):
            chat = side(app, name)
            assert chat.exchanges[0].answered.text and not chat.exchanges[0].answered.has_class("-error")
            assert "can take" in chat.last_reply
            assert chat.model and chat.model.sha256[:6] in str(chat.border_title)
        assert side(app, "left").model.sha256 != side(app, "right").model.sha256
