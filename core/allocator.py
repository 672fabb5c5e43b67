"""How long the C library keeps memory that was freed: a training frees and takes the same sizes in every step.

By default glibc gives each large block back at once. The next step then gets new pages, which the kernel fills with
zeros one by one: that took a sixth of a step on two cores. Other C libraries are left as they are.
"""

import ctypes
from functools import cache
from typing import Any

# From glibc's malloc.h; -1 as a threshold is the largest one.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


@cache
def _glibc() -> Any:
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "gnu_get_libc_version") else None
    except (OSError, TypeError):
        return None


@cache
def keep_freed_memory() -> None:
    """Have this process use freed memory again rather than give it back. Best called before other threads start:
    they then share one heap."""
    if glibc := _glibc():
        glibc.mallopt(_ARENA_MAX, 1)
        glibc.mallopt(_MMAP_MAX, 0)
        glibc.mallopt(_TRIM_THRESHOLD, -1)


def give_back() -> None:
    """Give what is free back to the system: after a training, say, in a process that goes on."""
    if glibc := _glibc():
        glibc.malloc_trim(0)
