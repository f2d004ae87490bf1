"""A queue in a file of its own, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from batcher.sources.queue.file import QueueFile, QueueShape, create, opened

NewQueue = Callable[..., QueueFile]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "q.db"


@pytest.fixture
def new_queue(path: Path) -> Iterator[NewQueue]:
    """Return what makes the queue, of one lane unless told otherwise, or opens it once more."""
    with ExitStack() as stack:

        def make(*, lanes: int = 1, **shape: int) -> QueueFile:
            file = opened(path) if path.exists() else create(path, QueueShape("q", lanes=lanes, **shape))
            stack.callback(file.close)
            return file

        yield make
