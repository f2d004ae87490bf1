"""The off switch in a real Redis, and in one that is away, wrong or slow."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.embedded.tether import free_ports, tethered
from batcher.off_switch import redis_says
from batcher.off_switch.redis import RedisKey
from tests.harness.patience import wait_for


class Redis:
    """A redis-server on loopback, and what one says to it."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            tethered(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", "s@cret"]),
            cwd=self._directory,
            stdout=subprocess.DEVNULL,
        )
        wait_for(self._answers, "redis-server")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def set(self, value: str, database: int = 0) -> None:
        one = RedisKey(f"redis://:s%40cret@127.0.0.1:{self.port}/{database}", "switch")
        assert one.ask("SET", "switch", value) == b"OK"

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on the PATH (Debian: redis-server)")
    [port] = free_ports(1)
    one = Redis(tmp_path, port)
    one.start()
    yield one
    one.stop()


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
