"""A password that is rotated while a source runs, on Apache Kafka with SCRAM."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from structlog.testing import capture_logs

from batcher.embedded.jars import Unavailable
from batcher.records import Partition
from batcher.sources.kafka.source import KafkaOptions, KafkaSource
from batcher.testing.listener import RecordingListener, numbered, read, values
from batcher.testing.real_broker import RealBroker

pytestmark = pytest.mark.broker


class SecuredBroker(RealBroker):
    """Listen for clients with a name and password as well, at `secured`."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.secured = f"127.0.0.1:{free.getsockname()[1]}"
        super().__init__()
        for name in ("listeners", "advertised.listeners"):
            self._properties[name] += f",SECURED://{self.secured}"
        self._properties |= {
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SECURED:SASL_PLAINTEXT",
            "listener.name.secured.sasl.enabled.mechanisms": "SCRAM-SHA-256",
            "listener.name.secured.scram-sha-256.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "inter.broker.listener.name": "PLAINTEXT",
        }

    def set_password(self, user: str, password: str) -> None:
        """Give a user this password from now on."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        change = UserScramCredentialUpsertion(user, info, password.encode())
        [done] = self._admin.alter_user_scram_credentials([change]).values()
        done.result(30)


@pytest.fixture
def secured() -> Iterator[SecuredBroker]:
    try:
        running = SecuredBroker()
        running.start()
    except Unavailable as error:
        pytest.skip(f"no Kafka broker: {error}")
    with running:
        yield running


def sasl(password: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": "etl",
        "sasl.password": password,
    }


def test_a_rotated_password_is_read_again_once_the_broker_refuses_the_old_one(secured: SecuredBroker) -> None:
    secured.set_password("etl", "first-word")
    secured.create_topic("events")
    secured.produce("events", numbered(0, 3))
    kept = sasl("first-word")
    source = KafkaSource(KafkaOptions(secured.secured, ("events",), "g", properties=dict(kept), reload=lambda: kept))
    source.open(RecordingListener())
    try:
        runs = read(source, 3)
        secured.set_password("etl", "second-word")
        kept = sasl("second-word")
        # Connections that stand are not asked again; those after a restart are.
        secured.shut_down()
        secured.start()
        secured.produce("events", numbered(3, 3))
        with capture_logs() as lines:
            runs += read(source, 3, 60.0)
    finally:
        source.close()

    assert values(runs) == {Partition("events", 0): numbered(0, 6)}
    assert "credentials_read_again" in {line["event"] for line in lines}
    assert "second-word" not in str(lines)
