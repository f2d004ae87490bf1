"""A client for one bucket, made from a location and options. The only module that loads `obstore`."""

from __future__ import annotations

import http.client
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from batcher.errors import ConfigurationError, SettingRefused
from sinks.stores.credentials import Profile, profile_of, provider
from sinks.stores.location import Location
from sinks.stores.options import StoreOptions, is_open

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

# Retries are the pipeline's, each with a line in the log.
NO_RETRIES: Final = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}

ENDPOINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gcs": ("GOOGLE_BASE_URL",),
    "azure": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""The variables that name an endpoint, as each provider's own tools have them."""


def require_client(label: str, setting: str) -> None:
    """Raise ConfigurationError where the client is not installed."""
    if find_spec("obstore") is None:
        raise ConfigurationError(
            f"{setting} {label} needs the Python module 'obstore', which is not installed: "
            "pip install 'kafka-batcher[object-store]'"
        )


def connected(place: Location, options: StoreOptions, environment: Mapping[str, str] = os.environ) -> Client:
    """Return a client for the bucket of a location. It may ask AWS for the bucket's region, and nothing else.

    Raise SettingRefused for options that cannot work.
    """
    from obstore import store as stores  # noqa: PLC0415 - heavy

    profile = _profile(options, environment) if options.family == "s3" else None
    endpoint = _endpoint(place, options, profile, environment)
    config: dict[str, Any] = options.own()
    more: dict[str, Any] = {}
    made: Any
    if options.family == "s3":
        made = stores.S3Store
        # One DELETE each: not every store has the other form, and it is rare.
        config |= {"disable_bulk_delete": "true", "region": _region(place, options, profile, endpoint, environment)}
        if profile is not None and profile.has_credentials:
            more["credential_provider"] = provider(profile, environment)
    elif options.family == "gcs":
        made = stores.GCSStore
    else:
        made = stores.AzureStore
    if endpoint is not None:
        config["base_url" if options.family == "gcs" else "endpoint"] = endpoint
    try:
        client: Client = made(
            place.bucket, config=config, client_options=options.client(), retry_config=NO_RETRIES, **more
        )
    except Exception as error:  # the client's errors have no base that is not Exception
        # Its text may quote a value.
        raise SettingRefused(
            f"{options.setting}: no client for {place.label} can be made of these options: one has a value that the "
            "store's client does not understand; check how they are written"
        ) from error
    return client


def _profile(options: StoreOptions, environment: Mapping[str, str]) -> Profile | None:
    """Return the profile of the shared files whose settings hold; None where something before it in order does."""
    named = options.values.get("profile")
    if named is None:
        given = {"access_key_id", "skip_signature", "web_identity_token_file", "container_credentials_relative_uri"}
        if given & set(options.values):
            return None
        if all(environment.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")):
            return None
        if all(environment.get(name) for name in ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")):
            return None
    try:
        return profile_of(named, environment)
    except LookupError as error:
        raise SettingRefused(f"{options.setting} profile: {error}") from error


def _endpoint(
    place: Location, options: StoreOptions, profile: Profile | None, environment: Mapping[str, str]
) -> str | None:
    """Return the URL to speak to; None for the provider's own. Raise SettingRefused for one that is open to others."""
    endpoint = options.endpoint
    if endpoint is None:
        names = ENDPOINTS[options.family]
        found = next((name for name in names if environment.get(name)), None)
        endpoint = environment[found] if found else None
        if endpoint is None and profile is not None:
            endpoint = profile.settings.get("endpoint_url")
        if endpoint is not None and is_open(endpoint):
            options.require_secure(f"the endpoint of {found or 'the profile'} with http")
    if endpoint is not None and options.values.get("addressing") == "virtual":
        parts = urlsplit(endpoint)
        if not parts.netloc.startswith(f"{place.bucket}."):
            endpoint = urlunsplit(parts._replace(netloc=f"{place.bucket}.{parts.netloc}"))
    return endpoint


def _region(
    place: Location,
    options: StoreOptions,
    profile: Profile | None,
    endpoint: str | None,
    environment: Mapping[str, str],
) -> str:
    region = (
        options.values.get("region")
        or environment.get("AWS_REGION")
        or environment.get("AWS_DEFAULT_REGION")
        or (profile.settings.get("region") if profile is not None else None)
    )
    if not region and endpoint is None:
        region = bucket_region(place.bucket, options.connect_timeout_s)
    return region or "us-east-1"


def bucket_region(bucket: str, timeout_s: float, host: str = "s3.amazonaws.com") -> str | None:
    """Return the region of a bucket of AWS, which says it to everybody; None where it does not answer so."""
    connection = http.client.HTTPSConnection(host, timeout=timeout_s)
    with suppress(OSError, http.client.HTTPException, ValueError):
        try:
            connection.request("HEAD", f"/{bucket}")
            return connection.getresponse().getheader("x-amz-bucket-region")
        finally:
            connection.close()
    return None
