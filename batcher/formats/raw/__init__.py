"""Messages as they are: nothing of them is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from batcher.errors import ConfigurationError
from batcher.options import Flag, Section
from batcher.plugins import PluginContext, takes
from batcher.settings.model import Decode

if TYPE_CHECKING:
    from batcher.protocols import Format


class RawSection(Section):
    """Messages as they are, in one column."""

    column: Annotated[str, Flag(metavar="COLUMN")] = "value"
    """The column that takes the message; a coordinate _value of the target has it as well."""
    type: Literal["bytes", "text"] = "bytes"
    """What the column holds where the target has no columns yet; text has to be UTF-8."""


@takes(RawSection, section="raw")
def plugin(options: RawSection, *, context: PluginContext) -> Format:
    """Return the format. Nothing heavy is imported before this is called."""
    from batcher.formats.raw.format import RawFormat, RawOptions  # noqa: PLC0415 - as said above

    decode = context.section(Decode)
    if decode.on_unknown == "rescue":
        raise ConfigurationError(
            "--decode.on-unknown rescue: a raw message has no fields to keep; give the target the column that "
            "--raw.column names, or _value"
        )
    return RawFormat(
        RawOptions(options.column, options.type, int(decode.max_message_bytes), decode.tombstones, decode.on_unknown)
    )
