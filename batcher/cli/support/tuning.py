"""What a process that moves many records tunes for itself: the garbage collector, the memory, the imports."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import sys
from typing import Final

KEPT_BLOCK_BYTES: Final = 32 << 20
"""Blocks up to this come from memory that the process keeps: a default batch's columns, and librdkafka's fetches."""

KEPT_BYTES: Final = 64 << 20
"""This much free memory is kept at the end of the heap; more goes back to the system."""

ARENAS: Final = 2
"""The most heaps. Each keeps what is free in it for itself, and eight of them a core would be far more than is used."""

M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
"""Names of `mallopt` (malloc.h of the GNU C library)."""


def spare_threads() -> None:
    """Keep numpy, which Arrow loads, from starting threads of its own; before it is loaded, for the whole process."""
    # Each of them turns in a loop for a while when it has nothing to do, as it has here: 0.1 s of CPU a start. Whoever
    # multiplies matrices in a function of their own sets the variable.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def tune_collector() -> None:
    """Make the garbage collector look less often; for the whole process."""
    # Each time enough objects were made, the cyclic collector visits everything that is alive, and `consume` makes ten
    # thousand at a time. What is there by now never dies, and looking less often gave 1.2 to 1.4 times the rows.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def tune_memory() -> None:
    """Reuse memory that is free, and keep Arrow from loading pandas; for the whole process."""
    import pyarrow as pa

    spare_pandas()
    if platform.libc_ver()[0] != "glibc" or "ARROW_DEFAULT_MEMORY_POOL" in os.environ:
        return
    # A fresh page from the system costs 1 to 3 us (measured in a virtual machine: memory is filled at 1 GB/s, at 6 and
    # more where it was used before). Arrow's mimalloc and jemalloc keep what each thread freed for itself, and batches
    # are made on one thread and freed on another: 550 and 440 MB at the peak, where this takes 370.
    pa.set_memory_pool(pa.system_memory_pool())
    # Without the first two, each block of 128 KiB and more is fresh.
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES)
    libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    libc.mallopt(M_ARENA_MAX, ARENAS)


def spare_pandas() -> None:
    """Let Arrow take pandas for missing, unless it is loaded, until a data frame is asked for; for the process.

    Until then, an array made from a series keeps its NaNs.
    """
    import pyarrow as pa

    class Missing:
        @staticmethod
        def find_spec(name: str, _path: object = None, _target: object = None) -> None:
            if name == "pandas":
                raise ModuleNotFoundError(name)

    # Arrow looks for pandas once, when the first array is made: 0.3 s between joining the group and the first record,
    # and 40 MB. It is there wherever the embedded ClickHouse is.
    sys.meta_path.insert(0, Missing)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(Missing)
