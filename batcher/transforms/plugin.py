"""The built-in transforms as plug-ins. Nothing heavy is imported before one of them is called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext, takes
from batcher.settings.model import Decode, TransformSection

if TYPE_CHECKING:
    from batcher.protocols import Transform


@takes(TransformSection, section="transform")
def python(options: TransformSection) -> Transform:
    """Return the transform with the function of `--transform.python`. Raise ConfigurationError where there is none."""
    from batcher.transforms.python import named  # noqa: PLC0415 - as said above

    if options.python is None:
        raise ConfigurationError("--transform.kind python: which function? --transform.python MODULE:FUNCTION")
    return named(options.python)


@takes(TransformSection, section="transform")
def sql(options: TransformSection, context: PluginContext) -> Transform:
    """Return the transform with the SQL of the section. Raise ConfigurationError for SQL that cannot stand there."""
    from batcher.transforms.sql.transform import SqlTransform  # noqa: PLC0415 - as said above

    if options.select is None and options.where is None:
        raise ConfigurationError("--transform.kind sql: give --transform.select, --transform.where, or both")
    return SqlTransform(options.select, options.where, match=context.section(Decode).match)
