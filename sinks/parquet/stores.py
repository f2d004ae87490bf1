"""Where the files of a root are: what the sink asks of a file system."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import pyarrow as pa

from batcher.errors import SinkMisconfigured, SinkUnavailable

Fault = SinkMisconfigured | SinkUnavailable


class Store(Protocol):
    """Keep whole files under names relative to a root, with `/` between directories.

    Any method may raise OSError as it is; `fault` turns it into the error that fits.
    """

    @property
    def label(self) -> str:
        """Return the root for people: no credentials."""

    @property
    def folds_case(self) -> bool:
        """Return whether `A` and `a` are the same name here."""

    @property
    def remote(self) -> bool:
        """Return whether it is reached over a network."""

    def below(self, name: str) -> Store:
        """Return the store of a directory in the root, which shares what this one has open: close it first."""

    def open(self) -> None:
        """Check the root, creating it where that is usual; once, before anything else.

        Raise OSError or a Fault, SettingRefused for a URI that cannot be meant.
        """

    def close(self) -> None:
        """Remove what is temporary. A second call, or one without `open`, is harmless."""

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file, or None when there is none."""

    def create(self, name: str, content: bytes) -> None:
        """Write a small file durably unless it is there; a reader never sees half of it."""

    def replace(self, name: str, content: bytes) -> None:
        """Replace a small file durably; a reader never sees half of it.

        Where the store knows conditions it stays as it is if it is no longer the one that was read last: read it again.
        """

    def refused(self, directories: Sequence[str], name: str) -> list[str]:
        """Make the directories ready for a file of this name; return those whose path is too long."""

    def publish(self, files: Iterable[tuple[str, pa.Buffer]]) -> None:
        """Write files; each appears whole or not at all, replacing its namesake. Returning means durable.

        It takes everything from `files` before the first file appears, so an error in there leaves nothing.
        """

    def remove(self, names: Sequence[str]) -> None:
        """Remove files. Returning means they stay removed; one that is not there is as good as removed."""

    def present(self, names: Sequence[str]) -> list[str]:
        """Return those of the names that are there."""

    def opened(self, name: str) -> BinaryIO | None:
        """Return a file for reading, or None when there is none."""

    def names(self) -> Iterator[str]:
        """Return the names of the Parquet files of the root, in no order.

        What is in a directory that readers ignore is no file of the root.
        """

    def between(self, spans: Sequence[tuple[str, str]]) -> list[list[str]] | None:
        """Return for each span the names of Parquet files in the root itself that come behind its first text.

        They are up to its second text, ascending by bytes. Files in directories are not among them. None where the
        store gains nothing by it, because it reads all names anyway.
        """

    def entries(self) -> Iterator[str]:
        """Return the names directly in the root, those of directories with `/` at the end; none without a root."""

    def clear(self) -> None:
        """Remove everything in the root, whatever it is; for roots of a measurement. Open it first."""

    def fault(self, error: OSError, doing: str) -> Fault:
        """Return the error to raise for an OSError met while `doing` something; the text quotes no column's value."""


@contextmanager
def faults(store: Store, doing: str) -> Iterator[None]:
    """Turn an OSError of a store, met while `doing` something, into the error that fits."""
    try:
        yield
    except OSError as error:
        raise store.fault(error, doing) from error
