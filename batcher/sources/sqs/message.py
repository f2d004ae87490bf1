"""What SQS says of a message, and of a queue, as values of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from batcher.sources.receipts.gateway import Received

DEPTHS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
"""The attributes of a queue that say how many messages it has."""


def received_of(message: Mapping[str, Any]) -> Received:
    """Return a message of boto3 as a delivery."""
    attributes = message.get("Attributes", {})
    sent, group = attributes.get("SentTimestamp"), attributes.get("MessageGroupId")
    return Received(
        message["ReceiptHandle"],
        message["MessageId"],
        message.get("Body", "").encode(),
        int(attributes.get("ApproximateReceiveCount", 1)),
        None if sent is None else int(sent),
        None if group is None else group.encode(),
        tuple((name, _value(one)) for name, one in sorted(message.get("MessageAttributes", {}).items())),
    )


def _value(attribute: Mapping[str, Any]) -> bytes | None:
    if "BinaryValue" in attribute:
        return bytes(attribute["BinaryValue"])
    text = attribute.get("StringValue")
    return None if text is None else str(text).encode()


def depth_of(attributes: Mapping[str, str]) -> int:
    """Return the messages that a queue has, hidden and delayed ones too."""
    return sum(int(attributes.get(name, 0)) for name in DEPTHS)


def most_receives_of(attributes: Mapping[str, str]) -> int | None:
    """Return the deliveries after which the queue moves a message away, where it has a rule for that."""
    try:
        return int(json.loads(attributes.get("RedrivePolicy", "{}"))["maxReceiveCount"])
    except (KeyError, ValueError, TypeError):
        return None
