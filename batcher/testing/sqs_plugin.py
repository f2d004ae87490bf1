"""Fixtures for tests that need a queue that speaks SQS: `pytest_plugins = ["batcher.testing.sqs_plugin"]`.

`elasticmq` is one server for the whole run; tests take queues of their own from `new_queue`. Without Java, Maven or
boto3 they skip, saying what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from batcher.embedded.elasticmq import ElasticMQ
from batcher.embedded.jars import Unavailable

if TYPE_CHECKING:
    from batcher.testing.sqs import SqsQueue


@pytest.fixture(scope="session")
def elasticmq() -> Iterator[ElasticMQ]:
    """Return a running server, or skip with the reason why there is none; keys for it are in the environment."""
    pytest.importorskip("boto3", reason="needs the extra [sqs]")
    from batcher.testing.sqs import KEYS  # noqa: PLC0415 - it needs boto3

    server = ElasticMQ()
    try:
        server.start()
    except Unavailable as error:
        if os.environ.get("CI"):
            pytest.fail(f"no ElasticMQ: {error}")
        pytest.skip(f"no ElasticMQ: {error}")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in KEYS.items():
            patch.setenv(name, value)
        yield server
    server.stop()


@pytest.fixture
def new_queue(elasticmq: ElasticMQ) -> Iterator[Callable[..., SqsQueue]]:
    """Return a function that makes a queue of its own on `elasticmq`, with the arguments of `SqsQueue`."""
    from batcher.testing.sqs import SqsQueue  # noqa: PLC0415 - it needs boto3

    made: list[SqsQueue] = []

    def make(**options: object) -> SqsQueue:
        made.append(SqsQueue(elasticmq, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        one.close()
