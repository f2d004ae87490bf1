"""Write to ClickHouse: a server over HTTP(S), or chDB embedded in this process, through the same code."""

from __future__ import annotations

from collections.abc import Mapping

from batcher.protocols import Sink


def plugin(options: Mapping[str, object]) -> Sink:
    """Make the sink from its settings; see `ClickHouseOptions.parse` for the keys. Raise ConfigurationError.

    Nothing is connected yet, and nothing heavy is imported before this is called.
    """
    from sinks.clickhouse.options import ClickHouseOptions  # noqa: PLC0415 - as said above
    from sinks.clickhouse.sink import ClickHouseSink  # noqa: PLC0415 - as said above

    return ClickHouseSink(ClickHouseOptions.parse(options))
