"""What JSON decoding allows, and how a refusal is passed on inside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from batcher.errors import ConfigurationError
from batcher.formats.policy import Tombstones, check_size
from batcher.native import Choice

MAX_DEPTH: Final = 128
"""The deepest nesting that may be allowed: the slow path takes three frames a level, of the thousand that there are."""


OnUnknown = Literal["warn", "ignore", "reject", "halt", "evolve", "rescue"]
Epoch = Literal["auto", "none", "s", "ms", "us", "ns"]
EPOCHS: Final[tuple[Epoch, ...]] = get_args(Epoch)


@dataclass(frozen=True, slots=True)
class JsonOptions:
    """Say what is accepted. Sizes are bytes of the raw value; the object itself is depth 1.

    Raise ConfigurationError for limits that cannot work.
    """

    on_unknown: OnUnknown = "warn"
    """`warn` counts what is not stored, `ignore` does not look, `reject` refuses the record. `halt` refuses it too, and
    the pipeline stops at it. `evolve` counts exactly, so that columns can be made of all. `rescue` keeps what is not
    stored as JSON, where the schema has the column for it (`records.RESCUED`); elsewhere it is counted exactly."""
    match: Literal["exact", "insensitive"] = "exact"
    text: frozenset[str] = frozenset()
    """The text columns that take any JSON value, as its JSON text; `*` is all of them."""
    epoch: Mapping[str, Epoch] = field(default_factory=dict)
    """The unit of numbers in timestamp columns, by column; `*` is for all others, `auto` is the default. With `none`
    numbers are refused."""
    max_message_bytes: int = 1 << 20
    max_depth: int = 64
    tombstones: Tombstones = "skip"
    native: Choice = "auto"
    """Whether the native extension decodes, where it is there. It changes the speed, never an outcome."""

    @property
    def exact(self) -> bool:
        """Return whether every unknown field has to be found, however rare."""
        return self.on_unknown in ("evolve", "rescue")

    def __post_init__(self) -> None:
        check_size(self.max_message_bytes)
        if not 1 <= self.max_depth <= MAX_DEPTH:
            raise ConfigurationError(f"--decode.max-depth has to be between 1 and {MAX_DEPTH}")


def shown(key: str) -> str:
    """Make a key of a record fit for a log line."""
    return "".join(letter if letter.isprintable() else "?" for letter in key[:64])


class Refused(Exception):
    """Carry the reason why a record cannot be loaded, from where it is found to where its position is known.

    `reason`, `message` and `path` are those of `records.Rejection`.
    """

    def __init__(self, reason: str, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message if path is None else f"field {path}: {message}"
        self.path = path

    def kept(self) -> Refused:
        """Return it as it can be kept: without the frames that it passed through, which hold on to their batch."""
        # A list of refusals in one of these frames is a cycle, and the collector comes by only now and then.
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)
