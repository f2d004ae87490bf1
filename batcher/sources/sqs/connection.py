"""Talk to SQS through boto3, which retries nothing here: whoever calls knows what a repeat may cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own, of which timeouts are a kind
    HTTPClientError,
    NoRegionError,
)

from batcher.errors import BatcherError, ConfigurationError, Unreachable
from batcher.sources.sqs.settings import Sqs

MESSAGES_A_REQUEST: Final = 10
"""What SQS takes, and hands out, at a time."""

REQUESTS: Final = 8
"""Requests at a time for what is not a long poll. At 5 ms each that is 16,000 messages a second."""

CONNECT_S: Final = 2.0
ANSWER_S: Final = 5.0

LONGEST_WORDS: Final = 200
"""How much of the server's own words a message to people quotes."""

_OF_AWS: Final = re.compile(r"sqs\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?")

_AWAY: Final = frozenset({"OverLimit", "RequestThrottled", "ThrottlingException", "Throttling", "RequestTimeout"})
"""Refusals that pass by themselves, whatever the status says."""

_ABSENT: Final = ("NonExistentQueue", "QueueDoesNotExist")

Key = TypeVar("Key")


class Away(Exception):
    """Report that SQS did not answer, or cannot answer now."""


class Connection:
    """Hold the clients for one queue: one for long polls, one for everything else. Any thread.

    Every call raises Away or ConfigurationError.
    """

    def __init__(self, options: Sqs) -> None:
        self.queue = options.queue or ""
        url = urlsplit(self.queue) if "://" in self.queue else None
        self.name = self.queue.rstrip("/").rpartition("/")[2]
        self.endpoint = options.endpoint or (f"{url.scheme}://{url.netloc}" if url is not None else None)
        found = _OF_AWS.fullmatch(url.netloc) if url is not None else None
        region = options.region or (found["region"] if found is not None else None)
        self._url = self.queue if url is not None else ""
        self.pool = ThreadPoolExecutor(REQUESTS, thread_name_prefix="sqs")
        try:
            session = boto3.session.Session(region_name=region)
            if session.region_name is None and self.endpoint is not None:
                # Only AWS looks at it, as a part of the signature.
                session = boto3.session.Session(region_name="us-east-1")
            self._client = self._made(session, ANSWER_S, REQUESTS)
            self._polling = self._made(session, options.wait_s + ANSWER_S, options.readers)
        except NoRegionError as error:
            raise ConfigurationError(f"{self.queue}: which region is the queue in? --sqs.region NAME") from error
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"{self.queue}: {words(error)}; correct --sqs.queue or AWS_…") from error

    @property
    def target(self) -> str:
        """Return the queue's name and where it is, for people."""
        return f"{self.name} at {self._client.meta.endpoint_url}"

    def find(self) -> Mapping[str, str]:
        """Find the queue and return its attributes."""
        if not self._url:
            self._url = str(self.asked(self._client.get_queue_url, QueueName=self.name)["QueueUrl"])
        return self.attributes("All")

    def create(self) -> None:
        """Make the queue where it is not there; one whose name ends with `.fifo` keeps the order of its groups."""
        attributes = {"FifoQueue": "true"} if self.name.endswith(".fifo") else {}
        made = self.asked(self._client.create_queue, QueueName=self.name, Attributes=attributes)
        self._url = self._url or str(made["QueueUrl"])

    def attributes(self, *names: str) -> Mapping[str, str]:
        """Return attributes of the queue."""
        found = self.asked(self._client.get_queue_attributes, QueueUrl=self._url, AttributeNames=list(names))
        return dict(found.get("Attributes", {}))

    def poll(self, most: int, wait_s: int, visibility_s: int) -> Sequence[Mapping[str, Any]]:
        """Wait for messages and return them as boto3 has them."""
        found = self.asked(
            self._polling.receive_message,
            QueueUrl=self._url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=visibility_s,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "MessageGroupId", "SentTimestamp"],
            MessageAttributeNames=["All"],
        )
        return list(found.get("Messages", ()))

    def delete(self, handles: Sequence[str]) -> Mapping[str, str]:
        """Delete at most ten messages; return those that were not, each with SQS's word for it."""
        return self._batch(self._client.delete_message_batch, [{"ReceiptHandle": one} for one in handles], handles)

    def hide(self, seconds: Mapping[str, int]) -> Mapping[str, str]:
        """Hide at most ten messages from now on for so long; return as `delete` does."""
        entries = [{"ReceiptHandle": one, "VisibilityTimeout": at} for one, at in seconds.items()]
        return self._batch(self._client.change_message_visibility_batch, entries, list(seconds))

    def send(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[int, str]:
        """Send at most ten messages; return those that were refused, by their place, each with SQS's words for it."""
        numbers = list(range(len(entries)))
        return self._batch(self._client.send_message_batch, entries, numbers, reason="Message")

    def close(self) -> None:
        """Close every connection. What is still under way ends by itself."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()
        self._polling.close()

    def asked(self, call: Callable[..., Any], **arguments: Any) -> Any:
        """Call SQS once."""
        try:
            return call(**arguments)
        except ClientError as error:
            raise self._refused(error) from error
        except (ConnectionError, HTTPClientError) as error:
            raise Away(f"{self.target} does not answer: {words(error)}") from error
        except BotoCoreError as error:  # credentials, mostly: whatever it is, no request was sent
            raise ConfigurationError(f"{self.target}: {words(error)}; nothing was read from it") from error

    def _made(self, session: Any, answer_s: float, connections: int) -> Any:
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_S,
            read_timeout=answer_s,
            max_pool_connections=connections,
        )
        return session.client("sqs", endpoint_url=self.endpoint, config=config)

    def _batch(
        self,
        call: Callable[..., Any],
        entries: Sequence[Mapping[str, Any]],
        keys: Sequence[Key],
        *,
        reason: str = "Code",
    ) -> Mapping[Key, str]:
        """Do something to at most ten messages at once; return what failed, and raise Away where SQS is to blame."""
        numbered = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
        done = self.asked(call, QueueUrl=self._url, Entries=numbered)
        failed = done.get("Failed", ())
        for one in failed:
            if not one.get("SenderFault", True):
                raise Away(f"{self.target}: {one.get('Code', 'failed')}")
        return {keys[int(one["Id"])]: str(one.get(reason) or one.get("Code", "")) for one in failed}

    def _refused(self, error: ClientError) -> BatcherError | Away:
        """Return what a refusal means, in SQS's own words."""
        found = error.response.get("Error", {})
        code = str(found.get("Code", "")).rpartition(".")[2]
        said = f"{self.target}: {code}: {words(found.get('Message', ''))}"
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _AWAY or status >= 500:
            return Away(said)
        if code in _ABSENT:
            return ConfigurationError(f"{said}; make the queue, or correct --sqs.queue and --sqs.region")
        return ConfigurationError(f"{said}; look at the keys and rights in use")


def words(error: object) -> str:
    """Return what somebody else says in one short line."""
    return " ".join(str(error).split())[:LONGEST_WORDS].rstrip(" .")


def unreachable(away: Away) -> Unreachable:
    """Return the error of the start for a queue that does not answer."""
    return Unreachable(str(away))


def tens(items: Sequence[Key]) -> Iterator[Sequence[Key]]:
    """Yield what fits a request each time."""
    for start in range(0, len(items), MESSAGES_A_REQUEST):
        yield items[start : start + MESSAGES_A_REQUEST]
