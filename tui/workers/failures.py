"""Errors nobody expected, for the screen: in words, with the traceback in a file."""

import traceback
from pathlib import Path


def in_words(error: BaseException, folder: Path) -> tuple[str, str]:
    """What happened and what to do; the traceback is appended to `stderr.log` in the folder."""
    log = folder / "stderr.log"
    kind = f"{type(error).__name__}: {str(error)[:200]}" if str(error) else type(error).__name__
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8", errors="replace") as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return f"Something went wrong that the program does not know: {kind}.", "Try again."
    return f"Something went wrong that the program does not know: {kind}.", f"The whole story is in {log}."
