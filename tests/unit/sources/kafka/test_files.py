"""A file that a property names is named when it is the fault."""

from pathlib import Path

import pytest

from batcher.errors import ConfigurationError
from batcher.sources.kafka.cluster import connect
from batcher.sources.kafka.files import check_files

LOCATIONS = ["ssl.ca.location", "ssl.certificate.location", "ssl.key.location", "ssl.crl.location"]


def settings(name: str, path: Path) -> dict[str, object]:
    return {"bootstrap.servers": "b:1", "group.id": "g", "security.protocol": "ssl", "log_level": 0, name: str(path)}


@pytest.mark.parametrize("name", [*LOCATIONS, "ssl.keystore.location"])
def test_a_file_that_is_not_there_is_named_with_its_property(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"-X {name}: '.*/absent\.pem' cannot be read: No such file"):
        connect(settings(name, tmp_path / "absent.pem"))


@pytest.mark.parametrize("name", LOCATIONS)
def test_a_file_that_is_something_else_is_named_with_its_property(name: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.pem").write_text("no certificate")

    with pytest.raises(ConfigurationError, match=rf"-X {name}: '.*/wrong\.pem' is not what it should be"):
        connect(settings(name, tmp_path / "wrong.pem"))


def test_a_password_that_is_missing_is_asked_for_by_name(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("x")

    with pytest.raises(ConfigurationError, match=r"-X ssl\.keystore\.password"):
        connect(settings("ssl.keystore.location", tmp_path / "store"))


def test_what_names_no_file_is_not_looked_for(tmp_path: Path) -> None:
    check_files({"ssl.ca.location": "probe", "sasl.password": "/nope", "ssl.crl.location": "", "client.id": "a"})
    check_files({"ssl.ca.location": str(tmp_path)})
