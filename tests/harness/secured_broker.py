"""Apache Kafka with TLS, client certificates and SASL, and certificates of an authority of its own."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from batcher.embedded.tether import free_ports
from batcher.testing.real_broker import RealBroker

USER: Final = "etl"
PLAIN_PASSWORD: Final = "plain-word"
_LOGIN: Final = "org.apache.kafka.common.security"


class Certificates:
    """Keep the files of an authority, and of certificates that it has given out, in a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._authority = trustme.CA()
        self.authority = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(self.authority)

    def give(self, name: str, *hosts: str, until: dt.datetime | None = None) -> Path:
        """Write the certificate for some hosts with its key into one file, and return the file.

        Another of the same name takes its place. The key is in PKCS #8, the only form that Kafka reads.
        """
        given = self._authority.issue_cert(*hosts, common_name=name, not_after=until)
        key = serialization.load_pem_private_key(given.private_key_pem.bytes(), None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = self._directory / f"{name}.pem"
        file.write_bytes(key + b"".join(one.bytes() for one in given.cert_chain_pems))
        return file


class SecuredBroker(RealBroker):
    """Listen at `tls`, at `mutual` (client certificates) and at `sasl` (TLS with SCRAM, PLAIN and OAUTHBEARER).

    `bootstrap` stays open to all, for the test itself. `stale` has a certificate that has expired, `elsewhere` one of
    another host.
    """

    def __init__(self, certificates: Certificates) -> None:
        super().__init__()
        self._certificates = certificates
        listeners = ("tls", "mutual", "sasl", "stale", "elsewhere")
        self._at = {name: f"127.0.0.1:{port}" for name, port in zip(listeners, free_ports(len(listeners)), strict=True)}
        named = "".join(f",{name.upper()}://{address}" for name, address in self._at.items())
        for name in ("listeners", "advertised.listeners"):
            self._properties[name] += named
        protocols = "".join(f",{name.upper()}:{'SASL_SSL' if name == 'sasl' else 'SSL'}" for name in listeners)
        self._properties["listener.security.protocol.map"] += protocols
        self._properties["inter.broker.listener.name"] = "PLAINTEXT"
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        for name in listeners:
            self._certify(
                name,
                certificates.give(
                    name,
                    "elsewhere.example" if name == "elsewhere" else "127.0.0.1",
                    until=yesterday if name == "stale" else None,
                ),
            )
        self._properties |= {
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.mutual.ssl.truststore.type": "PEM",
            "listener.name.mutual.ssl.truststore.location": str(certificates.authority),
            "listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN,OAUTHBEARER",
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": f"{_LOGIN}.scram.ScramLoginModule required;",
            "listener.name.sasl.plain.sasl.jaas.config": (
                f'{_LOGIN}.plain.PlainLoginModule required user_{USER}="{PLAIN_PASSWORD}";'
            ),
            # Takes tokens that nobody has signed.
            "listener.name.sasl.oauthbearer.sasl.jaas.config": (
                f'{_LOGIN}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
            ),
        }

    def at(self, listener: str) -> str:
        """Return the address of a listener."""
        return self._at[listener]

    def renew(self, listener: str) -> None:
        """Give a listener another certificate of the same authority, from the next start on."""
        self._certify(listener, self._certificates.give(listener, "127.0.0.1"))

    def set_password(self, password: str) -> None:
        """Give the user this password for SCRAM from now on."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(USER, info, password.encode())
        [done] = self._admin.alter_user_scram_credentials([change]).values()
        done.result(30)

    def _certify(self, listener: str, file: Path) -> None:
        self._properties |= {
            f"listener.name.{listener}.ssl.keystore.type": "PEM",
            f"listener.name.{listener}.ssl.keystore.location": str(file),
        }
