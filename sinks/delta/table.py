"""One Delta table through delta-rs, as the sink of lake tables asks for it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import deltalake
import pyarrow as pa

from batcher.errors import SinkMisconfigured, SinkUnavailable
from batcher.protocols import COPIES, Measure
from batcher.records import COORDINATES, Partition
from sinks.delta.errors import fault, faults, words
from sinks.delta.files import compressed, writer_properties
from sinks.delta.making import make_on_disk
from sinks.delta.options import DeltaOptions
from sinks.delta.protocol import unwritable
from sinks.lake.coordinate import writer_of
from sinks.lake.memory import PROPERTY
from sinks.lake.metric import CommitTimes
from sinks.lake.partition import check_lengths, computed, computed_type, rules_of_text
from sinks.lake.types import plain
from sinks.parquet import hive
from sinks.parquet.directory import DirectoryRule
from sinks.parquet.local import LocalStore
from sinks.parquet.rehearsal import scratch_path

PARTITION_BY: Final = "batcher.partition_by"
"""The property with the rules of a table that was made here."""

# Each commit adds to what a handle keeps in memory and reads over: 18 ms CPU become 290 after some thousand commits.
REOPEN_EVERY: Final = 50

CHECKPOINT_EVERY: Final = 100
"""Commits after which the log is summed up, in tables that are made here: readers have that many files to read."""

REBASES: Final = 30
"""How often a commit is put behind those of others that have nothing to do with it: other partitions, compaction."""

# Delta keeps the least and greatest value of the first 32 columns. By these a look for offsets skips files.
INDEXED: Final = 32

SPANS: Final = 200
"""Runs of offsets that one statement removes: its condition is a tree as deep as that."""


class DeltaLakeTable:
    """Hold a handle on the table. After any failure it is opened anew: what it knows may be half of the truth."""

    def __init__(self, options: DeltaOptions) -> None:
        self._options = options
        self._rules = options.rules
        self._handle: deltalake.DeltaTable | None = None
        self._refreshes = 0
        self._times = CommitTimes()

    @property
    def label(self) -> str:
        return self._options.label

    def open(self) -> bool:
        self._handle = None
        self._rules = self._options.rules
        if self._options.directory is not None and self._options.directory.is_file():
            raise SinkMisconfigured(f"--delta.path {self.label} is a file: choose another")
        if not self._loaded():
            self._refuse_files()
            return False
        self._check_protocol()
        self._check_partitions()
        return True

    def refresh(self) -> None:
        self._refreshes += 1
        if self._handle is None or self._refreshes % REOPEN_EVERY == 0:
            if not self._loaded():
                raise SinkMisconfigured(f"{self.label}: there is no table any more: make it again, or start anew")
            return
        with self._guarded("reading the log"):
            self._table.update_incremental()
        self._refuse_another_log()

    def columns(self) -> pa.Schema:
        found = pa.schema(self._table.schema().to_arrow())
        made_here = {rule.name for rule in self._rules if rule.function}
        return pa.schema([plain(field) for field in found if field.name not in made_here])

    def remembered(self) -> str | None:
        found: str | None = self._table.metadata().configuration.get(PROPERTY)
        return found

    def create(self, columns: pa.Schema, remembered: str) -> None:
        rules = self._rules
        bare = pa.schema([one for one in columns if one.name not in COORDINATES.names])
        problem = hive.unfit(bare, rules, [name for name in columns.names if name in COORDINATES.names])
        if problem is not None:
            raise SinkMisconfigured(f"--delta.partition-by does not work for {self.label}: {problem}")
        self._check_properties()
        properties = {
            "delta.checkpointInterval": str(CHECKPOINT_EVERY),
            **_indexed(columns),
            **self._options.properties,
            PROPERTY: remembered,
        }
        if rules:
            properties[PARTITION_BY] = ",".join(rule.text for rule in rules)
        make = partial(
            deltalake.DeltaTable.create,
            schema=pa.schema([*columns, *self._computed_fields(columns)]),
            mode="error",
            partition_by=[name_of(rule) for rule in rules] or None,
            configuration=properties,
            raise_if_key_not_exists=False,
        )
        try:
            if self._options.directory is None:
                make(self._options.uri, storage_options=dict(self._options.storage) or None)
            else:
                make_on_disk(self._options.directory, make)
        except Exception as error:
            # Of two that make it at once one is told so, in several ways. What is there now decides.
            if not self._loaded():
                raise fault(error, self.label, "making the table") from error
        else:
            if not self._loaded():
                raise SinkUnavailable(f"{self.label}: the table just made is not there")
        self._check_protocol()
        self._check_partitions()

    def widen(self, columns: pa.Schema, remembered: str) -> None:
        if not columns.equals(self.columns()):
            nothing = pa.schema([*columns, *self._computed_fields(columns)]).empty_table()
            with self._guarded("adding columns"):
                deltalake.write_deltalake(self._table, nothing, mode="append", schema_mode="merge")
        if remembered != self.remembered():
            with self._guarded("noting the schema"):
                self._table.alter.set_table_properties({PROPERTY: remembered}, raise_if_not_exists=False)

    def positions(self, partitions: Sequence[Partition]) -> Mapping[Partition, int]:
        found = {}
        with self._guarded("reading positions"):
            for partition in partitions:
                at = self._table.transaction_version(writer_of(self._options.lake_id, partition))
                if at is not None:
                    found[partition] = at
        return found

    def append(self, rows: pa.Table, positions: Mapping[Partition, int]) -> None:
        for rule in self._rules:
            if rule.function:
                rows = rows.append_column(rule.name, computed(rule, rows.column(rule.column)))
        for name in self._table.metadata().partition_columns:
            check_lengths(name, rows.column(name))
        transactions = [
            deltalake.Transaction(writer_of(self._options.lake_id, partition), at)
            for partition, at in sorted(positions.items())
        ]
        started = time.perf_counter()
        with self._guarded("committing"):
            deltalake.write_deltalake(
                self._table,
                rows,
                mode="append",
                writer_properties=writer_properties(rows, self._options.encodings),
                commit_properties=deltalake.CommitProperties(app_transactions=transactions, max_commit_retries=REBASES),
            )
            self._times.add(time.perf_counter() - started, self._table.version() + 1)

    def copies(self, partition: Partition, first: int, last: int) -> pa.Table:
        condition = _condition(partition, [(first, last)])
        query = f"SELECT _offset, count(*) FROM rows WHERE {condition} GROUP BY _offset ORDER BY _offset"  # noqa: S608
        with self._guarded("looking for rows"):
            found = pa.table(deltalake.QueryBuilder().register("rows", self._table).execute(query))
        return found.rename_columns(COPIES.names).cast(COPIES).combine_chunks()

    def remove(self, partition: Partition, spans: Sequence[tuple[int, int]]) -> None:
        for start in range(0, len(spans), SPANS):
            with self._guarded("removing rows"):
                self._table.delete(
                    _condition(partition, spans[start : start + SPANS]),
                    writer_properties=compressed(),
                    commit_properties=deltalake.CommitProperties(max_commit_retries=REBASES),
                )

    @contextmanager
    def scratch(self, name: str) -> Iterator[DeltaLakeTable]:
        if self._options.directory is None:
            raise SinkMisconfigured(
                f"--target scratch: a table beside {self.label} could not be removed again; measure without it"
            )
        with scratch_path(str(self._options.directory), name, lambda made: LocalStore(Path(made))) as path:
            yield DeltaLakeTable(replace(self._options, uri=path, label=path, directory=Path(path)))

    def measures(self) -> Sequence[Measure]:
        return self._times.measures(
            "Versions that the table has had; delta.logRetentionDuration says how long the log has them."
        )

    def close(self) -> None:
        self._handle = None

    @property
    def _table(self) -> deltalake.DeltaTable:
        if self._handle is None:
            self.refresh()
        assert self._handle is not None
        return self._handle

    @contextmanager
    def _guarded(self, doing: str) -> Iterator[None]:
        try:
            with faults(self.label, doing):
                yield
        except BaseException:
            self._handle = None
            raise

    def _loaded(self) -> bool:
        """Open the table at its newest version, and return whether there is one."""
        self._handle = None
        try:
            with self._guarded("opening the table"):
                try:
                    self._handle = deltalake.DeltaTable(
                        self._options.uri, storage_options=dict(self._options.storage) or None
                    )
                except deltalake.exceptions.TableNotFoundError as error:
                    if "Unknown scheme" in str(error):
                        raise SinkMisconfigured(
                            f"--delta.path {self.label}: delta-rs knows no such scheme; give a directory, s3://, gs:// "
                            "or abfss://"
                        ) from error
                    return False
        finally:
            self._refreshes = 0
        self._times.versions = self._table.version() + 1
        return True

    def _refuse_files(self) -> None:
        """Refuse a directory with files that are no Delta table: readers of it would not see them any more."""
        directory = self._options.directory
        if directory is None:
            return
        there = [one.name for one in directory.iterdir()] if directory.exists() else []
        # Another process may be about to make the table.
        if any(name != "_delta_log" for name in there):
            raise SinkMisconfigured(
                f"--delta.path {self.label} holds files and is no Delta table: choose another, or convert it "
                "(docs/delta.md)"
            )

    def _refuse_another_log(self) -> None:
        """Refuse a log that no longer has this version: a table that was removed would be continued in pieces."""
        directory = self._options.directory
        if directory is None:
            return
        name = f"{self._table.version():020d}"
        log = directory / "_delta_log"
        if not any((log / f"{name}{suffix}").exists() for suffix in (".json", ".checkpoint.parquet")):
            self._handle = None
            if not self._loaded():
                raise SinkMisconfigured(f"{self.label}: there is no table any more: make it again, or start anew")

    def _check_protocol(self) -> None:
        problem = unwritable(self._table)
        if problem is not None:
            raise SinkMisconfigured(f"{self.label} {problem}")

    def _check_partitions(self) -> None:
        """Find the rules of a table that is there; raise SinkMisconfigured where others were asked for."""
        metadata = self._table.metadata()
        noted = metadata.configuration.get(PARTITION_BY)
        there = list(metadata.partition_columns)
        rules: tuple[DirectoryRule, ...] = self._options.rules
        if not rules and noted:
            self._rules = rules_of_text(noted, "--delta.partition-by")
            return
        if not rules:
            return
        wanted = ",".join(rule.text for rule in rules)
        if [name_of(rule) for rule in rules] != there or (noted is not None and noted != wanted):
            raise SinkMisconfigured(
                f"{self.label} is partitioned by {noted or ','.join(there) or 'nothing'}, and --delta.partition-by "
                f"says {wanted}: leave it out, or choose another --delta.path"
            )
        self._rules = rules

    def _check_properties(self) -> None:
        """Refuse a property `delta.…` that there is not; without this look it would be kept and mean nothing."""
        given = {name: value for name, value in self._options.properties.items() if name.startswith("delta.")}
        if not given:
            return
        with tempfile.TemporaryDirectory() as apart:
            try:
                deltalake.DeltaTable.create(apart, pa.schema([("x", pa.int64())]), configuration=given)
            except Exception as error:
                raise SinkMisconfigured(f"--delta.property: {words(error)}") from error

    def _computed_fields(self, columns: pa.Schema) -> list[pa.Field]:
        return [
            pa.field(rule.name, computed_type(rule, columns.field(rule.column).type))
            for rule in self._rules
            if rule.function
        ]


def name_of(rule: DirectoryRule) -> str:
    """Return the partition column that a rule means."""
    return rule.name if rule.function else rule.column


def _indexed(columns: pa.Schema) -> dict[str, str]:
    """Return the property with which the coordinates of a wide table have statistics too; nothing for a narrow one."""
    if len(columns) <= INDEXED:
        return {}
    coordinates = [name for name in columns.names if name in COORDINATES.names[:4]]
    others = [one.name for one in columns if one.name not in coordinates and not one.type.num_fields]
    # The property is a list in text. A name with other letters would need quotes, and is not worth it.
    plain = [name for name in others if name.replace("_", "").isalnum()]
    return {"delta.dataSkippingStatsColumns": ",".join([*coordinates, *plain[: INDEXED - len(coordinates)]])}


def _condition(partition: Partition, spans: Sequence[tuple[int, int]]) -> str:
    topic = partition.topic.replace("'", "''")
    runs = " OR ".join(f"_offset BETWEEN {first} AND {last}" for first, last in spans)
    return f"_topic = '{topic}' AND _partition = {partition.number} AND ({runs})"
