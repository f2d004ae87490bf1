"""ClickHouse over HTTPS: TLS in front of the embedded engine, with certificates of an authority made for the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import sinks
from batcher.errors import SinkMisconfigured, SinkUnavailable, Unreachable
from batcher.protocols import Sink
from batcher.records import Partition
from batcher.testing.clickhouse import ClickHouseServer, embedded_engine_missing
from batcher.testing.values import make_block
from tests.harness.secured_broker import Certificates
from tests.harness.tls_front import TlsFront

EVENTS = Partition("events", 0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    if (reason := embedded_engine_missing()) is not None:
        pytest.skip(reason)
    with ClickHouseServer(tmp_path_factory.mktemp("behind")) as running:
        running.query("CREATE DATABASE IF NOT EXISTS shop")
        yield running


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    made = Certificates(tmp_path_factory.mktemp("certificates"))
    made.give("server", "127.0.0.1")
    made.give("client", "etl")
    return made


def given(certificates: Certificates, name: str) -> Path:
    return certificates.authority.with_name(f"{name}.pem")


def table_of(server: ClickHouseServer, name: str) -> str:
    server.query(
        f"CREATE TABLE shop.{name} (id Int64, _topic String, _partition Int32, _offset Int64) "
        "ENGINE = MergeTree ORDER BY id"
    )
    return name


def sink_at(port: int, table: str, query: str) -> Sink:
    return sinks.load("clickhouse")({"dsn": f"https://127.0.0.1:{port}/shop?{query}", "table": table})


def write(sink: Sink, *ids: int) -> None:
    table = pa.table({"id": pa.array(ids, pa.int64())})
    sink.write(make_block(table, partition=EVENTS, coordinates=("_topic", "_partition", "_offset")))


def test_rows_arrive_over_tls_and_the_certificate_of_the_server_may_change_on_the_way(
    server: ClickHouseServer, certificates: Certificates
) -> None:
    table = table_of(server, "renewed")
    with TlsFront(server.port, given(certificates, "server")) as front:
        sink = sink_at(front.port, table, f"ca_cert={certificates.authority}")
        sink.open()
        write(sink, 1, 2)
        front.renew(certificates.give("server", "127.0.0.1"))
        front.cut()
        try:
            write(sink, 3)
        except SinkUnavailable:
            write(sink, 3)
        sink.close()
    assert server.query(f"SELECT sum(id) FROM shop.{table}") == [(6,)]


def test_a_server_that_wants_a_certificate_gets_one(server: ClickHouseServer, certificates: Certificates) -> None:
    table, client = table_of(server, "mutual"), given(certificates, "client")
    with TlsFront(server.port, given(certificates, "server"), certificates.authority) as front:
        query = f"ca_cert={certificates.authority}&client_cert={client}&client_cert_key={client}"
        sink = sink_at(front.port, table, query)
        sink.open()
        write(sink, 7)
        sink.close()
        with pytest.raises(Unreachable):
            sink_at(front.port, table, f"ca_cert={certificates.authority}").open()
    assert server.query(f"SELECT sum(id) FROM shop.{table}") == [(7,)]


@pytest.mark.parametrize("wrong", ["authority", "host"])
def test_a_certificate_that_is_not_the_servers_is_named_and_nothing_is_sent(
    wrong: str, server: ClickHouseServer, certificates: Certificates, tmp_path: Path
) -> None:
    table = table_of(server, f"wrong_{wrong}")
    other = Certificates(tmp_path / "other")
    shown = given(certificates, "server") if wrong == "authority" else certificates.give("elsewhere", "other.example")
    trusted = other.authority if wrong == "authority" else certificates.authority
    with TlsFront(server.port, shown) as front:
        sink = sink_at(front.port, table, f"ca_cert={trusted}")
        with pytest.raises((SinkMisconfigured, Unreachable), match=r"(?i)certificate"):
            sink.open()
        sink.close()
