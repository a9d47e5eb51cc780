"""Freed memory stays with the process within the block, and goes back after it."""

import subprocess
import sys

import pytest

from mvit_search.proxy import allocator

# In a process of its own: the allocator's state is the process's.
CODE = """
import resource
import torch
from mvit_search.proxy.allocator import freed_memory_kept

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        torch.ones(10 * 2**20)  # 40 MiB, 10 240 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

faults()
usual = faults()
with freed_memory_kept():
    kept = min(faults() for _ in range(6))  # the heap takes a few rounds to settle
    held = resident()
print(usual, kept, held - resident(), faults())
"""


@pytest.mark.skipif(allocator._glibc() is None, reason="the C library is not glibc")
def test_a_block_is_reused_within_and_returned_after():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=True)
    usual, kept, returned, after = map(float, done.stdout.split())
    # With huge pages a block takes fewer faults, but anew each time; kept, it takes none.
    assert usual > 20
    assert kept < usual / 10
    assert returned > 30  # MiB
    assert after > 20


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    with allocator.freed_memory_kept():
        assert allocator._glibc() is None


def test_an_error_inside_passes_and_the_usual_ways_return(monkeypatch):
    class Library:
        def __init__(self):
            self.options, self.trimmed = {}, 0

        def mallopt(self, option, value):
            self.options[option] = value

        def malloc_trim(self, pad):
            self.trimmed += 1

    library = Library()
    monkeypatch.setattr(allocator, "_glibc", lambda: library)

    def failing():
        with allocator.freed_memory_kept():
            assert (library.options, library.trimmed) == ({-4: 0, -1: 2**31 - 1}, 0)
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        failing()
    assert (library.options, library.trimmed) == ({-4: 65_536, -3: 32 * 2**20, -1: 64 * 2**20}, 1)
