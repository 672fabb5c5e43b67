"""The measuring process: one request as a JSON line on its input, one JSON list of measurements on its output."""

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib import import_module
from typing import Any

from core.bench.measurement import Measurement, Sizes
from core.errors import BbtuiError

_PLACES = {
    "bandwidth": ("core.bench.limits", "bandwidth"),
    "decode": ("core.bench.decoding", "decode"),
    "matmul": ("core.bench.limits", "matmul"),
    "precision": ("core.bench.limits", "precision"),
    "prefill": ("core.bench.decoding", "prefill"),
    "prepare": ("core.bench.preparing", "prepare_text"),
    "train": ("core.bench.training", "train_step"),
}
"""Only what is asked for is loaded: the rest would count as its memory."""


def answer(find: Callable[[str], Callable[..., Iterable[Measurement]]]) -> None:
    """Measure what the first line of input asks for, by the function that `find` gives; end where the input does."""
    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with_input, daemon=True).start()
    # What libraries print must not stand in the answer.
    told, sys.stdout = sys.stdout, sys.stderr
    kind = request["kind"]
    try:
        rows = [asdict(found) for found in find(kind)(**_arguments(request["arguments"]))]
    except (BbtuiError, ImportError, RuntimeError) as error:
        words = (str(error) or type(error).__name__).splitlines()[0][:300]
        rows = [asdict(Measurement(name=kind, what=kind, unit="", problem=words))]
    print(json.dumps(rows), file=told, flush=True)
    # A thread that waits on input would keep the interpreter from its end.
    os._exit(0)


def _arguments(given: dict[str, Any]) -> dict[str, Any]:
    return {key: Sizes(**value) if key == "sizes" else value for key, value in given.items()}


def _leave_with_input() -> None:
    # Not by `sys.stdin`: a process forked meanwhile would find its lock taken for ever.
    while os.read(0, 4096):
        pass
    os._exit(0)


def _ours(kind: str) -> Callable[..., Iterable[Measurement]]:
    module, name = _PLACES[kind]
    return getattr(import_module(module), name)


if __name__ == "__main__":
    answer(_ours)
