"""Freed memory is used again by any thread."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading

import pytest

from unfused_ray.machine import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc can be told to keep memory")
SIZE = 1 << 26


def page_faults_of_ten_arrays() -> int:
    """Return the page faults of ten arrays of 64 MB, made one after another once the heap has settled."""
    before = 0
    for i in range(30):
        if i == 20:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b"x" * (SIZE + i % 2)  # sizes differ, so this is no constant
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def in_a_thread() -> int:
    faults: list[int] = []
    thread = threading.Thread(target=lambda: faults.append(page_faults_of_ten_arrays()))
    thread.start()
    thread.join()
    return faults[0]


def measured(how: str, environment: dict[str, str]) -> int:
    # An earlier sweep in this session may have set these variables for its trials.
    inherited = {name: value for name, value in os.environ.items() if name not in memory.ENVIRONMENT}
    out = subprocess.run(
        [sys.executable, __file__, how], env={**inherited, **environment}, check=True, capture_output=True, text=True
    )
    return int(out.stdout)


def test_large_arrays_are_made_of_memory_that_was_freed() -> None:
    pages = 10 * SIZE // resource.getpagesize()
    faults = {
        "as it was": measured("plain", {}),
        "kept": measured("kept", {}),
        "kept, in a thread": measured("kept in a thread", {}),
        "by the environment, in a thread": measured("in a thread", memory.ENVIRONMENT),
    }
    assert faults.pop("as it was") >= pages
    assert all(count < pages / 100 for count in faults.values()), faults


if __name__ == "__main__":
    if "kept" in sys.argv[1]:
        memory.keep_freed()
    sys.stdout.write(str(in_a_thread() if "thread" in sys.argv[1] else page_faults_of_ten_arrays()))
