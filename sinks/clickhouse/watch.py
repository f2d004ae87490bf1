"""Notice that a table was altered while blocks are written to it.

A block that was made for a `UInt16` would be stored in what is now a `UInt8`, 300 as 44, without an error. So the
table's version is asked for before each insert. That takes some milliseconds, beside the hundreds that an insert of a
full batch takes.

An `ALTER` between the question and the insert, some milliseconds, is not noticed before the next insert. The time of
the change, in whole seconds of the server, tells whether that may have happened.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from batcher.records import Range
from sinks.clickhouse.catalog import Catalog, Version


class TableWatch:
    """Know the version that a table had when its columns were read, and when the last insert was under way."""

    def __init__(self, catalog: Catalog, database: str, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._database = database
        self._name = name
        self._clock = clock
        # Read before the columns are: a change between the two is noticed at the next look.
        self._known = self._asked()
        self._began_s = self._ended_s = 0.0
        self._ranges: Sequence[Range] = ()

    def asking_like(self, other: TableWatch) -> TableWatch:
        """Return the same watch over the connection of another one."""
        self._catalog = other._catalog
        return self

    def knowing_like(self, other: TableWatch) -> TableWatch:
        """Return this watch, which then knows the version that another one knows."""
        self._known = other._known
        return self

    def changed(self) -> Version | None:
        """Return the table's version if it is not the known one; None also where the table is gone.

        In that case the insert itself says best what is wrong.
        """
        now = self._asked()
        return None if now is None or self._known is None or now.hash == self._known.hash else now

    def began(self, ranges: Sequence[Range]) -> None:
        """Record that an insert begins."""
        self._began_s, self._ranges = self._server_s(), ranges

    def ended(self) -> None:
        """Record that the insert has ended."""
        self._ended_s = self._server_s()

    def overtaken(self, version: Version) -> Sequence[Range]:
        """Return the ranges of the last insert if the table may have been altered while it was under way."""
        return self._ranges if int(self._began_s) <= version.changed_s <= self._ended_s + 1 else ()

    def _asked(self) -> Version | None:
        version = self._catalog.version(self._database, self._name)
        self._offset_s = (version.now_s if version is not None else 0) - self._clock()
        return version

    def _server_s(self) -> float:
        return self._clock() + self._offset_s
