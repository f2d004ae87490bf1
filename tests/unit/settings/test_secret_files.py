"""Secrets that came from files are read anew when asked for, by the same rules as at the start."""

import os
from pathlib import Path

import pytest

from batcher.cli.support import wiring
from batcher.errors import ConfigurationError
from batcher.settings import Parser, Settings, load
from batcher.sources.kafka.settings import Kafka
from batcher.telemetry import logs
from sinks.clickhouse import mapping
from sinks.clickhouse.settings import ClickHouse

KAFKA = ["-b", "k:1", "-t", "t", "-g", "g"]


@pytest.fixture(autouse=True)
def nothing_hidden_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_secrets", set())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.write_text("sasl.username=svc\nsasl.password=before-1\n")
    return path


def settings_of(argv: list[str], **variables: str | os.PathLike[str]) -> Settings:
    parser = Parser("batcher")
    parser.add_settings()
    return load(parser, argv, {name: str(value) for name, value in variables.items()}).settings


def test_properties_of_a_rotated_file_are_the_new_ones_and_are_hidden(file: Path) -> None:
    reload = wiring.kafka_options_of(settings_of(KAFKA, BATCHER_KAFKA_OPTIONS_FILE=file)).reload
    assert reload is not None

    file.write_text("sasl.username=svc\nsasl.password=after-22\n\n")

    assert reload() == {"sasl.username": "svc", "sasl.password": "after-22"}
    assert logs.scrub("refused: after-22") == "refused: ***"


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b" pass word ", " pass word "),
        (b" pass word \n", " pass word "),
        (b"\tpassword\t\r\n", "\tpassword\t"),
        (b"password\n\n", "password\n"),
        (b"\npass\rword\r", "\npass\rword\r"),
        ("gehei\u00a0\n".encode(), "gehei\u00a0"),
        (b"\n", ""),
        (b"", ""),
    ],
)
def test_of_a_file_that_is_a_secret_only_one_line_end_does_not_count(
    content: bytes, secret: str, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)

    password = settings_of([], BATCHER_CLICKHOUSE_PASSWORD_FILE=path).section(ClickHouse).password

    assert password is not None
    assert password.get_secret_value() == secret


def test_of_a_file_of_pairs_blanks_around_names_and_values_do_not_count(file: Path) -> None:
    file.write_bytes(b"\r\n  sasl.username = svc \r\n# why\r\nsasl.password=in between \r\n\r\n")

    options = settings_of(KAFKA, BATCHER_KAFKA_OPTIONS_FILE=file).section(Kafka).options

    assert options == {"sasl.username": "svc", "sasl.password": "in between"}


def test_a_property_given_by_flag_wins_over_a_rotated_file_too(file: Path) -> None:
    settings = settings_of([*KAFKA, "-X", "sasl.username=mine"], BATCHER_KAFKA_OPTIONS_FILE=file)
    reload = wiring.kafka_options_of(settings).reload
    assert reload is not None

    file.write_text("sasl.username=theirs\nsasl.password=after-22\n")

    assert reload() == {"sasl.username": "mine", "sasl.password": "after-22"}


def test_a_file_that_went_away_is_named_with_its_variable(file: Path) -> None:
    reload = wiring.kafka_options_of(settings_of(KAFKA, BATCHER_KAFKA_OPTIONS_FILE=file)).reload
    assert reload is not None
    file.unlink()

    with pytest.raises(ConfigurationError, match=f"BATCHER_KAFKA_OPTIONS_FILE: {file}: No such file"):
        reload()


def test_a_file_that_no_longer_holds_pairs_is_refused_without_its_text(file: Path) -> None:
    reload = wiring.kafka_options_of(settings_of(KAFKA, BATCHER_KAFKA_OPTIONS_FILE=file)).reload
    assert reload is not None
    file.write_text("hunter22")

    with pytest.raises(ConfigurationError, match="BATCHER_KAFKA_OPTIONS_FILE: ") as error:
        reload()
    assert "hunter22" not in str(error.value)


def test_without_a_secret_file_nothing_is_read_again() -> None:
    assert wiring.kafka_options_of(settings_of([*KAFKA, "-X", "sasl.password=fixed-1"])).reload is None


def test_the_password_of_a_file_is_read_again_only_where_it_counts(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("before-1\n")
    of_file = settings_of([], BATCHER_CLICKHOUSE_PASSWORD_FILE=path)
    of_flag = settings_of(["--clickhouse.password", "flag-1"], BATCHER_CLICKHOUSE_PASSWORD_FILE=path)
    again = of_file.model_copy().read_again("clickhouse.password")
    path.write_text("after-22\n")

    assert again is not None
    password = again().section(ClickHouse).password
    assert password is not None
    assert password.get_secret_value() == "after-22"
    assert of_flag.read_again("clickhouse.password") is None
    assert of_file.read_again("kafka.options") is None


def test_the_sink_is_given_what_reads_the_password_of_a_file_anew(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("before-1\n")
    settings = settings_of(["--sink", "clickhouse"], BATCHER_CLICKHOUSE_PASSWORD_FILE=path)
    password = mapping(settings.section(ClickHouse), wiring.context_of(settings, "clickhouse"))["password"]
    path.write_text("after-22\n")

    assert callable(password)
    assert password() == "after-22"
    assert logs.scrub("after-22") == "***"
    path.unlink()
    with pytest.raises(ConfigurationError, match="BATCHER_CLICKHOUSE_PASSWORD_FILE"):
        password()
