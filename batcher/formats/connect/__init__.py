"""What Kafka Connect's converters write: values whose meaning is in the name of their type, and schemas in messages."""
