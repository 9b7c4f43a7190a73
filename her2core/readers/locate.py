"""From a URI to its bytes: a local path, or an object as fsspec names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from her2core.errors import Reason, SlideError
from her2core.readers.bytesource import ByteSource, LocalBytes, RemoteBytes
from her2core.storage.s3 import endpoint_from_environment, s3_filesystem


@dataclass(frozen=True, slots=True)
class Location:
    """Where a slide lies.

    Attributes
    ----------
    path
        Local path, or the object's path as ``fs`` names it.
    fs
        fsspec file system of a remote slide, None for a local one.
    """

    name: str
    path: str
    fs: Any

    @property
    def is_directory(self) -> bool:
        if self.fs is None:
            return Path(self.path).is_dir()
        with _access(self.name):  # HEAD first: a role that may only get objects cannot list
            return bool(self.fs.info(self.path)["type"] == "directory")

    def has(self, child: str) -> bool:
        """Whether a folder holds a file of this name."""
        if self.fs is None:
            return (Path(self.path) / child).is_file()
        return bool(self.fs.exists(f"{self.path}/{child}"))

    def read_child(self, child: str, max_bytes: int) -> bytes:
        """The content of a folder's file; empty where there is none or it is larger than it should be."""
        if self.fs is None:
            file = Path(self.path) / child
            return file.read_bytes() if file.is_file() and file.stat().st_size <= max_bytes else b""
        remote = f"{self.path}/{child}"
        if not self.fs.exists(remote) or int(self.fs.info(remote)["size"]) > max_bytes:
            return b""
        return bytes(self.fs.cat_file(remote))

    def open_bytes(self) -> ByteSource:
        """The file for ranged reading.

        Raises
        ------
        SlideError
            ``FILE_MISSING``, ``FILE_EMPTY`` or ``FILE_UNREADABLE`` (permission).
        """
        with _access(self.name):
            if self.fs is None:
                source: ByteSource = LocalBytes(self.path, self.name)
            else:
                source = RemoteBytes(self.fs, self.path, self.name, int(self.fs.info(self.path)["size"]))
        if source.size == 0:
            source.close()
            raise SlideError(Reason.FILE_EMPTY, f"{self.name}: 0 bytes. Transfer the slide again")
        return source


def locate(uri: str | os.PathLike[str], name: str | None = None, endpoint_url: str | None = None) -> Location:
    """Location of a local path, ``file://`` or ``s3://`` URI; nothing is opened."""
    text = os.fspath(uri)
    if text.startswith("s3://"):
        return Location(
            name or text, text.removeprefix("s3://"), s3_filesystem(endpoint_from_environment(endpoint_url))
        )
    path = os.path.expanduser(text.removeprefix("file://"))
    if "://" in path:
        raise SlideError(
            Reason.FILE_MISSING, f"{name or text}: unknown scheme; expected a local path, file:// or s3://"
        )
    return Location(name or text, path, None)


@contextmanager
def _access(name: str) -> Iterator[None]:
    """State in words that a slide is missing or may not be read; other errors of a store may pass in time."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SlideError(
            Reason.FILE_MISSING, f"{name}: no such file. Correct its address (column `uri` of a manifest)"
        ) from error
    except PermissionError as error:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{name}: permission denied. Let this user or role read it"
        ) from error
