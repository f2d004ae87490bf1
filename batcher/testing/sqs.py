"""Queues that speak SQS for tests, on a server such as `batcher.embedded.elasticmq`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

import boto3.session
from botocore.config import Config

from batcher.embedded.elasticmq import REGION, ElasticMQ

KEYS: Final = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": REGION}
"""Variables with keys that ElasticMQ does not look at; without any, nothing is asked."""


class SqsQueue:
    """Own one queue. With `max_receives` it has a dead-letter queue, `dead`, for what was delivered so often."""

    def __init__(
        self,
        server: ElasticMQ,
        *,
        visibility_s: int = 30,
        max_receives: int | None = None,
        name: str = "",
        ordered: bool = False,
    ) -> None:
        self.server = server
        self.name = (name or f"queue-{uuid.uuid4().hex[:12]}") + (".fifo" if ordered else "")
        self.dead: SqsQueue | None = None
        self._client: Any = boto3.session.Session(
            KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], region_name=REGION
        ).client("sqs", endpoint_url=server.endpoint, config=Config(retries={"total_max_attempts": 1}))
        attributes = {"VisibilityTimeout": str(visibility_s), **({"FifoQueue": "true"} if ordered else {})}
        if max_receives is not None:
            self.dead = SqsQueue(server, visibility_s=visibility_s, name=f"{self.name}-dead")
            rule = {"deadLetterTargetArn": self.dead.attribute("QueueArn"), "maxReceiveCount": max_receives}
            attributes["RedrivePolicy"] = json.dumps(rule)
        self.url = str(self._client.create_queue(QueueName=self.name, Attributes=attributes)["QueueUrl"])

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the flags with which a pipeline reads it."""
        return ("--source", "sqs", "--sqs.queue", self.name, "--sqs.endpoint", self.server.endpoint)

    def attribute(self, name: str) -> str:
        """Return an attribute of the queue."""
        url = self._client.get_queue_url(QueueName=self.name)["QueueUrl"]
        return str(self._client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"][name])

    def send(self, bodies: Sequence[bytes | str], **entry: Any) -> None:
        """Send messages; `entry` is added to each as boto3 takes it."""
        for start in range(0, len(bodies), 10):
            entries = [
                {"Id": str(number), "MessageBody": body.decode() if isinstance(body, bytes) else body, **entry}
                for number, body in enumerate(bodies[start : start + 10])
            ]
            failed = self._client.send_message_batch(QueueUrl=self.url, Entries=entries).get("Failed")
            assert not failed, failed

    def receive(self, most: int = 10) -> Sequence[Mapping[str, Any]]:
        """Take messages as another reader would."""
        found = self._client.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=most, AttributeNames=["All"], MessageAttributeNames=["All"]
        )
        return list(found.get("Messages", ()))

    def delete_queue(self) -> None:
        """Remove the queue."""
        self._client.delete_queue(QueueUrl=self.url)

    @property
    def visible(self) -> int:
        """Return the messages that wait for a reader."""
        return int(self.attribute("ApproximateNumberOfMessages"))

    @property
    def invisible(self) -> int:
        """Return the messages in the hands of readers."""
        return int(self.attribute("ApproximateNumberOfMessagesNotVisible"))

    @property
    def depth(self) -> int:
        """Return all messages, delayed ones too."""
        return self.visible + self.invisible + int(self.attribute("ApproximateNumberOfMessagesDelayed"))

    def close(self) -> None:
        """Close its connections."""
        self._client.close()
        if self.dead is not None:
            self.dead.close()
