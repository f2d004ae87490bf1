"""What can be set about the Delta sink, checked while it is constructed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from batcher.errors import ConfigurationError
from sinks.delta.settings import Delta
from sinks.lake.partition import lake_rules
from sinks.parquet.directory import DirectoryRule
from sinks.parquet.encodings import Encodings

# delta-rs and object_store ignore what they do not know, so that a slip would only be seen when nothing works.
# The names: "Advanced object storage configuration" of delta-rs, and the configuration keys of object_store.
_NAMES: Final = """
    access_key_id secret_access_key session_token token region default_region bucket bucket_name endpoint endpoint_url
    endpoint_url_s3 checksum_algorithm conditional_put copy_if_not_exists disable_tagging imdsv1_fallback
    metadata_endpoint request_payer s3_express server_side_encryption sse_kms_key_id sse_bucket_key_enabled
    sse_customer_key_base64 skip_signature unsigned_payload virtual_hosted_style_request
    container_credentials_relative_uri container_credentials_full_uri container_authorization_token_file
    web_identity_token_file role_arn role_session_name sts_endpoint iam_role_arn iam_role_session_name profile
    endpoint_url_sts s3_locking_provider s3_force_credential_load endpoint_url_dynamodb region_dynamodb
    access_key_id_dynamodb secret_access_key_dynamodb session_token_dynamodb delta_dynamo_table_name
    service_account service_account_path service_account_key application_credentials base_url bearer_token
    account_name account_key access_key client_id client_secret tenant_id authority_id authority_host
    sas_key sas_token use_emulator use_azure_cli use_fabric_endpoint msi_endpoint object_id msi_resource_id
    identity_endpoint federated_token_file container_name fabric_token_service_url fabric_workload_host
    fabric_session_token fabric_cluster_identifier
    allow_http allow_invalid_certificates connect_timeout default_content_type http1_only http2_keep_alive_interval
    http2_keep_alive_timeout http2_keep_alive_while_idle http2_max_frame_size http2_only pool_idle_timeout
    pool_max_idle_per_host proxy_url proxy_ca_certificate proxy_excludes randomize_addresses read_timeout timeout
    user_agent
    max_retries retry_timeout backoff_config.init_backoff backoff_config.max_backoff backoff_config.base
    object_store_concurrency_limit
"""
OPTIONS: Final = frozenset(_NAMES.split())

PREFIXES: Final = ("aws_", "azure_storage_", "azure_", "google_", "gcs_")

# Two processes that commit at once would replace each other's commit: rows would be lost.
UNSAFE: Final = ("s3_allow_unsafe_rename", "mount_allow_unsafe_rename", "allow_unsafe_rename")

# The retries are the pipeline's: with a line in the log for each, and an end when it is told to stop.
WAITS: Final[Mapping[str, str]] = {
    "connect_timeout": "5s",
    "timeout": "60s",
    "max_retries": "2",
    "retry_timeout": "60s",
}

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class DeltaOptions:
    """Hold the settings of a Delta table. `label` is its place without secrets, `directory` that of a local one."""

    uri: str
    label: str
    directory: Path | None
    storage: Mapping[str, str]
    properties: Mapping[str, str]
    rules: tuple[DirectoryRule, ...]
    encodings: Encodings = "v1"
    lake_id: str = ""

    @staticmethod
    def of(section: Delta) -> DeltaOptions:
        """Return the settings; raise ConfigurationError, naming the flag, when they cannot work."""
        path = section.path or ""
        if not path.strip() or "\0" in path:
            raise ConfigurationError("--delta.path is empty: give a directory, or a URI such as s3://bucket/prefix")
        directory = _directory(path)
        parts = urlsplit(path)
        if directory is None and not parts.netloc:
            raise ConfigurationError("--delta.path names no bucket: write s3://bucket/prefix")
        rules = lake_rules(section.partition_by, "--delta.partition-by")
        label = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if directory is None else path
        return DeltaOptions(
            uri=path.rstrip("/") if directory is None else str(directory),
            label=label,
            directory=directory,
            storage={} if directory is not None else _storage(section),
            properties={name: str(value) for name, value in section.property.items()},
            rules=rules,
            encodings=section.encodings,
            lake_id=section.lake_id,
        )


def _directory(path: str) -> Path | None:
    """Return the directory that a path means; None for the URI of something remote."""
    if "://" not in path:
        return Path(path).expanduser().absolute()
    parts = urlsplit(path)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _storage(section: Delta) -> dict[str, str]:
    given = {name: str(value) for name, value in section.option.items()}
    for name, value in given.items():
        _check(name, value, allow_insecure=section.allow_insecure)
    known = {plain(name) for name in given}
    found = {name: value for name, value in WAITS.items() if name not in known} | given
    endpoint = next((given[name] for name in given if plain(name) in ("endpoint", "endpoint_url")), None)
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    if "allow_http" not in known and urlsplit(endpoint).hostname in LOOPBACK:
        found["allow_http"] = "true"
    return found


def plain(name: str) -> str:
    """Return the name of an option without the store that it may begin with."""
    lower = name.lower()
    return next((lower.removeprefix(prefix) for prefix in PREFIXES if lower.startswith(prefix)), lower)


def _check(name: str, value: str, *, allow_insecure: bool) -> None:
    short = plain(name)
    if short in UNSAFE:
        raise ConfigurationError(
            f"--delta.option {name}: two processes could replace each other's commits, and rows would be lost; "
            "use a store with conditional puts, or s3_locking_provider=dynamodb"
        )
    if short not in OPTIONS:
        close = get_close_matches(short, sorted(OPTIONS), n=1)
        hint = f"did you mean {close[0]}?" if close else "see docs/delta.md for those that there are"
        raise ConfigurationError(f"--delta.option {name} is not known: {hint}")
    if short == "allow_invalid_certificates" and value.lower() in ("true", "1", "yes") and not allow_insecure:
        raise ConfigurationError(
            f"--delta.option {name}: anybody could be the store; give --delta.allow-insecure if that is meant"
        )
