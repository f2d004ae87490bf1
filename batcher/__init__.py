"""Load Kafka into ClickHouse and Parquet in micro-batches.

The Python API is `batcher.engine.pipeline.Pipeline`; the command line is `python -m batcher`.
Nothing is imported here: `--help` has to answer at once and the columnar libraries take half a second.
"""

__version__ = "0.1.0"
