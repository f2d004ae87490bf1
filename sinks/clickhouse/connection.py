"""A client of clickhouse-connect that does nothing by itself: no repeats, no sessions, no shared connections."""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import clickhouse_connect
import urllib3
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import Error
from clickhouse_connect.driver.httpclient import HttpClient

from batcher.errors import ConfigurationError, SinkMisconfigured
from sinks.clickhouse.options import ClickHouseOptions

_BUNDLED: Final = "certifi"
"""The value that the driver takes for `ca_cert` besides a file: the certificates in Python's package of that name."""


def connected(options: ClickHouseOptions) -> Client:
    """Return a client whose server has answered. Raise what the driver does, or ConfigurationError."""
    # Both warn about every failed request. Our exception says it once, with what to do.
    for name in ("clickhouse_connect.driver._backend.http_sync", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if options.path is not None:
        try:
            return clickhouse_connect.get_client(interface="chdb", path=str(options.path))
        except ImportError as error:
            raise ConfigurationError(
                "--clickhouse.dsn: chdb:// needs the extra: pip install 'kafka-batcher[embedded]'"
            ) from error
    _require_certificates(options.tls)
    extra: dict[str, Any] = dict(options.tls)
    client = clickhouse_connect.get_client(
        host=options.host,
        port=options.port,
        interface=options.scheme,
        username=options.user,
        password=options.secret,
        database=options.database,
        compress=False if options.compression == "none" else options.compression,
        # Whole seconds are all the driver takes here; exact values are set below. It asks the server at once. A server
        # that accepts connections and answers nothing is not waited for as long as for an insert.
        connect_timeout=math.ceil(options.connect_timeout_s),
        send_receive_timeout=math.ceil(options.connect_timeout_s),
        query_retries=0,
        autogenerate_session_id=False,
        dedicated_pool=True,
        client_name="batcher",
        **extra,
    )
    if isinstance(client, HttpClient):
        client.http_retries = 0
    patient(client, options, options.connect_timeout_s)
    return client


def _require_certificates(tls: Mapping[str, str]) -> None:
    # The driver's own errors name no file, and do not say that a file is at fault.
    files = {option: tls[option] for option in ("ca_cert", "client_cert", "client_cert_key") if option in tls}
    if files.get("ca_cert") == _BUNDLED:
        del files["ca_cert"]
    for option, file in files.items():
        try:
            Path(file).open("rb").close()
        except OSError as error:
            raise ConfigurationError(f"--clickhouse.dsn: {option} {file} cannot be read: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    option = "ca_cert"
    try:
        if option in files:
            context.load_verify_locations(files[option])
        option = "client_cert"
        if option in files:
            # Without a password here OpenSSL asks for one at the terminal.
            context.load_cert_chain(files[option], files.get("client_cert_key"), password="")
    except ssl.SSLError as error:
        key = " with its key, not encrypted" if option == "client_cert" else ""
        raise ConfigurationError(f"--clickhouse.dsn: {option} {files[option]} is no certificate{key}") from error


def patient(client: Client, options: ClickHouseOptions, read_s: float) -> None:
    """Let a client wait this long for answers: a moment for questions at the start, longer for inserts."""
    if isinstance(client, HttpClient):
        client.timeout = urllib3.Timeout(connect=options.connect_timeout_s, read=read_s)


def open_failure(options: ClickHouseOptions, error: Error | OSError) -> SinkMisconfigured | None:
    """Explain why an embedded engine did not start: its own text says it only in part."""
    if options.path is None or not isinstance(error, Error) or "Unable to open the chdb engine" not in str(error):
        return None
    text = str(error)
    where = f"--clickhouse.dsn: {options.address}"
    if "already initialized with path" in text:
        return SinkMisconfigured(f"{where}: this process already has chDB open on another path; one is all it can have")
    if options.path.exists() and not options.path.is_dir():
        return SinkMisconfigured(f"{where} is a file; name a directory")
    if "Permission denied" in text or "filesystem error" in text:
        return SinkMisconfigured(f"{where}: the directory cannot be created or written")
    return SinkMisconfigured(
        f"{where} cannot be opened: another process has it, most likely a second batcher; one process is all it takes"
    )
