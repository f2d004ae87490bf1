"""What a store said: its status, code and message, out of the text of an error, and whether waiting helps.

The client has no fields for them; its text has the answer behind `status code:`. The rest of that text names the
object, and with it perhaps the value of a partition column, so none of it is shown.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import quote

_STATUS: Final = re.compile(r"status code: (?P<status>\d{3})(?P<phrase>[^:\n]*):? ?(?P<body>.*)", re.DOTALL)
_XML: Final = re.compile(r"<(?P<name>Code|Message)>(?P<text>.*?)</(?P=name)>", re.DOTALL)
_PROVIDER: Final = re.compile(r"credential provider: (?:\w+: )?(?P<text>.*)", re.DOTALL)
_METADATA: Final = ("169.254.169.254", "fd00:ec2::254", "metadata.google.internal", "metadata/identity")
_EXPECTED_REGION: Final = re.compile(r"expecting ['\"](?P<region>[a-z0-9-]+)['\"]")

# They describe the client's own text, the same for every store, in the order of how much they say.
_WORDS: Final[tuple[tuple[str, str], ...]] = (
    ("kind: Timeout", "no answer in time"),
    ("dns error", "the name of the host is not known"),
    ("failed to lookup address", "the name of the host is not known"),
    ("Connection refused", "the connection is refused"),
    ("invalid peer certificate", "the certificate is not trusted"),
    ("certificate verify failed", "the certificate is not trusted"),
    ("InvalidCertificate", "the certificate is not trusted"),
    ("UnknownIssuer", "the certificate is not trusted"),
    ("Connection reset", "the connection was closed by the other side"),
    ("IncompleteMessage", "the connection was closed by the other side"),
    ("ConnectionReset", "the connection was closed by the other side"),
    ("IncompleteBody", "the answer came only in part"),
    ("error decoding response body", "the answer came only in part"),
    ("BareRedirect", "it answers with a redirection to nowhere: perhaps the region is wrong"),
    ("redirect without LOCATION", "it answers with a redirection to nowhere: perhaps the region is wrong"),
    ("kind: Connect", "no connection comes about"),
)

# Of status 4xx, and yet they pass: their own documentation says to send the same again.
PASSING: Final = frozenset(
    {
        "ConditionalRequestConflict",
        "IncompleteBody",
        "OperationAborted",
        "RequestTimeout",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    }
)

PASSING_STATUS: Final = frozenset({408, 429})
"""Of status 4xx, those that are about this moment and not about the request."""

LASTING_STATUS: Final = frozenset({501, 505})

ADVICE: Final[Mapping[str, str]] = {
    "NoSuchBucket": "check the name of the bucket, or make it: it is not made here",
    "ContainerNotFound": "check the name of the container, or make it: it is not made here",
    "AccessDenied": "give this user the rights to list, read, write and delete below the prefix",
    "InvalidAccessKeyId": "check the credentials",
    "XAdminUserNotFound": "check the credentials",
    "SignatureDoesNotMatch": "check the credentials",
    "AuthenticationFailed": "check the credentials, and the clock of this machine",
    "ExpiredToken": "renew the credentials; files of credentials are read again by themselves",
    "InvalidToken": "renew the credentials",
    "TokenRefreshRequired": "renew the credentials",
    "RequestTimeTooSkewed": "set the clock of this machine",
    "AuthorizationHeaderMalformed": "give the region of the bucket with the option region",
    "PermanentRedirect": "give the region of the bucket with the option region",
    "IllegalLocationConstraintException": "give the region of the bucket with the option region",
    "EntityTooLarge": "lower --batch.max-rows or --batch.max-bytes",
    "InvalidObjectState": "the object is archived: restore it, or choose another path",
    "ExistingObjectIsDirectory": "an object is where a prefix should be, or the other way round: choose another path",
    "ObjectParentIsFile": "an object is where a prefix should be, or the other way round: choose another path",
}
"""What to do about a code of S3's protocol; about any other, look at bucket, credentials and rights."""

_LONGEST: Final = 300


class StoreAnswer(NamedTuple):
    """Say what a store answered: HTTP status (None where there was no answer), its code and its message."""

    status: int | None
    code: str
    message: str

    def __str__(self) -> str:
        said = " ".join(part for part in (str(self.status or ""), self.code) if part)
        return f"{said}: {self.message}" if said and self.message else said or self.message

    @property
    def lasting(self) -> bool:
        """Return whether the same request fails until a person changes something."""
        if self.status is None:
            return self.code == "credentials"
        if self.status in LASTING_STATUS or 300 <= self.status < 400:
            return True
        return 400 <= self.status < 500 and self.status not in PASSING_STATUS and self.code not in PASSING

    @property
    def advice(self) -> str:
        """Return what to do about what lasts."""
        return ADVICE.get(self.code, "check bucket, credentials and rights")

    @property
    def region(self) -> str | None:
        """Return the region that the store says it is in, where it does."""
        found = _EXPECTED_REGION.search(self.message)
        return found["region"] if found else None


class StoreFailed(OSError):
    """Report what a store answered to one request. It is an OSError, as every failure of a place for files is."""

    def __init__(self, answer: StoreAnswer) -> None:
        super().__init__(str(answer))
        self.answer = answer


def answer_of(error: BaseException, bucket: str = "", key: str = "") -> StoreAnswer:
    """Return what a store answered, from an error of the client. The object's name is not in it."""
    if isinstance(error, StoreFailed):
        return error.answer
    text, _, source = str(error).partition("\n\nDebug source:")
    found = _STATUS.search(text)
    if found is None:
        return _unanswered(error, text, source)
    code, message = _said(found["body"])
    status = int(found["status"])
    return StoreAnswer(status, code or found["phrase"].strip().replace(" ", ""), shown(message, bucket, key))


def shown(message: str, bucket: str, key: str) -> str:
    """Return a message of a store in one line, without the name of an object."""
    for name in {key, quote(key), quote(key, safe="/=")} - {""}:
        message = message.replace(name, "…")
    if bucket:
        message = re.sub(rf"({re.escape(bucket)}/)[^\s\"'<>,;]*", r"\1…", message)
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"


def _said(body: str) -> tuple[str, str]:
    """Return code and message of the body of an answer: XML of S3 and Azure, JSON of Google and of token servers."""
    parts = {found["name"]: html.unescape(found["text"]) for found in _XML.finditer(body)}
    if parts:
        # Azure adds its own number and time behind the message.
        return parts.get("Code", ""), parts.get("Message", "").partition("\nRequestId:")[0].rstrip(".")
    with suppress(ValueError, AttributeError):
        said = json.loads(body)
        error = said.get("error", said)
        if isinstance(error, dict):
            reasons = [one.get("reason", "") for one in error.get("errors", ())]
            return str((reasons or [error.get("status", "")])[0]), str(error.get("message", ""))
        return str(error), str(said.get("error_description", ""))
    return "", ""


def _unanswered(error: BaseException, text: str, source: str) -> StoreAnswer:
    if isinstance(error, TimeoutError):
        return StoreAnswer(None, "", "no answer in time")
    found = _PROVIDER.search(text)
    if found is not None:
        return StoreAnswer(None, "credentials", " ".join(found["text"].split()))
    if any(place in text for place in _METADATA):
        return StoreAnswer(None, "credentials", "there are none in options, environment, files or metadata")
    # A refused certificate is reported as a connection that does not come about, so the details decide.
    for words, said in _WORDS:
        if words in source or words in text:
            return StoreAnswer(None, "", said)
    return StoreAnswer(None, "", type(error).__name__)
