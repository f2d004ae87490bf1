"""Protobuf as a format: whole columns with ptars, and Google's own library where that is in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batcher.formats.registry_options import SchemaRegistryOptions
from batcher.plugins import PluginContext, takes

if TYPE_CHECKING:
    from batcher.protocols import Format


@takes(SchemaRegistryOptions, section="registry")
def plugin(options: SchemaRegistryOptions, context: PluginContext) -> Format:
    """Return the format. Raise ConfigurationError. Nothing heavy is imported before this is called."""
    from batcher.formats.protobuf.codec import CODEC  # noqa: PLC0415 - as said above
    from batcher.formats.wiring import written_format  # noqa: PLC0415 - as said above

    return written_format(CODEC, options, context)
