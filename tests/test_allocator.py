"""Protects that freed memory is used again instead of given back: what a training takes in every step."""

import platform
import subprocess
import sys

import pytest

_PAGES_TAKEN = """
import resource
import torch
{call}
def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step = [torch.ones(10 << 20) for _ in range(6)]
    del step
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(new_pages() for _ in range(6)))
"""
_CALL = "from core.allocator import keep_freed_memory; keep_freed_memory()"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_a_step_takes_the_blocks_of_the_one_before_without_new_pages() -> None:
    taken = {
        call: int(subprocess.check_output([sys.executable, "-c", _PAGES_TAKEN.format(call=call)]))
        for call in ("", _CALL)
    }
    assert taken[""] > 50_000  # 240 MB: without the call the test would see nothing
    assert taken[_CALL] < 1000
