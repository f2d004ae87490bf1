-- What `batcher produce` sends when it is given no template of its own.
CREATE TABLE IF NOT EXISTS default.events
(
    id         UInt64,
    ts         DateTime64(3, 'UTC'),
    user_id    UInt32,
    country    LowCardinality(String),
    product    LowCardinality(String),
    quantity   UInt8,
    price      Decimal(10, 2),
    paid       Bool,
    session    String,

    -- Where the record came from. With these a replay can ask which rows are there already.
    _topic     LowCardinality(String),
    _partition UInt32,
    _offset    UInt64,
    _timestamp DateTime64(3, 'UTC'),

    -- Batches come in the order of their offsets, so that question reads a few granules, whatever the sorting key.
    INDEX offsets (_topic, _partition, _offset) TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (product, ts)
-- A batch sent again under the same token is recognised. Plain MergeTree remembers none unless told so.
SETTINGS non_replicated_deduplication_window = 1000;
