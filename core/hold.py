"""Locks of files: one process holds one, and the system frees it when that process dies."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from core.errors import BbtuiError, RetryLaterError

_PATIENCE_S = 2.0
"""Whoever only asks if a lock is held holds it for a moment."""


@contextlib.contextmanager
def held(path: Path, busy: BbtuiError) -> Iterator[None]:
    """Hold the lock of that file. Raises: `busy` where someone else does; RetryLaterError where none can be made."""
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=_PATIENCE_S, poll_interval=0.02)
    except Timeout:
        raise busy from None
    except OSError as error:
        raise RetryLaterError(
            f"Cannot lock {path}: {error.strerror or error}.",
            "Mend the folder's permissions or free disk space, then try again.",
        ) from None
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Whether some process, this one included, holds the lock of that file."""
    if not path.exists():
        return False
    try:
        with FileLock(path, thread_local=False).acquire(timeout=0.03, poll_interval=0.01):
            return False
    except Timeout:
        return True
    except OSError:
        return False
