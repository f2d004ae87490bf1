"""The peak of a process's memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from batcher.bench.memory import peak_memory_bytes

LARGE = 200 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what was the process's own")
def test_the_memory_of_a_process_is_not_that_of_the_one_that_started_it() -> None:
    held = bytearray(LARGE)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    script = "from batcher.bench.memory import peak_memory_bytes; print(peak_memory_bytes())"

    child = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)

    assert child < LARGE < peak_memory_bytes()
