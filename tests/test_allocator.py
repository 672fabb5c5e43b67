"""Protects that freed memory is used again instead of given back: what a training takes in every step."""

import subprocess
import sys

import pytest

_PAGES_TAKEN = """
import resource
import torch
{call}
def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(8 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
new_pages()
print(min(new_pages() for _ in range(5)))
"""
_CALL = "from core.allocator import keep_freed_memory; keep_freed_memory()"


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told to keep memory")
def test_a_large_block_is_taken_again_without_new_pages() -> None:
    taken = {
        call: int(subprocess.check_output([sys.executable, "-c", _PAGES_TAKEN.format(call=call)]))
        for call in ("", _CALL)
    }
    assert taken[""] > 1000  # 32 MB: without the call the test would see nothing
    assert taken[_CALL] < 100
