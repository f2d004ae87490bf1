"""The settings of the ClickHouse sink, from `--clickhouse.*`, checked once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from batcher.errors import ConfigurationError

PINNED_SETTINGS: Final[Mapping[str, str]] = {
    # A block that is acknowledged before it is stored is lost with the server, and 26.x had versions whose asynchronous
    # flush dropped rows under a token. Servers since 26.2.4 have it on by default.
    "async_insert": "0",
    "wait_for_async_insert": "1",
    "insert_deduplicate": "1",
    "deduplicate_insert": "enable",
    # Deduplication is per inserted block: the same rows cut in another way are other blocks. So the cut is fixed: one
    # thread, and sizes far above a batch (the engine's own defaults, which may change).
    "max_insert_threads": "1",
    "input_format_parallel_parsing": "0",
    "min_insert_block_size_rows": "1048449",
    "min_insert_block_size_bytes": "268402944",
    "max_insert_block_size": "1048449",
    # A view's rows are deduplicated together with the table's, and a view that fails fails the insert.
    "deduplicate_blocks_in_dependent_materialized_views": "1",
    "materialized_views_ignore_errors": "0",
    # An insert that ran out of time is an error, not an insert of the rows so far. An insert that still runs is not
    # cancelled by its own repeat.
    "timeout_overflow_mode": "throw",
    "replace_running_query": "0",
    # Otherwise a Distributed table acknowledges before a shard has the rows.
    "distributed_foreground_insert": "1",
}
"""Sent with every insert where the server knows them; part of what makes a repeat the same insert."""

ALWAYS_SENT: Final = frozenset({"async_insert", "insert_deduplicate"})
"""The pinned settings that a server must know: without them no promise holds."""

RESERVED_SETTINGS: Final = frozenset(
    {
        *PINNED_SETTINGS,
        "insert_deduplication_token",
        "input_format_null_as_default",
        "insert_distributed_sync",
        "query_id",
    }
)

_KEYS: Final = ("dsn", "table", "user", "password", "settings", "connect_timeout_s", "insert_timeout_s", "allow_memory")
_TLS_KEYS: Final = ("verify", "ca_cert", "client_cert", "client_cert_key")
_VERIFY: Final = frozenset({"true", "1", "y", "yes", "false", "0", "n", "no", "proxy"})
"""The driver takes everything else as no."""
_COMPRESSIONS: Final = ("zstd", "lz4", "none")
"""The first is the default: for the CPU of lz4, on both sides, it sends a third to a half of the bytes
(`benchmarks/bench_clickhouse.py`)."""
_CONNECT_TIMEOUT_S: Final = 10.0
_INSERT_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class ClickHouseOptions:
    """Hold checked settings. `path` is set for embedded chDB, `host` and `port` for a server.

    `database` is None where neither the DSN nor the table's name has one: then the user's default holds.
    """

    scheme: str
    host: str
    port: int
    path: Path | None
    database: str | None
    table: str
    user: str
    password: str | Callable[[], str] = field(repr=False)
    """The password, or a function that reads it anew: it may change while batcher runs."""
    settings: Mapping[str, str] = field(default_factory=dict)
    compression: str = _COMPRESSIONS[0]
    tls: Mapping[str, str] = field(default_factory=dict)
    connect_timeout_s: float = _CONNECT_TIMEOUT_S
    insert_timeout_s: float = _INSERT_TIMEOUT_S
    allow_memory: bool = False
    decoded: frozenset[str] = frozenset()
    """Columns that the format fills, even if they have the name of a coordinate."""

    @property
    def secret(self) -> str:
        """Return the password as it is now."""
        return self.password if isinstance(self.password, str) else self.password()

    @property
    def address(self) -> str:
        """Return where the target is, fit for messages: no user, no password."""
        return f"chdb://{self.path}" if self.path is not None else f"{self.scheme}://{self.host}:{self.port}"

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> ClickHouseOptions:
        """Return the settings; raise ConfigurationError naming the flag that is wrong.

        Keys: `dsn`, `table`, `user`, `password`, `settings` (name to value), `connect_timeout_s`, `insert_timeout_s`,
        `allow_memory`. `password` may be a function that returns it. The DSN is
        `http://user:password@host:8123/database`, `https://…` or `chdb:///absolute/path[?database=d]`. Its query may
        hold `database`, `compression` (lz4, zstd, none) and for TLS `verify`, `ca_cert`, `client_cert`,
        `client_cert_key`. `user` and `password` win over the DSN's.
        """
        unknown = sorted(set(options) - set(_KEYS))
        if unknown:
            raise ConfigurationError(f"--clickhouse.{unknown[0].replace('_', '-')}: there is no such option")
        url, query = _url(_text(options, "dsn"))
        path = _chdb_path(url.netloc, unquote(url.path)) if url.scheme == "chdb" else None
        database = query.get("database") or (None if path else _database(url.path)) or None
        database, table = _table(_text(options, "table"), database)
        return cls(
            scheme=url.scheme,
            host=url.hostname or "",
            port=url.port or (8443 if url.scheme == "https" else 8123),
            path=path,
            database=database,
            table=table,
            user=_text(options, "user") or unquote(url.username or "") or "default",
            password=_password(options.get("password")) or unquote(url.password or ""),
            settings=_settings(options.get("settings")),
            compression=query.get("compression", _COMPRESSIONS[0]),
            tls={key: value for key, value in query.items() if key in _TLS_KEYS},
            connect_timeout_s=_seconds(options, "connect_timeout_s", _CONNECT_TIMEOUT_S),
            insert_timeout_s=_seconds(options, "insert_timeout_s", _INSERT_TIMEOUT_S),
            allow_memory=options.get("allow_memory") is True,
        )


def _url(dsn: str | None) -> tuple[SplitResult, dict[str, str]]:
    """Split a DSN. It may hold a password, so no message quotes it or chains urllib's error, which would."""
    if not dsn:
        raise ConfigurationError(
            "--clickhouse.dsn: is missing; give http://user@host:8123/database or chdb:///absolute/path"
        )
    url = _split(dsn)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    for key in query:
        if key not in {"database", "compression", *_TLS_KEYS}:
            raise ConfigurationError(
                f"--clickhouse.dsn: parameter {key!r} is not one of database, compression, {', '.join(_TLS_KEYS)}; "
                "settings of the insert go to --clickhouse.settings"
            )
    if query.get("compression", _COMPRESSIONS[0]) not in _COMPRESSIONS:
        raise ConfigurationError(f"--clickhouse.dsn: compression is one of {', '.join(_COMPRESSIONS)}")
    if url.scheme != "https" and (for_tls := [key for key in _TLS_KEYS if key in query]):
        raise ConfigurationError(f"--clickhouse.dsn: {for_tls[0]} is for https:// only")
    if query.get("verify", "true").lower() not in _VERIFY:
        raise ConfigurationError("--clickhouse.dsn: verify is true or false")
    return url, query


def _split(dsn: str) -> SplitResult:
    try:
        url = urlsplit(dsn)
        valid = url.port is None or url.port > 0
        (url.hostname or "").encode("idna")
    except ValueError:
        valid = False
    if not dsn.startswith("chdb:") and (not valid or "@" in f"{url.path}{url.query}{url.fragment}") and "@" in dsn:
        # What urllib takes for host, port and database is then a part of the password.
        raise ConfigurationError(
            "--clickhouse.dsn: is not a URL with a valid host and port; in a user, password or database write %40, "
            "%2F, %23, %3F for @, /, #, ?, or give the password by itself (--clickhouse.password)"
        )
    if not valid:
        raise ConfigurationError("--clickhouse.dsn: is not a URL with a valid host and port")
    if url.scheme not in {"http", "https", "chdb"}:
        raise ConfigurationError("--clickhouse.dsn: begins with none of http://, https://, chdb://")
    if url.scheme != "chdb" and not url.hostname:
        raise ConfigurationError("--clickhouse.dsn: has no host")
    if "#" in dsn:
        raise ConfigurationError("--clickhouse.dsn: holds a #, and what is behind it would not count: write %23 for it")
    return url


def _database(path: str) -> str:
    try:
        if "/" not in path.strip("/"):
            return unquote(path.strip("/"), errors="strict")
    except UnicodeDecodeError:
        pass
    raise ConfigurationError(
        "--clickhouse.dsn: what is behind the host is no name of a database; write %2F for a / in it, and %C3%A4 for ä"
    )


# Names may be in backquotes, and must be where they hold a dot: `ev.v1`.`new-t`.
_NAME: Final = r"`(?:[^`]|``)+`|[^`.]+"
_QUOTED_TABLE: Final = re.compile(rf"(?:(?P<database>{_NAME})\.)?(?P<table>{_NAME})")


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def _table(name: str | None, database: str | None) -> tuple[str | None, str]:
    if not name:
        raise ConfigurationError("--clickhouse.table: is missing; give TABLE or DATABASE.TABLE")
    quoted = _QUOTED_TABLE.fullmatch(name) if "`" in name else None
    if quoted is not None:
        given = quoted["database"]
        database, name = (_unquoted(given) if given else database), _unquoted(quoted["table"])
    elif "." in name:
        database, name = name.split(".", 1)
    if not name or database == "" or not f"{database}{name}".isprintable():
        raise ConfigurationError("--clickhouse.table: give TABLE or DATABASE.TABLE, printable characters only")
    return database, name


def _text(options: Mapping[str, object], key: str) -> str | None:
    value = options.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"--clickhouse.{key}: is not a text")
    return value


def _password(value: object) -> str | Callable[[], str] | None:
    if value is None or isinstance(value, str):
        return value
    if callable(value):
        return cast("Callable[[], str]", value)
    raise ConfigurationError("--clickhouse.password: is not a text")


def _seconds(options: Mapping[str, object], key: str, default: float) -> float:
    value = options.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 86_400:
        flag = key.removesuffix("_s").replace("_", "-")
        raise ConfigurationError(f"--clickhouse.{flag}: is not a time above 0 and below a day")
    return float(value)


def _settings(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError("--clickhouse.settings: is not a set of NAME=VALUE")
    settings = {str(name): str(cast("object", text)) for name, text in value.items()}
    for name in settings:
        if not name.isidentifier():
            raise ConfigurationError(f"--clickhouse.settings: {name!r} is not the name of a setting")
        if name in RESERVED_SETTINGS:
            raise ConfigurationError(
                f"--clickhouse.settings: {name} cannot be changed; blocks would no longer be written exactly once"
            )
    return settings


def _chdb_path(host: str, path: str) -> Path:
    if host or not path.startswith("/") or path == "/":
        raise ConfigurationError(
            "--clickhouse.dsn: chDB needs an absolute path, chdb:///var/lib/batcher/db; in memory nothing is durable"
        )
    return Path(path)
