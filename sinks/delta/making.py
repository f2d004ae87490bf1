"""Make a Delta table on a disk so that of several that do it at once one is first, and the others are told."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import uuid4

LOG: Final = "_delta_log"
FIRST: Final = f"{0:020}.json"
"""The name of version 0, as the protocol of Delta has it."""


def make_on_disk(root: Path, create: Callable[[str], object]) -> None:
    """Make the table that `create` makes at a path, as version 0 and no other.

    Two that call delta-rs at once are both told that they made it, and version 1 of the table has the schema of the
    second (deltalake 1.x: 534 of 600 times with a barrier before the call). A link to a whole file is made by one only.
    Raise FileExistsError where another was first, and what `create` raises.
    """
    with tempfile.TemporaryDirectory() as apart:
        create(apart)
        content = Path(apart, LOG, FIRST).read_bytes()
    log = root / LOG
    log.mkdir(parents=True, exist_ok=True)
    staged = log / f".{uuid4().hex}.tmp"
    try:
        with staged.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        (log / FIRST).hardlink_to(staged)
    finally:
        staged.unlink(missing_ok=True)
    for directory in (log, root):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
