"""Schemas from a registry: what is found is kept, what nobody can say pauses, what does not exist is a dead letter."""

import datetime as dt
import logging
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from batcher.errors import ConfigurationError, SchemasUnavailable
from batcher.formats.registry_options import SchemaRegistryOptions
from batcher.formats.schema_registry import FileSchemas, RegistrySchemas, SchemaAwaited, find_all, registry
from batcher.formats.schema_registry.connection import connect
from batcher.formats.writer_schema import SchemaKey, SchemaUnknown, WriterSchema
from batcher.options import SecretStr
from batcher.testing.clock import ManualClock
from batcher.testing.registry import FakeRegistry

pytest.importorskip("confluent_kafka.schema_registry", reason="needs the extra [registry]")

GRACE_S = 10.0


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        yield running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def schemas(server: FakeRegistry, clock: ManualClock) -> Iterator[RegistrySchemas]:
    opened = RegistrySchemas(options(server.url), clock=clock)
    yield opened
    opened.close()


def options(url: str, **given: Any) -> SchemaRegistryOptions:
    return SchemaRegistryOptions(url=SecretStr(url), **given)


def outlast_grace(schemas: RegistrySchemas, clock: ManualClock, key: SchemaKey) -> None:
    with pytest.raises(SchemaAwaited):
        schemas.get(key)
    clock.advance(GRACE_S)


def test_a_schema_is_asked_for_once_whatever_the_message_type() -> None:
    asked: list[int] = []

    def get_schema(number: int) -> Any:
        asked.append(number)
        return SimpleNamespace(schema_type="PROTOBUF", schema_str="message A {}", references=[])

    # Not over HTTP: Confluent's client has a memory of its own.
    client: Any = SimpleNamespace(get_schema=get_schema)
    schemas = RegistrySchemas(options("http://localhost"), client=client)

    found = [schemas.get(SchemaKey(5, indexes=path)) for path in ((0,), (1,), (0,))]

    assert found == [WriterSchema("protobuf", "message A {}")] * 3
    assert asked == [5]


def test_a_schema_is_found_by_its_guid(server: FakeRegistry, schemas: RegistrySchemas) -> None:
    number = server.add('"string"')

    for _ in range(2):
        assert schemas.get(SchemaKey(guid=server.guid(number))) == WriterSchema("avro", '"string"')
    assert len(server.asked) == 1


@pytest.mark.parametrize(("given", "kind"), [(None, "avro"), ("AVRO", "avro"), ("JSON", "json")])
def test_the_kind_of_a_schema_is_the_one_it_was_registered_with(
    server: FakeRegistry, schemas: RegistrySchemas, given: str | None, kind: str
) -> None:
    assert schemas.get(SchemaKey(server.add("{}", given))).kind == kind


def test_a_schema_of_a_kind_that_nobody_reads_is_as_good_as_none(
    server: FakeRegistry, schemas: RegistrySchemas
) -> None:
    key = SchemaKey(server.add("<xsd/>", "XSD"))

    for _ in range(2):
        with pytest.raises(SchemaUnknown, match="schema 1 is none of AVRO, PROTOBUF, JSON"):
            schemas.get(key)
    assert len(server.asked) == 1


def test_references_are_followed_to_the_end_the_deepest_first(server: FakeRegistry, schemas: RegistrySchemas) -> None:
    server.add("C", subject="c/d e")
    server.add("B", subject="b", references=[("name.c", "c/d e", 1)])
    server.add("old", subject="a")
    server.add("A", subject="a", references=[("name.c", "c/d e", 1)])
    number = server.add("root", references=[("name.b", "b", 1), ("name.a", "a", 2)])

    found = schemas.get(SchemaKey(number))

    assert list(found.references.items()) == [("name.c", "C"), ("name.b", "B"), ("name.a", "A")]
    assert [asked.path for asked in server.asked[1:]] == [
        "/subjects/b/versions/1?deleted=true",
        "/subjects/c%2Fd%20e/versions/1?deleted=true",
        "/subjects/a/versions/2?deleted=true",
    ]


def test_references_that_cannot_be_told_apart_or_have_no_end_are_refused(
    server: FakeRegistry, schemas: RegistrySchemas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MAX_REFERENCES", 3)
    server.add("1", subject="a")
    server.add("2", subject="a")
    twice = server.add("root", references=[("a", "a", 1), ("a", "a", 2)])
    server.add("loop", subject="loop", references=[("loop", "loop", 1)])
    loop = server.add("root", references=[("loop", "loop", 1)])
    for number in range(4):
        server.add(str(number), subject="chain", references=[(str(number), "chain", number)] if number else [])
    chain = server.add("root", references=[("4", "chain", 4)])

    for number, message in ((twice, "two schemas by one name"), (loop, "refers to itself"), (chain, "more than 3")):
        with pytest.raises(SchemaUnknown, match=message):
            schemas.get(SchemaKey(number))


def test_a_reference_that_is_missing_is_awaited_as_the_schema_itself(
    server: FakeRegistry, schemas: RegistrySchemas, clock: ManualClock
) -> None:
    key = SchemaKey(server.add("root", references=[("a", "a", 1)]))
    outlast_grace(schemas, clock, key)

    with pytest.raises(SchemaUnknown):
        schemas.get(key)


def test_a_registry_that_is_gone_pauses_and_is_asked_again(server: FakeRegistry, schemas: RegistrySchemas) -> None:
    key = SchemaKey(server.add('"int"'))
    server.stop()
    for _ in range(2):
        with pytest.raises(SchemasUnavailable, match=r"does not answer \(ConnectError: .*refused"):
            schemas.get(key)

    server.start()

    assert schemas.get(key).text == '"int"'
    server.stop()
    assert schemas.get(key).text == '"int"'


def test_a_registry_that_says_nothing_is_not_waited_for_longer_than_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        schemas = RegistrySchemas(options(url, timeout=timedelta(milliseconds=50)))
        with pytest.raises(SchemasUnavailable, match="ReadTimeout"):
            schemas.get(SchemaKey(1))
        schemas.close()


@pytest.mark.parametrize("status", [301, 400, 408, 429, 500, 503])
def test_an_answer_that_says_nothing_about_the_schema_pauses_and_is_not_repeated_here(
    server: FakeRegistry, schemas: RegistrySchemas, status: int
) -> None:
    server.answer(status, b"<html>secret</html>")

    with pytest.raises(SchemasUnavailable, match=rf"{server.address} cannot answer \(HTTP {status}\)$") as raised:
        schemas.get(SchemaKey(1))

    assert not isinstance(raised.value, SchemaAwaited)
    assert len(server.asked) == 1


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"[]", b"{}", b'{"schema": 5}', b"null", b"", b'"text"'])
def test_a_page_that_is_no_schema_pauses_and_is_forgotten(
    server: FakeRegistry, schemas: RegistrySchemas, body: bytes
) -> None:
    server.add('"int"')
    server.answer(200, body)
    with pytest.raises(SchemasUnavailable) as raised:
        schemas.get(SchemaKey(1))
    assert "log in" not in str(raised.value)
    server.answer(404, body)
    with pytest.raises(SchemasUnavailable, match="check the path"):
        schemas.get(SchemaKey(1))

    server.answer()

    assert schemas.get(SchemaKey(1)).text == '"int"'


@pytest.mark.parametrize("status", [401, 403])
def test_a_registry_that_refuses_this_client_pauses_and_is_an_alarm_once(
    server: FakeRegistry, schemas: RegistrySchemas, status: int
) -> None:
    key = SchemaKey(server.add('"int"'))

    def refused_twice() -> list[Any]:
        server.answer(status)
        with capture_logs() as lines:
            for _ in range(2):
                with pytest.raises(SchemasUnavailable, match=rf"HTTP {status}\): check --registry.user"):
                    schemas.get(SchemaKey(99))
        return [(line["event"], line["log_level"], line["status"]) for line in lines]

    assert refused_twice() == [("registry_refused", "error", status)]
    server.answer()
    assert schemas.get(key).text == '"int"'
    assert refused_twice() == [("registry_refused", "error", status)]


def test_something_that_is_no_registry_makes_no_dead_letters(server: FakeRegistry, clock: ManualClock) -> None:
    server.add('"int"')
    schemas = RegistrySchemas(options(f"{server.url}/wrong/path"), clock=clock)

    with capture_logs() as lines:
        for key in (SchemaKey(1), SchemaKey(guid=server.guid(1)), SchemaKey(1)):
            with pytest.raises(SchemasUnavailable, match=r"check the path of --registry\.url") as raised:
                schemas.get(key)
            assert not isinstance(raised.value, SchemaAwaited)
            clock.advance(2 * GRACE_S)

    assert [line["event"] for line in lines] == ["registry_not_recognised"]
    schemas.close()


def test_a_schema_that_is_not_known_is_awaited_and_then_does_not_exist(
    server: FakeRegistry, schemas: RegistrySchemas, clock: ManualClock
) -> None:
    for left in (10, 4):
        with pytest.raises(SchemaAwaited, match=f"has no schema 7 yet: it is asked for {left} s more"):
            schemas.get(SchemaKey(7))
        clock.advance(6.0)

    for _ in range(3):
        with pytest.raises(SchemaUnknown, match=r"has no schema 7$"):
            schemas.get(SchemaKey(7))
    assert len(server.asked) == 3


def test_a_schema_that_arrives_late_is_found_also_after_it_was_given_up(
    server: FakeRegistry, schemas: RegistrySchemas, clock: ManualClock
) -> None:
    outlast_grace(schemas, clock, SchemaKey(1))
    server.add('"in time"')
    assert schemas.get(SchemaKey(1)).text == '"in time"'

    outlast_grace(schemas, clock, SchemaKey(2))
    for _ in range(2):
        with pytest.raises(SchemaUnknown):
            schemas.get(SchemaKey(2))
        clock.advance(registry.UNKNOWN_S)
    server.add('"too late"')
    assert schemas.get(SchemaKey(2)).text == '"too late"'


def test_the_time_a_schema_is_awaited_begins_anew_after_the_registry_was_down(
    server: FakeRegistry, schemas: RegistrySchemas, clock: ManualClock
) -> None:
    outlast_grace(schemas, clock, SchemaKey(7))
    server.answer(503)
    with pytest.raises(SchemasUnavailable):
        schemas.get(SchemaKey(7))
    server.answer()

    clock.advance(GRACE_S - 1)
    with pytest.raises(SchemaAwaited):
        schemas.get(SchemaKey(7))
    clock.advance(1.0)
    with pytest.raises(SchemaUnknown):
        schemas.get(SchemaKey(7))


def test_a_registry_without_guids_has_no_schema_for_one(clock: ManualClock) -> None:
    key = SchemaKey(guid="00000000-0000-0000-0000-000000000001")
    with FakeRegistry(guids=False) as server:
        schemas = RegistrySchemas(options(server.url), clock=clock)
        with capture_logs() as lines:
            outlast_grace(schemas, clock, key)
            with pytest.raises(SchemaUnknown, match=key.guid):
                schemas.get(key)
        assert lines == []
        schemas.close()


def test_schemas_that_are_awaited_are_awaited_together(
    server: FakeRegistry, schemas: RegistrySchemas, clock: ManualClock
) -> None:
    keys = [SchemaKey(7), SchemaKey(server.add('"int"')), SchemaKey(8)]
    with pytest.raises(SchemaAwaited):
        find_all(schemas, keys)
    clock.advance(GRACE_S)

    found = find_all(schemas, keys)

    assert [type(found[key]) for key in keys] == [SchemaUnknown, WriterSchema, SchemaUnknown]
    server.stop()
    server.asked.clear()
    with pytest.raises(SchemasUnavailable):
        find_all(schemas, [SchemaKey(20), SchemaKey(21)])


def test_what_does_not_exist_is_remembered_within_bounds(
    schemas: RegistrySchemas, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_MAX_REMEMBERED", 2)
    keys = [SchemaKey(number) for number in range(100, 105)]
    for key in keys:
        with pytest.raises(SchemaAwaited):
            schemas.get(key)
    clock.advance(GRACE_S)

    for key in keys[:2:-1]:
        with pytest.raises(SchemaUnknown):
            schemas.get(key)
    assert len(schemas._first_asked) <= 2
    assert len(schemas._unknown) <= 2


def test_one_thread_waits_for_an_answer_and_the_other_goes_on_with_what_is_known() -> None:
    entered, release = threading.Event(), threading.Event()
    asked: list[int] = []

    def get_schema(number: int) -> Any:
        asked.append(number)
        if number == 2:
            entered.set()
            assert release.wait(10.0)
        return SimpleNamespace(schema_type="AVRO", schema_str=str(number), references=[])

    client: Any = SimpleNamespace(get_schema=get_schema)
    schemas = RegistrySchemas(options("http://localhost"), client=client)
    schemas.get(SchemaKey(1))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(schemas.get(SchemaKey(2)).text)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert entered.wait(10.0)

    assert schemas.get(SchemaKey(1)).text == "1"

    release.set()
    for thread in threads:
        thread.join(10.0)
    assert found == ["2", "2"]
    assert asked == [1, 2]


@pytest.mark.parametrize(
    ("url", "given", "authorization"),
    [
        ("http://{}", {}, None),
        ("http://us%40er:p%40ss%3Aword@{}", {}, "Basic dXNAZXI6cEBzczp3b3Jk"),
        ("http://{}", {"user": "us@er", "password": SecretStr("p@ss:word")}, "Basic dXNAZXI6cEBzczp3b3Jk"),
        ("http://{}", {"user": "user"}, "Basic dXNlcjo="),
        ("http://{}", {"token": SecretStr("t0ken-of-mine")}, "Bearer t0ken-of-mine"),
    ],
)
def test_credentials_reach_the_registry_and_nothing_else(
    server: FakeRegistry,
    caplog: pytest.LogCaptureFixture,
    url: str,
    given: dict[str, Any],
    authorization: str | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    number = server.add('"int"')
    chosen = options(url.format(server.address), **given)
    assert list(chosen.impossible()) == []
    schemas = RegistrySchemas(chosen)

    with capture_logs() as lines:
        schemas.get(SchemaKey(number))
        server.answer(401)
        with pytest.raises(SchemasUnavailable) as refused:
            schemas.get(SchemaKey(2))
        server.stop()
        with pytest.raises(SchemasUnavailable) as gone:
            schemas.get(SchemaKey(2))

    assert [asked.authorization for asked in server.asked] == [authorization] * 2
    said = f"{caplog.text} {lines} {refused.value} {gone.value} {chosen!r}"
    assert not any(secret in said for secret in ("p@ss", "p%40ss", "t0ken", "dXN"))
    schemas.close()


def test_several_registries_are_tried_in_turn(server: FakeRegistry) -> None:
    number = server.add('"int"')
    schemas = RegistrySchemas(options(f"http://127.0.0.1:1, {server.url}/"))

    assert schemas.get(SchemaKey(number)).text == '"int"'
    schemas.close()


def test_authorities_and_a_certificate_of_ones_own_are_used(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server.pem")
    tls.load_verify_locations(tmp_path / "ca.pem")
    tls.verify_mode = ssl.CERT_REQUIRED
    with FakeRegistry(tls=tls) as server:
        number = server.add('"int"')
        ca, client = str(tmp_path / "ca.pem"), str(tmp_path / "client.pem")
        both = RegistrySchemas(options(server.url, ca=ca, certificate=client, key_password=SecretStr("of the key")))
        assert schema_text(both, number) == '"int"'
        with pytest.raises(SchemasUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            schema_text(RegistrySchemas(options(server.url)), number)
        with pytest.raises(SchemasUnavailable):
            schema_text(RegistrySchemas(options(server.url, ca=ca)), number)


@pytest.mark.parametrize("given", [{"ca": "/no/such/file"}, {"certificate": "/no/such/file"}, {"ca": __file__}])
def test_a_certificate_that_cannot_be_used_is_refused_before_anything_is_asked(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"^--registry\.ca, .* cannot be used: \S+"):
        RegistrySchemas(options("https://localhost", **given))


def test_without_the_extra_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'kafka-batcher\[registry\]'$"):
        connect(options("http://localhost"))


SECRET = SecretStr("s3cret")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"url": "localhost:8081"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://[::1"}, "url"),
        ({"url": "http://host:port"}, "url"),
        ({"url": "http://good:1,mock://bad"}, "url"),
        ({"url": "http://user:s3c/ret@host"}, "url"),
        ({"url": "http://user:s3cret@host", "user": "other"}, "user"),
        ({"url": "http://user:s3cret@host", "password": SECRET}, "user"),
        ({"url": "http://user:s3cret@host", "token": SECRET}, "token"),
        ({"url": "http://host", "password": SECRET}, "password"),
        ({"url": "http://host", "user": "a:b"}, "user"),
        ({"url": "http://host", "user": "a", "token": SECRET}, "token"),
        ({"url": "http://host", "token": "s3cret\n"}, "token"),
        ({"url": "http://host", "token": "s3crät"}, "token"),
        ({"url": "http://host", "key": "k.pem"}, "certificate"),
        ({"url": "http://host", "key_password": SECRET}, "certificate"),
    ],
)
def test_options_that_cannot_work_are_named_without_their_secrets(given: dict[str, Any], field: str) -> None:
    faults = list(SchemaRegistryOptions(**given).impossible())

    assert [fault.field for fault in faults] == [field]
    assert "s3c" not in faults[0].message


def test_several_registries_may_be_named() -> None:
    assert list(options("http://a:1,https://b/path").impossible()) == []


def test_a_file_has_the_schema_of_every_record(tmp_path: Path) -> None:
    path = tmp_path / "events.avsc"
    path.write_text('"größe"', encoding="utf-8")

    schemas = FileSchemas(path, "avro")

    assert schemas.get(None) == schemas.get(SchemaKey(1)) == WriterSchema("avro", '"größe"')


@pytest.mark.parametrize(("held", "why"), [(None, "No such file"), (b" \n", "empty"), (b"\xff\xfe", "UTF-8")])
def test_a_file_without_a_schema_is_refused(tmp_path: Path, held: bytes | None, why: str) -> None:
    path = tmp_path / "events.avsc"
    if held is not None:
        path.write_bytes(held)

    with pytest.raises(ConfigurationError, match=rf"^--decode\.writer-schema .*events\.avsc: .*{why}"):
        FileSchemas(path, "avro")


def schema_text(schemas: RegistrySchemas, number: int) -> str:
    try:
        return schemas.get(SchemaKey(number)).text
    finally:
        schemas.close()


def make_certificates(directory: Path) -> None:
    """Write `ca.pem`, and `server.pem` and `client.pem`, with their keys, that it signed."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = dt.datetime.now(dt.UTC)
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ca")])
    for name in ("ca", "server", "client"):
        key = ca_key if name == "ca" else ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(ca_key, hashes.SHA256())
        )
        secret: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if name == "client":
            secret = serialization.BestAvailableEncryption(b"of the key")
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        if name != "ca":
            pem += key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
        (directory / f"{name}.pem").write_bytes(pem)
