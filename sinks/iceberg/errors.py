"""What failures of a catalog and of its files mean: a class for each reaction, with the server's own words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pyarrow as pa
from pyiceberg import exceptions
from requests.exceptions import RequestException
from requests.exceptions import SSLError as UntrustedError

from batcher.errors import SinkMisconfigured, SinkUnavailable
from sinks.iceberg.catalog import said

_WAITS: Final = (
    exceptions.CommitFailedException,
    exceptions.CommitStateUnknownException,
    exceptions.ServiceUnavailableError,
    exceptions.TooManyRequestsError,
    exceptions.ServerError,
    exceptions.WaitingForLockException,
    exceptions.AuthorizationExpiredError,
    ConnectionError,
    TimeoutError,
    pa.ArrowCancelled,
)
"""What passes by itself, or leaves open whether something was done."""

_GONE: Final = (exceptions.NoSuchTableError, exceptions.NoSuchNamespaceError)

# A database that is away says "database is locked", "could not connect" or "server closed the connection". These words
# mean that it is there, and that no waiting helps.
_OF_DATABASE: Final = re.compile(
    r"unable to open database file|no such table|does not exist|readonly|permission denied|authentication failed"
    r"|not a database",
    re.IGNORECASE,
)
_STATUS: Final = re.compile(r"HTTP (?:status|response code)[^0-9]{0,3}(\d{3})", re.IGNORECASE)
_OF_STORE: Final = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN|INVALID_CLIENT_TOKEN_ID"
    r"|REQUEST_TIME_TOO_SKEWED|AuthorizationHeaderMalformed|PermanentRedirect"
)
_LATER_STATUS: Final = frozenset({408, 429})


@contextmanager
def faults(label: str, doing: str) -> Iterator[None]:
    """Raise what a person or a pause can do something about; let everything else through, because it is a bug."""
    try:
        yield
    except (SinkUnavailable, SinkMisconfigured):
        raise
    except _GONE as error:
        raise SinkMisconfigured(
            f"{label} is gone: {said(error)}; make it again, or choose another --iceberg.table"
        ) from error
    except (*_WAITS, exceptions.RESTError, RequestException, OSError) as error:
        kind = SinkUnavailable if _passes(error) else SinkMisconfigured
        raise kind(f"{doing} {label}: {_words(error)}") from error
    except ValueError as error:
        # Table.refresh has no class of its own for it.
        if "UUID does not match" not in str(error):
            raise
        raise SinkMisconfigured(f"{label} was made anew since batcher started: start it again") from error
    except Exception as error:
        if not of_database(error):
            raise
        kind = SinkUnavailable if _database_is_away(error) else SinkMisconfigured
        raise kind(f"{doing} {label}: {_words(error)}") from error


def of_database(error: Exception) -> bool:
    """Return whether an error is one of SQLAlchemy, which only catalogs in a database load: it takes half a second."""
    return type(error).__module__.startswith("sqlalchemy.")


def _database_is_away(error: Exception) -> bool:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "InterfaceError" in kinds:
        return True
    return "OperationalError" in kinds and not _OF_DATABASE.search(str(getattr(error, "orig", error)))


def _passes(error: Exception) -> bool:
    """Return whether a failure can end by itself. It is also true where it is not known what was done."""
    if isinstance(error, _WAITS):
        return True
    if isinstance(error, exceptions.RESTError | UntrustedError):
        return False
    if isinstance(error, RequestException):
        return True
    return isinstance(error, OSError) and not refused_for_good(error)


def _words(error: Exception) -> str:
    if isinstance(error, RequestException):
        return f"no connection to the catalog: {said(error)}"
    # SQLAlchemy's own text has the statement too.
    return f"the catalog says: {said(getattr(error, 'orig', None) or error)}"


def refused_for_good(error: OSError) -> bool:
    """Return whether no waiting helps against an error of a file or an object store."""
    if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError | IsADirectoryError):
        return True
    words = str(error)
    status = _STATUS.search(words)
    if status is not None:
        number = int(status[1])
        return 400 <= number < 500 and number not in _LATER_STATUS
    return _OF_STORE.search(words) is not None
