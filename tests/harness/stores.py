"""S3 servers for tests: moto in this process, in every run, and VersityGW as the real one where Go is.

Both take the same account. `bucket` makes a bucket; `objects` and `uploads` look into one with another client than
ours.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

import boto3
import pytest
from botocore.config import Config
from moto.server import ThreadedMotoServer

from batcher.embedded.jars import Unavailable, cache_dir, made_once
from batcher.embedded.server import LocalServer, got

ACCESS_KEY: Final = "batcher-test"
SECRET_KEY: Final = "not-a-secret-of-anybody"
REGION: Final = "us-east-1"

ENVIRONMENT: Final[Mapping[str, str]] = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_REGION": REGION,
}
"""What a process needs to be let in."""

VERSITYGW_VERSION: Final = "1.8.0"
BUILD_TIMEOUT_S: Final = 900.0


class S3Server:
    """Look at what an S3 server holds, with a client of other people's making."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}, proxies={}, retries={"max_attempts": 1}),
        )

    def bucket(self, name: str) -> str:
        """Make a bucket and return its name."""
        self.client.create_bucket(Bucket=name)
        return name

    def objects(self, bucket: str, prefix: str = "") -> list[str]:
        """Return the keys of a bucket, ascending."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return sorted(one["Key"] for page in pages for one in page.get("Contents", ()))

    def uploads(self, bucket: str) -> list[str]:
        """Return the keys of uploads that nobody completed."""
        return [one["Key"] for one in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]

    def get(self, bucket: str, key: str) -> bytes:
        """Return the content of an object."""
        content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

    def put(self, bucket: str, key: str, content: bytes = b"") -> None:
        """Put an object."""
        self.client.put_object(Bucket=bucket, Key=key, Body=content)


@contextmanager
def moto() -> Iterator[S3Server]:
    """Run moto's server on a thread of this process. It checks no signature."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()


class VersityGateway(LocalServer):
    """Run VersityGW over a directory: it checks signatures, conditions and checksums as AWS does."""

    what = f"VersityGW {VERSITYGW_VERSION}"
    prefix = "batcher-versitygw-"
    start_timeout_s = 30.0

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def fetch(self) -> Path:
        """Return its program, built by Go if it is not yet. Raise Unavailable without Go."""
        there = cache_dir() / "versitygw"
        if there.is_file():
            return there
        place = cache_dir() / f"versitygw-{VERSITYGW_VERSION}"
        if not place.is_dir():
            go = shutil.which("go")
            if go is None:
                raise Unavailable(f"no go on the PATH, and no versitygw in {there}")
            made_once(place, lambda scratch: _built(go, scratch))
        return place / "versitygw"

    def kill(self) -> None:
        """Kill it; what it stored stays, and `start` runs it again on the same port."""
        self._end(self.stops_by)

    def _command(self, directory: Path) -> Sequence[str]:
        (directory / "data").mkdir(exist_ok=True)
        account = ["--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION]
        return [str(self.fetch()), *account, "--port", f"127.0.0.1:{self.port}", "--quiet", "posix", "data"]

    def _is_ready(self) -> bool:
        try:
            got(self.endpoint)
        except HTTPError:
            return True  # it wants a signature
        except OSError:
            return False
        return True


@contextmanager
def versitygw() -> Iterator[tuple[VersityGateway, S3Server]]:
    """Run VersityGW; skip the test, with the reason, where it cannot be had."""
    server = VersityGateway()
    try:
        server.start()
    except Unavailable as error:
        pytest.skip(str(error))
    with server:
        yield server, S3Server(server.endpoint)


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def uri_of(server: S3Server, bucket: str, prefix: str, **options: str) -> str:
    """Return the URI of a prefix on a server, as `--parquet.path` takes it."""
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return f"s3://{bucket}/{prefix}?endpoint={server.endpoint}{more}"


def _built(go: str, scratch: Path) -> Path:
    place = scratch / "versitygw"
    # Without optimisation it takes two minutes of a core instead of four, and is fast enough for tests.
    flags = "-modcacherw -gcflags=all=-N"
    environment = {**os.environ, "GOBIN": str(place), "GOFLAGS": flags, "CGO_ENABLED": "0"}
    package = f"github.com/versity/versitygw/cmd/versitygw@v{VERSITYGW_VERSION}"
    try:
        subprocess.run(
            [go, "install", package], env=environment, check=True, capture_output=True, timeout=BUILD_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"go could not build versitygw {VERSITYGW_VERSION}: {type(error).__name__}") from error
    return place
