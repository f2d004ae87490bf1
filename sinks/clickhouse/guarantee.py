"""What a table can promise about blocks that are sent more than once, and what would make it promise more.

Two things recognise a repeat: the tokens that a table remembers (its deduplication window), and the coordinate columns,
by which it can be asked what it holds. Materialized views decide which of them carries the promise:

    views   window everywhere   coordinates   promise         a replay
    none    -                   yes           exactly-once    asks, and sends what is missing
    none    yes                 no            exactly-once *  is sent again under its token
    some    yes                 any           exactly-once *  is sent again under its token
    none    no                  -             exactly-once under FINAL, for a ReplacingMergeTree with a version
    other                                     at-least-once

A ReplacingMergeTree stores a row again when it comes again. If a record says which version it is, both copies are of
one version and one key: whoever reads with FINAL sees one of them, and which does not matter.

* Not with the embedded engine. A plain MergeTree writes its log of tokens and its parts one after the other. An engine
that is killed between the two knows a token without having the rows: of 60 kills of chDB aimed at that moment 7 left it
like that. Then the same block is dropped, and lost. A server is not killed whenever batcher is, so there it is a
caveat. Replicated tables keep both in one transaction of Keeper. Where the table is asked, missing rows show.

A table with views is never asked: rows can be in the table and, because a view failed after they were stored, not in
the view's target. Only the same block under the same token completes the view and leaves the rest alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from batcher.protocols import Repeats
from sinks.clickhouse.schema import IDENTITY, quoted

ADVISED_WINDOW: Final = 10_000
"""The window in blocks that replicated tables have. Each partition of the table that a block touches takes one."""

_KEEPS_EVERY_ROW: Final = re.compile(r"^(Replicated|Shared)?MergeTree$")
_REPLACING: Final = re.compile(r"(?:Replicated|Shared)?ReplacingMergeTree(?:\(((?:'(?:[^'\\]|\\.)*'|[^'()])*)\))?")
_TEXT: Final = re.compile(r"'(?:[^'\\]|\\.)*'")
_NAME: Final = re.compile(r"[A-Za-z_]\w*")
_SETTING: Final = re.compile(r"(\w+) = ('(?:[^'\\]|\\.)*'|[^,]*)")


@dataclass(frozen=True, slots=True)
class Storage:
    """Hold a table as `system.tables` has it, and the server's settings for tables of its kind."""

    database: str
    name: str
    engine: str
    engine_full: str
    sorting_key: str
    defaults: Mapping[str, str]

    @property
    def quoted(self) -> str:
        """Return the name as a statement takes it."""
        return f"{quoted(self.database)}.{quoted(self.name)}"

    @property
    def replicated(self) -> bool:
        """Return whether other servers insert into the table too."""
        return self.engine.startswith(("Replicated", "Shared"))

    @property
    def merges(self) -> bool:
        """Return whether the engine is one of those that can remember tokens."""
        return self.engine.endswith("MergeTree")

    @property
    def window_setting(self) -> str:
        """Return the name of the setting that says how many tokens are remembered."""
        return "replicated_deduplication_window" if self.replicated else "non_replicated_deduplication_window"

    @property
    def window(self) -> int:
        """Return how many blocks the table recognises."""
        return int(self.setting(self.window_setting, "0")) if self.merges else 0

    @property
    def flushes_later(self) -> bool:
        """Return whether the table collects inserts of all clients, whatever an insert says itself."""
        return self.setting("async_insert", "0") not in {"0", "false"}

    @property
    def sorted_by(self) -> frozenset[str]:
        """Return the columns that rows are sorted by, as far as they stand there by themselves."""
        return frozenset(part.strip(" `()") for part in self.sorting_key.split(","))

    @property
    def version(self) -> str:
        """Return the column by which the engine chooses one of the rows with one key; empty where there is none."""
        found = _REPLACING.match(self.engine_full)
        names = _NAME.findall(_TEXT.sub("", found[1] or "")) if found else []
        return names[0] if names else ""

    @property
    def keeps_coordinates(self) -> bool:
        """Return whether merges keep a row for every record: those of a Replacing or Summing table may not."""
        return bool(_KEEPS_EVERY_ROW.match(self.engine)) or (self.merges and self.sorted_by.issuperset(IDENTITY))

    @property
    def keeps_messages(self) -> bool:
        """Return whether the table has a row for each message, or one that stands for it, as long as it is asked."""
        keyed = self.merges and "_message_id" in self.sorted_by
        return bool(_KEEPS_EVERY_ROW.match(self.engine)) or keyed or self.engine.endswith("ReplacingMergeTree")

    @property
    def cure(self) -> str:
        """Return the statement that makes the table remember tokens."""
        return f"ALTER TABLE {self.quoted} MODIFY SETTING {self.window_setting} = {ADVISED_WINDOW}"

    @property
    def columns_cure(self) -> str:
        """Return the statement that makes it possible to ask the table what it holds."""
        types = zip(IDENTITY, ("LowCardinality(String)", "Int32", "Int64"), strict=True)
        return f"ALTER TABLE {self.quoted} " + ", ".join(f"ADD COLUMN {name} {kind}" for name, kind in types)

    def setting(self, name: str, default: str) -> str:
        """Return a setting of the table: its own, else the server's."""
        stated = dict(_SETTING.findall(self.engine_full.rpartition(" SETTINGS ")[2]))
        return str(stated.get(name, self.defaults.get(name, default)))


@dataclass(frozen=True, slots=True)
class FedView:
    """Hold a view fed by inserts into the table, directly or through another view; no target if that is hidden."""

    name: str
    target: Storage | None


@dataclass(frozen=True, slots=True)
class Promise:
    """Say what a table can keep and why.

    With `asks` the table is asked at every repeat, because the server would not recognise one by its token. Without it
    the table is asked at a replay, where `repeats` is `query`.
    """

    repeats: Repeats
    reason: str
    asks: bool = False


def promise(
    table: Storage,
    coordinates: Sequence[str],
    views: Sequence[FedView],
    lacking: Sequence[str] = (),
    *,
    told: Collection[str] = (),
    embedded: bool = False,
) -> Promise:
    """Return the strongest guarantee a table can keep.

    `lacking` are rights that the user needs to ask it and does not have, `told` are the columns whose values come from
    records alone; an `embedded` engine dies with its process.
    """
    kept = _promise(table, coordinates, views, lacking)
    if not views and table.version in told and (kept.repeats == "none" or (embedded and kept.repeats == "token")):
        return _by_merging(table)
    if kept.repeats == "query" or table.replicated or not table.merges:
        return kept
    if embedded:
        need = "a table that feeds no views" if views else table.columns_cure
        reason = f"an embedded engine that is killed may know a token without its rows; exactly-once needs {need}"
        return Promise("none", reason)
    if kept.repeats == "none":
        return kept
    return replace(kept, reason=f"{kept.reason}; a server that crashes inside an insert may keep its token alone")


def _promise(table: Storage, coordinates: Sequence[str], views: Sequence[FedView], lacking: Sequence[str]) -> Promise:
    if not table.merges:
        return Promise("none", f"engine {table.engine} does not recognise a block it already has")
    if views:
        return _with_views(table, views)
    capable = set(IDENTITY).issubset(coordinates) and table.keeps_coordinates
    if capable and not lacking:
        return _by_asking(table)
    grant = f"; to ask it what it holds takes GRANT {', '.join(lacking)}" if capable else ""
    if table.window:
        reason = f"the table remembers the tokens of its last {table.window} blocks ({table.window_setting}){grant}"
        return Promise("token", reason)
    return Promise("none", f"the table remembers no tokens{grant}; exactly-once needs {table.cure}")


def _by_asking(table: Storage) -> Promise:
    reason = f"the table has the columns {', '.join(IDENTITY)}, so it can be asked what it holds"
    if table.window:
        reason += f", and remembers the tokens of its last {table.window} blocks"
        return Promise("query", reason)
    reason += f"; what a worker given up for dead sends later is stopped by a window only: {table.cure}"
    return Promise("query", reason, asks=True)


def _by_merging(table: Storage) -> Promise:
    reason = f"rows of one key are merged by {table.version}, so a repeat changes nothing for who reads with FINAL"
    return Promise("merge", reason)


def _with_views(table: Storage, views: Sequence[FedView]) -> Promise:
    targets: dict[str, Storage] = {table.quoted: table}
    for view in views:
        target = view.target
        if target is None:
            return Promise("none", f"where view {view.name} writes to cannot be seen; GRANT SHOW TABLES on it")
        if not target.merges and target.engine != "Null":
            reason = f"view {view.name} writes to an engine {target.engine}, which does not recognise a repeated block"
            return Promise("none", reason)
        if target.merges:
            targets[target.quoted] = target
    without = [target for target in targets.values() if not target.window]
    if without:
        names = ", ".join(view.name for view in views if view.target in without)
        blind = f"views whose targets remember no tokens ({names})" if names else "views, and remembers no tokens"
        cures = "; ".join(target.cure for target in without)
        return Promise("none", f"the table feeds {blind}; exactly-once needs {cures}")
    least = min(target.window for target in targets.values())
    reason = f"the table and what its views write to remember the tokens of at least their last {least} blocks"
    return Promise("token", reason)
