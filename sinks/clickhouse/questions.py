"""What a table is asked before a block is sent again: which offsets it holds, and whether a write still runs.

An answer has to be whole and fresh. So nothing in the user's profile may shorten it or serve an old one, and a replica
first takes over what the others have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error

from batcher.errors import SinkMisconfigured
from batcher.protocols import COPIES
from batcher.records import Partition
from sinks.clickhouse.errors import translated
from sinks.clickhouse.guarantee import Storage

log = structlog.get_logger(__name__)

ACCESS_DENIED: Final = 497

SEE_PROCESSES: Final = "SELECT ON system.processes"

NAMES_BYTES: Final = 100_000
"""How much of a statement names of messages take, for the same reason as SPANS_A_STATEMENT."""

_LATEST_MS: Final = 4_294_967_000_000
"""What a DateTime can hold, in 2106."""

SPANS_A_STATEMENT: Final = 2000
"""Some 100 kB of text; servers take 256 kB by default."""

_WHOLE: Final[Mapping[str, str]] = {
    "use_query_cache": "0",
    # With `break` a limit of the profile ends the query as if there were no more rows.
    **dict.fromkeys(
        (
            "read_overflow_mode",
            "read_overflow_mode_leaf",
            "result_overflow_mode",
            "timeout_overflow_mode",
            "timeout_overflow_mode_leaf",
            "group_by_overflow_mode",
            "distinct_overflow_mode",
        ),
        "throw",
    ),
}


def rights(table: Storage) -> tuple[str, ...]:
    """Return the rights that the questions need, besides SELECT on the table itself."""
    sync = (f"SYSTEM SYNC REPLICA ON {table.quoted}",) if table.engine.startswith("Replicated") else ()
    return (SEE_PROCESSES, *sync)


class Questions:
    """Ask about one table. Every method raises SinkUnavailable or SinkMisconfigured; `target` is for messages."""

    def __init__(self, client: Client, table: Storage, target: str) -> None:
        self._client = client
        self._table = table
        self._target = target
        self._advised = False
        self._settings = {name: value for name, value in _WHOLE.items() if name in client.server_settings}
        if table.engine.startswith("Shared"):
            self._settings["select_sequential_consistency"] = "1"

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        """Return the offsets from `first` to `last` that the table holds, ascending, each once."""
        query = (
            f"SELECT DISTINCT toInt64(_offset) AS found FROM {self._table.quoted} "  # noqa: S608 - own quoting, tested
            "WHERE _topic = {topic:String} AND _partition = {number:Int64} "
            "AND _offset >= {first:Int64} AND _offset <= {last:Int64}"
        )
        parameters = {"topic": partition.topic, "number": partition.number, "first": first, "last": last}
        found = self._rows(query, parameters)["found"].combine_chunks().cast(pa.int64())
        return found.take(pc.sort_indices(found))

    def stored(self, ids: pa.StringArray, times_ms: tuple[int, int] | None, *, timed: bool) -> pa.StringArray:
        """Return those of the names of messages that the table has rows of.

        With `timed` rows are looked for among those of the messages' times alone, which the server finds sooner.
        """
        if not len(ids):
            return ids
        within = ""
        if timed and times_ms is not None and 0 < times_ms[0] <= times_ms[1] < _LATEST_MS:
            # Whole seconds, because the column may have no others.
            first_s, last_s = times_ms[0] // 1000, times_ms[1] // 1000 + 1
            within = f" AND _timestamp >= toDateTime({first_s}) AND _timestamp <= toDateTime({last_s})"
        self._advise_index()
        found = []
        for some in _pieces([_literal(one) for one in ids.to_pylist()]):
            # Part of the statement: as a parameter it would be part of a URL, which is not so long.
            query = (
                f"SELECT DISTINCT toString(_message_id) AS found FROM {self._table.quoted} "  # noqa: S608 - own quoting
                f"WHERE _message_id IN ({','.join(some)}){within}"
            )
            found += self._rows(query, {})["found"].cast(pa.string()).chunks
        return pa.concat_arrays(found) if found else ids.slice(0, 0)

    def _advise_index(self) -> None:
        """Say once that the table would answer sooner with an index."""
        if self._advised or "_message_id" in self._table.sorted_by:
            return
        self._advised = True
        query = (
            "SELECT count() FROM system.data_skipping_indices WHERE database = {database:String} "
            "AND table = {table:String} AND position(expr, '_message_id') > 0"
        )
        names = {"database": self._table.database, "table": self._table.name}
        try:
            known = bool(self._client.query(query, parameters=names).result_rows[0][0])
        except (Error, OSError):  # an advice is worth no failure
            return
        if not known:
            log.info(
                "message_index_missing",
                target=self._target,
                hint=f"ALTER TABLE {self._table.quoted} ADD INDEX message_id _message_id TYPE bloom_filter(0.001)",
            )

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        """Return the offsets from `first` to `last` that the table holds, ascending, with the rows of each."""
        query = (
            "SELECT toInt64(_offset) AS offset, toInt64(count()) AS copies "  # noqa: S608 - own quoting, tested
            f"FROM {self._table.quoted} WHERE _topic = {{topic:String}} AND _partition = {{number:Int64}} "
            "AND _offset >= {first:Int64} AND _offset <= {last:Int64} GROUP BY offset ORDER BY offset"
        )
        parameters = {"topic": partition.topic, "number": partition.number, "first": first, "last": last}
        return self._rows(query, parameters).combine_chunks().cast(COPIES)

    def remove(self, partition: Partition, spans: Sequence[tuple[int, int]], *, timed: bool) -> None:
        """Delete the rows of the offsets in the spans; every replica has done so when this returns.

        With `timed` the rows of an offset have to have one `_timestamp`. Otherwise they were made from different
        records, and nothing is deleted.
        """
        for start in range(0, len(spans), SPANS_A_STATEMENT):
            some = spans[start : start + SPANS_A_STATEMENT]
            chosen = " OR ".join(f"_offset BETWEEN {int(first)} AND {int(last)}" for first, last in some)
            rows = f"WHERE _topic = {{topic:String}} AND _partition = {{number:Int64}} AND ({chosen})"
            parameters = {"topic": partition.topic, "number": partition.number}
            if timed:
                self._require_one_time(rows, parameters)
            statement = f"ALTER TABLE {self._table.quoted} DELETE {rows}"
            try:
                # 2: on all replicas, where there are more. A mutation does not touch what is inserted after it.
                self._client.command(statement, parameters=parameters, settings={"mutations_sync": "2"})
            except (Error, OSError) as error:
                raise self._failure(error, f"ALTER DELETE ON {self._table.quoted}") from error

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return the highest offset of each partition that has one at or above its position; a query for each topic."""
        query = (
            "SELECT toInt64(_partition) AS number, toInt64(max(_offset)) AS highest "  # noqa: S608 - own quoting
            f"FROM {self._table.quoted} WHERE _topic = {{topic:String}} "
            "AND _partition IN {numbers:Array(Int64)} AND _offset >= {lowest:Int64} GROUP BY number"
        )
        highest: dict[Partition, int] = {}
        for topic in sorted({partition.topic for partition in positions}):
            asked = {part.number: at for part, at in positions.items() if part.topic == topic}
            # A condition for each partition would be exact, and is 20 times slower for 200 of them.
            parameters = {"topic": topic, "numbers": sorted(asked), "lowest": min(asked.values())}
            for row in self._rows(query, parameters).to_pylist():
                if row["highest"] >= asked[row["number"]]:
                    highest[Partition(topic, row["number"])] = row["highest"]
        return highest

    def _require_one_time(self, rows: str, parameters: dict[str, Any]) -> None:
        query = (
            f"SELECT toInt64(_offset) AS offset FROM {self._table.quoted} {rows} "  # noqa: S608 - own quoting
            "GROUP BY offset HAVING uniqExact(_timestamp) > 1 ORDER BY offset LIMIT 1"
        )
        for row in self._rows(query, parameters).to_pylist():
            raise SinkMisconfigured(
                f"{self._target}: rows of {parameters['topic']}[{parameters['number']}] offset {row['offset']} have "
                "different times, so they are of different records (the topic was made anew?): they stay"
            )

    def running(self, query_id: str) -> bool:
        """Return whether the server runs a query of this id. Raise SinkMisconfigured where the user may not know."""
        query = "SELECT count() FROM system.processes WHERE query_id = {query_id:String}"
        try:
            return bool(self._client.query(query, parameters={"query_id": query_id}).result_rows[0][0])
        except (Error, OSError) as error:
            raise self._failure(error, SEE_PROCESSES) from error

    def _rows(self, query: str, parameters: dict[str, Any]) -> pa.Table:
        if self._table.engine.startswith("Replicated"):
            self._catch_up()
        try:
            return self._client.query_arrow(query, parameters=parameters, settings=dict(self._settings))
        except (Error, OSError) as error:
            raise self._failure(error, f"SELECT ON {self._table.quoted}") from error

    def _catch_up(self) -> None:
        try:
            self._client.command(f"SYSTEM SYNC REPLICA {self._table.quoted} LIGHTWEIGHT")
        except (Error, OSError) as error:
            raise self._failure(error, f"SYSTEM SYNC REPLICA ON {self._table.quoted}") from error

    def _failure(self, error: Error | OSError, right: str) -> Exception:
        if isinstance(error, Error) and error.code == ACCESS_DENIED:
            translated(error, self._target)  # strips the server's text, which the chain would show
            return SinkMisconfigured(f"{self._target}: what it holds cannot be asked; GRANT {right} to the user")
        ours = translated(error, self._target, asking=True)
        return ours or SinkMisconfigured(f"{self._target}: what it holds cannot be asked")


def _literal(text: str) -> str:
    """Return a text as ClickHouse reads it back unchanged, whatever is in it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _pieces(literals: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield literals in parts that a statement takes."""
    longest = max(len(one.encode()) for one in literals) + 1
    step = max(1, NAMES_BYTES // longest)
    for start in range(0, len(literals), step):
        yield literals[start : start + step]
