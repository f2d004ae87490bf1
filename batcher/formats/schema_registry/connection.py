"""Open a client of a registry as the options say. Confluent's package is imported here, and only when it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from batcher.errors import ConfigurationError
from batcher.formats.registry_options import SchemaRegistryOptions
from batcher.options import SecretStr, masked_url

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient


@dataclass(frozen=True, slots=True)
class RegistryPlace:
    """Say where the registry is: URLs as the client takes them, a name for people, and the user in the URL."""

    urls: tuple[str, ...]
    name: str
    user: str = ""
    password: str = ""


def place_of(options: SchemaRegistryOptions) -> RegistryPlace:
    """Return where the registry is. The URLs are without users: the HTTP client logs them as they are."""
    parts = [urlsplit(url) for url in options.urls()]
    named = next((one for one in parts if one.username), None)
    urls = tuple(_without_user(one) for one in parts)
    name = ",".join(map(masked_url, urls))
    if named is None:
        return RegistryPlace(urls, name)
    return RegistryPlace(urls, name, unquote(named.username or ""), unquote(named.password or ""))


def connect(options: SchemaRegistryOptions) -> SchemaRegistryClient:
    """Return a client that asks once and neither sleeps nor repeats; nothing is sent yet.

    Raise ConfigurationError without the extra, and for files and settings that the client does not take.
    """
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415 - 0.2 s, and an extra
    except ImportError as error:
        raise ConfigurationError(
            "--registry.url: the client of schema registries is not installed: pip install 'kafka-batcher[registry]'"
        ) from error
    try:
        return SchemaRegistryClient(_properties(options))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError; its text names no file
        why = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigurationError(
            f"--registry.ca, --registry.certificate or --registry.key: cannot be used: {why}"
        ) from error


def _properties(options: SchemaRegistryOptions) -> dict[str, Any]:
    place = place_of(options)
    properties: dict[str, Any] = {
        "url": ",".join(place.urls),
        "timeout": options.timeout.total_seconds(),
        "max.retries": 0,
        "ssl.ca.location": options.ca,
        "ssl.certificate.location": options.certificate,
        "ssl.key.location": options.key,
        "ssl.key.password": _plain(options.key_password),
    }
    if options.token is not None:
        properties |= {
            "bearer.auth.credentials.source": "STATIC_TOKEN",
            "bearer.auth.token": _plain(options.token),
            # The client asks for it always, and only Confluent's cloud looks at it.
            "bearer.auth.logical.cluster": "",
        }
    user = options.user or place.user
    if user:
        password = place.password if options.password is None else _plain(options.password)
        properties["basic.auth.user.info"] = f"{user}:{password}"
    return properties


def _without_user(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
