"""Which store a path means."""

from __future__ import annotations

from pathlib import Path

from batcher.errors import SettingRefused
from sinks.parquet.local import LocalStore
from sinks.parquet.options import ParquetOptions, local_path
from sinks.parquet.stores import Store
from sinks.stores.location import location
from sinks.stores.options import store_options

PATH = "--parquet.path"
OPTION = "--parquet.option"


def store_for(options: ParquetOptions) -> Store:
    """Return the store that `--parquet.path` names, not open yet.

    Raise SettingRefused for what cannot be meant, ConfigurationError where something is not installed.
    """
    directory = local_path(options.path)
    place = None if directory is not None else location(options.path, setting=PATH)
    if place is None and options.option:
        raise SettingRefused(f"{OPTION} {next(iter(options.option))}: only object stores have options")
    if directory is not None:
        return LocalStore(Path(directory))
    # Each has a library behind it that the others do not need.
    if place is None:
        from sinks.parquet.arrow_store import ArrowStore  # noqa: PLC0415 - as said above

        return ArrowStore.at(options.path)
    from sinks.parquet.objects import ObjectStore  # noqa: PLC0415 - as said above

    given = [(f"{PATH} {place.label}: the parameter", place.options), (OPTION, options.option)]
    return ObjectStore.at(
        place,
        store_options(
            place.family,
            given,
            setting=OPTION,
            allow="--parquet.allow-insecure",
            allow_insecure=options.allow_insecure,
        ),
    )
