"""Write to ClickHouse: a server over HTTP(S), or chDB embedded in this process, through the same code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from batcher.errors import ConfigurationError
from batcher.plugins import PluginContext, takes
from sinks.clickhouse.settings import ClickHouse

if TYPE_CHECKING:
    from batcher.protocols import Sink


@takes(ClickHouse, section="clickhouse")
def plugin(options: ClickHouse | Mapping[str, object], context: PluginContext = PluginContext()) -> Sink:  # noqa: B008
    """Make the sink from its section, or from a mapping with the keys of `ClickHouseOptions.parse`.

    Raise ConfigurationError. Nothing is connected yet, and nothing heavy is imported before this is called.
    """
    from sinks.clickhouse.options import ClickHouseOptions  # noqa: PLC0415 - as said above
    from sinks.clickhouse.parallel import ParallelClickHouseSink  # noqa: PLC0415 - as said above
    from sinks.clickhouse.sink import ClickHouseSink  # noqa: PLC0415 - as said above

    if context.schema is not None:
        raise ConfigurationError("--decode.schema: a ClickHouse table has its own schema; leave it at auto")
    given = mapping(options, context) if isinstance(options, ClickHouse) else options
    found = replace(ClickHouseOptions.parse(given), decoded=context.decoded_coordinates)
    # One embedded engine works on one insert at a time with all threads it has: several took as long together.
    return ClickHouseSink(found) if found.path is not None else ParallelClickHouseSink(found)


def mapping(section: ClickHouse, context: PluginContext) -> dict[str, object]:
    """Return the section with secrets revealed, without what is not set."""
    given = {
        "dsn": section.dsn.get_secret_value(),
        "table": section.table,
        "user": section.user,
        "password": _password(section, context),
        "settings": dict(section.settings),
        "insert_timeout_s": section.insert_timeout.total_seconds(),
        "allow_memory": section.allow_memory,
    }
    return {name: value for name, value in given.items() if value is not None}


def _password(section: ClickHouse, context: PluginContext) -> str | Callable[[], str] | None:
    """Return the password, or a function that reads it anew where it came from a file."""
    if section.password is None:
        return None
    again = context.reread("password")
    if again is None:
        return section.password.get_secret_value()

    def fresh() -> str:
        found = again()
        password = found.password if isinstance(found, ClickHouse) else None
        return password.get_secret_value() if password else ""

    return fresh
