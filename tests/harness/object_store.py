"""An object store in memory, behind `pyarrow.fs`, whose uploads fail when told to."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pyarrow import fs


class Upload(io.RawIOBase):
    """Be an upload as those of S3 are in Arrow: there once it is closed, even after an error elsewhere (arrow#40502).

    Only a write that failed itself keeps it from ever being there.
    """

    def __init__(self, objects: Objects, path: str) -> None:
        self._objects = objects
        self._path = path
        self._content = bytearray()
        self._failed = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if next(self._objects.writes) in self._objects.fail_writes or self._objects.broken:
            self._failed = True
            raise OSError(f"When uploading part of key '{self._path}': AWS Error SLOW_DOWN during UploadPart operation")
        self._content += bytes(data)
        return len(data)

    def close(self) -> None:
        if not self.closed and not self._failed:
            self._objects.content[self._path] = bytes(self._content)
        super().close()


class Objects(fs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """Keep objects by `bucket/key`. Wrap it in `pyarrow.fs.PyFileSystem`.

    `content` is what readers see. The uploads numbered in `fail_writes`, counted from 0, and all of them
    while `broken` is set, fail midway; `refusal` is the S3 error code of every read; with `no_removal` there are no
    rights to delete.
    """

    def __init__(self, *buckets: str) -> None:
        self.buckets = buckets
        self.content: dict[str, bytes] = {}
        self.writes = itertools.count()
        self.fail_writes: tuple[int, ...] = ()
        self.broken = False
        self.refusal: str | None = None
        self.no_removal = False

    def get_type_name(self) -> str:
        return "memory"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        below = [path for path in self.content if path.startswith(f"{selector.base_dir}/")]
        if not selector.recursive:
            depth = selector.base_dir.count("/") + 2
            below = sorted({"/".join(path.split("/")[:depth]) for path in below})
        return [self._info(path) for path in below]

    def open_input_stream(self, path: str) -> pa.NativeFile:
        if self.refusal is not None:
            raise OSError(f"When reading: AWS Error {self.refusal} during GetObject operation")
        if path not in self.content:
            raise FileNotFoundError(path)
        return pa.BufferReader(self.content[path])

    def open_input_file(self, path: str) -> pa.NativeFile:
        return self.open_input_stream(path)

    def open_output_stream(self, path: str, _metadata: Mapping[str, str]) -> pa.NativeFile:
        return pa.PythonFile(Upload(self, path), mode="w")

    def create_dir(self, *_: object) -> None:
        raise NotImplementedError

    def delete_file(self, path: str) -> None:
        if self.no_removal:
            raise OSError(f"When deleting key '{path}': AWS Error ACCESS_DENIED during DeleteObject operation")
        del self.content[path]

    open_append_stream = delete_dir = delete_dir_contents = delete_root_dir_contents = create_dir
    move = copy_file = create_dir

    def _info(self, path: str) -> fs.FileInfo:
        if path in self.content:
            return fs.FileInfo(path, fs.FileType.File)
        is_there = path in self.buckets or any(name.startswith(f"{path}/") for name in self.content)
        return fs.FileInfo(path, fs.FileType.Directory if is_there else fs.FileType.NotFound)
