"""What a root is like, found out without making it, and a root like it for the time of a measurement."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from batcher.errors import SinkMisconfigured, SinkUnavailable
from batcher.protocols import Sink, SinkInfo
from sinks.parquet.options import local_path
from sinks.parquet.stores import Store, faults


def described(sink: Sink, path: str, store: Store, look: Callable[[], SinkInfo]) -> SinkInfo:
    """Return what `sink.open` would find; makes no directory. `look` reads a local root. Raise as `Sink.open`."""
    if local_path(path) is None:
        # Opening makes nothing in an object store.
        try:
            return sink.open()
        finally:
            sink.close()
    with faults(store, "looking into"):
        return look()


@contextmanager
def scratch_path(path: str, name: str, removable: Callable[[str], Store]) -> Iterator[str]:
    """Yield an unused path beside a root, and remove what is there at the end.

    `removable` returns the store of a path, for removing what is in it.
    Raise SinkMisconfigured where a directory cannot be made or removed.
    """
    directory = local_path(path)
    if directory is None:
        parts = urlsplit(path)
        above = parts.path.rstrip("/")
        # This is a prefix, never another bucket.
        uri = urlunsplit(parts._replace(path=f"{above}-{name}" if above else f"/{name}"))
        try:
            yield uri
        finally:
            _clear(removable(uri), uri, parts.path)
        return
    root = Path(directory).expanduser().absolute()
    # Where the root is not there yet, its parent may be missing too: what exists is on the disk where it would be made.
    beside = next(above for above in root.resolve().parents if above.exists())
    made = beside / f".{name}"
    try:
        made.mkdir()
    except OSError as error:
        raise SinkMisconfigured(
            f"--target scratch: no directory can be made in {beside}: {error.strerror}; measure without it"
        ) from error
    try:
        yield str(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _clear(store: Store, uri: str, shown: str) -> None:
    try:
        with faults(store, "clearing"):
            store.open()
            store.clear()
    except (SinkMisconfigured, SinkUnavailable) as error:
        raise SinkMisconfigured(
            f"--target scratch: what was written beside {shown} cannot be removed; remove the prefix that ends in "
            f"{uri.rpartition('/')[2].partition('?')[0]}: {error}"
        ) from error
    finally:
        store.close()
