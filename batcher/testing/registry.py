"""A schema registry on loopback that tests can fill, break and question: as much of the protocol as reading takes."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit
from uuid import UUID

_NOT_FOUND: Final = {"ids": 40403, "guids": 40403, "subjects": 40401}


@dataclass(frozen=True, slots=True)
class Asked:
    """Hold one request: its path with the query, and what it says about who asks."""

    path: str
    authorization: str | None


@dataclass(slots=True)
class _Registry:
    """Hold what is registered, and how questions are answered."""

    guids: bool
    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    status: int | None = None
    body: bytes | None = None
    asked: list[Asked] = field(default_factory=list)


class FakeRegistry:
    """Answer on a port of loopback while in the `with` block.

    Without `guids` it knows none, as Apicurio. With `tls` it speaks HTTPS.
    """

    def __init__(self, *, guids: bool = True, tls: ssl.SSLContext | None = None) -> None:
        self._registry = _Registry(guids)
        self._tls = tls
        self._server: _Server | None = None
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop()

    @property
    def address(self) -> str:
        """Return host and port."""
        return f"127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """Return where it answers."""
        return f"{'https' if self._tls else 'http'}://{self.address}"

    @property
    def asked(self) -> list[Asked]:
        """Return the requests so far; a test may clear them."""
        return self._registry.asked

    def start(self) -> None:
        """Begin to answer; after `stop`, on the same port with the same schemas. Does nothing while it runs."""
        if self._server is None:
            registry = self._registry
            handler = type("_Handler", (_Handler,), {"registry": registry})
            self._server = _Server(("127.0.0.1", self._port), handler)
            self._port = self._server.server_port
            if self._tls is not None:
                self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
            threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on. A second call is harmless."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def answer(self, status: int | None = None, body: bytes | None = None) -> None:
        """Answer every question so from now on; without arguments, as a registry does."""
        self._registry.status, self._registry.body = status, body

    def add(
        self,
        text: str,
        kind: str | None = "AVRO",
        *,
        subject: str = "events-value",
        references: Sequence[tuple[str, str, int]] = (),
        number: int | None = None,
    ) -> int:
        """Register a schema as the next version of a subject, and return its id.

        `references` are names, subjects and versions.
        """
        number = number or len(self._registry.schemas) + 1
        version = 1 + sum(schema["subject"] == subject for schema in self._registry.schemas.values())
        schema: dict[str, Any] = {"id": number, "guid": str(UUID(int=number)), "subject": subject, "version": version}
        schema |= {"schema": text, "references": [dict(zip(_REFERENCE, one, strict=True)) for one in references]}
        if kind is not None:
            schema["schemaType"] = kind
        self._registry.schemas[number] = schema
        return number

    def guid(self, number: int) -> str:
        """Return the GUID of a schema."""
        return str(self._registry.schemas[number]["guid"])


_REFERENCE: Final = ("name", "subject", "version")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that leaves, or shows no certificate, is what tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    registry: _Registry

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Log nothing: a test's output is its own."""

    def do_GET(self) -> None:
        registry = self.registry
        registry.asked.append(Asked(self.path, self.headers.get("Authorization")))
        if registry.status is not None or registry.body is not None:
            self._reply(registry.status or 200, registry.body or b"")
            return
        match [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]:
            case ["schemas", "ids", number]:
                self._find("ids", id=int(number))
            case ["schemas", "guids", guid] if registry.guids:
                self._find("guids", guid=guid)
            case ["subjects", subject, "versions", version]:
                self._find("subjects", subject=subject, version=int(version))
            case _:
                self._reply(404, b"")

    def _find(self, what: str, **wanted: Any) -> None:
        for schema in self.registry.schemas.values():
            if all(schema[name] == value for name, value in wanted.items()):
                self._reply(200, json.dumps(schema).encode())
                return
        error = {"error_code": _NOT_FOUND[what], "message": "not found"}
        self._reply(404, json.dumps(error).encode())

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
