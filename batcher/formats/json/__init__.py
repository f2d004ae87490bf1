"""JSON as a format: whole columns with Arrow where that is exact, one record at a time where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext, takes
from batcher.settings.model import Decode

if TYPE_CHECKING:
    from batcher.formats.json.limits import Epoch, JsonOptions
    from batcher.protocols import Format


@takes(Decode, section="decode")
def plugin(options: Decode, context: PluginContext = PluginContext()) -> Format:  # noqa: B008 - frozen
    """Return the format. Raise ConfigurationError. Nothing heavy is imported before this is called."""
    from batcher.formats.json.format import JsonFormat  # noqa: PLC0415 - as said above

    return JsonFormat(replace(options_of(options), native=context.native))


def options_of(section: Decode) -> JsonOptions:
    """Return what is accepted. Raise ConfigurationError."""
    from batcher.formats.json.limits import JsonOptions  # noqa: PLC0415 - as said above

    return JsonOptions(
        on_unknown=section.on_unknown,
        match=section.match,
        text=text_columns(section.text),
        epoch=epoch_units(section.epoch),
        max_message_bytes=int(section.max_message_bytes),
        max_depth=section.max_depth,
        tombstones=section.tombstones,
    )


def text_columns(given: Sequence[str]) -> frozenset[str]:
    """Return the columns of `--decode.text`; `*` for all. Raise ConfigurationError."""
    words = frozenset(given) - {"strict"}
    if "strict" in given and words:
        raise ConfigurationError("--decode.text: strict stands alone; name columns, or any")
    return frozenset("*") if "any" in words else words


def epoch_units(given: Sequence[str]) -> dict[str, Epoch]:
    """Return the units of `--decode.epoch` by column; `*` is for all others. Raise ConfigurationError."""
    from batcher.formats.json.limits import EPOCHS  # noqa: PLC0415 - as said above

    units: dict[str, Epoch] = {}
    for word in given:
        column, _, unit = word.rpartition("=")
        if unit not in EPOCHS:
            raise ConfigurationError(f"--decode.epoch {word}: the unit is one of {', '.join(EPOCHS)}")
        units[column or "*"] = unit
    return units
