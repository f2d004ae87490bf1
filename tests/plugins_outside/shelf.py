# shelf.py: a dead-letter queue, a file with a line for each letter
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from batcher.errors import DeadLetterFailed
from batcher.options import Flag, Section
from batcher.records import DeadLetter


class ShelfOptions(Section):
    """The queue of `--dlq.queue shelf:Shelf`."""

    path: Annotated[str, Flag(metavar="FILE")]
    """File to append to."""


class Shelf:
    options = ShelfOptions

    def __init__(self, options: ShelfOptions) -> None:
        self.path = Path(options.path)

    def open(self) -> None:
        self.file = self.path.open("a")

    def send(self, letters: Sequence[DeadLetter]) -> None:
        try:
            for letter in letters:
                self.file.write(f"{letter.record.partition} {letter.record.offset} {letter.reason}: {letter.message}\n")
            self.file.flush()
            os.fsync(self.file.fileno())
        except OSError as error:
            raise DeadLetterFailed(f"cannot append to {self.path}: {error.strerror}") from error

    def close(self) -> None:
        if hasattr(self, "file"):
            self.file.close()
