"""The ClickHouse sink: one insert of one record batch for a block, tried once, under the block's token.

clickhouse-connect does the talking. It must not do what it would do by itself: re-send an insert after a reset (an
Arrow buffer it never re-sends), lock a session, let progress headers restart the read timeout, share its connections
with other clients, put the server's text, with values of rows in it, into messages.

It is long because it has all the methods of the contract; what they do is in the modules beside it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error

from batcher.errors import (
    BatcherError,
    ConfigurationError,
    RowsRejected,
    SchemaChanged,
    SinkMisconfigured,
    SinkUnavailable,
)
from batcher.protocols import Sink, SinkCapability, SinkInfo
from batcher.protocols.proposal import Proposal
from batcher.records import Block, Partition, Rejection, write_id
from sinks.clickhouse.addition import widens, with_columns
from sinks.clickhouse.catalog import Catalog, single
from sinks.clickhouse.connection import connected, open_failure, patient
from sinks.clickhouse.ddl import create_table
from sinks.clickhouse.errors import locked_out, rule_for, translated
from sinks.clickhouse.guarantee import Promise, Storage, promise
from sinks.clickhouse.json_text import JsonText, skipped
from sinks.clickhouse.options import ALWAYS_SENT, PINNED_SETTINGS, ClickHouseOptions
from sinks.clickhouse.pressure import pressure
from sinks.clickhouse.questions import Questions, rights
from sinks.clickhouse.rehearsal import dropped, made_like
from sinks.clickhouse.schema import IDENTITY, TableShape, quoted
from sinks.clickhouse.watch import TableWatch

log = structlog.get_logger(__name__)

_FORGETFUL: Final = frozenset({"Buffer"})
"""Engines that acknowledge rows that are only in memory, on their way to another table."""

_NO_TABLES: Final = frozenset(
    {
        *("View", "LiveView", "WindowView", "MaterializedView", "Merge", "Dictionary", "Loop"),
        *("Kafka", "RabbitMQ", "NATS", "S3Queue", "AzureQueue", "FileLog"),
        *("GenerateRandom", "FuzzJSON", "FuzzQuery", "Executable", "ExecutablePool"),
    }
)
"""Engines of what looks like a table but keeps no rows of its own: an insert fails, or goes elsewhere."""

_TABLE_ALREADY_EXISTS: Final = 57

_TOKENS_KEPT: Final = 1024
"""How many tokens are remembered where the server does not: a repeat follows its failure at once."""

_CAPABILITIES: Final[frozenset[SinkCapability]] = frozenset({"query", "count", "remove", "running", "pressure"})

_VIEWS: Final = """
SELECT length(dependencies_table) AS views
FROM system.tables WHERE database = {database:String} AND name = {table:String}
"""


@dataclass(frozen=True, slots=True)
class _Found:
    """Hold what `open` found and everything else needs."""

    client: Client
    shape: TableShape
    table: Storage
    kept: Promise
    questions: Questions
    settings: Mapping[str, str]
    watch: TableWatch
    knows_messages: bool
    """It can be asked which messages of a queue it has."""

    @property
    def timed(self) -> bool:
        """Return whether rows have the time of their message as a point in time."""
        column = self.shape.columns.get("_timestamp")
        return column is not None and column.coordinate and pa.types.is_timestamp(column.slot.codec.decoded)


class ClickHouseSink:
    """Write blocks to one table. Made by `sinks.clickhouse.plugin`; `parallel.py` has the one for several threads.

    One client serves `open` on its thread and `write` on the write loop's, since only one of them runs at a time and no
    session ties it to a thread. A `write` takes at most about `insert_timeout_s` seconds.
    """

    def __init__(self, options: ClickHouseOptions) -> None:
        self._options = options
        self._client: Client | None = None
        self._found: _Found | None = None
        self._database = options.database or ""
        self._tried: deque[str] = deque(maxlen=_TOKENS_KEPT)
        self._evolved: pa.Schema | None = None
        """The columns that the table had after the last ones were added: whoever asked for them knows them."""
        self._locked_out = False
        """The server refused our name or password: the password is read again before the next attempt."""

    @property
    def _target(self) -> str:
        database = f"{self._database}." if self._database else ""
        return f"{self._options.address}/{database}{self._options.table}"

    @property
    def _quoted(self) -> str:
        """Return the table's name as a statement takes it, with the database where one is named."""
        names = [self._database, self._options.table] if self._database else [self._options.table]
        return ".".join(map(quoted, names))

    def open(self) -> SinkInfo:
        try:
            self._client = connected(self._options)
            self._found = self._described(self._client)
            patient(self._client, self._options, self._options.insert_timeout_s)
            self._name_dropped_paths(self._found.shape)
        except (Error, OSError) as error:
            self.close()
            ours = open_failure(self._options, error) or translated(error, self._target, opening=True)
            raise ours or SinkMisconfigured(f"{self._target}: cannot be opened") from error
        except BaseException:
            self.close()
            raise
        shape, kept = self._found.shape, self._found.kept
        return SinkInfo(
            target=self._target,
            schema=shape.decoded,
            coordinates=shape.coordinates,
            repeats=kept.repeats,
            reason=kept.reason,
            condition="under FINAL" if kept.repeats == "merge" else "",
            capabilities=self._capabilities(self._found),
            tokens=kept.repeats == "query" and self._found.table.window > 0 and self._options.path is None,
        )

    def write(self, block: Block) -> None:
        """Insert the block. See `Sink.write` for the promise and the exceptions."""
        self._opened()
        batches = block.table.to_batches()
        if not block.rows:
            return
        if len(batches) != 1:
            # Each would be a block of its own to the server, and a repeat that is cut otherwise would be stored twice.
            raise BatcherError(f"a block of {len(batches)} record batches for {block.ranges[0]}; please report this")
        with self._let_in() as found:
            self._insert(self._looked_at_again(found), block, batches[0])

    def evolve(self, topic: str | None, fields: Sequence[pa.Field]) -> pa.Schema:
        """Add nullable columns to the table and wait until every replica has them; see `Evolvable.evolve`.

        Over a connection of its own, because the write loop may be writing. Raise SinkMisconfigured where the user may
        not add columns.
        """
        del topic
        found = self._opened()
        try:
            client = connected(self._options)
            try:
                patient(client, self._options, self._options.insert_timeout_s)
                shape = with_columns(client, found.table, fields, self._target, self._options.decoded)
            finally:
                client.close()
        except ConfigurationError as error:
            raise SinkMisconfigured(f"{self._target}: cannot be connected to again: {error}") from error
        except (Error, OSError) as error:
            ours = open_failure(self._options, error) or translated(error, self._target, asking=True)
            raise ours or SinkMisconfigured(f"{self._target}: cannot be given columns") from error
        self._evolved = shape.decoded
        return shape.decoded

    def present(self, partition: Partition, first: int, last: int) -> pa.Int64Array:
        """Return the offsets from `first` to `last` that the table holds, ascending, each once.

        Raise SinkMisconfigured where the table lacks the columns or the user a right, SinkUnavailable where the server
        does not answer.
        """
        with self._let_in() as found:
            return self._asked(found).present(partition, first, last)

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        """Return the offsets from `first` to `last` that the table holds, with the rows of each.

        Raise as `present` does, and SinkMisconfigured where merging may remove the row of a record.
        """
        with self._let_in() as found:
            questions = self._asked(found)
            if not found.table.keeps_coordinates:
                raise SinkMisconfigured(
                    f"{self._target}: engine {found.table.engine} merges rows by a key that has not all of "
                    f"{', '.join(IDENTITY)}: nobody can tell a lost record from a merged one"
                )
            return questions.copies(partition, first, last)

    def remove(self, partition: Partition, spans: Sequence[tuple[int, int]]) -> None:
        """Delete rows with a mutation. Raise as `copies` does.

        Raise SinkMisconfigured where views were fed as well, or rows of an offset are of different records.
        """
        with self._let_in() as found:
            questions = self._asked(found)
            try:
                views = self._has_views(found.client)
            except (Error, OSError) as error:
                ours = translated(error, self._target, asking=True)
                raise ours or SinkMisconfigured(f"{self._target}: its views cannot be looked at") from error
            if views:
                raise SinkMisconfigured(
                    f"{self._target}: feeds materialized views, which would keep the copies and be given another: "
                    "remove the rows by hand"
                )
            questions.remove(partition, spans, timed="_timestamp" in found.shape.coordinates)

    def stored(self, ids: pa.StringArray, times_ms: tuple[int, int] | None) -> pa.StringArray:
        """Return those of the names of messages that the table has rows of. Raise as `present` does."""
        with self._let_in() as found:
            return found.questions.stored(ids, times_ms, timed=found.timed)

    def max_offset_above(self, positions: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Return the highest offset held of each partition that has one at or above its position.

        A table that lacks the columns knows of none. Raise as `present` does.
        """
        with self._let_in() as found:
            if not set(IDENTITY).issubset(found.shape.coordinates):
                return {}
            return found.questions.max_offset_above(positions)

    def running(self, write_id: str) -> bool:
        """Return whether the server still runs an insert of this name; other replicas are not asked.

        An embedded engine ends with the process that wrote. Raise as `present` does.
        """
        with self._let_in() as found:
            return self._options.path is None and found.questions.running(_query_id(write_id))

    def pressure(self) -> float:
        """Return how far merges are behind: 1.0 is where the server begins to delay inserts."""
        with self._let_in() as found:
            return pressure(found.client, found.table, self._target)

    def close(self) -> None:
        client, self._client, self._found = self._client, None, None
        if client is not None:
            client.close()

    def described(self) -> SinkInfo:
        try:
            return self.open()
        finally:
            self.close()

    @contextmanager
    def rehearsal(self, name: str) -> Iterator[Sink]:
        """Create a table beside the real one, and drop it at the end. Raise as `Sink.open`."""
        try:
            self.open()
            found = self._opened()
            copy = made_like(found.client, found.table, name, self._target)
        except (Error, OSError) as error:
            self.close()
            ours = translated(error, self._target, opening=True)
            raise ours or SinkMisconfigured(f"{self._target}: no table like it can be made") from error
        except BaseException:
            self.close()
            raise
        try:
            yield type(self)(replace(self._options, database=found.table.database, table=copy))
        finally:
            try:
                dropped(found.client, found.table, copy)
            except (Error, OSError) as error:
                raise SinkMisconfigured(f"{self._target}: table {copy} could not be dropped; drop it") from error
            finally:
                self.close()

    def statement(self, proposal: Proposal) -> str:
        """Return the CREATE TABLE that the records need; see `Creatable.statement`."""
        return create_table(self._quoted, proposal)

    def create(self, proposal: Proposal) -> None:
        """Create the table; see `Creatable.create`."""
        statement = self.statement(proposal)
        try:
            self._client = connected(self._options)
            self._client.command(statement)
        except (Error, OSError) as error:
            if isinstance(error, Error) and error.code == _TABLE_ALREADY_EXISTS:
                raise SinkMisconfigured(
                    f"{self._target}: is there already; `batcher check` says how records fit it"
                ) from error
            ours = open_failure(self._options, error) or translated(error, self._target, opening=True)
            raise ours or SinkMisconfigured(f"{self._target}: cannot be created") from error
        finally:
            self.close()

    def refused(self, rows: pa.RecordBatch) -> Sequence[Rejection]:
        """Return the rows that do not fit the table's columns; see `Foresighted.refused`."""
        self.open()
        try:
            self._opened().shape.fit(rows)
        except RowsRejected as error:
            return error.rejections
        finally:
            self.close()
        return ()

    def _capabilities(self, found: _Found) -> frozenset[SinkCapability]:
        more: set[SinkCapability] = set()
        if widens(found.table):
            more.add("evolve")
        if found.knows_messages:
            more.add("messages")
        return _CAPABILITIES | more

    def _name_dropped_paths(self, shape: TableShape) -> None:
        for column in shape.columns.values():
            if isinstance(column.slot.codec, JsonText) and (paths := skipped(column.slot.type_name)):
                log.warning(
                    "json_paths_dropped",
                    target=self._target,
                    column=column.name,
                    paths=list(paths),
                    hint="the table's definition says SKIP, so what a record has there is not stored",
                )

    def _insert(self, found: _Found, block: Block, batch: pa.RecordBatch) -> None:
        rows = found.shape.fit(batch)
        if found.knows_messages and (found.kept.asks or found.kept.repeats == "none") and _named(block):
            rows = self._unseen(found, block, rows)
        elif found.kept.asks:
            rows = self._missing(block, rows)
        if rows.num_rows == 0:
            return
        named = {"insert_deduplication_token": block.token, "query_id": _query_id(write_id(block.token))}
        found.watch.began(block.ranges)
        try:
            found.client.insert_arrow(
                found.table.quoted, pa.Table.from_batches([rows]), settings={**found.settings, **named}
            )
        except (Error, OSError) as error:
            ours = translated(error, self._target, has_views=_poisoned(error) and self._may_have_views(found.client))
            if ours is not None:
                raise ours from error
        finally:
            found.watch.ended()

    @contextmanager
    def _let_in(self) -> Iterator[_Found]:
        """Yield what is known of the table, to ask or to write; remember where the server no longer accepts us."""
        try:
            yield self._let_in_again()
        except BatcherError as error:
            cause = error.__cause__
            self._locked_out |= isinstance(cause, (Error, OSError)) and locked_out(cause)
            raise

    def _let_in_again(self) -> _Found:
        """Return what is known of the table; where the server refused us, connect with the current password."""
        found = self._opened()
        if not self._locked_out or isinstance(self._options.password, str):
            return found
        try:
            latest = self._connected_again()
        except ConfigurationError as error:
            # The file may be missing for a moment while it is written anew.
            raise SinkMisconfigured(f"{self._target}: cannot be connected to again: {error}") from error
        except (Error, OSError) as error:
            ours = translated(error, self._target, asking=True)
            raise ours or SinkMisconfigured(f"{self._target}: cannot be looked at") from error
        patient(latest.client, self._options, self._options.insert_timeout_s)
        self._locked_out = False
        found.client.close()
        # The columns are compared with those that were known: the version of the old watch stays.
        self._client = latest.client
        self._found = replace(latest, shape=found.shape, kept=found.kept, watch=found.watch.asking_like(latest.watch))
        log.info("password_read_again", target=self._target)
        return self._found

    def _connected_again(self) -> _Found:
        client = connected(self._options)
        try:
            return self._described(client)
        except BaseException:
            client.close()
            raise

    def _looked_at_again(self, found: _Found) -> _Found:
        """Return what is known of the table, read anew where it was altered meanwhile.

        Raise SchemaChanged where blocks now have to have other columns. Raise SinkMisconfigured where the table can no
        longer keep what was promised when it was opened.
        """
        try:
            version = found.watch.changed()
            if version is None:
                return found
            latest = self._described(found.client)
        except (Error, OSError) as error:
            ours = translated(error, self._target, asking=True)
            raise ours or SinkMisconfigured(f"{self._target}: cannot be looked at") from error
        before, after = found.kept, latest.kept
        if (before.repeats, before.asks) != (after.repeats, after.asks) or (
            found.shape.coordinates != latest.shape.coordinates
        ):
            raise SinkMisconfigured(
                f"{self._target}: was altered and cannot keep any more what this run began with "
                f"({_guarantee(before)}: {before.reason}); now {_guarantee(after)}: {after.reason}; undo that, or "
                "restart"
            )
        columns = latest.shape.decoded
        known = self._evolved is not None and columns.equals(self._evolved, check_metadata=True)
        if known and _added_only(found.shape, latest.shape):
            # Blocks made before lack the new columns, and have no value for them.
            self._found = latest
            return latest
        if overtaken := found.watch.overtaken(version):
            log.warning(
                "table_altered_during_insert",
                target=self._target,
                ranges=[str(span) for span in overtaken],
                hint="the server may have converted values of these rows; compare them with the topic",
            )
        self._found = latest
        if not latest.shape.decoded.equals(found.shape.decoded, check_metadata=True):
            raise SchemaChanged(
                f"{self._target}: its columns were altered: {_difference(found.shape, latest.shape)}",
                latest.shape.decoded,
            )
        return latest

    def _missing(self, block: Block, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows of a block that the table lacks: all of them unless the token was tried before.

        This is for a table with coordinates that remembers no tokens. The repeat of another process is recognised by
        the engine, which asks `present` itself.
        """
        if not self._tried_before(block):
            return rows
        topics, numbers, offsets = (block.table[name].combine_chunks() for name in IDENTITY)
        there = pa.repeat(False, rows.num_rows)
        for partition, first, last in block.ranges:
            here = pc.and_(pc.equal(topics, partition.topic), pc.equal(numbers, partition.number))
            found = self.present(partition, first, last)
            there = pc.or_(there, pc.and_(here, pc.is_in(offsets, value_set=found)))
        return rows.filter(pc.invert(there))

    def _unseen(self, found: _Found, block: Block, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Return the rows of a block whose messages the table lacks: all of them unless the token was tried before."""
        if not self._tried_before(block):
            return rows
        ids = block.table["_message_id"].combine_chunks()
        there = found.questions.stored(pc.unique(ids), None, timed=False)
        return rows.filter(pc.invert(pc.is_in(ids, value_set=there)))

    def _tried_before(self, block: Block) -> bool:
        """Return whether a token was tried; raise SinkUnavailable while the server is still at it."""
        if block.token not in self._tried:
            self._tried.append(block.token)
            return False
        if self.running(write_id(block.token)):
            raise SinkUnavailable(f"{self._target}: the server is still at an earlier attempt of this insert")
        return True

    def take_for_known(self, found: _Found) -> None:
        """Know of the table what another sink found when it was opened: what has changed since is noticed."""
        mine = self._opened()
        self._found = replace(mine, shape=found.shape, kept=found.kept, watch=mine.watch.knowing_like(found.watch))

    def know_added(self, columns: pa.Schema | None) -> None:
        """Know the columns that the table had after another sink added some."""
        self._evolved = columns

    def _opened(self) -> _Found:
        if self._found is None:
            raise RuntimeError("the sink is not open")
        return self._found

    def _asked(self, found: _Found) -> Questions:
        """Return the questions to the table; raise SinkMisconfigured where rows do not say which record they are."""
        if not set(IDENTITY).issubset(found.shape.coordinates):
            raise SinkMisconfigured(f"{self._target}: has not all of {', '.join(IDENTITY)}")
        return found.questions

    def _described(self, client: Client) -> _Found:
        if not self._database:
            self._database = str(single(client, "SELECT currentDatabase()"))
        catalog = Catalog(client)
        watch = TableWatch(catalog, self._database, self._options.table)
        table = catalog.table(self._database, self._options.table)
        if table is None:
            raise SinkMisconfigured(self._no_table(catalog))
        self._check(table)
        if not self._options.allow_memory and catalog.in_memory(table.database):
            raise SinkMisconfigured(
                f"{self._target}: the database's engine Memory loses all its tables when the server ends; use another "
                "database, or give --clickhouse.allow-memory"
            )
        views = catalog.views(table)
        if table.engine == "Null" and not views:
            raise SinkMisconfigured(
                f"{self._target}: engine Null keeps no rows, and no materialized view makes anything of them"
            )
        if not catalog.granted(f"INSERT ON {table.quoted}"):
            raise SinkMisconfigured(f"{self._target}: the user may not insert; GRANT INSERT ON {table.quoted} to it")
        shape = TableShape.read(catalog.columns(table), self._target, self._options.decoded, table.sorted_by)
        lacking = [right for right in rights(table) if not catalog.granted(right)]
        return _Found(
            client=client,
            shape=shape,
            table=table,
            kept=promise(
                table, shape.coordinates, views, lacking, told=shape.told, embedded=self._options.path is not None
            ),
            questions=Questions(client, table, self._target),
            settings=self._insert_settings(client, shape),
            watch=watch,
            # Rows can be in the table and, because a view failed after them, not in what the view writes.
            knows_messages="_message_id" in shape.coordinates
            and table.keeps_messages
            and not views
            and not lacking
            and catalog.granted(f"SELECT(_message_id) ON {table.quoted}"),
        )

    def _no_table(self, catalog: Catalog) -> str:
        near = catalog.near(self._database, self._options.table)
        meant = f"; there is {', '.join(near)}" if near else ""
        return (
            f"{self._target}: database {self._database} has no table {self._options.table}, or the user may not see it"
            f"{meant}; create it, or correct --clickhouse.table (a dot separates database and table; a name with a dot "
            "of its own stands in backquotes)"
        )

    def _check(self, table: Storage) -> None:
        if table.engine in _NO_TABLES or table.engine.startswith("System"):
            raise SinkMisconfigured(
                f"{self._target}: engine {table.engine} keeps no rows of its own; name the table behind it"
            )
        if table.engine == "Memory" and not self._options.allow_memory:
            raise SinkMisconfigured(
                f"{self._target}: engine Memory loses all rows when the server ends; use a MergeTree, or give "
                "--clickhouse.allow-memory"
            )
        if table.engine in _FORGETFUL:
            raise SinkMisconfigured(
                f"{self._target}: engine {table.engine} loses rows it has acknowledged; use its target"
            )
        if table.flushes_later:
            # The table's setting and the insert's are or-ed: what is sent with the insert cannot turn it off.
            raise SinkMisconfigured(
                f"{self._target}: its setting async_insert mixes blocks of several inserts into one; "
                f"ALTER TABLE {table.quoted} MODIFY SETTING async_insert = 0"
            )

    def _insert_settings(self, client: Client, shape: TableShape) -> dict[str, str]:
        known = client.server_settings
        pinned = {name: value for name, value in PINNED_SETTINGS.items() if name in known or name in ALWAYS_SENT}
        return {
            **self._time_limit(client),
            **self._options.settings,
            **pinned,
            # Only columns with a DEFAULT can be null when their type is not: `fit` has seen to all others.
            "input_format_null_as_default": "1" if shape.fills_defaults else "0",
            # Progress headers would restart the read timeout, which then bounded nothing.
            "send_progress_in_http_headers": "0",
        }

    def _time_limit(self, client: Client) -> dict[str, str]:
        """Let the server end an insert when batcher no longer waits for it, unless the profile does so earlier."""
        seconds = math.ceil(self._options.insert_timeout_s)
        profile = client.server_settings.get("max_execution_time")
        if profile is None or profile.readonly or 0 < float(profile.value) <= seconds:
            return {}
        return {"max_execution_time": str(seconds)}

    def _may_have_views(self, client: Client) -> bool:
        """Return whether an insert may feed materialized views: true where the server does not say."""
        try:
            return self._has_views(client)
        except (Error, OSError):
            return True

    def _has_views(self, client: Client) -> bool:
        """Return whether an insert feeds materialized views; they may come and go, so this is asked when it matters."""
        names = {"database": self._database, "table": self._options.table}
        rows = client.query(_VIEWS, parameters=names).result_rows
        return not rows or bool(rows[0][0])


def _named(block: Block) -> bool:
    """Return whether each row of a block is of a message with a name."""
    return "_message_id" in block.table.column_names and not block.table["_message_id"].null_count


def _added_only(before: TableShape, after: TableShape) -> bool:
    """Return whether a table got columns that may be null, and nothing else changed."""
    old, new = before.decoded, after.decoded
    return all(
        field.equals(old.field(field.name), check_metadata=True) if field.name in old.names else field.nullable
        for field in new
    ) and set(old.names) <= set(new.names)


def _difference(before: TableShape, after: TableShape) -> str:
    """Return the columns that came, went or have another type."""
    old, new = before.decoded, after.decoded
    parts = [f"{name} is gone" for name in old.names if name not in new.names]
    parts += [f"{name} is new" for name in new.names if name not in old.names]
    parts += [
        f"{field.name} is another type"
        for field in new
        if field.name in old.names and not field.equals(old.field(field.name), check_metadata=True)
    ]
    return ", ".join(parts[:10]) or "their order"


_BY_A_ROW: Final = frozenset({"poison", "suspect"})


def _poisoned(error: Error | OSError) -> bool:
    return isinstance(error, Error) and error.code is not None and rule_for(error.code).reaction in _BY_A_ROW


def _query_id(name: str) -> str:
    """Return the id of an insert: a server refuses a second one of the same id while the first still runs."""
    return f"batcher-{name}"


def _guarantee(kept: Promise) -> str:
    return "at-least-once" if kept.repeats == "none" else "exactly-once"
