"""The contracts: what the pipeline asks of a source, a format, a sink and a dead-letter queue.

Each says who calls, from which thread, and what returning means. Implementations may be written outside this project;
the rules they have to keep are classes of tests in `batcher.testing.contract`.
"""

from batcher.protocols.dead_letters import DeadLetterQueue
from batcher.protocols.format import Decoder, FieldProposer, Format
from batcher.protocols.guarantee import Guarantee
from batcher.protocols.measure import Distribution, Measure
from batcher.protocols.publisher import Outgoing, Publisher
from batcher.protocols.readable import ReadableLog
from batcher.protocols.sink import (
    COPIES,
    SINK_METHODS,
    Auditable,
    Evolvable,
    Interruptible,
    Measuring,
    MessageIndex,
    Pressured,
    Reconcilable,
    Rehearsable,
    Removable,
    Repeats,
    SchemaPinning,
    Sink,
    SinkCapability,
    SinkInfo,
    Stoppable,
    TopicPinning,
)
from batcher.protocols.source import (
    SOURCE_METHODS,
    LagAware,
    Leased,
    Offering,
    PartitionListener,
    Releasing,
    Saturating,
    Source,
    SourceCapability,
    SourceInfo,
)
from batcher.protocols.transform import ROW, Transform, Transformed, TransformFailed, TransformPlan

__all__ = [
    "COPIES",
    "ROW",
    "SINK_METHODS",
    "SOURCE_METHODS",
    "Auditable",
    "DeadLetterQueue",
    "Decoder",
    "Distribution",
    "Evolvable",
    "FieldProposer",
    "Format",
    "Guarantee",
    "Interruptible",
    "LagAware",
    "Leased",
    "Measure",
    "Measuring",
    "MessageIndex",
    "Offering",
    "Outgoing",
    "PartitionListener",
    "Pressured",
    "Publisher",
    "ReadableLog",
    "Reconcilable",
    "Rehearsable",
    "Releasing",
    "Removable",
    "Repeats",
    "Saturating",
    "SchemaPinning",
    "Sink",
    "SinkCapability",
    "SinkInfo",
    "Source",
    "SourceCapability",
    "SourceInfo",
    "Stoppable",
    "TopicPinning",
    "Transform",
    "TransformFailed",
    "TransformPlan",
    "Transformed",
]
