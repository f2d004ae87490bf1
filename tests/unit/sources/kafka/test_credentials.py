"""Secrets that were rotated are read again when a broker refuses the old ones."""

from collections.abc import Callable, Mapping

from structlog.testing import capture_logs

from batcher.errors import ConfigurationError
from batcher.sources.kafka.credentials import AGAIN_AFTER_S, Credentials
from batcher.testing.clock import ManualClock


def properties(password: str) -> dict[str, str]:
    return {"sasl.username": "etl", "sasl.password": password}


def credentials(
    reload: Callable[[], Mapping[str, str]] | None, clock: ManualClock
) -> tuple[Credentials, list[tuple[str, str]]]:
    used: list[tuple[str, str]] = []
    return Credentials(properties("old"), reload, lambda name, word: used.append((name, word)), clock), used


def test_a_rotated_password_is_used_once_the_old_one_is_refused_and_never_said() -> None:
    clock = ManualClock()
    held, used = credentials(lambda: properties("n3w-secret"), clock)

    with capture_logs() as lines:
        held.refused()
        clock.advance(AGAIN_AFTER_S)
        held.refused()

    assert used == [("etl", "n3w-secret")]
    assert [line["event"] for line in lines] == ["credentials_read_again"]
    assert "n3w-secret" not in str(lines)


def test_the_same_password_is_not_handed_on_again() -> None:
    held, used = credentials(lambda: properties("old"), ManualClock())

    held.refused()

    assert used == []


def test_files_are_not_read_at_every_refusal() -> None:
    clock, asked = ManualClock(), []

    def reload() -> dict[str, str]:
        asked.append(clock())
        return properties("old")

    held, _ = credentials(reload, clock)
    for _ in range(5):
        held.refused()
    clock.advance(AGAIN_AFTER_S)
    held.refused()

    assert len(asked) == 2


def test_a_file_that_cannot_be_read_stops_nothing_and_is_said() -> None:
    def reload() -> dict[str, str]:
        raise ConfigurationError("the file of BATCHER_KAFKA_OPTIONS_FILE cannot be read")

    held, used = credentials(reload, ManualClock())
    with capture_logs() as lines:
        held.refused()

    assert used == []
    assert [line["event"] for line in lines] == ["credentials_unreadable"]


def test_without_a_place_to_read_them_from_nothing_happens() -> None:
    held, used = credentials(None, ManualClock())

    held.refused()

    assert used == []
