"""Answers of a model, drawn off the UI thread: one stream a model, its pieces joined so that the screen keeps up."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.runs import Run
from core.sampling import Sampling

if TYPE_CHECKING:
    from core.generate import Voice

Turn = tuple[str, str]
"""(`user` or `assistant`, text)"""

JOIN_S = 0.05
"""Pieces are joined for this long: a message a token would cost more than the token."""

_VOICES_KEPT = 2


@dataclass(frozen=True, slots=True)
class VoiceOpened:
    """The weights are loaded and the answer begins."""

    step: int
    sha256: str


@dataclass(frozen=True, slots=True)
class TextDrawn:
    """More of the answer; `tokens` counts those in this piece."""

    text: str
    tokens: int = 1


@dataclass(frozen=True, slots=True)
class AnswerEnded:
    """The answer is whole, or was stopped. `reason`: end, length, or stopped."""

    reason: str
    tokens: int
    elapsed_s: float
    note: str = ""


Heard = VoiceOpened | TextDrawn | AnswerEnded


def stream_reply(
    run: Run, at: str, turns: list[Turn], sampling: Sampling, should_stop: Callable[[], bool]
) -> Iterator[Heard]:
    """The answer of a run's checkpoint to the last turn, as it is drawn.

    Args:
        at: `last`, `best` or a step.
    Raises: BbtuiError for a missing or damaged checkpoint, or a prompt longer than the model's context.
    """
    from core.generate import ReplyEnded, TokenDrawn, reply

    voice = _voice_of(run, at)
    yield VoiceOpened(voice.step, voice.sha256)
    for event in reply(voice, turns, sampling, should_stop):
        if isinstance(event, TokenDrawn):
            yield TextDrawn(event.text)
        elif isinstance(event, ReplyEnded):
            yield AnswerEnded(event.reason, event.tokens, event.elapsed_s, event.note)


def joined(
    heard: Iterator[Heard], join_s: float = JOIN_S, clock: Callable[[], float] = time.monotonic
) -> Iterator[Heard]:
    """The same stream with its text pieces joined over `join_s` seconds; the first piece comes at once."""
    text, tokens, passed_on_at = "", 0, -join_s
    for item in heard:
        if isinstance(item, TextDrawn):
            text += item.text
            tokens += item.tokens
            if clock() - passed_on_at < join_s:
                continue
        if tokens:
            yield TextDrawn(text, tokens)
            text, tokens, passed_on_at = "", 0, clock()
        if not isinstance(item, TextDrawn):
            yield item


_voices: "dict[tuple[Path, str, tuple[int, ...]], Voice]" = {}
_voices_lock = threading.Lock()


def _voice_of(run: Run, at: str) -> "Voice":
    """The loaded checkpoint; the two used last stay in memory. A run that trained on is loaded anew."""
    from core.generate import load_voice

    key = (run.folder, at, tuple(run.checkpoint_steps()))
    # Two sides that ask for the same weights at once load them once.
    with _voices_lock:
        voice = _voices.pop(key, None) or load_voice(run, at, "auto")
        _voices[key] = voice
        while len(_voices) > _VOICES_KEPT:
            del _voices[next(iter(_voices))]
    return voice
