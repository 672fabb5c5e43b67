"""Runs the command line for the tests, in this process or in one of its own, and reads what it printed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.runs import Run, Runs

SMOKE = ["train", "pretrain", "--preset", "smoke"]


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document of stdout."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


Command = Callable[..., Result]


def checked(out: str, err: str) -> tuple[str, str]:
    assert "Traceback" not in out + err
    return out, err


def spawn(*words: object, **options: Any) -> "subprocess.Popen[str]":
    """The real command in a process of its own."""
    streams = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }
    return subprocess.Popen([sys.executable, "-m", "tui.cli", *map(str, words)], **(streams | options))


def finish(process: "subprocess.Popen[str]") -> Result:
    out, err = process.communicate(timeout=60)
    return Result(process.returncode, *checked(out, err))


def refused(result: Result, *named: str, code: int = 2) -> None:
    """The command ended with that code, printed nothing on stdout, and named these on stderr."""
    assert (result.code, result.out) == (code, ""), result
    for word in named:
        assert word in result.err, result.err
    assert "\x1b" not in result.err
    # What went wrong, and on another line what to do.
    assert result.err.startswith(("error: ", "Usage: ")) and len(result.err.splitlines()) >= 2


def root_of_tests() -> Path:
    return Path(os.environ["BBTUI_ROOT"])


def only_run(stage: str = "pretrain") -> Run:
    (run,) = Runs(root_of_tests()).all(stage)
    return run
