"""The sign of life that a training process writes into its log every few seconds, in the middle of a long step too."""

import math
import time

import psutil
import torch

from core.checkpoint import TrainState
from core.events import Heartbeat

_BEAT_S = 5.0
# A run may stay paused for days, and its log is read from the end.
_PAUSED_BEAT_S = 30.0


class Heart:
    """Beats when asked, if it is time; the first beat comes at once."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._beat_at = -math.inf
        self.micro_batches_done = 0
        self.micro_batches = 0
        """Of the step being made; 0 while something else is done."""

    def beat(self, state: TrainState, is_paused: bool = False) -> Heartbeat | None:
        """The sign of life of a run in this state, or None where the last one is fresh."""
        now = time.monotonic()
        if now - self._beat_at < (_PAUSED_BEAT_S if is_paused else _BEAT_S):
            return None
        self._beat_at = now
        return Heartbeat(
            step=state.step,
            tokens=state.tokens,
            micro_batches_done=self.micro_batches_done,
            micro_batches=self.micro_batches,
            memory_bytes=self._process.memory_info().rss,
            gpu_memory_bytes=torch.cuda.memory_allocated() if torch.cuda.is_available() else 0,
        )
