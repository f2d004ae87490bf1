"""Which store a path means."""

from __future__ import annotations

from pathlib import Path

from sinks.parquet.local import LocalStore
from sinks.parquet.objects import ObjectStore
from sinks.parquet.options import local_path
from sinks.parquet.stores import Store


def store_for(path: str) -> Store:
    """Return the store that `--parquet.path` names."""
    directory = local_path(path)
    return ObjectStore.at(path) if directory is None else LocalStore(Path(directory))
