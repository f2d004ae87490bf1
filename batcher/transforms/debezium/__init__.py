"""Debezium's change events as rows of the table that they are about: `--transform.kind debezium`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from batcher.errors import ConfigurationError
from batcher.options import Flag, Names, Section
from batcher.plugins import PluginContext, takes
from batcher.settings.model import Decode

if TYPE_CHECKING:
    from batcher.protocols import Transform


class Debezium(Section):
    """Change events of Debezium, with `--transform.kind debezium`."""

    version: Literal["offset", "lsn", "ts-ms"] = "offset"
    """What `_version` is: the offset of the record, or source.lsn or source.ts_ms of the event."""
    decimals: Annotated[Names, Flag(metavar="base64|variable|plain|COLUMN=…[,…]")] = ("base64",)
    """How decimals are written where no schema says it: as the connector does by default, without a scale of the
    column, or as numbers and text."""
    unavailable: Literal["reject", "null", "keep"] = "reject"
    """What to do with a value that the database did not send because it was not changed (TOAST)."""
    truncates: Literal["reject", "skip"] = "reject"
    """What to do with an event that says that the table was emptied."""
    messages: Literal["skip", "reject"] = "skip"
    """What to do with messages that were written into the log of the database."""
    key: Annotated[Names, Flag(metavar="COLUMN[,…]")] = ()
    """Columns that name a row, where they are not those that the table is sorted by."""


@takes(Debezium, section="debezium")
def plugin(options: Debezium, *, context: PluginContext) -> Transform:
    """Return the transform. Raise ConfigurationError. Nothing heavy is imported before this is called."""
    from batcher.transforms.debezium.transform import DebeziumTransform  # noqa: PLC0415 - as said above

    decode = context.section(Decode)
    if decode.on_unknown in ("reject", "halt") and decode.format == "json":
        raise ConfigurationError(
            f"--decode.on-unknown {decode.on_unknown}: with --transform.kind debezium and JSON, fields that no column "
            "takes are counted and named, but do not refuse their records: warn, or ignore"
        )
    return DebeziumTransform(options)
