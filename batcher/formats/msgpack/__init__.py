"""MessagePack: read as the JSON that it means, by the JSON format's rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from batcher.plugins import takes
from batcher.settings.model import Decode

if TYPE_CHECKING:
    from batcher.protocols import Format


@takes(Decode, section="decode")
def plugin(options: Decode) -> Format:
    """Return the format. Raise ConfigurationError. Nothing heavy is imported before this is called."""
    from batcher.formats.json import options_of  # noqa: PLC0415 - as said above
    from batcher.formats.msgpack.format import MsgpackFormat  # noqa: PLC0415 - as said above

    return MsgpackFormat(options_of(options))
