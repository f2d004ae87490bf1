"""The off switch in a real Redis, and in one that is away, wrong or slow."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from batcher.embedded.jars import Unavailable
from batcher.embedded.server import LocalServer
from batcher.embedded.tether import free_ports
from batcher.off_switch import redis_says
from batcher.off_switch.redis import RedisKey
from tests.harness.patience import PATIENCE_S


class Redis(LocalServer):
    """A redis-server on loopback, and what one says to it."""

    what = "redis-server"
    prefix = "batcher-redis-"
    start_timeout_s = PATIENCE_S

    def __init__(self) -> None:
        super().__init__()
        [self.port] = free_ports(1)

    def fetch(self) -> Path:
        found = shutil.which("redis-server")
        if found is None:
            raise Unavailable("no redis-server on the PATH (Debian: redis-server)")
        return Path(found)

    def set(self, value: str, database: int = 0) -> None:
        one = RedisKey(f"redis://:s%40cret@127.0.0.1:{self.port}/{database}", "switch")
        assert one.ask("SET", "switch", value) == b"OK"

    def _command(self, directory: Path) -> Sequence[str]:
        del directory
        return [str(self.fetch()), "--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", "s@cret"]

    def _is_ready(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True


@pytest.fixture
def redis() -> Iterator[Redis]:
    try:
        with Redis() as one:
            yield one
    except Unavailable as error:
        pytest.skip(str(error))


def test_the_key_says_stopped_and_nothing_else_does_also_after_redis_was_away(redis: Redis) -> None:
    ask = redis_says(f"redis://:s%40cret@127.0.0.1:{redis.port}", "switch")
    assert not ask()
    redis.set("stopped")
    assert ask()
    redis.set("stopped, or so")
    assert not ask()
    redis.set("stopped", database=3)
    assert redis_says(f"redis://default:s%40cret@127.0.0.1:{redis.port}/3", "switch")()

    redis.stop()
    with pytest.raises(OSError, match="refused"):
        ask()
    redis.start()
    redis.set("stopped")
    assert ask()


def test_a_wrong_password_is_an_error_that_does_not_show_it(redis: Redis) -> None:
    ask = redis_says(f"redis://:wrong@127.0.0.1:{redis.port}", "switch")

    with pytest.raises(ValueError, match="AUTH with WRONGPASS") as found:
        ask()
    assert "wrong@" not in str(found.value)


def test_what_is_no_redis_is_an_error_and_not_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ask = redis_says(f"redis://127.0.0.1:{listener.getsockname()[1]}", "switch")
        with pytest.raises(OSError, match="timed out"):
            ask()  # it listens and does not answer
    with pytest.raises(OSError, match="refused"):
        ask()
