"""What CSV records look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from batcher.errors import ConfigurationError
from batcher.formats.json.limits import Epoch, JsonOptions, OnUnknown
from batcher.formats.policy import Tombstones


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """Say how a record is written. Without `columns` its fields are those of the target, in their order.

    `quote` may be empty: then every character is what it is. The rest is that of `JsonOptions`. Raise
    ConfigurationError for characters that cannot be told apart.
    """

    columns: tuple[str, ...] = ()
    delimiter: str = ","
    quote: str = '"'
    null: str = ""
    on_unknown: OnUnknown = "warn"
    match: Literal["exact", "insensitive"] = "exact"
    epoch: Mapping[str, Epoch] = field(default_factory=dict)
    max_message_bytes: int = 1 << 20
    max_depth: int = 64
    tombstones: Tombstones = "skip"

    def __post_init__(self) -> None:
        for flag, text in (("--csv.delimiter", self.delimiter), ("--csv.quote", self.quote or '"')):
            if len(text) != 1 or not text.isascii() or text in "\r\n\0":
                raise ConfigurationError(f"{flag}: has to be one ASCII character, and no line end")
        if self.delimiter == self.quote:
            raise ConfigurationError("--csv.quote: cannot be the delimiter as well")
        if len(set(self.columns)) < len(self.columns):
            raise ConfigurationError("--csv.columns: a column occurs twice")
        if any(mark and mark in self.null for mark in (self.delimiter, self.quote, "\r", "\n")):
            raise ConfigurationError("--csv.null: cannot have a delimiter, a quote or a line end in it")

    @property
    def json(self) -> JsonOptions:
        """Return the options for the values of the fields."""
        return JsonOptions(
            on_unknown=self.on_unknown,
            match=self.match,
            epoch=self.epoch,
            max_message_bytes=self.max_message_bytes,
            max_depth=self.max_depth,
            tombstones=self.tombstones,
        )
