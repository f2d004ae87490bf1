"""What librdkafka does not accept is named as it was given: the property, and the file where that is the fault."""

from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from batcher.errors import ConfigurationError, SettingRefused
from batcher.sources.kafka.cluster import connect
from batcher.sources.kafka.properties import accepted, check_files

LOCATIONS = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.crl.location"]


def settings(name: str, path: Path) -> dict[str, object]:
    return {"bootstrap.servers": "b:1", "group.id": "g", "security.protocol": "ssl", "log_level": 0, name: str(path)}


@pytest.mark.parametrize("name", [*LOCATIONS, "ssl.keystore.location"])
def test_a_file_that_is_not_there_is_named_with_its_property(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"-X {name}: '.*/absent\.pem' cannot be read: No such file") as error:
        connect(settings(name, tmp_path / "absent.pem"))
    assert error.value.exit_code == 78


@pytest.mark.parametrize("name", LOCATIONS)
def test_a_file_that_is_something_else_is_named_with_its_property(name: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.pem").write_text("no certificate")

    with pytest.raises(ConfigurationError, match=rf"-X {name}: '.*/wrong\.pem' is not what it should be") as error:
        connect(settings(name, tmp_path / "wrong.pem"))
    assert error.value.exit_code == 78


def test_a_password_that_is_missing_is_asked_for_by_name(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("x")

    with pytest.raises(SettingRefused, match=r"-X ssl\.keystore\.password"):
        connect(settings("ssl.keystore.location", tmp_path / "store"))


def test_what_names_no_file_is_not_looked_for(tmp_path: Path) -> None:
    check_files({"ssl.ca.location": "probe", "sasl.password": "/nope", "ssl.crl.location": "", "client.id": "a"})
    check_files({"ssl.ca.location": str(tmp_path)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sasl.passwort", "x"),
        ("linger.ms", "abc"),
        ("acks", "some"),
        ("compression.type", "rar"),
        ("retries", "x"),
        ("session.timeout.ms", "99999999"),
        ("fetch.max.bytes", "1"),
    ],
)
def test_a_property_that_the_client_refuses_is_a_wrong_setting_by_the_name_it_was_given(name: str, value: str) -> None:
    with pytest.raises(SettingRefused, match=rf"^-X {name}: .*; -X list shows the properties there are$"):
        connect({"bootstrap.servers": "b:1", "group.id": "g", "log_level": 0, name: value})


def test_a_machine_that_has_no_thread_for_a_client_is_no_wrong_setting() -> None:
    failed = KafkaError(KafkaError._CRIT_SYS_RESOURCE, "Failed to create thread: Resource temporarily unavailable")

    with pytest.raises(ConfigurationError, match="cannot be made: Failed to create thread") as error, accepted({}):
        raise KafkaException(failed)
    assert error.value.exit_code == 78
