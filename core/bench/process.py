"""A measurement in a process of its own, so that its memory is its own and nothing before it has warmed anything.

Loads without torch: on Linux a process begins with the peak memory of the one that started it.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import core
from core.bench.measurement import Measurement

OURS = "core.bench"
HOME = Path(core.__file__).parent.parent
"""Where our processes start: where the user stands there may be a package `core`, too."""


def measured(
    kind: str, arguments: dict[str, Any] | None = None, module: str = OURS, folders: Sequence[Path] = ()
) -> list[Measurement]:
    """What a fresh `python -m module` found, told to measure `kind` with these arguments.

    Where it finds nothing, there is one measurement that says why.

    Args:
        folders: from which the process may import, too.
    """
    request = json.dumps({"kind": kind, "arguments": arguments or {}})
    found_first = [*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    with subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=HOME,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(found_first)},
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            lines, said = _read_all(process)
        finally:
            process.kill()
    try:
        return [Measurement.from_row(row) for row in json.loads(lines[-1])]
    except (IndexError, ValueError, KeyError, TypeError):
        return [Measurement(name=kind, what=kind, unit="", problem=_why(process.returncode, said))]


def _read_all(process: "subprocess.Popen[bytes]") -> tuple[list[bytes], str]:
    """Its lines, and the last one that it wrote on stderr."""
    said: list[bytes] = []
    assert process.stdin and process.stdout and process.stderr
    reader = threading.Thread(target=lambda: said.extend(process.stderr or ()), daemon=True)
    reader.start()
    lines = process.stdout.read().splitlines()
    process.wait()
    reader.join(5)
    return lines, said[-1].decode("utf-8", "replace").strip() if said else ""


def _why(code: int, said: str) -> str:
    if code < 0:
        return f"The process was ended by signal {-code}, as it is where memory runs out."
    return said or f"The process ended with {code}."
