"""The certificates of TLS: when one ends, and whether a server's is trusted.

Python shows the fields of a certificate only once it has verified it, so the one field that is needed of the others is
read here from their encoding (X.690: tag, length, content).
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

TIMEOUT_S: Final = 5.0

SOON_DAYS: Final = 21
"""Certificates that end sooner than this are worth a warning: most are made anew a month before."""

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_TIMES: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""UTCTime and GeneralizedTime, as RFC 5280 has them."""


def parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element of an encoding. Raise ValueError for what is none."""
    at = 0
    while at + 1 < len(der):
        tag, length, at = der[at], der[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(der[at : at + size], "big"), at + size
        if at + length > len(der):
            raise ValueError("is no certificate")
        yield tag, der[at : at + length]
        at += length


def valid_until(der: bytes) -> datetime:
    """Return when a certificate ends. Raise ValueError for what is none."""
    try:
        ((_, certificate),) = parts(der)
        _, signed = next(parts(certificate))
        fields = [content for tag, content in parts(signed) if tag != 0xA0]
        # serial, algorithm, issuer, validity
        _, (tag, text) = parts(fields[3])
        return datetime.strptime(text.decode("ascii"), _TIMES[tag]).replace(tzinfo=UTC)
    except (IndexError, KeyError, StopIteration, UnicodeDecodeError, ValueError) as error:
        raise ValueError("is no certificate") from error


def certificates_in(path: Path) -> Sequence[bytes]:
    """Return the certificates of a PEM file. Raise OSError, or ValueError where there is none."""
    found = [ssl.PEM_cert_to_DER_cert(one) for one in _PEM.findall(path.read_text(encoding="utf-8", errors="replace"))]
    if not found:
        raise ValueError("has no certificate in it")
    return found


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Say when a server's certificate ends, and why it is not trusted; empty where it is."""

    until: datetime
    distrust: str
    protocol: str


def ask(host: str, port: int, trusted: Path | None) -> ServerCertificate:
    """Return what a server shows. Raise OSError where it does not speak TLS, or does not answer."""
    context = ssl.create_default_context()
    if trusted is not None:
        context = ssl.create_default_context(
            cafile=str(trusted) if trusted.is_file() else None, capath=str(trusted) if trusted.is_dir() else None
        )
    try:
        return _shown(host, port, context, "")
    except ssl.SSLCertVerificationError as error:
        distrust = error.verify_message
    # Nothing is sent over this connection: only the certificate is looked at.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _shown(host, port, context, distrust)


def _shown(host: str, port: int, context: ssl.SSLContext, distrust: str) -> ServerCertificate:
    with (
        socket.create_connection((host, port), TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        der = secured.getpeercert(binary_form=True) or b""
        return ServerCertificate(valid_until(der), distrust, secured.version() or "TLS")
