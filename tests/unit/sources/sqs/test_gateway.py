"""What the gateway to SQS does when answers are late, lost or refusals, with a server that the test plays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from batcher.errors import CommitUnconfirmed, ConfigurationError, Unreachable
from batcher.sources.sqs import gateway as module
from batcher.sources.sqs.connection import Away, Connection
from batcher.sources.sqs.gateway import SqsGateway
from batcher.sources.sqs.message import received_of
from batcher.sources.sqs.settings import Sqs
from tests.harness.patience import wait_for

Script = Callable[[], None]


class PlayedConnection:
    """Answer as the test says: each call of a kind runs the next step of its script first."""

    name = "orders"
    target = "orders at a test"

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(4)
        self.ready: list[str] = []
        self.deleted: list[str] = []
        self.hidden: dict[str, int] = {}
        self.polls: list[int] = []
        self.polling = 0
        self.most_polling = 0
        self.scripts: dict[str, list[Script]] = {}
        self.stale: set[str] = set()
        self.attributes_ = {"RedrivePolicy": '{"maxReceiveCount": "4"}', "ApproximateNumberOfMessages": "7"}
        self.lock = threading.Lock()
        self.go = threading.Event()
        """Set, polls of an empty queue come back."""

    def find(self) -> Mapping[str, str]:
        self._play("find")
        return self.attributes_

    def attributes(self, *_: str) -> Mapping[str, str]:
        self._play("attributes")
        return self.attributes_

    def poll(self, most: int, wait_s: int, visibility_s: int) -> Sequence[Mapping[str, Any]]:
        with self.lock:
            self.polls.append(most)
            self.polling += 1
            self.most_polling = max(self.most_polling, self.polling)
        try:
            self._play("poll")
            with self.lock:
                found, self.ready = self.ready[:most], self.ready[most:]
            if not found:
                self.go.wait(0.2)
            return [{"ReceiptHandle": one, "MessageId": f"id-{one}", "Body": one} for one in found]
        finally:
            with self.lock:
                self.polling -= 1

    def delete(self, handles: Sequence[str]) -> Mapping[str, str]:
        self._play("delete")
        with self.lock:
            self.deleted += [one for one in handles if one not in self.stale]
        return {one: "ReceiptHandleIsInvalid" for one in handles if one in self.stale}

    def hide(self, seconds: Mapping[str, int]) -> Mapping[str, str]:
        self._play("hide")
        with self.lock:
            self.hidden.update(seconds)
        return {one: "ReceiptHandleIsInvalid" for one in seconds if one in self.stale}

    def close(self) -> None:
        self.pool.shutdown(wait=True)

    def on(self, call: str, *steps: Script) -> None:
        self.scripts[call] = list(steps)

    def _play(self, call: str) -> None:
        with self.lock:
            steps = self.scripts.get(call)
            step = steps.pop(0) if steps else None
        if step is not None:
            step()


def away() -> None:
    raise Away("orders at a test does not answer")


def refused() -> None:
    raise ConfigurationError("orders at a test: AccessDenied")


def handles(count: int) -> list[str]:
    return [f"r{number:03}" for number in range(count)]


class Desk:
    """A gateway to a server that the test plays."""

    def __init__(self, **options: Any) -> None:
        self.server = PlayedConnection()
        settings = Sqs.model_validate({"queue": "orders", "wait": "1s", **options})
        self.gateway = SqsGateway(settings, connect=lambda _: cast("Connection", self.server))
        self.info = self.gateway.open()

    def receive(self, count: int) -> list[str]:
        found: list[str] = []

        def enough() -> bool:
            found.extend(str(one.receipt) for one in self.gateway.receive(count, 1 << 20, 0.01))
            return len(found) >= count

        wait_for(enough, f"{count} messages", 5.0)
        return found


@pytest.fixture
def desk() -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def make(**options: Any) -> Desk:
        made.append(Desk(**options))
        return made[-1]

    yield make
    for one in made:
        one.server.go.set()
        one.gateway.close()


def test_the_queue_says_its_lease_its_bound_and_when_it_gives_a_message_up(desk: Callable[..., Desk]) -> None:
    info = desk(visibility="90500ms", max_in_flight=50).info

    assert (info.name, info.lease_s, info.max_held, info.max_attempts) == ("orders", 91, 50, 4)


def test_a_deletion_without_an_answer_is_made_again_and_the_others_are_not(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.server.on("delete", away)
    receipts = handles(25)
    with pytest.raises(
        CommitUnconfirmed, match=r"orders at a test: (5|10) of 25 messages are not deleted yet: .* answer"
    ):
        one.gateway.acknowledge(receipts, 5.0)
    assert len(one.server.deleted) in (15, 20)

    assert one.gateway.acknowledge(receipts, 5.0) == []
    assert sorted(one.server.deleted) == receipts


def test_a_deletion_that_is_late_is_waited_for_and_not_sent_twice(desk: Callable[..., Desk]) -> None:
    one, answers = desk(), threading.Event()
    one.server.on("delete", lambda: cast("None", answers.wait(5.0)))
    with pytest.raises(CommitUnconfirmed, match="not deleted yet: no answer in time"):
        one.gateway.acknowledge(handles(10), 0.01)
    answers.set()

    assert one.gateway.acknowledge(handles(10), 5.0) == []
    assert one.server.deleted == handles(10)


def test_messages_that_are_not_ours_any_more_are_told_and_no_error(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.server.stale = {"r001", "r003"}

    assert one.gateway.acknowledge(handles(4), 5.0) == ["r001", "r003"]
    assert one.gateway.extend(handles(4)) == ["r001", "r003"]
    one.gateway.release(dict.fromkeys(handles(4), 0.0))


def test_rights_that_are_missing_end_it(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.server.on("delete", refused)
    with pytest.raises(ConfigurationError, match="AccessDenied"):
        one.gateway.acknowledge(handles(1), 5.0)
    other = desk()
    other.server.on("poll", refused)

    with pytest.raises(ConfigurationError, match="AccessDenied"):
        other.receive(1)


def test_a_delay_is_rounded_up_to_whole_seconds_and_bounded(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.gateway.release({"a": 0.0, "b": 0.2, "c": 3.0, "d": 1e9})

    assert one.server.hidden == {"a": 0, "b": 1, "c": 3, "d": 43_200}


def test_a_heartbeat_without_an_answer_is_said_to_have_none(desk: Callable[..., Desk]) -> None:
    one = desk()
    one.server.on("hide", away)

    with pytest.raises(CommitUnconfirmed):
        one.gateway.extend(handles(1))


def test_what_waits_in_the_inbox_is_extended_and_given_back_at_the_end(desk: Callable[..., Desk]) -> None:
    one = desk(visibility="30s")
    one.server.ready = handles(20)
    one.receive(1)
    wait_for(lambda: not one.server.ready, "everything is in the inbox")
    wait_for(lambda: len(one.gateway._inbox) == 19, "everything is in the inbox")
    one.gateway.extend(["r000"])

    assert one.server.hidden == dict.fromkeys(handles(20), 30)
    assert sorted(map(str, one.gateway.held_back())) == handles(20)[1:]
    assert one.gateway.held_back() == []


def test_no_more_is_asked_for_than_may_be_held(desk: Callable[..., Desk]) -> None:
    one = desk(max_in_flight=15)
    one.server.ready = handles(60)
    found = one.receive(15)
    assert len(found) == 15
    assert one.gateway.receive(100, 1 << 20, 0.05) == []
    assert sum(one.server.polls) >= 15
    assert len(one.server.ready) == 45
    one.gateway.acknowledge(found[:10], 5.0)

    assert len(one.receive(10)) == 10
    assert len(one.server.ready) == 35


def test_an_empty_queue_has_one_reader_and_a_full_one_has_all(desk: Callable[..., Desk]) -> None:
    one = desk(readers=4)
    one.gateway.receive(1, 1, 0.0)
    wait_for(lambda: len(one.server.polls) >= 2, "two polls")
    assert one.server.most_polling == 1
    gate = threading.Barrier(4, timeout=5.0)
    one.server.ready = handles(200)
    # The first fills, and wakes the others up.
    one.server.on("poll", lambda: None, *[lambda: cast("None", gate.wait())] * 4)

    wait_for(lambda: one.server.most_polling == 4, "four at a time", 5.0)


def test_a_queue_that_is_away_is_named_once_and_asked_again(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    one = desk()
    one.server.ready = handles(3)
    one.server.on("poll", away, away, away)
    with capture_logs() as logs:
        assert sorted(one.receive(3)) == handles(3)
        wait_for(lambda: any(entry["event"] == "queue_answers" for entry in logs), "the end of it")

    assert [entry["event"] for entry in logs].count("queue_unreachable") == 1


def test_what_a_poll_brings_after_the_end_is_given_back(desk: Callable[..., Desk]) -> None:
    one, ends = desk(), threading.Event()
    one.server.ready = handles(3)
    one.server.on("poll", lambda: cast("None", ends.wait(5.0)))
    one.gateway.receive(1, 1, 0.0)
    wait_for(lambda: one.server.polling, "a poll under way")
    closing = threading.Thread(target=one.gateway.close)
    closing.start()
    wait_for(lambda: one.gateway._closing, "the end")
    ends.set()
    closing.join(5.0)

    assert one.server.hidden == dict.fromkeys(handles(3), 0)


def test_a_queue_that_does_not_say_how_many_it_has_is_not_taken_for_empty(desk: Callable[..., Desk]) -> None:
    one = desk()
    assert one.gateway.depth() == 7
    one.server.on("attributes", away)

    with pytest.raises(CommitUnconfirmed):
        one.gateway.depth()


def test_a_start_waits_for_a_queue_that_does_not_answer() -> None:
    server = PlayedConnection()
    server.on("find", away)
    gateway = SqsGateway(Sqs(queue="orders"), connect=lambda _: cast("Connection", server))
    with pytest.raises(Unreachable, match="does not answer"):
        gateway.open()

    assert gateway.open().name == "orders"
    gateway.close()


def test_a_message_becomes_a_delivery_with_all_that_sqs_says_of_it() -> None:
    message = {
        "ReceiptHandle": "h",
        "MessageId": "m",
        "Body": "ü",
        "Attributes": {"ApproximateReceiveCount": "3", "SentTimestamp": "1700000000123", "MessageGroupId": "g"},
        "MessageAttributes": {
            "b": {"DataType": "Binary", "BinaryValue": b"\xff"},
            "a": {"DataType": "Number", "StringValue": "1.5"},
        },
    }
    found = received_of(message)

    assert found == ("h", "m", "ü".encode(), 3, 1_700_000_000_123, b"g", (("a", b"1.5"), ("b", b"\xff")))
    assert received_of({"ReceiptHandle": "h", "MessageId": "m", "Body": ""})[2:] == (b"", 1, None, None, ())
