"""What each ClickHouse error code means for a block: the code table, and the way from a driver's error to ours.

    reaction   raised                at start-up          codes
    done       nothing               -                    the block is already there
    retry      SinkUnavailable       Unreachable          the server, not the data; 252 raises SinkOverwhelmed
    halt       SinkMisconfigured     SinkMisconfigured    table, rights, settings
    poison     BlockRejected         SinkMisconfigured    some row of the block
    suspect    BlockRejected         SinkMisconfigured    a row, or the table: every code not listed

The function is total. A code that is not listed may come from one row, for which an expression of a DEFAULT, a
MATERIALIZED column or a CONSTRAINT fails. So the row is searched for, and only if each row fails alone it is the table.
`poison` and `suspect` become `halt` where the table has materialized views. A view that throws does so after the rows
were stored. So the error does not prove that nothing was written, and halves under new tokens would store twice what
was written.

The server's text quotes values of rows. It is read here, to tell two meanings of one code apart, and goes no further:
neither into a message nor along the chain of causes.

It is long because it is a table: one line for each code.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from clickhouse_connect.driver.exceptions import Error, ProgrammingError

from batcher.errors import BatcherError, BlockRejected, SinkMisconfigured, SinkOverwhelmed, SinkUnavailable, Unreachable

Reaction = Literal["done", "retry", "halt", "poison", "suspect"]


class Rule(NamedTuple):
    """Say what to do about a code, its name in ClickHouse, and what a person should know."""

    reaction: Reaction
    name: str
    why: str


RULES: Final[dict[int, Rule]] = {
    389: Rule("done", "INSERT_WAS_DEDUPLICATED", "the block is already in the table"),
    # The server is busy, away, or unsure, or its disk or network fails. No row can cause that, and a row that is
    # searched for meanwhile would be an innocent one. 3 and 107 are ambiguous (a cut stream, a part file that went away
    # under the insert); both pass on a second try more often than not.
    3: Rule("retry", "UNEXPECTED_END_OF_FILE", "the stream was cut"),
    74: Rule("retry", "CANNOT_READ_FROM_FILE_DESCRIPTOR", "the server's disk failed"),
    75: Rule("retry", "CANNOT_WRITE_TO_FILE_DESCRIPTOR", "the server's disk failed"),
    76: Rule("retry", "CANNOT_OPEN_FILE", "the server's disk failed"),
    77: Rule("retry", "CANNOT_CLOSE_FILE", "the server's disk failed"),
    86: Rule("retry", "RECEIVED_ERROR_FROM_REMOTE_IO_SERVER", "another server failed that this one needs"),
    88: Rule("retry", "CANNOT_TRUNCATE_FILE", "the server's disk failed"),
    95: Rule("retry", "CANNOT_READ_FROM_SOCKET", "the server lost a connection"),
    96: Rule("retry", "CANNOT_WRITE_TO_SOCKET", "the server lost a connection"),
    107: Rule("retry", "FILE_DOESNT_EXIST", "a file went away under the insert"),
    156: Rule("retry", "DICTIONARIES_WAS_NOT_LOADED", "a dictionary that the table needs cannot be loaded"),
    159: Rule("retry", "TIMEOUT_EXCEEDED", "the server gave up on time"),
    160: Rule("retry", "TOO_SLOW", "the server gave up on time"),
    172: Rule("retry", "CANNOT_CREATE_DIRECTORY", "the server's disk failed"),
    173: Rule("retry", "CANNOT_ALLOCATE_MEMORY", "the server is out of memory"),
    198: Rule("retry", "DNS_ERROR", "the server cannot resolve a name"),
    201: Rule("retry", "QUOTA_EXCEEDED", "the user's quota is used up until its interval ends"),
    202: Rule("retry", "TOO_MANY_SIMULTANEOUS_QUERIES", "the server has too many queries"),
    203: Rule("retry", "NO_FREE_CONNECTION", "the server has no free connection"),
    204: Rule("retry", "CANNOT_FSYNC", "the server's disk failed to sync"),
    209: Rule("retry", "SOCKET_TIMEOUT", "the server timed out on the network"),
    210: Rule("retry", "NETWORK_ERROR", "the server lost a connection"),
    214: Rule("retry", "CANNOT_STATVFS", "the server's disk failed"),
    216: Rule("retry", "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING", "an earlier attempt of this insert still runs"),
    225: Rule("retry", "NO_ZOOKEEPER", "the server has no Keeper"),
    236: Rule("retry", "ABORTED", "the server aborted the insert"),
    241: Rule("retry", "MEMORY_LIMIT_EXCEEDED", "the server is short of memory; lower --batch.max-rows if it repeats"),
    242: Rule("retry", "TABLE_IS_READ_ONLY", "the replica is read-only, usually because Keeper is away"),
    243: Rule("retry", "NOT_ENOUGH_SPACE", "the server's disk is full"),
    244: Rule("retry", "UNEXPECTED_ZOOKEEPER_ERROR", "Keeper failed"),
    252: Rule("retry", "TOO_MANY_PARTS", "merges are behind; batches grow until they have caught up"),
    254: Rule("retry", "NO_ACTIVE_REPLICAS", "no replica is active"),
    265: Rule("retry", "NO_AVAILABLE_REPLICA", "no replica is available"),
    279: Rule("retry", "ALL_CONNECTION_TRIES_FAILED", "the server cannot reach its shards"),
    285: Rule("retry", "TOO_FEW_LIVE_REPLICAS", "too few replicas for the quorum"),
    286: Rule("retry", "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE", "the quorum of an earlier insert is open"),
    289: Rule("retry", "REPLICA_IS_NOT_IN_QUORUM", "the replica is behind the quorum"),
    297: Rule("retry", "SHARD_HAS_NO_CONNECTIONS", "the server cannot reach its shards"),
    319: Rule("retry", "UNKNOWN_STATUS_OF_INSERT", "the outcome is unknown; the token makes the repeat safe"),
    341: Rule("retry", "UNFINISHED", "a replica has not finished an ALTER of the table"),
    364: Rule("retry", "RECEIVED_ERROR_TOO_MANY_REQUESTS", "the server is told to slow down"),
    369: Rule("retry", "ALL_REPLICAS_ARE_STALE", "all replicas are stale"),
    373: Rule("retry", "SESSION_IS_LOCKED", "an earlier request still runs"),
    384: Rule("retry", "PART_IS_TEMPORARILY_LOCKED", "a part of the table is locked"),
    394: Rule("retry", "QUERY_WAS_CANCELLED", "somebody cancelled the insert"),
    400: Rule("retry", "CANNOT_STAT", "the server's disk failed"),
    410: Rule("retry", "EXTERNAL_SERVER_IS_NOT_RESPONDING", "another server does not answer that this one needs"),
    416: Rule("retry", "REPLICA_STATUS_CHANGED", "the replica changed its status"),
    424: Rule("retry", "CANNOT_LINK", "the server's disk failed"),
    425: Rule("retry", "SYSTEM_ERROR", "the server's system call failed"),
    439: Rule("retry", "CANNOT_SCHEDULE_TASK", "the server has no free thread"),
    458: Rule("retry", "CANNOT_UNLINK", "the server's disk failed"),
    473: Rule("retry", "DEADLOCK_AVOIDED", "the table is being altered"),
    499: Rule("retry", "S3_ERROR", "the server's object store failed"),
    500: Rule("retry", "AZURE_BLOB_STORAGE_ERROR", "the server's object store failed"),
    517: Rule("retry", "CANNOT_ASSIGN_ALTER", "the table is being altered by somebody else"),
    519: Rule("retry", "NO_REMOTE_SHARD_AVAILABLE", "no shard is available"),
    521: Rule("retry", "ATOMIC_RENAME_FAIL", "the server's disk failed"),
    531: Rule("retry", "CANNOT_FSTAT", "the server's disk failed"),
    571: Rule("retry", "DATABASE_REPLICATION_FAILED", "the replicated database is behind"),
    573: Rule("retry", "EPOLL_ERROR", "the server's system call failed"),
    574: Rule("retry", "DISTRIBUTED_TOO_MANY_PENDING_BYTES", "a shard is behind"),
    586: Rule("retry", "CANNOT_CREATE_FILE", "the server's disk failed"),
    614: Rule("retry", "POSTGRESQL_CONNECTION_FAILURE", "another server does not answer that this one needs"),
    641: Rule("retry", "CANNOT_APPEND_TO_FILE", "the server's disk failed"),
    660: Rule("retry", "HDFS_ERROR", "the server's object store failed"),
    677: Rule("retry", "THREAD_WAS_CANCELED", "the server cancelled the insert"),
    693: Rule("retry", "AWS_ERROR", "the server's object store failed"),
    696: Rule("retry", "ASYNC_LOAD_CANCELED", "the table is still loading"),
    700: Rule("retry", "USER_SESSION_LIMIT_EXCEEDED", "the user has too many sessions"),
    707: Rule("retry", "GCP_ERROR", "the server's object store failed"),
    722: Rule("retry", "ASYNC_LOAD_WAIT_FAILED", "the table is still loading"),
    733: Rule("retry", "TABLE_IS_BEING_RESTARTED", "the table is being restarted"),
    734: Rule("retry", "CANNOT_WRITE_AFTER_BUFFER_CANCELED", "the server broke off the insert"),
    735: Rule("retry", "QUERY_WAS_CANCELLED_BY_CLIENT", "the insert was cancelled"),
    737: Rule("retry", "GOOGLE_CLOUD_ERROR", "the server's object store failed"),
    738: Rule("retry", "PART_IS_LOCKED", "a part of the table is locked"),
    741: Rule("retry", "TABLE_UUID_MISMATCH", "the table was exchanged under the insert"),
    745: Rule("retry", "SERVER_OVERLOADED", "the server is overloaded"),
    749: Rule("retry", "TCP_CONNECTION_LIMIT_REACHED", "the server has too many connections"),
    762: Rule("retry", "HTTP_CONNECTION_LIMIT_REACHED", "the server has too many connections"),
    763: Rule("retry", "SESSION_REFUSED", "the server takes no sessions now"),
    776: Rule("retry", "RESOURCE_LIMIT_EXCEEDED", "the server is short of something"),
    777: Rule("retry", "MEMORY_RESERVATION_KILLED", "the server is short of memory"),
    778: Rule("retry", "MEMORY_RESERVATION_FAILED", "the server is short of memory"),
    904: Rule("retry", "TOO_MANY_UNAVAILABLE_SHARDS", "the server cannot reach its shards"),
    999: Rule("retry", "KEEPER_EXCEPTION", "Keeper failed"),
    1000: Rule("retry", "POCO_EXCEPTION", "the server failed on the network"),
    1019: Rule("retry", "QUERY_SLOT_ACQUISITION_TIMEOUT", "the server has too many queries"),
    1020: Rule("retry", "MEMORY_RESERVATION_ACQUISITION_TIMEOUT", "the server is short of memory"),
    # No row is to blame.
    16: Rule("halt", "NO_SUCH_COLUMN_IN_TABLE", "the table changed; its columns are read again before the next try"),
    20: Rule(
        "halt", "NUMBER_OF_COLUMNS_DOESNT_MATCH", "the table changed; its columns are read again before the next try"
    ),
    46: Rule("halt", "UNKNOWN_FUNCTION", "an expression of the table needs a function that the server does not have"),
    47: Rule("halt", "UNKNOWN_IDENTIFIER", "the table or one of its views changed"),
    60: Rule("halt", "UNKNOWN_TABLE", "create the table, or correct --clickhouse.table"),
    62: Rule("halt", "SYNTAX_ERROR", "the server does not understand the statement; it may be too old"),
    73: Rule("halt", "UNKNOWN_FORMAT", "the server does not know the Arrow format; it may be too old"),
    81: Rule("halt", "UNKNOWN_DATABASE", "create the database, or correct --clickhouse.dsn"),
    115: Rule("halt", "UNKNOWN_SETTING", "the server does not know a setting; see --clickhouse.settings"),
    164: Rule("halt", "READONLY", "the user may only read; give it a profile without readonly"),
    192: Rule("halt", "UNKNOWN_USER", "correct the user in --clickhouse.dsn or --clickhouse.user"),
    193: Rule("halt", "WRONG_PASSWORD", "correct --clickhouse.password"),
    194: Rule("halt", "REQUIRED_PASSWORD", "set --clickhouse.password"),
    195: Rule("halt", "IP_ADDRESS_NOT_ALLOWED", "the user may not connect from this address"),
    218: Rule("halt", "TABLE_IS_DROPPED", "the table was dropped"),
    291: Rule("halt", "DATABASE_ACCESS_DENIED", "GRANT INSERT and SELECT on the table to the user"),
    344: Rule("halt", "SUPPORT_IS_DISABLED", "the server has a feature turned off that the table needs"),
    371: Rule("halt", "INCONSISTENT_CLUSTER_DEFINITION", "the server's cluster is not set up right"),
    392: Rule("halt", "QUERY_IS_PROHIBITED", "the server takes no inserts into this table"),
    446: Rule("halt", "FUNCTION_NOT_ALLOWED", "an expression of the table needs a function that the user may not call"),
    452: Rule("halt", "SETTING_CONSTRAINT_VIOLATION", "the user's profile forbids a setting of the insert"),
    471: Rule("halt", "INVALID_SETTING_VALUE", "a setting has no such value; see --clickhouse.settings"),
    472: Rule("halt", "READONLY_SETTING", "the user's profile forbids a setting of the insert"),
    497: Rule("halt", "ACCESS_DENIED", "GRANT INSERT and SELECT on the table to the user"),
    511: Rule("halt", "UNKNOWN_ROLE", "a role of the user is gone"),
    512: Rule("halt", "SET_NON_GRANTED_ROLE", "a role was taken from the user"),
    516: Rule("halt", "AUTHENTICATION_FAILED", "correct --clickhouse.user and --clickhouse.password"),
    620: Rule("halt", "QUERY_NOT_ALLOWED", "the server takes no inserts into this table"),
    701: Rule("halt", "CLUSTER_DOESNT_EXIST", "the server does not know the table's cluster"),
    720: Rule("halt", "USER_EXPIRED", "the user's password or account has expired"),
    767: Rule("halt", "REQUIRED_SECOND_FACTOR", "the user needs a second factor, which batcher does not have"),
    774: Rule("halt", "TABLE_IS_PERMANENTLY_READ_ONLY", "the table takes no inserts any more"),
    1016: Rule("halt", "TABLE_SIZE_LIMIT_EXCEEDED", "the table has all the rows it may have"),
    # A row for which an expression of the table fails, or an expression that fails for every row. 32 is ambiguous: an
    # empty text that an expression takes for a number, or a block that the server cannot read to its end.
    32: Rule("suspect", "ATTEMPT_TO_READ_AFTER_EOF", "an expression of the table reads a number from an empty text"),
    153: Rule("suspect", "ILLEGAL_DIVISION", "an expression of the table divides by zero"),
    190: Rule("suspect", "SIZES_OF_ARRAYS_DONT_MATCH", "lists that belong together have different lengths"),
    395: Rule("suspect", "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO", "a throwIf of the table refused a row"),
    # Some row. With every value cast and checked before it is sent, these are rare.
    6: Rule("poison", "CANNOT_PARSE_TEXT", "a value does not parse"),
    26: Rule("poison", "CANNOT_PARSE_QUOTED_STRING", "a value does not parse"),
    27: Rule("poison", "CANNOT_PARSE_INPUT_ASSERTION_FAILED", "a value does not parse"),
    33: Rule("poison", "CANNOT_READ_ALL_DATA", "a value is cut short"),
    38: Rule("poison", "CANNOT_PARSE_DATE", "a date does not parse"),
    41: Rule("poison", "CANNOT_PARSE_DATETIME", "a time does not parse"),
    53: Rule("poison", "TYPE_MISMATCH", "a value has the wrong type"),
    70: Rule("poison", "CANNOT_CONVERT_TYPE", "a value has the wrong type"),
    72: Rule("poison", "CANNOT_PARSE_NUMBER", "a number does not parse"),
    117: Rule("poison", "INCORRECT_DATA", "a value is malformed"),
    130: Rule("poison", "CANNOT_READ_ARRAY_FROM_TEXT", "an array does not parse"),
    131: Rule("poison", "TOO_LARGE_STRING_SIZE", "a string is too long"),
    321: Rule("poison", "VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE", "a value is out of range"),
    349: Rule("poison", "CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN", "a value is missing"),
    376: Rule("poison", "CANNOT_PARSE_UUID", "a UUID does not parse"),
    407: Rule("poison", "DECIMAL_OVERFLOW", "a decimal is out of range"),
    469: Rule("poison", "VIOLATED_CONSTRAINT", "a row violates a constraint of the table"),
    675: Rule("poison", "CANNOT_PARSE_IPV4", "an address does not parse"),
    676: Rule("poison", "CANNOT_PARSE_IPV6", "an address does not parse"),
    691: Rule("poison", "UNKNOWN_ELEMENT_OF_ENUM", "a value is not in the enum"),
}
"""Names are from the engine's `errorCodeToName`; classes are from experiments and the two public connectors."""

UNKNOWN: Final = Rule("suspect", "not listed", "an error that batcher does not know; see the server's log")
TOO_MANY_PARTITIONS: Final = Rule(
    "halt",
    "TOO_MANY_PARTS",
    "one block touches more table partitions than max_partitions_per_insert_block; raise it in --clickhouse.settings",
)
RETRIED_STATUSES: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that, without a ClickHouse code, mean a proxy or a server on its way up or down."""

WRONG_FILES: Final = frozenset({errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EISDIR})
"""Failures of a file of ours, a certificate or a temporary one. Others, EPERM too, may come from the network."""

_STATUS = re.compile(r"HTTP status (\d{3})")


def rule_for(code: int, text: str = "") -> Rule:
    """Return the rule of a code; `text`, the server's message, tells the two meanings of 252 apart."""
    if code == 252 and "too many partitions" in text.lower():
        return TOO_MANY_PARTITIONS
    return RULES.get(code, UNKNOWN)


def locked_out(error: Error | OSError) -> bool:
    """Return whether the server refused our name and password: another password may help."""
    if not isinstance(error, Error):
        return False
    if error.code is not None:
        return error.code in {192, 193, 194, 516, 720}
    status = _STATUS.search(str(error))
    return status is not None and status[1] in {"401", "403"}


def translated(
    error: Error | OSError, target: str, *, opening: bool = False, asking: bool = False, has_views: bool = False
) -> BatcherError | None:
    """Return our error for the driver's, or None where the block is durable already.

    `target` opens the message and must hold no secret. `opening` is for start-up. `asking` is for what writes no rows,
    so that none can be to blame. The driver's error is stripped of the server's text, so that it can be chained. The
    result is not raised here.
    """
    if isinstance(error, OSError):
        return _from_system(error, target, opening=opening)
    text = str(error)
    if error.code is not None:
        _strip(error, f"ClickHouse error {error.code}")
        return _from_code(
            rule_for(error.code, text), error.code, target, opening=opening, asking=asking, has_views=has_views
        )
    status = _STATUS.search(text)
    if status is not None:
        _strip(error, f"HTTP status {status[1]}")
        return _from_status(int(status[1]), target, opening=opening)
    if isinstance(error, ProgrammingError):
        return SinkMisconfigured(f"{target}: the driver refuses: {text}")
    return _from_transport(error, target, opening=opening, asking=asking)


def _from_transport(error: Error, target: str, *, opening: bool, asking: bool) -> BatcherError:
    chain = _chain(error)
    words = _listed(chain, _BEFORE_SENDING)
    sent = words is None
    if sent:
        for link in chain:
            if isinstance(link, OSError) and link.errno in WRONG_FILES:
                return _from_system(link, target, opening=opening)
        words = _listed(chain, _WHILE_SENDING)
    if words is None and chain:
        words = f"the connection failed ({type(chain[-1]).__name__})"
    reason = words or "the answer is not one of a ClickHouse server"
    if opening:
        return Unreachable(f"{target} does not answer: {reason}")
    if asking:
        return SinkUnavailable(f"{target}: {reason}")
    outcome = "the outcome of the insert is unknown, and the same block comes again" if sent else "nothing was sent"
    return SinkUnavailable(f"{target}: {reason}; {outcome}")


def _from_code(
    rule: Rule, code: int, target: str, *, opening: bool, asking: bool, has_views: bool
) -> BatcherError | None:
    message = f"{target}: ClickHouse error {code} ({rule.name}): {rule.why}"
    if rule.reaction == "done":
        return None
    if rule.reaction == "retry":
        later = SinkOverwhelmed if rule is RULES[252] else SinkUnavailable
        return Unreachable(message) if opening else later(message)
    if rule.reaction == "halt" or opening or asking:
        return SinkMisconfigured(message)
    if has_views:
        return SinkMisconfigured(
            f"{message}; the table has materialized views, so the rows may be stored already: "
            "mend the view or detach it, nothing is dead-lettered"
        )
    return BlockRejected(message, rule.name.lower().replace(" ", "_"), suspect=rule.reaction == "suspect")


def _from_system(error: OSError, target: str, *, opening: bool) -> BatcherError:
    message = f"{target}: {error.strerror or type(error).__name__}"
    if error.errno in WRONG_FILES:
        return SinkMisconfigured(f"{message}: check the files named in --clickhouse.dsn, and $TMPDIR")
    return Unreachable(message) if opening else SinkUnavailable(message)


def _from_status(status: int, target: str, *, opening: bool) -> BatcherError:
    message = f"{target}: HTTP status {status} without a ClickHouse error"
    if status in {401, 403}:
        return SinkMisconfigured(f"{message}: correct --clickhouse.user and --clickhouse.password")
    if status == 413:
        return SinkMisconfigured(
            f"{message}: what stands before the server takes no bodies of this size; raise its limit, or lower "
            "--batch.max-bytes"
        )
    if status in RETRIED_STATUSES:
        return Unreachable(message) if opening else SinkUnavailable(message)
    return SinkMisconfigured(f"{message}: is --clickhouse.dsn the HTTP port of a ClickHouse server?")


def _strip(error: Error, text: str) -> None:
    error.args = (text,)
    error.__cause__ = None
    error.__context__ = None


_BEFORE_SENDING: Final = {
    "gaierror": "the name of the host is not known; correct --clickhouse.dsn",
    "NameResolutionError": "the name of the host is not known; correct --clickhouse.dsn",
    "ConnectionRefusedError": "nothing listens at the port (connection refused)",
    "NewConnectionError": "no connection can be made",
    "ConnectTimeoutError": "no connection within the time for it",
    "SSLCertVerificationError": "its certificate is not trusted, or for another host; see ca_cert in --clickhouse.dsn",
}
_WHILE_SENDING: Final = {
    "ConnectionResetError": "the connection was reset",
    "BrokenPipeError": "the server closed the connection",
    "RemoteDisconnected": "the server closed the connection without an answer",
    "BadStatusLine": "the answer is no HTTP; is it the port for HTTP (8123, and not 9000)?",
    "ReadTimeoutError": "no answer within --clickhouse.insert-timeout",
    "TimeoutError": "no answer within the time for it",
    "timeout": "no answer within the time for it",
    "IncompleteRead": "the answer was cut short",
    "ProtocolError": "the connection broke",
    # These come while TLS is negotiated, and may come later.
    "SSLError": "TLS failed; is it the port for https?",
    "SSLEOFError": "the server closed the connection in the middle of TLS; is it the port for https?",
    "SSLZeroReturnError": "the server closed the connection in the middle of TLS; is it the port for https?",
}


def _listed(chain: Sequence[BaseException], table: Mapping[str, str]) -> str | None:
    """Return the words for the innermost link of a chain that a table lists; its own text would repeat the address."""
    names = (type(link).__name__ for link in reversed(chain))
    return next((table[name] for name in names if name in table), None)


def _chain(error: Error) -> list[BaseException]:
    """Return what led to a driver's error, the innermost last."""
    links: list[BaseException] = []
    seen: BaseException = error
    while True:
        reason = getattr(seen, "reason", None)
        deeper = seen.__cause__ or seen.__context__ or (reason if isinstance(reason, BaseException) else None)
        if deeper is None:
            return links
        links.append(deeper)
        seen = deeper
