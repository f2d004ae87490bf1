"""Make a Delta table on a disk so that of several that do it at once one decides what it is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sinks.parquet.local import LocalStore

LOG: Final = "_delta_log"
FIRST: Final = f"{0:020}.json"
"""The name of version 0, as the protocol of Delta has it."""


def make_on_disk(root: Path, create: Callable[[str], object]) -> None:
    """Make the table that `create` makes at a path, as version 0 and no other; where there is one, leave it.

    Two that call delta-rs at once are both told that they made it, and version 1 of the table has the schema of the
    second (deltalake 1.x: 534 of 600 times with a barrier before the call). A whole file gets its name once. Raise what
    `create` raises, and OSError.
    """
    with tempfile.TemporaryDirectory() as apart:
        create(apart)
        content = Path(apart, LOG, FIRST).read_bytes()
    log = LocalStore(root / LOG)
    log.open()
    try:
        log.create(FIRST, content)
    finally:
        log.close()
