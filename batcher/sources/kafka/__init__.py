"""Apache Kafka as a source."""
