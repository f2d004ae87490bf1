from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.models import SettingDef

from batcher.errors import ConfigurationError
from sinks.clickhouse import plugin
from sinks.clickhouse.options import PINNED_SETTINGS, ClickHouseOptions
from sinks.clickhouse.sink import ClickHouseSink

SECRET = "canary-9f2c"


def parse(**options: object) -> ClickHouseOptions:
    return ClickHouseOptions.parse({"dsn": "http://host/db", "table": "t", **options})


def test_a_dsn_has_all_that_is_needed() -> None:
    options = parse(dsn="https://us%40er:p%2Fw@host:9440/d%20b?verify=false&compression=zstd")
    assert (options.scheme, options.host, options.port) == ("https", "host", 9440)
    assert (options.user, options.password, options.database) == ("us@er", "p/w", "d b")
    assert (options.tls, options.compression) == ({"verify": "false"}, "zstd")


def test_ports_and_user_have_clickhouses_defaults() -> None:
    assert (parse().port, parse(dsn="https://host").port) == (8123, 8443)
    assert (parse().user, parse().password) == ("default", "")


def test_user_and_password_win_over_those_in_the_dsn() -> None:
    options = parse(dsn="http://a:b@host", user="c", password="d")
    assert (options.user, options.password) == ("c", "d")


@pytest.mark.parametrize(
    ("dsn", "table", "expected"),
    [
        ("http://host", "t", (None, "t")),
        ("http://host/db", "t", ("db", "t")),
        ("http://host/db", "other.t", ("other", "t")),
        ("http://host/db?database=q", "t", ("q", "t")),
        ("chdb:///p?database=q", "t", ("q", "t")),
        ("http://host/db", "other.t.u", ("other", "t.u")),
        ("http://host/db", "default.victim SELECT 666 --", ("default", "victim SELECT 666 --")),
    ],
)
def test_the_table_is_one_name_or_database_and_name(dsn: str, table: str, expected: tuple[str | None, str]) -> None:
    options = parse(dsn=dsn, table=table)
    assert (options.database, options.table) == expected


def test_chdb_takes_a_directory() -> None:
    assert parse(dsn="chdb:///var/lib/b%20c").path == Path("/var/lib/b c")


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [
        ({"dsn": None}, "--clickhouse.dsn"),
        ({"dsn": "ftp://host"}, "--clickhouse.dsn"),
        ({"dsn": "http://"}, "--clickhouse.dsn"),
        ({"dsn": f"http://u:{SECRET}@host:port/"}, "--clickhouse.dsn"),
        ({"dsn": f"http://u:{SECRET}@[host/"}, "--clickhouse.dsn"),
        ({"dsn": "http://a..b"}, "--clickhouse.dsn"),
        ({"dsn": "http://host/d#x"}, "%23"),
        ({"dsn": "http://host/a/b"}, "%2F"),
        ({"dsn": "http://host/%FF"}, "--clickhouse.dsn"),
        ({"dsn": "http://host?verify=false"}, "verify is for https"),
        ({"dsn": "https://host?verify=on"}, "verify is true or false"),
        ({"dsn": "http://host?max_threads=3"}, "--clickhouse.settings"),
        ({"dsn": "http://host?compression=snappy"}, "--clickhouse.dsn"),
        ({"dsn": "chdb://memory"}, "--clickhouse.dsn"),
        ({"dsn": "chdb://"}, "--clickhouse.dsn"),
        ({"dsn": "chdb://relative/path"}, "--clickhouse.dsn"),
        ({"table": None}, "--clickhouse.table"),
        ({"table": "db."}, "--clickhouse.table"),
        ({"table": ".t"}, "--clickhouse.table"),
        ({"table": "t\n"}, "--clickhouse.table"),
        ({"settings": {"max threads": "1"}}, "--clickhouse.settings"),
        ({"settings": "k=v"}, "--clickhouse.settings"),
        ({"connect_timeout_s": 0}, "--clickhouse.connect-timeout"),
        ({"insert_timeout_s": "soon"}, "--clickhouse.insert-timeout"),
        ({"tabel": "t"}, "--clickhouse.tabel"),
    ],
)
def test_a_wrong_option_is_refused_by_its_flag(wrong: dict[str, object], flag: str) -> None:
    with pytest.raises(ConfigurationError, match=flag) as caught:
        parse(**wrong)
    assert "\n" not in str(caught.value)
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", [*PINNED_SETTINGS, "insert_deduplication_token", "input_format_null_as_default"])
def test_a_setting_that_exactly_once_stands_on_cannot_be_changed(name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        parse(settings={name: "1"})
    assert parse(settings={"max_partitions_per_insert_block": "500"}).settings


def test_neither_repr_nor_address_shows_the_password() -> None:
    options = parse(dsn=f"http://user:{SECRET}@host:1/db")
    assert SECRET not in repr(options)
    assert options.address == "http://host:1"


@pytest.mark.parametrize(
    "password", ["9/sec-ret", "9#sec-ret", "9?sec-ret", "9?database=sec-ret", "p/sec-ret", "[sec-ret"]
)
def test_a_password_that_breaks_the_dsn_is_said_and_not_shown(password: str) -> None:
    with pytest.raises(ConfigurationError, match="%40, %2F, %23, %3F") as caught:
        parse(dsn=f"http://etl:{password}@host:8123/db")
    assert "sec-ret" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"


def test_a_path_of_the_embedded_engine_may_hold_an_at_sign() -> None:
    assert parse(dsn="chdb:///data/a@b").path == Path("/data/a@b")


@pytest.mark.parametrize("key", ["ca_cert", "client_cert", "client_cert_key"])
def test_a_certificate_that_is_not_there_is_named(tmp_path: Path, key: str) -> None:
    sink = plugin({"dsn": f"https://host.invalid?{key}={tmp_path}/gone.pem", "table": "t"})
    with pytest.raises(ConfigurationError, match=rf"{key} {tmp_path}/gone.pem cannot be read: No such file"):
        sink.open()


@pytest.mark.parametrize("key", ["ca_cert", "client_cert"])
def test_a_file_that_is_no_certificate_is_named(tmp_path: Path, key: str) -> None:
    file = tmp_path / "a.pem"
    file.write_text("no certificate")
    sink = plugin({"dsn": f"https://127.0.0.1:1?{key}={file}", "table": "t"})
    with pytest.raises(ConfigurationError, match=rf"{key} {file} is no certificate"):
        sink.open()


@pytest.mark.parametrize(
    ("path", "database"), [("my-db", "my-db"), ("a%2Fb", "a/b"), ("ev.v1", "ev.v1"), ("%C3%A4", "ä")]
)
def test_the_path_of_a_dsn_is_the_name_of_a_database(path: str, database: str) -> None:
    assert parse(dsn=f"http://host/{path}").database == database


def test_the_plugin_connects_to_nothing() -> None:
    sink = plugin({"dsn": "http://host.invalid", "table": "t"})
    sink.close()
    sink.close()


@pytest.mark.parametrize(
    ("profile", "readonly", "sent"),
    [("0", 0, {"max_execution_time": "2"}), ("600", 0, {"max_execution_time": "2"}), ("1", 0, {}), ("0", 1, {})],
)
def test_the_server_gets_the_clients_limit_unless_its_own_is_stricter_or_fixed(
    profile: str, readonly: int, sent: dict[str, str]
) -> None:
    client = Mock(spec=Client)
    client.server_settings = {"max_execution_time": SettingDef("max_execution_time", profile, readonly)}
    assert ClickHouseSink(parse(insert_timeout_s=1.5))._time_limit(client) == sent
