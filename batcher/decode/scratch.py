"""Memory for the large steps in between that live for some milliseconds.

jemalloc, which holds what lives longer (`commands/run.py`), gives blocks of 8 MB and more back to the system as soon as
they are free, and memory that is fresh from the system is filled at 1 GB/s where memory used before takes 8
(measured in a virtual machine: 2.8 us a page). mimalloc keeps them.
"""

from __future__ import annotations

import functools
from typing import Any

import pyarrow as pa


@functools.cache
def scratch() -> Any:
    """Return the memory pool for what is large and short-lived."""
    return pa.mimalloc_memory_pool() if "mimalloc" in pa.supported_memory_backends() else pa.default_memory_pool()


def joined(values: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array in scratch memory; not copied where it has one chunk."""
    return values.chunk(0) if values.num_chunks == 1 else pa.concat_arrays(values.chunks, memory_pool=scratch())
