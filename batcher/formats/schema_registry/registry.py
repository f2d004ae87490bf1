"""Schemas from a registry that speaks Confluent's protocol: theirs, Apicurio, Karapace, Redpanda.

Whether to wait is decided here, waiting is the engine's: it pauses at SchemasUnavailable and decodes the same batch
again. A registry that does not answer, or refuses to, says nothing about a record. A schema that it does not know may
be one that has not reached this replica yet. So it is asked for again for a while, and only then its records are dead
letters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from batcher.errors import SchemasUnavailable
from batcher.formats.registry_options import SchemaRegistryOptions
from batcher.formats.schema_registry.connection import connect, place_of
from batcher.formats.writer_schema import SchemaKey, SchemaKind, SchemaUnknown, WriterSchema, WriterSchemas

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

log = structlog.get_logger(__name__)

MAX_REFERENCES: Final = 100
"""The most schemas that one may refer to, however deep."""

UNKNOWN_S: Final = 60.0
"""How long a schema that does not exist is not asked for again."""

_MAX_REMEMBERED: Final = 10_000
"""Records may name any number of schemas that do not exist."""

_KINDS: Final[dict[str, SchemaKind]] = {"AVRO": "avro", "PROTOBUF": "protobuf", "JSON": "json"}
_NOT_FOUND: Final = range(40400, 40500)
"""What a registry says about a schema, a subject or a version that it does not have."""

_Answer = TypeVar("_Answer")


class SchemaAwaited(SchemasUnavailable):
    """Report that the registry answers and does not know the schema yet."""


class RegistrySchemas:
    """Find schemas in a registry, each once (`writer_schema.WriterSchemas`). For several threads.

    `clock` counts seconds. `client` takes the place of the one that the options describe. Raise ConfigurationError when
    that one cannot be made.
    """

    def __init__(
        self,
        options: SchemaRegistryOptions,
        *,
        clock: Callable[[], float] = time.monotonic,
        client: SchemaRegistryClient | None = None,
    ) -> None:
        self._client = connect(options) if client is None else client
        self._name = place_of(options).name
        self._clock = clock
        self._grace_s = options.grace.total_seconds()
        self._found: dict[SchemaKey, WriterSchema] = {}
        self._first_asked: dict[SchemaKey, float] = {}
        """When the registry first did not know a schema."""
        self._unknown: dict[SchemaKey, tuple[float, str]] = {}
        """What does not exist: until when that is believed, and what to say."""
        self._failed_at = float("-inf")
        self._recognised = False
        """It has spoken as a registry does."""
        self._alarmed = False
        self._asking = threading.Lock()

    def get(self, key: SchemaKey) -> WriterSchema:
        key = replace(key, indexes=())
        # Not under the lock: while one thread waits for an answer, the other goes on with schemas that are known.
        found = self._found.get(key)
        if found is not None:
            return found
        with self._asking:
            found = self._found.get(key)
            if found is None:
                found = self._found[key] = self._asked_for(key)
        return found

    def close(self) -> None:
        """Close the connections. A second call is harmless."""
        self._client.close()

    def _asked_for(self, key: SchemaKey) -> WriterSchema:
        believed_until, message = self._unknown.get(key, (float("-inf"), ""))
        if self._clock() < believed_until:
            raise SchemaUnknown(message)
        try:
            found = self._fetched(key)
        except _NotFound as error:
            now = self._clock()
            # A registry that was down may not have read all of its log yet.
            since = max(self._first_asked.get(key, now), self._failed_at)
            left_s = since + self._grace_s - now
            if left_s > 0:
                _remember(self._first_asked, key, since)
                raise SchemaAwaited(
                    f"schema registry {self._name} has no {key} yet: it is asked for {left_s:.0f} s more"
                ) from error
            message = f"schema registry {self._name} has no {key}"
            _remember(self._unknown, key, (now + UNKNOWN_S, message))
            raise SchemaUnknown(message) from error
        except SchemaUnknown as error:
            _remember(self._unknown, key, (self._clock() + UNKNOWN_S, str(error)))
            raise
        self._first_asked.pop(key, None)
        return found

    def _fetched(self, key: SchemaKey) -> WriterSchema:
        if key.guid:
            schema = self._ask(lambda: self._client.get_schema_by_guid(key.guid))
        else:
            schema = self._ask(lambda: self._client.get_schema(key.id))
        text = self._text(schema)
        kind = _KINDS.get(str(schema.schema_type or "AVRO").upper())
        if kind is None:
            raise SchemaUnknown(f"schema registry {self._name}: {key} is none of {', '.join(_KINDS)}")
        references: dict[str, str] = {}
        self._refer(key, schema, {}, references)
        return WriterSchema(kind, text, references)

    def _refer(
        self, key: SchemaKey, schema: Any, seen: dict[tuple[str, int], str | None], texts: dict[str, str]
    ) -> None:
        """Add what a schema refers to, the deepest first. What is `seen` without a text is on the way to this one."""
        for reference in schema.references or ():
            where = (reference.subject, reference.version)
            if where not in seen:
                if len(seen) >= MAX_REFERENCES:
                    raise SchemaUnknown(f"{key} refers to more than {MAX_REFERENCES} schemas")
                seen[where] = None
                referred = self._version(*where)
                text = self._text(referred)
                self._refer(key, referred, seen, texts)
                seen[where] = text
            found = seen[where]
            if found is None:
                raise SchemaUnknown(f"{key} refers to itself through its references")
            if texts.setdefault(reference.name, found) != found:
                raise SchemaUnknown(f"{key} refers to two schemas by one name")

    def _version(self, subject: str, version: int) -> Any:
        # Also where it was deleted since: what refers to it is still in use.
        return self._ask(lambda: self._client.get_version(subject, version, deleted=True)).schema

    def _text(self, schema: Any) -> str:
        if isinstance(schema.schema_str, str):
            self._works()
            return schema.schema_str
        # The client takes any object for a schema, and would remember it.
        self._client.clear_caches()  # type: ignore[no-untyped-call]
        raise self._failure("answers without the text of a schema")

    def _ask(self, question: Callable[[], _Answer], *, probe: bool = True) -> _Answer:
        """Return the answer; raise _NotFound when there is none, SchemasUnavailable when nobody can say.

        Not everything that answers 404 is a registry. Where in doubt, and with `probe`, another question settles that.
        """
        try:
            return question()
        # The client promises no set of errors: there are its own, those of HTTP, and what a strange answer leads to.
        except Exception as error:
            status, code = getattr(error, "http_status_code", None), getattr(error, "error_code", None)
            if status == 404:
                if code in _NOT_FOUND:
                    self._works()
                if self._recognised or (probe and self._is_registry()):
                    raise _NotFound from error
            raise self._failure_of(error, status) from error

    def _is_registry(self) -> bool:
        """Ask for what every registry either has or denies in words of its own: Apicurio does not know GUIDs."""
        with suppress(_NotFound):
            self._text(self._ask(lambda: self._client.get_schema(1), probe=False))
        return self._recognised

    def _works(self) -> None:
        self._recognised = True
        self._alarmed = False

    def _failure_of(self, error: Exception, status: int | None) -> SchemasUnavailable:
        if status in (401, 403):
            hint = "check --registry.user and --registry.password, or --registry.token"
            self._alarm("registry_refused", status, hint)
            return self._failure(f"refuses this client (HTTP {status}): {hint}")
        if status == 404:
            hint = "check the path of --registry.url"
            self._alarm("registry_not_recognised", status, hint)
            return self._failure(f"does not answer as a registry does (HTTP {status}): {hint}")
        if status is not None:
            return self._failure(f"cannot answer (HTTP {status})")
        # Only this text is worth its place and comes from the system: others may quote a header with a password.
        text = f": {str(error).partition(chr(10))[0]}" if type(error).__name__ == "ConnectError" else ""
        return self._failure(f"does not answer ({type(error).__name__}{text})")

    def _failure(self, what: str) -> SchemasUnavailable:
        self._failed_at = self._clock()
        return SchemasUnavailable(f"schema registry {self._name} {what}")

    def _alarm(self, event: str, status: int, hint: str) -> None:
        """Say once, until it works again, what a person has to do; the engine repeats the question."""
        if not self._alarmed:
            self._alarmed = True
            log.error(event, registry=self._name, status=status, hint=hint)


def find_all(schemas: WriterSchemas, keys: Iterable[SchemaKey]) -> Mapping[SchemaKey, WriterSchema | SchemaUnknown]:
    """Return what there is for each key, also that there is none.

    Schemas that are awaited are awaited together, not one after the other. Raise SchemasUnavailable as
    `WriterSchemas.get` does.
    """
    found: dict[SchemaKey, WriterSchema | SchemaUnknown] = {}
    awaited: SchemaAwaited | None = None
    for key in keys:
        try:
            found[key] = schemas.get(key)
        except SchemaUnknown as unknown:
            found[key] = unknown
        except SchemaAwaited as error:
            awaited = error
    if awaited is not None:
        raise awaited
    return found


class _NotFound(Exception):
    """Say that the registry does not have what it was asked for."""


def _remember(memory: dict[SchemaKey, Any], key: SchemaKey, value: Any) -> None:
    """Keep a value, and not more than so many: the oldest goes first."""
    if key not in memory and len(memory) >= _MAX_REMEMBERED:
        del memory[next(iter(memory))]
    memory[key] = value
