"""SQL as a transform: `--transform.select` and `--transform.where`, evaluated by DuckDB, the extra `[sql]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext, takes
from batcher.settings.model import Decode, TransformSection

if TYPE_CHECKING:
    from batcher.transforms.sql.transform import SqlTransform


@takes(TransformSection, section="transform")
def plugin(options: TransformSection, context: PluginContext) -> SqlTransform:
    """Return the transform with this SQL. Raise ConfigurationError for SQL that cannot stand here."""
    from batcher.transforms.sql.transform import SqlTransform  # noqa: PLC0415 - DuckDB is loaded only where asked for

    if options.select is None and options.where is None:
        raise ConfigurationError("--transform.kind sql: give --transform.select, --transform.where, or both")
    return SqlTransform(options.select, options.where, match=context.section(Decode).match)
