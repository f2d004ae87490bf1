"""Parquet files in an object store: S3 and its compatibles, Google Cloud Storage, Azure.

Each file is one PUT of one object, so it is there whole or not at all, and a process that dies leaves nothing behind
that is billed and that no listing shows.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import pyarrow as pa
import structlog

from batcher.errors import SinkMisconfigured, SinkUnavailable
from sinks.parquet.files import HIDDEN, SUFFIX
from sinks.parquet.stores import Fault
from sinks.stores.answer import StoreFailed
from sinks.stores.bucket import MISSING, NOT_CONDITIONAL, PAGE, PRECONDITION, Bucket, Version, exists
from sinks.stores.calls import Calls
from sinks.stores.connection import connected, require_client
from sinks.stores.location import Location
from sinks.stores.options import StoreOptions
from sinks.stores.ranged_file import RangedFile

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_KEY_BYTES: Final = 1_024
"""The length of a key that S3, Google Cloud Storage and Azure take."""

MAX_FILE_BYTES: Final = 5 << 30
"""What one PUT may bring: https://docs.aws.amazon.com/AmazonS3/latest/userguide/upload-objects.html."""

NO_RIGHT: Final = frozenset({"AccessDenied", "AuthorizationPermissionMismatch", "forbidden"})
"""What stores say where an account is right and lacks the right to something."""


class ObjectStore:
    """Put, read and list objects, each call with a deadline of ours; several at a time where there are several.

    Several files of one block are several PUTs. An interruption leaves some of them, and the same block replaces them
    when it comes again. `create` is exclusive where the store knows conditions, as S3, Google's and Azure's do.
    """

    def __init__(
        self, place: Location, options: StoreOptions, connect: Callable[[], Client] | None = None, *, label: str = ""
    ) -> None:
        """Take how to connect, where that is not as `connected` does it. It may use the network: `open` calls it."""
        self._place = place
        self._options = options
        self._connect = connect or (lambda: connected(place, options))
        self._label = label or place.label
        self._base = place.prefix
        self._bucket: Bucket | None = None
        self._calls: Calls | None = None
        self._shares = False
        self._versions: dict[str, Version] = {}
        self._told = False

    @staticmethod
    def at(place: Location, options: StoreOptions) -> ObjectStore:
        """Return the store of a location. Raise ConfigurationError where the client is not installed."""
        require_client(place.label, "--parquet.path")
        return ObjectStore(place, options)

    @property
    def label(self) -> str:
        return self._label

    @property
    def remote(self) -> bool:
        return True

    @property
    def folds_case(self) -> bool:
        return False

    def below(self, name: str) -> ObjectStore:
        place = self._place._replace(prefix=f"{self._base}/{name}".lstrip("/"))
        inner = ObjectStore(place, self._options, label=f"{self._label.rstrip('/')}/{name}")
        inner._bucket, inner._calls, inner._shares = self._bucket, self._calls, True
        return inner

    def open(self) -> None:
        if self._calls is None:
            self._calls = Calls(self._options.uploads)
            self._bucket = Bucket(self._connect(), self._place.bucket, self._options.timeout_s)
        try:
            next(self._all(), None)
        except StoreFailed as error:
            # The right to list a bucket is often missing where the right to write below a prefix is there.
            if error.answer.code not in NO_RIGHT:
                raise
            return
        if self._base and self._run(self._is_there("")):
            raise SinkMisconfigured(f"--parquet.path {self._label} is an object, not a prefix: choose another")

    def close(self) -> None:
        if self._calls is not None and not self._shares:
            self._calls.close()
        self._calls = self._bucket = None

    def read(self, name: str) -> bytes | None:
        return self._run(self._read(name))

    def create(self, name: str, content: bytes) -> None:
        self._run(self._create(name, content))

    def replace(self, name: str, content: bytes) -> None:
        """Replace a small file durably, unless it is another one than was read last: then it stays."""
        self._run(self._replace(name, content))

    def refused(self, directories: Sequence[str], name: str) -> list[str]:
        return [one for one in directories if len(self._key(f"{one}/{name}").encode()) > MAX_KEY_BYTES]

    def publish(self, files: Iterable[tuple[str, pa.Buffer]]) -> None:
        storage_class = self._options.values.get("storage_class")
        given = list(files)
        for _, content in given:
            if content.size > MAX_FILE_BYTES:
                raise SinkMisconfigured(
                    f"{self._label} takes files of up to 5 GiB: lower --batch.max-rows or --batch.max-bytes"
                )

        async def put(file: tuple[str, pa.Buffer]) -> None:
            name, content = file
            await self._there.put(self._key(name), memoryview(content).cast("B"), storage_class=storage_class)

        self._each(put, given)

    def remove(self, names: Sequence[str]) -> None:
        self._each(lambda name: self._there.delete(self._key(name)), names)

    def present(self, names: Sequence[str]) -> list[str]:
        """Return those of the names that are there, in their order."""
        found = self._each(self._is_there, names)
        return [name for name, there in zip(names, found, strict=True) if there]

    def opened(self, name: str) -> BinaryIO | None:
        key = self._key(name)
        size = self._run(self._there.size(key))
        if size is None:
            return None
        return io.BufferedReader(RangedFile(size, lambda start, end: self._run(self._there.read(key, start, end))))

    def names(self) -> Iterator[str]:
        # Directories are listed beside each other: one after the other, a root of a million files takes minutes.
        top = self._run(self._top())
        roots = [name for name in top if name.endswith("/") and not name.startswith(HIDDEN)]
        yield from (name for name in top if name.endswith(SUFFIX))
        for start in range(0, len(roots), PAGE):
            for found in self._each(self._below, roots[start : start + PAGE]):
                yield from found

    def between(self, spans: Sequence[tuple[str, str]]) -> list[list[str]]:
        return self._each(self._between, spans)

    def entries(self) -> Iterator[str]:
        yield from self._run(self._top())

    def clear(self) -> None:
        """Remove everything below the root."""
        while names := [name for _, name in zip(range(PAGE), self._all(), strict=False)]:
            self.remove(names)

    def fault(self, error: OSError, doing: str) -> Fault:
        what = f"{doing} {self._label}"
        if not isinstance(error, StoreFailed):
            return SinkUnavailable(f"{what}: {type(error).__name__}")
        answer = error.answer
        if answer.lasting:
            return SinkMisconfigured(f"{what}: {answer}: {answer.advice}")
        return SinkUnavailable(f"{what}: {answer}")

    async def _read(self, name: str) -> bytes | None:
        found = await self._there.get(self._key(name))
        if found is None:
            self._versions.pop(name, None)
            return None
        content, self._versions[name] = found
        return content

    async def _create(self, name: str, content: bytes) -> None:
        key, data = self._key(name), memoryview(content)
        try:
            await self._there.put(key, data, mode="create")
        except StoreFailed as error:
            if exists(error.answer):
                return
            if error.answer.status not in NOT_CONDITIONAL:
                raise
            self._tell()
            if await self._there.get(key) is None:
                await self._there.put(key, data)
            return
        # A store that does not know the condition takes the same again. These are the same bytes, so it does no harm.
        try:
            await self._there.put(key, data, mode="create")
        except StoreFailed:
            return
        self._tell()

    async def _replace(self, name: str, content: bytes) -> None:
        key, data = self._key(name), memoryview(content)
        seen = self._versions.get(name)
        if seen is None or not any(seen.values()):
            self._versions[name] = await self._there.put(key, data)
            return
        try:
            self._versions[name] = await self._there.put(
                key, data, mode={name: value for name, value in seen.items() if value}
            )
        except StoreFailed as error:
            if error.answer.status not in (*NOT_CONDITIONAL, MISSING, PRECONDITION):
                raise
            await self._read(name)
            if self._versions.get(name) in (None, seen):
                # It is gone, or the store takes no conditions.
                self._versions[name] = await self._there.put(key, data)

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            log.warning(
                "no_exclusive_create",
                target=self._label,
                hint="two workers that begin a new root in the same instant may pin two schemas: begin it with one",
            )

    async def _is_there(self, name: str) -> bool:
        return await self._there.size(self._key(name)) is not None

    async def _top(self) -> list[str]:
        """Return what is directly in the root, directories with `/` at the end."""
        prefixes, keys = await self._there.level(self._base)
        return [*(f"{self._relative(one)}/" for one in prefixes), *filter(None, map(self._relative, keys))]

    async def _between(self, span: tuple[str, str]) -> list[str]:
        low, high = span
        listing = self._there.listing(self._base, self._key(low))
        found: list[str] = []
        while page := await self._there.page(listing):
            names = list(map(self._relative, page))
            # A store that ignores where to begin has names before it.
            found += (name for name in names if low < name <= high and "/" not in name and name.endswith(SUFFIX))
            if names[-1] > high:
                break
        return found

    async def _below(self, directory: str) -> list[str]:
        listing = self._there.listing(self._key(directory.rstrip("/")))
        found: list[str] = []
        while page := await self._there.page(listing):
            names = map(self._relative, page)
            found += (name for name in names if name.endswith(SUFFIX) and not _hidden(name))
        return found

    def _all(self) -> Iterator[str]:
        listing = self._there.listing(self._base)
        while page := self._run(self._there.page(listing)):
            yield from filter(None, map(self._relative, page))  # a marker of the directory itself has no name

    @property
    def _there(self) -> Bucket:
        assert self._bucket is not None, "open comes first"
        return self._bucket

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        assert self._calls is not None, "open comes first"
        return self._calls.run(call)

    def _each(self, call: Callable[[Any], Awaitable[T]], items: Iterable[Any]) -> list[T]:
        assert self._calls is not None, "open comes first"
        return self._calls.each(call, items)

    def _key(self, name: str) -> str:
        return f"{self._base}/{name.lstrip('/')}".strip("/")

    def _relative(self, key: str) -> str:
        return key.removeprefix(self._base).strip("/")


def _hidden(name: str) -> bool:
    return any(part.startswith(HIDDEN) for part in name.split("/")[:-1])
