"""One model's side of the chat: its title, its own conversation, the answer that is coming in."""

import threading
import time
from dataclasses import dataclass

from textual.app import ComposeResult
from textual.containers import HorizontalGroup, Vertical, VerticalGroup, VerticalScroll
from textual.content import Content
from textual.events import Resize
from textual.message import Message
from textual.widgets import Static
from textual.worker import get_current_worker

from core.errors import BbtuiError
from core.runs import Run
from core.sampling import Sampling
from tui.clean import clean, clean_line
from tui.workers import reply
from tui.workers.failures import in_words
from tui.workers.listing import Model
from tui.workers.reply import AnswerEnded, Heard, TextDrawn, Turn, VoiceOpened

CURSOR = "▌"
_ENDINGS = {"stopped": "stopped", "length": "length limit reached"}


class Bubble(HorizontalGroup):
    """One turn: who speaks, and what; the text hangs beside the name."""

    def __init__(self, who: str, text: str = "") -> None:
        super().__init__(classes=f"bubble -{who.lower()}")
        self.who = who
        self.text = text
        self._said = Static(Content(clean(text)), classes="said")

    def compose(self) -> ComposeResult:
        yield Static(Content(self.who), classes="who")
        yield self._said

    def say(self, text: str, tail: str = "") -> None:
        """Show this text, and after it a tail that is not part of it."""
        self.text = text
        self._said.update(Content(clean(text) + tail))


class Transcript(VerticalScroll):
    """The conversation; it follows its end only while the user is at the end."""

    def on_mount(self) -> None:
        self.anchor()


@dataclass(slots=True)
class Exchange:
    """A prompt, what came of it, and where both stand on the screen."""

    number: int
    prompt: str
    asked: Bubble
    answered: Bubble
    answer: str = ""
    is_whole: bool = False


class ModelChat(Vertical):
    """A model, its conversation, and the worker that draws its answers."""

    class Arrived(Message):
        """From the worker: the next part of the answer of draw `draw`."""

        def __init__(self, draw: int, item: Heard) -> None:
            super().__init__()
            self.draw = draw
            self.item = item

    class Failed(Message):
        """From the worker: the answer of draw `draw` will not come."""

        def __init__(self, draw: int, what: str, fix: str) -> None:
            super().__init__()
            self.draw = draw
            self.what = what
            self.fix = fix

    class Changed(Message):
        """The model's weights became known, or an answer began or ended."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id, classes="model-chat")
        self.model: Model | None = None
        self.role = ""
        self.exchanges: list[Exchange] = []
        self.is_busy = False
        self._has_spoken = False
        self._missing = ""
        self._draw_count = 0
        self._stop = threading.Event()
        self._tokens = 0
        self._began_at = 0.0

    def compose(self) -> ComposeResult:
        with Transcript(classes="transcript"), VerticalGroup(classes="turns"):
            yield Static(classes="empty")
        yield Static(classes="status")

    # ------------------------------------------------------------ which model

    def show_model(self, model: Model, role: str) -> None:
        """Let this model give the answers to come. Another run's model starts a new conversation."""
        if self.model is None or self.model.run != model.run:
            self.start_anew()
            self._has_spoken = False
        self.model, self.role, self._missing = model, role, ""
        self._show_title()
        self._show_empty()

    def show_missing(self, words: str) -> None:
        """Say why there is no model here, and what to do."""
        if self.model is not None:
            self.start_anew()
        self.model, self._missing = None, words
        self._show_title()
        self._show_empty()

    def _show_title(self) -> None:
        self.border_title = Content(self.title_for(self.outer_size.width - 6))

    def title_for(self, width: int) -> str:
        """Who this is: run, step, and the beginning of the weights' SHA-256, as wide as there is room."""
        if self.model is None:
            return "no model"
        name = clean_line(self.model.run.short_name)
        weights = f"step {self.model.step} {self.model.sha256[:6] or 'no hash'}"
        titles = [
            f"{self.role}  {name}  step {self.model.step}  {self.model.sha256[:6] or 'no hash'}",
            f"{self.role} {name} {weights}",
            f"{name} {weights}",
        ]
        return next((title for title in titles if len(title) <= width), titles[-1])

    def on_resize(self, _event: Resize) -> None:
        self._show_title()

    def _show_empty(self) -> None:
        empty = self.query_one(".empty", Static)
        empty.update(Content(clean(self._missing or (f"{self.role} answers here." if self.model else ""))))
        empty.display = not self.exchanges

    # ------------------------------------------------------------ asking

    def ask(self, number: int, prompt: str, sampling: Sampling) -> None:
        """Add the prompt to the conversation and draw the answer in a thread of its own.

        Args:
            number: the prompt's own; by it `take_back` knows which exchange is meant.
        """
        if self.model is None or self.is_busy:
            return
        turns = [*self._turns(), ("user", prompt)]
        self.is_busy = True
        exchange = Exchange(number, prompt, Bubble("You", prompt), Bubble("Model"))
        self.exchanges.append(exchange)
        self.query_one(".turns").mount(exchange.asked, exchange.answered)
        self.query_one(Transcript).anchor()
        self._show_empty()
        self._show_status("drawing…" if self._has_spoken else "loading the model…")
        self._draw_count += 1
        self._stop = threading.Event()
        self._tokens, self._began_at = 0, time.monotonic()
        draw, run, stop = self._draw_count, self.model.run, self._stop
        self.run_worker(
            lambda: self._listen(draw, run, turns, sampling, stop),
            name=f"answer of {run.short_name}",
            group="answers",
            thread=True,
            exit_on_error=False,
        )
        self.post_message(self.Changed())

    def _turns(self) -> list[Turn]:
        """What the model is told of the conversation so far: its own whole exchanges."""
        turns: list[Turn] = []
        for exchange in self.exchanges:
            if exchange.is_whole:
                turns += [("user", exchange.prompt), ("assistant", exchange.answer)]
        return turns

    def _listen(
        self, draw: int, run: Run, turns: list[Turn], sampling: Sampling, stop: threading.Event
    ) -> None:
        """Runs in the worker's thread; it reaches the screen by messages only."""
        worker = get_current_worker()

        def should_stop() -> bool:
            return stop.is_set() or worker.is_cancelled

        try:
            for item in reply.joined(reply.stream_reply(run, "last", turns, sampling, should_stop)):
                self.post_message(self.Arrived(draw, item))
        except BbtuiError as error:
            self.post_message(self.Failed(draw, error.what, error.fix))
        except Exception as error:  # whatever it is, the screen lives on and names the log
            self.post_message(self.Failed(draw, *in_words(error, run.folder)))

    def stop(self) -> None:
        """End the answer after the token that is being drawn."""
        if self.is_busy:
            self._stop.set()
            self._show_status("stopping…")

    def start_anew(self) -> None:
        """Forget the conversation; an answer still coming in is stopped and passed over."""
        self._stop.set()
        self._draw_count += 1
        self.is_busy = False
        self.exchanges = []
        self.query(Bubble).remove()
        self._show_status("")
        self._show_empty()
        self.post_message(self.Changed())

    def take_back(self, number: int) -> None:
        """Take the prompt of that number and what came of it out of the conversation, if it stands last."""
        if not self.is_busy and self.exchanges and self.exchanges[-1].number == number:
            exchange = self.exchanges.pop()
            exchange.asked.remove()
            exchange.answered.remove()
            self._show_status("")
            self._show_empty()

    @property
    def last_reply(self) -> str:
        """What stands as the newest answer, an error included; empty before the first."""
        return clean(self.exchanges[-1].answered.text) if self.exchanges else ""

    # ------------------------------------------------------------ hearing

    def on_model_chat_arrived(self, message: Arrived) -> None:
        message.stop()
        if message.draw != self._draw_count:
            return
        match message.item:
            case VoiceOpened(step=step, sha256=sha256):
                self._open(step, sha256)
            case TextDrawn(text=text, tokens=tokens):
                exchange = self.exchanges[-1]
                exchange.answer += text
                self._tokens += tokens
                exchange.answered.say(exchange.answer, CURSOR)
                if not self._stop.is_set():
                    self._show_status(_pace(self._tokens, time.monotonic() - self._began_at))
            case AnswerEnded() as ended:
                self._end(ended)

    def _open(self, step: int, sha256: str) -> None:
        if self.model:
            self.model = Model(self.model.run, step, sha256)
        self._has_spoken = True
        self._began_at = time.monotonic()
        self._show_title()
        self._show_status("drawing…")
        self.exchanges[-1].answered.say("", CURSOR)
        self.post_message(self.Changed())

    def _end(self, ended: AnswerEnded) -> None:
        self.is_busy = False
        exchange = self.exchanges[-1]
        # An empty answer would teach the model to go on with empty ones.
        exchange.is_whole = bool(exchange.answer)
        exchange.answered.say(exchange.answer or _nothing(ended.reason))
        parts = [ended.note, _ENDINGS.get(ended.reason, ""), _pace(ended.tokens, ended.elapsed_s)]
        self._show_status(" · ".join(part for part in parts if part))
        self.post_message(self.Changed())

    def on_model_chat_failed(self, message: Failed) -> None:
        message.stop()
        if message.draw != self._draw_count:
            return
        self.is_busy = False
        exchange = self.exchanges[-1]
        exchange.answered.add_class("-error")
        lines = [exchange.answer, f"✗ {message.what}", message.fix]
        exchange.answered.say("\n".join(line for line in lines if line))
        self._show_status("no answer")
        self.post_message(self.Changed())

    def _show_status(self, words: str) -> None:
        self.query_one(".status", Static).update(Content(clean_line(words)))


def _nothing(reason: str) -> str:
    return "(stopped before the first word)" if reason == "stopped" else "(no words: the model ended at once)"


def _pace(tokens: int, elapsed_s: float) -> str:
    pace = f" · {tokens / elapsed_s:.0f} tok/s" if elapsed_s > 0.02 and tokens > 1 else ""
    return f"{tokens} token{'' if tokens == 1 else 's'}{pace}"
