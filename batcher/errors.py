"""One class for each reaction.

    BatcherError                     exit code   reaction
    ├── ConfigurationError               78      stop before anything is read; say which flag to change
    ├── Unreachable                      69      stop at start-up: broker or target does not answer
    ├── SinkUnavailable                  75      same block, same token, again, until it works or the deadline
    │   └── SinkOverwhelmed              75      the same, and larger batches from then on
    ├── RowsRejected                      -      those rows to the dead-letter queue, the rest written again
    ├── BlockRejected                     -      some row is poison, which one is unknown: bisect
    ├── SinkMisconfigured                78      at start-up: stop; later: pause, alarm, keep asking
    ├── DeferredTooLong                  75      stop, commit nothing of the batch: it comes again at the next start
    ├── SchemaChanged                     -      the same records again, decoded for the target's new columns
    ├── SchemasUnavailable               75      a registry does not answer: pause, decode the same batch again
    ├── DeadLetterLimitExceeded              78      stop, commit nothing past the last good batch
    ├── DeadLetterFailed                 75      the same dead letters again, with an alarm, until they are stored
    ├── BatchSuperseded                   -      drop the batch: its records have another owner by now
    ├── CommitRefused                    75      forget the partition; re-read on the next assignment
    ├── SourceLost                       75      the source cannot go on; stop without committing more
    │   └── CommitUnconfirmed             -      no answer: poll on, commit again; after minutes the above
    ├── RecordUnreadable                 78      write and commit all before it, then stop
    ├── DataGap                          78      records are gone or the log was cut: stop, name the gap
    └── DrainTimeout                     75      stopped before all was durable: say what is read again

A message is one line: what, where (topic, partition, offset, flag), what to do next. It quotes no value of
a record and no secret. The cause is chained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:  # `--help` needs errors, and no columns
    import pyarrow as pa

    from batcher.records import Partition, Rejection


class BatcherError(Exception):
    """Stop the process with `exit_code` and print the message as one line."""

    exit_code: ClassVar[int] = 1


class ConfigurationError(BatcherError):
    """Refuse a setting, or a set of settings that cannot work together."""

    exit_code = 78


class SettingRefused(ConfigurationError):
    """Refuse a setting that is known to be wrong without asking a broker or a target."""

    exit_code = 2


class ExtensionMissing(ConfigurationError):
    """Refuse to start without a part of the installation that the settings require."""


class Unreachable(BatcherError):
    """Give up at start-up because a server does not answer."""

    exit_code = 69


class SinkUnavailable(BatcherError):
    """Report that the target cannot take the block now; the same block will be offered again.

    Raise it whenever the outcome is unknown (a reset, a timeout): the token makes the repeat safe.
    """

    exit_code = 75


class SinkOverwhelmed(SinkUnavailable):
    """Report that the target gets more writes than it can bear: the same block again, and then larger ones."""


class RowsRejected(BatcherError):
    """Report rows of the block that can never be written. Nothing of the block has been written.

    `rejections` name rows by their number in the block, at least one.
    """

    exit_code = 78

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        super().__init__(f"{len(rejections)} rows rejected, the first: {rejections[0].message}")
        self.rejections = tuple(rejections)


class BlockRejected(BatcherError):
    """Report that the target refused the block because of some row, and that nothing of it was written.

    `reason` is one word for counting. With `suspect` perhaps no row is to blame. Then, when every row fails alone,
    nothing is dead-lettered, and the block comes again later as with SinkMisconfigured.
    """

    exit_code = 78

    def __init__(self, message: str, reason: str = "refused", *, suspect: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.suspect = suspect


class SinkMisconfigured(BatcherError):
    """Report a fault of the target or of its settings for which no record is to blame."""

    exit_code = 78


class DeferredTooLong(BatcherError):
    """Stop because rows that a sink deferred were not written in time."""

    exit_code = 75


class SchemaChanged(BatcherError):
    """Report that the target has other columns than before. Nothing of the block has been written.

    `schema` is what the decoder has to produce from now on; coordinates and guarantee stay the same.
    """

    exit_code = 78

    def __init__(self, message: str, schema: pa.Schema) -> None:
        super().__init__(message)
        self.schema = schema


class SchemasUnavailable(BatcherError):
    """Report that the schemas of records cannot be asked for now; the same batch will be decoded again."""

    exit_code = 75


class DeadLetterLimitExceeded(BatcherError):
    """Stop because too many records are rejected, or because there is no place for the first one."""

    exit_code = 78


class DeadLetterFailed(BatcherError):
    """Report that dead letters could not be made durable; all will be offered again, and nothing is committed."""

    exit_code = 75


class BatchSuperseded(BatcherError):
    """Report that a batch may not be offered to the target (again): a partition of it changed hands."""

    exit_code = 75


class CommitRefused(BatcherError):
    """Report partitions whose commit was refused: they are no longer ours.

    `reasons` has the refusal for each partition; partitions not in it were committed.
    """

    exit_code = 75

    def __init__(self, reasons: Mapping[Partition, str]) -> None:
        listed = ", ".join(f"{partition}: {reason}" for partition, reason in sorted(reasons.items()))
        super().__init__(f"commit refused for {listed}")
        self.reasons = dict(reasons)


class SourceLost(BatcherError):
    """Stop because the source failed in a way that further reading could hide."""

    exit_code = 75


class CommitUnconfirmed(SourceLost):
    """Report that the outcome of a commit is not known: it may be stored, or may be stored later."""


class RecordUnreadable(BatcherError):
    """Report a place in a log that the client cannot read; every record before it has been delivered."""

    exit_code = 78


class DataGap(BatcherError):
    """Stop because log, committed offset and target disagree: records expired, were cut off, or are there already."""

    exit_code = 78


class DrainTimeout(BatcherError):
    """Report that the stop deadline, or a second signal, came before everything buffered was durable."""

    exit_code = 75
