"""What delta-rs raises, as errors of a sink: with the words of the store, and without the frames around them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from batcher.disks import passes
from batcher.errors import BatcherError, SinkMisconfigured, SinkUnavailable

Fault = SinkMisconfigured | SinkUnavailable

# Another process committed first, or changed the table meanwhile. The same block is checked against what it did.
RACES: Final = re.compile(
    r"Concurrent transaction failed|Metadata changed since last commit|Protocol changed since last commit|"
    r"Exceeded max commit attempts|max commit retr|already exists|VersionAlreadyExists|Transaction already|"
    r"concurrent",
    re.IGNORECASE,
)

FEATURES: Final = re.compile(r"Unsupported table features required: \[(.*?)\]|Feature '(\w+)' is not supported")
APPEND_ONLY: Final = re.compile(r"append-only", re.IGNORECASE)
CONSTRAINT: Final = re.compile(r"Invalid data found")
CONFIG: Final = re.compile(
    r"Generic Config error|Configuration key: .* is not valid|Unknown scheme|No suitable .*store"
)
NO_HTTP: Final = re.compile(r"URL scheme is not allowed")

_STATUS: Final = re.compile(r"\b([45]\d\d) [A-Z][A-Za-z ]+")
_CODE: Final = re.compile(r"<Code>([^<]{1,80})</Code>")
_MESSAGE: Final = re.compile(r"<Message>([^<]{1,300})</Message>")
_OS_ERROR: Final = re.compile(r"os error (\d+)|code: (\d+), kind:")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
# Of a signed URL, and of what a store repeats of a request.
_SECRET: Final = re.compile(r"(?i)(signature|credential|token|secret|sig)=[^&\s]+")

PASSING: Final = frozenset({408, 409, 412, 425, 429})
"""Statuses below 500 after which the same request may work."""


@contextmanager
def faults(label: str, doing: str) -> Iterator[None]:
    """Raise what delta-rs raises as SinkUnavailable or SinkMisconfigured."""
    try:
        yield
    except BatcherError:
        raise
    except Exception as error:
        raise fault(error, label, doing) from error
    except BaseException as error:
        # A panic of Rust is no Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise SinkUnavailable(f"{label}: {doing}: delta-rs panicked: {words(error)}") from error


def fault(error: Exception, label: str, doing: str) -> Fault:
    """Return the error of a sink for one of delta-rs."""
    said = str(error)
    what = f"{label}: {doing}: {words(error)}"
    features = FEATURES.search(said)
    lasting = None
    if features:
        names = features[1] or features[2]
        lasting = (
            f"{label} has features that cannot be written here ({names}): switch them off, or choose another table"
        )
    elif APPEND_ONLY.search(said):
        lasting = f"{label} only takes appends (delta.appendOnly), so nothing can be removed from it"
    elif CONSTRAINT.search(said):
        lasting = f"{what}; a CHECK constraint or a column that must not be null refuses a row"
    elif NO_HTTP.search(said):
        lasting = f"{what}; plain http needs --delta.option allow_http=true"
    elif CONFIG.search(said):
        lasting = f"{what}; look at --delta.path, --delta.option and --delta.property"
    elif type(error).__name__ == "TableNotFoundError":
        lasting = f"{label}: {doing}: there is no table any more: {words(error)}"
    if lasting is not None:
        return SinkMisconfigured(lasting)
    if RACES.search(said):
        return SinkUnavailable(f"{label}: another writer was first: {words(error)}")
    return _of_store(said, what)


def _of_store(said: str, what: str) -> Fault:
    status = [int(found) for found in _STATUS.findall(said)]
    if status and status[-1] < 500 and status[-1] not in PASSING:
        return SinkMisconfigured(f"{what}; check bucket, region, credentials and rights")
    number = _OS_ERROR.search(said)
    # Of a connection, or of a file.
    if number and "error sending request" not in said:
        code = int(number[1] or number[2])
        if not passes(OSError(code, "")):
            return SinkMisconfigured(what)
    return SinkUnavailable(what)


def words(error: BaseException) -> str:
    """Return what an error says in one line: the store's own code and message where it has some."""
    plain = _ANSI.sub("", str(error))
    code, message = _CODE.search(plain), _MESSAGE.search(plain)
    status = _STATUS.findall(plain)
    if code:
        answer = f"{status[-1]} " if status else ""
        return f"{answer}{code[1]}: {message[1]}" if message else f"{answer}{code[1]}"
    # The lines from here on are frames of a stack.
    plain = re.split(r"\n\s+0: |\n\s*stack backtrace|\n<", plain)[0]
    lines = [line.strip().removeprefix("↳").strip() for line in plain.splitlines()]
    return _SECRET.sub(r"\1=…", " - ".join(line for line in lines if line))[:500]
