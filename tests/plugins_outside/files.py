# files.py: a source, the lines of a file, from the first one at every start
from pathlib import Path
from typing import Annotated

from batcher.errors import ConfigurationError
from batcher.options import Flag, Section
from batcher.plugins import PluginContext, takes
from batcher.protocols import Source
from batcher.records import Partition
from batcher.testing.sources import MemoryLog, MemorySource


class FileOptions(Section):
    """Where `--source files:files` reads."""

    path: Annotated[str, Flag(metavar="FILE")]
    """File to read; each line is a record."""


@takes(FileOptions)
def files(options: FileOptions, context: PluginContext) -> Source:
    try:
        lines = Path(options.path).read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"--files.path {options.path}: {error.strerror}") from error
    partition = Partition(Path(options.path).name, 0)
    log = MemoryLog([partition])
    log.produce(partition, lines)
    return MemorySource(log, until_eof=context.until_eof)
