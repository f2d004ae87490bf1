"""Where schemas of writers come from: a registry of Confluent's kind, or a file."""

from batcher.formats.schema_registry.file import FileSchemas
from batcher.formats.schema_registry.registry import RegistrySchemas, SchemaAwaited, find_all

__all__ = ["FileSchemas", "RegistrySchemas", "SchemaAwaited", "find_all"]
