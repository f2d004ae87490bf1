"""Find a message by its id: that which its publisher gave it, or the queue's own."""

from __future__ import annotations

import re
from typing import Final

from batcher.errors import ConfigurationError
from batcher.sources.queue.file import QueueFile, place_of

_OWN: Final = re.compile(r"(\d{1,6})-(\d{1,13})")


def place_of_id(file: QueueFile, id_: str) -> int:
    """Return the place of a message. Raise ConfigurationError where there is none of this id."""
    found = find_id(file, id_)
    if found is None:
        raise ConfigurationError(f"{id_}: queue {file.shape.name} has no message with this id")
    return found


def find_id(file: QueueFile, id_: str) -> int | None:
    """Return the place of a message, None where there is none of this id."""
    with file.answering():
        if found := _OWN.fullmatch(id_):
            place = place_of(int(found[1]), int(found[2]))
            row = file.db.execute("SELECT place FROM message WHERE place = ? AND id IS NULL", (place,)).fetchone()
        else:
            row = file.db.execute("SELECT place FROM message WHERE id = ?", (id_,)).fetchone()
    return None if row is None else int(row[0])
