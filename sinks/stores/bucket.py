"""One bucket: what can be asked of it, each request with a deadline of ours and the store's own words in its error."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sinks.stores.answer import StoreAnswer, StoreFailed, answer_of
from sinks.stores.calls import UPLOAD_BYTES_PER_S, within

if TYPE_CHECKING:
    from obstore.store import ObjectStore as Client

T = TypeVar("T")

Version = Mapping[str, str | None]
"""Which content of an object is meant: `e_tag`, and `version` where the store has one."""

PAGE: Final = 1_000
"""How many names a listing has in one answer."""

GONE: Final = frozenset({"NoSuchKey", "BlobNotFound", "notFound", "NotFound"})
"""What stores say where the object is not there; the bucket not being there is another matter."""

MISSING: Final = 404
CONFLICT: Final = 409
PRECONDITION: Final = 412

NOT_CONDITIONAL: Final = frozenset({405, 501})
"""The status with which a store says that it knows no conditions."""


class Bucket:
    """Put, read, list and delete objects by their keys. All of it are coroutines; they raise StoreFailed."""

    def __init__(self, client: Client, name: str, timeout_s: float) -> None:
        self._client = client
        self._name = name
        self._timeout_s = timeout_s

    async def put(
        self, key: str, content: memoryview, *, mode: Any = "overwrite", storage_class: str | None = None
    ) -> Version:
        """Put an object in one request. `mode` is `overwrite`, `create` or the version that is to be replaced."""
        from obstore import put_async  # noqa: PLC0415 - heavy

        attributes: Any = {"Storage-Class": storage_class} if storage_class else None
        # `use_multipart`: parts of an upload that nobody completes are billed, and no listing of files shows them.
        call = put_async(self._client, key, content, mode=mode, use_multipart=False, attributes=attributes)
        done: Any = await self._asked(key, call, len(content) / UPLOAD_BYTES_PER_S)
        return {"e_tag": done["e_tag"], "version": done["version"]}

    async def get(self, key: str) -> tuple[bytes, Version] | None:
        """Return a small object and which content it is; None where there is none."""
        from obstore import get_async  # noqa: PLC0415 - heavy

        async def whole() -> tuple[bytes, Version]:
            found = await get_async(self._client, key)
            content = (await found.bytes_async()).to_bytes()
            return content, {"e_tag": found.meta["e_tag"], "version": found.meta["version"]}

        try:
            return await self._asked(key, whole())
        except StoreFailed as error:
            if is_gone(error.answer):
                return None
            raise

    async def size(self, key: str) -> int | None:
        """Return the bytes of an object; None where there is none, or no bucket."""
        from obstore import get_async, head_async  # noqa: PLC0415 - heavy

        try:
            return int((await self._asked(key, head_async(self._client, key)))["size"])
        except StoreFailed as error:
            if error.answer.status == MISSING:
                return None
            if not error.answer.lasting or error.answer.message:
                raise
        # It is refused, and the answer to a HEAD has no words. Ask so that it has.
        try:
            return int((await self._asked(key, get_async(self._client, key))).meta["size"])
        except StoreFailed as error:
            if is_gone(error.answer):
                return None
            raise

    async def read(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes of an object from `start` to `end`, the latter not included."""
        from obstore import get_range_async  # noqa: PLC0415 - heavy

        found: Any = await self._asked(key, get_range_async(self._client, key, start=start, end=end))
        return bytes(found.to_bytes())

    async def delete(self, key: str) -> None:
        """Remove an object; one that is not there is as good as removed."""
        from obstore import delete_async  # noqa: PLC0415 - heavy

        try:
            await self._asked(key, delete_async(self._client, key))
        except StoreFailed as error:
            if not is_gone(error.answer):
                raise

    async def level(self, prefix: str) -> tuple[list[str], list[str]]:
        """Return the prefixes and the keys directly below a prefix, which has no slash at its end."""
        from obstore import list_with_delimiter_async  # noqa: PLC0415 - heavy

        # As many pages as it takes, so it has the time of many requests.
        found: Any = await self._asked("", list_with_delimiter_async(self._client, prefix or None), PAGE)
        return list(found["common_prefixes"]), [one["path"] for one in found["objects"]]

    def listing(self, prefix: str, after: str | None = None) -> Any:
        """Return a listing of everything below a prefix, from behind a key on, for `page`. It asks nothing yet."""
        from obstore import list as list_objects  # noqa: PLC0415 - heavy

        return list_objects(self._client, prefix or None, offset=after, chunk_size=PAGE)

    async def page(self, listing: Any) -> list[str]:
        """Return the next keys of a listing, ascending where the store keeps an order; none at its end."""

        async def following() -> list[str]:
            try:
                found = await anext(listing)
            except StopAsyncIteration:
                return []
            return [one["path"] for one in found]

        return await self._asked("", following())

    async def _asked(self, key: str, call: Awaitable[T], more_s: float = 0.0) -> T:
        try:
            return await within(self._timeout_s + more_s, call)
        except Exception as error:  # the client's errors have no base that is not Exception
            raise StoreFailed(answer_of(error, self._name, key)) from error


def is_gone(answer: StoreAnswer) -> bool:
    """Return whether it is the object that is not there."""
    return answer.status == MISSING and answer.code in GONE


def exists(answer: StoreAnswer) -> bool:
    """Return whether an object could not be created because it is there, or could not be replaced as it has changed."""
    return answer.status == PRECONDITION or answer.code in ("BlobAlreadyExists", "conditionNotMet")
