"""One schema from a file, where there is no registry."""

from __future__ import annotations

from pathlib import Path

from batcher.errors import ConfigurationError
from batcher.formats.writer_schema import SchemaKey, SchemaKind, WriterSchema


class FileSchemas:
    """Answer every question with the text of one file (`writer_schema.WriterSchemas`).

    Raise ConfigurationError when it cannot be read, is empty or is not UTF-8. Whether it is a schema is for the reader
    of its kind to say.
    """

    def __init__(self, path: Path | str, kind: SchemaKind) -> None:
        flag = f"--decode.writer-schema {path}"
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{flag}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{flag}: is not UTF-8, as the text of a schema is") from error
        if not text.strip():
            raise ConfigurationError(f"{flag}: is empty")
        self._schema = WriterSchema(kind, text)

    def get(self, key: SchemaKey | None) -> WriterSchema:
        """Return the schema, whichever is asked for, also for records that name none."""
        del key
        return self._schema
