"""Servers over HTTP and TLS: certificates, and whether clocks agree."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from pydantic import SecretStr

from batcher.cli.support.doctor import certificate
from batcher.cli.support.doctor.finding import HealthFinding, doubtful, fine, wrong
from batcher.settings import Settings, section_of
from batcher.sources.kafka.settings import Kafka

TIMEOUT_S: Final = 5.0

APART: Final = timedelta(seconds=5)
"""A Date in an answer has whole seconds and is some old; clocks that are kept agree much better."""

_PORTS: Final = {"http": 80, "https": 443}
_SECURED: Final = frozenset({"ssl", "sasl_ssl"})


@dataclass(frozen=True, slots=True)
class Address:
    """Name a server and the files with which it is trusted. `what` is the setting that names it."""

    what: str
    host: str
    port: int
    secured: bool
    trusted: Path | None = None


def addresses(settings: Settings) -> Iterator[Address]:
    """Yield the servers over HTTP that the chosen parts name, each once."""
    seen: set[tuple[str, int]] = set()
    for what, text in _urls(settings):
        url = urlsplit(text)
        try:
            port = url.port or _PORTS[url.scheme]
        except ValueError:  # the part that uses it says so
            continue
        if url.hostname and (url.hostname, port) not in seen:
            seen.add((url.hostname, port))
            ca = parse_qs(url.query).get("ca_cert", [])
            yield Address(what, url.hostname, port, url.scheme == "https", Path(ca[0]) if ca else None)


def _urls(settings: Settings) -> Iterator[tuple[str, str]]:
    chosen = {section_of(settings, kind)[0] for kind in ("source", "sink", "format")}
    for name in chosen - {""}:
        section = getattr(settings, name)
        for field in type(section).model_fields:
            value: Any = getattr(section, field)
            text = value.get_secret_value() if isinstance(value, SecretStr) else value
            if isinstance(text, str) and text.startswith(("http://", "https://")):
                yield f"--{name}.{field.replace('_', '-')}", text


def clocks(settings: Settings) -> Iterator[HealthFinding]:
    """Compare this clock with those of the servers that say what time it is."""
    for one in addresses(settings):
        asked = datetime.now(UTC)
        try:
            theirs = _date_of(one)
        except (OSError, ssl.SSLError, http.client.HTTPException):
            continue  # that it cannot be reached is a finding of the part
        if theirs is None:
            continue
        apart = theirs - asked
        if abs(apart) > APART:
            side = "ahead" if apart > timedelta(0) else "behind"
            yield wrong(
                "clock",
                f"{one.host}:{one.port} is {abs(apart.total_seconds()):,.0f} s {side}: "
                "set this clock or that one (chrony, systemd-timesyncd); latency and expiry are wrong until then",
            )
        else:
            yield fine("clock", f"agrees with {one.host}:{one.port}")


def _date_of(one: Address) -> datetime | None:
    kind = http.client.HTTPSConnection if one.secured else http.client.HTTPConnection
    # The time is the same whoever the server is, and nothing secret is sent.
    extra: dict[str, Any] = {"context": ssl._create_unverified_context()} if one.secured else {}  # noqa: S323, SLF001
    connection = kind(one.host, one.port, timeout=TIMEOUT_S, **extra)
    try:
        connection.request("HEAD", "/")
        text = connection.getresponse().getheader("Date")
        return None if text is None else parsedate_to_datetime(text)
    except ValueError:
        return None
    finally:
        connection.close()


def tls(settings: Settings) -> Iterator[HealthFinding]:
    """Look at the certificates of the servers, and at those in files that the settings name."""
    kafka = section_of(settings, "source")[1]
    found = [one for one in addresses(settings) if one.secured]
    properties: Mapping[str, str] = kafka.options if isinstance(kafka, Kafka) else {}
    if properties.get("security.protocol", "").lower() in _SECURED:
        trusted = properties.get("ssl.ca.location", "")
        found += _brokers(kafka, Path(trusted) if trusted and trusted != "probe" else None)
    for one in found:
        yield _of_server(one)
    for name in ("ssl.certificate.location", "ssl.ca.location"):
        path = properties.get(name, "")
        if path and path != "probe" and Path(path).is_file():
            yield _of_file(f"-X {name}", Path(path))


def _brokers(kafka: object, trusted: Path | None) -> list[Address]:
    assert isinstance(kafka, Kafka)
    made = []
    for text in (kafka.brokers or "").split(","):
        host, _, port = text.strip().rpartition(":")
        if host and port.isdecimal():
            made.append(Address("-b", host.rpartition("//")[2].strip("[]"), int(port), True, trusted))
    return made


def _of_server(one: Address) -> HealthFinding:
    place = f"{one.host}:{one.port}"
    try:
        shown = certificate.ask(one.host, one.port, one.trusted)
    except (OSError, ValueError) as error:
        return wrong("tls", f"{place}: no TLS there: {_reason(error)}; check {one.what}", 69)
    if shown.distrust:
        return wrong(
            "tls",
            f"{place}: its certificate is not trusted: {shown.distrust} (it ends {_day(shown.until)}); name the "
            "authority that signed it, or the host as the certificate has it",
        )
    return _ending(f"{place}: {shown.protocol}, its certificate", shown.until)


def _of_file(what: str, path: Path) -> HealthFinding:
    try:
        until = min(map(certificate.valid_until, certificate.certificates_in(path)))
    except (OSError, ValueError) as error:
        return doubtful("tls", f"{what} {path}: {_reason(error)}")
    return _ending(f"{what} {path}", until)


def _ending(what: str, until: datetime) -> HealthFinding:
    left = until - datetime.now(UTC)
    if left < timedelta(0):
        return wrong("tls", f"{what} ended {_day(until)}; have it made anew")
    said = f"{what} ends {_day(until)}, in {left.days} days"
    return doubtful("tls", f"{said}; have it made anew") if left.days < certificate.SOON_DAYS else fine("tls", said)


def _day(moment: datetime) -> str:
    return moment.date().isoformat()


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
