"""What each ClickHouse error code means for a block: the code table, and the way from a driver's error to ours.

    reaction   raised                at start-up          codes
    done       nothing               -                    the block is already there
    retry      SinkUnavailable       Unreachable          the server, not the data; 252 raises SinkOverwhelmed
    halt       SinkMisconfigured     SinkMisconfigured    table, rights, settings
    poison     BlockRejected         SinkMisconfigured    some row of the block
    suspect    BlockRejected         SinkMisconfigured    a row, or the table: every code not listed

The function is total. A code that nobody listed may come from one row, for which an expression of a DEFAULT, a
MATERIALIZED column or a CONSTRAINT fails; so the row is searched for, and only if each fails alone it is the table.
`poison` and `suspect` become `halt` where the table has materialized views: a view that throws does so after the rows
were stored, so the error does not prove that nothing was written, and halves under new tokens would store twice what
was.

The server's text quotes values of rows. It is read here, to tell two meanings of one code apart, and goes no
further: neither into a message nor along the chain of causes.
"""

from __future__ import annotations

import errno
import re
from typing import Final, Literal, NamedTuple

from clickhouse_connect.driver.exceptions import Error, ProgrammingError

from batcher.errors import BatcherError, BlockRejected, SinkMisconfigured, SinkOverwhelmed, SinkUnavailable, Unreachable

Reaction = Literal["done", "retry", "halt", "poison", "suspect"]


class Rule(NamedTuple):
    """Say what to do about a code, what ClickHouse calls it, and what a person should know."""

    reaction: Reaction
    name: str
    why: str


RULES: Final[dict[int, Rule]] = {
    389: Rule("done", "INSERT_WAS_DEDUPLICATED", "the block is already in the table"),
    # The server is busy, away, or unsure. 3 and 107 are ambiguous (a cut stream, a part file that went away
    # under the insert); both pass on a second try more often than not.
    3: Rule("retry", "UNEXPECTED_END_OF_FILE", "the stream was cut"),
    107: Rule("retry", "FILE_DOESNT_EXIST", "a file went away under the insert"),
    159: Rule("retry", "TIMEOUT_EXCEEDED", "the server gave up on time"),
    173: Rule("retry", "CANNOT_ALLOCATE_MEMORY", "the server is out of memory"),
    198: Rule("retry", "DNS_ERROR", "the server cannot resolve a name"),
    201: Rule("retry", "QUOTA_EXCEEDED", "the user's quota is used up until its interval ends"),
    202: Rule("retry", "TOO_MANY_SIMULTANEOUS_QUERIES", "the server has too many queries"),
    203: Rule("retry", "NO_FREE_CONNECTION", "the server has no free connection"),
    204: Rule("retry", "CANNOT_FSYNC", "the server's disk failed to sync"),
    209: Rule("retry", "SOCKET_TIMEOUT", "the server timed out on the network"),
    210: Rule("retry", "NETWORK_ERROR", "the server lost a connection"),
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
    319: Rule("retry", "UNKNOWN_STATUS_OF_INSERT", "the outcome is unknown; the token makes the repeat safe"),
    364: Rule("retry", "RECEIVED_ERROR_TOO_MANY_REQUESTS", "the server is told to slow down"),
    369: Rule("retry", "ALL_REPLICAS_ARE_STALE", "all replicas are stale"),
    373: Rule("retry", "SESSION_IS_LOCKED", "an earlier request still runs"),
    394: Rule("retry", "QUERY_WAS_CANCELLED", "somebody cancelled the insert"),
    425: Rule("retry", "SYSTEM_ERROR", "the server's system call failed"),
    439: Rule("retry", "CANNOT_SCHEDULE_TASK", "the server has no free thread"),
    473: Rule("retry", "DEADLOCK_AVOIDED", "the table is being altered"),
    499: Rule("retry", "S3_ERROR", "the server's object store failed"),
    519: Rule("retry", "NO_REMOTE_SHARD_AVAILABLE", "no shard is available"),
    571: Rule("retry", "DATABASE_REPLICATION_FAILED", "the replicated database is behind"),
    700: Rule("retry", "USER_SESSION_LIMIT_EXCEEDED", "the user has too many sessions"),
    722: Rule("retry", "ASYNC_LOAD_WAIT_FAILED", "the table is still loading"),
    733: Rule("retry", "TABLE_IS_BEING_RESTARTED", "the table is being restarted"),
    735: Rule("retry", "QUERY_WAS_CANCELLED_BY_CLIENT", "the insert was cancelled"),
    745: Rule("retry", "SERVER_OVERLOADED", "the server is overloaded"),
    999: Rule("retry", "KEEPER_EXCEPTION", "Keeper failed"),
    1000: Rule("retry", "POCO_EXCEPTION", "the server failed on the network"),
    # Nobody's rows are to blame. 32 is ambiguous: a body that does not parse as what it says it is.
    16: Rule("halt", "NO_SUCH_COLUMN_IN_TABLE", "the table changed; restart to read its columns again"),
    20: Rule("halt", "NUMBER_OF_COLUMNS_DOESNT_MATCH", "the table changed; restart to read its columns again"),
    32: Rule("halt", "ATTEMPT_TO_READ_AFTER_EOF", "the server cannot read the block's format"),
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
    218: Rule("halt", "TABLE_IS_DROPPED", "the table was dropped"),
    452: Rule("halt", "SETTING_CONSTRAINT_VIOLATION", "the user's profile forbids a setting of the insert"),
    497: Rule("halt", "ACCESS_DENIED", "GRANT INSERT and SELECT on the table to the user"),
    516: Rule("halt", "AUTHENTICATION_FAILED", "correct --clickhouse.user and --clickhouse.password"),
    # A row for which an expression of the table fails, or an expression that fails for every row.
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
"""Names as the engine's `errorCodeToName` gives them; classes from experiments and the two public connectors."""

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
    """Tell whether the server refused who we say we are: another password may help."""
    if not isinstance(error, Error):
        return False
    if error.code is not None:
        return error.code in {192, 193, 194, 516}
    status = _STATUS.search(str(error))
    return status is not None and status[1] in {"401", "403"}


def translated(
    error: Error | OSError, target: str, *, opening: bool = False, has_views: bool = False
) -> BatcherError | None:
    """Return our error for the driver's, or None where the block is durable already.

    `target` opens the message and must hold no secret. `opening` is for start-up. The driver's error
    is stripped of the server's text, so that it can be chained. The result is not raised here.
    """
    if isinstance(error, OSError):
        return _from_system(error, target, opening=opening)
    text = str(error)
    if error.code is not None:
        _strip(error, f"ClickHouse error {error.code}")
        return _from_code(rule_for(error.code, text), error.code, target, opening=opening, has_views=has_views)
    status = _STATUS.search(text)
    if status is not None:
        _strip(error, f"HTTP status {status[1]}")
        return _from_status(int(status[1]), target, opening=opening)
    if isinstance(error, ProgrammingError):
        return SinkMisconfigured(f"{target}: the driver refuses: {text}")
    cause = error.__cause__ or error.__context__
    reason, sent = ("the connection failed", True) if cause is None else _transport(_innermost(cause))
    if opening:
        return Unreachable(f"{target} does not answer: {reason}")
    outcome = "the outcome of the insert is unknown, and the same block comes again" if sent else "nothing was sent"
    return SinkUnavailable(f"{target}: {reason}; {outcome}")


def _from_code(rule: Rule, code: int, target: str, *, opening: bool, has_views: bool) -> BatcherError | None:
    message = f"{target}: ClickHouse error {code} ({rule.name}): {rule.why}"
    if rule.reaction == "done":
        return None
    if rule.reaction == "retry":
        later = SinkOverwhelmed if rule is RULES[252] else SinkUnavailable
        return Unreachable(message) if opening else later(message)
    if rule.reaction == "halt" or opening:
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
    "SSLCertVerificationError": "the certificate of the server is not trusted; see ca_cert in --clickhouse.dsn",
    "SSLError": "TLS cannot be agreed on; is it the port for https?",
    "SSLZeroReturnError": "the server closed the connection while TLS was agreed on",
}
_WHILE_SENDING: Final = {
    "ConnectionResetError": "the connection was reset",
    "BrokenPipeError": "the server closed the connection",
    "RemoteDisconnected": "the server closed the connection without an answer",
    "ReadTimeoutError": "no answer within --clickhouse.insert-timeout",
    "TimeoutError": "no answer within the time for it",
    "timeout": "no answer within the time for it",
    "IncompleteRead": "the answer was cut short",
    "ProtocolError": "the connection broke",
}


def _transport(kind: str) -> tuple[str, bool]:
    """Return in words what ended a connection, and whether something of the insert may have been sent by then."""
    if kind in _BEFORE_SENDING:
        return _BEFORE_SENDING[kind], False
    return _WHILE_SENDING.get(kind, f"the connection failed ({kind})"), True


def _innermost(cause: BaseException) -> str:
    """Name the class at the root of a transport failure; its text would repeat the address and the statement."""
    seen = cause
    while True:
        reason = getattr(seen, "reason", None)
        deeper = seen.__cause__ or seen.__context__ or (reason if isinstance(reason, BaseException) else None)
        if deeper is None:
            return type(seen).__name__
        seen = deeper
