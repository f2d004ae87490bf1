"""Servers that need no installation: a Kafka inside the process, Kafka from jars, ClickHouse's protocol over HTTP."""
