"""What failures of a catalog and of its files mean: one class of batcher's for each reaction, with the server's words."""

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

try:
    from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
except ImportError:  # a REST catalog needs no SQL
    SQLAlchemyError = DBAPIError = InterfaceError = OperationalError = type("Never", (Exception,), {})  # type: ignore[misc]

_WAITS: Final = (
    exceptions.CommitFailedException,
    exceptions.CommitStateUnknownException,
    exceptions.ServiceUnavailableError,
    exceptions.TooManyRequestsError,
    exceptions.ServerError,
    exceptions.WaitingForLockException,
    exceptions.AuthorizationExpiredError,
    InterfaceError,
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
        raise SinkMisconfigured(f"{label} is gone: {said(error)}; make it again, or choose another --iceberg.table") from error
    except _WAITS as error:
        raise SinkUnavailable(f"{doing} {label}: {said(error)}") from error
    except exceptions.RESTError as error:
        raise SinkMisconfigured(f"{doing} {label}: the catalog refuses it: {said(error)}") from error
    except UntrustedError as error:
        raise SinkMisconfigured(f"{doing} {label}: no safe connection to the catalog: {said(error)}") from error
    except RequestException as error:
        raise SinkUnavailable(f"{doing} {label}: the catalog does not answer: {said(error)}") from error
    except SQLAlchemyError as error:
        words = said(getattr(error, "orig", None) or error)
        waits = isinstance(error, OperationalError) and not _OF_DATABASE.search(words)
        raise (SinkUnavailable if waits else SinkMisconfigured)(f"{doing} {label}: the catalog says: {words}") from error
    except OSError as error:
        kind = SinkMisconfigured if refused_for_good(error) else SinkUnavailable
        raise kind(f"{doing} {label}: {said(error)}") from error
    except ValueError as error:
        # Table.refresh has no class of its own for it.
        if "UUID does not match" not in str(error):
            raise
        raise SinkMisconfigured(f"{label} was made anew since batcher started: start it again") from error


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
