"""What `batcher demo` is made of: a small Kafka, orders, a pipeline that is killed, and the count afterwards."""
