"""What the environment variables of OpenTelemetry ask for.

Only what the SDK leaves to the program is read here. It reads the others itself: service name, resource attributes,
endpoints, headers, timeouts, intervals, sampler, sizes of queues. An empty variable counts as one that is not set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

Signal = Literal["traces", "metrics"]
ExporterKind = Literal["otlp", "console"]

KINDS: Final[Mapping[str, ExporterKind]] = {"otlp": "otlp", "console": "console"}

PROTOCOL: Final = "http/protobuf"
"""The one that the exporter of the extra speaks."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Say which signals go where. `refused` has, for people, what was asked for and cannot be done."""

    traces: tuple[ExporterKind, ...] = ()
    metrics: tuple[ExporterKind, ...] = ()
    refused: tuple[str, ...] = ()
    delta: frozenset[Literal["counter", "histogram"]] = frozenset()
    """Which metrics are told as what was added since the last time."""

    def __bool__(self) -> bool:
        """Return whether anything has to be done about it, and be it to say that it is refused."""
        return bool(self.traces or self.metrics or self.refused)


def requested(variables: Mapping[str, str]) -> ExportRequest:
    """Return what the variables ask for: nothing where none of them is there.

    Without an exporter's name a signal is exported where there is an endpoint for it. The specification would send it
    to localhost in any case, and then each run would complain that nobody is there.
    """
    if _text(variables, "OTEL_SDK_DISABLED").lower() == "true":
        return ExportRequest()
    refused: list[str] = []
    traces = _exporters(variables, "traces", refused)
    metrics = _exporters(variables, "metrics", refused)
    preference = _text(variables, "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE").lower()
    delta: Mapping[str, frozenset[Literal["counter", "histogram"]]] = {
        "delta": frozenset({"counter", "histogram"}),
        "lowmemory": frozenset({"histogram"}),
    }
    return ExportRequest(traces, metrics, tuple(refused), delta.get(preference, frozenset()))


def secrets_in(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield what a message of the SDK may repeat and a log must not have: headers, and passwords of endpoints."""
    for name, text in variables.items():
        if not name.startswith("OTEL_EXPORTER_OTLP_"):
            continue
        if name.endswith("_HEADERS"):
            for header in text.split(","):
                # Whole too: what is no header is repeated in the warning that says so.
                value = header.partition("=")[2].strip()
                for secret in (header.strip(), value, unquote(value)):
                    yield from (secret, secret.rpartition(" ")[2])  # Bearer, Basic and so on are no secrets
        elif name.endswith("_ENDPOINT"):
            yield from _password(text)


def _password(endpoint: str) -> Iterator[str]:
    try:
        password = urlsplit(endpoint).password
    except ValueError:
        return
    if password:
        yield from (password, unquote(password))


def _exporters(variables: Mapping[str, str], signal: Signal, refused: list[str]) -> tuple[ExporterKind, ...]:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    given = [name.strip() for name in _text(variables, variable).split(",") if name.strip()]
    if not given:
        endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
        given = ["otlp"] if any(_text(variables, name) for name in endpoints) else []
    found: list[ExporterKind] = []
    for name in dict.fromkeys(given):
        kind = KINDS.get(name)
        if kind is None:
            if name != "none":
                refused.append(f"{variable}={name}: it can be otlp, console or none")
        elif kind == "console" or _spoken(variables, signal, refused):
            found.append(kind)
    return tuple(found)


def _spoken(variables: Mapping[str, str], signal: Signal, refused: list[str]) -> bool:
    own, common = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
    variable = own if _text(variables, own) else common
    protocol = _text(variables, variable)
    if protocol in ("", PROTOCOL):
        return True
    said = f"{variable}={protocol}: only {PROTOCOL} can be sent; set that, and the collector's port for it, often 4318"
    if said not in refused:
        refused.append(said)
    return False


def _text(variables: Mapping[str, str], name: str) -> str:
    return variables.get(name, "").strip()
