"""What CSV records look like."""

from __future__ import annotations

from dataclasses import dataclass, field

from batcher.errors import ConfigurationError
from batcher.formats.json.limits import JsonOptions


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """Say how a record is written. Without `columns` its fields are those of the target, in their order.

    `quote` may be empty: then every character is what it is. `json` is for the values of the fields. Raise
    ConfigurationError for characters that cannot be told apart.
    """

    columns: tuple[str, ...] = ()
    delimiter: str = ","
    quote: str = '"'
    null: str = ""
    json: JsonOptions = field(default_factory=JsonOptions)

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
