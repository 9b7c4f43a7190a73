"""The output store: a folder or a bucket prefix, with whole-object writes and a create-only write.

Everything the platform publishes goes through :class:`Store`. A write is seen whole or not at all (a
temporary file and a rename on disk, one PUT on S3), and :meth:`Store.put_if_absent` has exactly one winner,
which is what the lake's commits rest on; :meth:`Store.probe` refuses a store where that does not hold.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Any

from botocore.exceptions import BotoCoreError

from her2core.errors import DiskFullError, StoreError
from her2core.storage.s3 import (
    check_endpoint,
    delta_options,
    endpoint_from_environment,
    http_status,
    s3_filesystem,
)
from her2core.storage.s3check import check_bucket, explained
from her2core.text import CARRIES_SECRET, carries_secret

TEMPORARY_FOLDER = ".her2-tmp"
"""Where a folder's half-written objects lie until they are renamed: one place, so that what a killed process
leaves is found without looking through the whole output."""
MULTIPART_BYTES = 64 * 2**20
"""Part size; objects of twice this size and more are uploaded in parts."""
WRITE_BYTES = 512 * 2**10
"""Most bytes handed over at once when a file is written. Of more, Linux makes pages of 2 MiB in its cache,
which a virtual machine may have to get from its host: up to a third of a pyramid's processor time (ours)."""
WRITER_KEY = "her2-writer"
"""Object metadata that names the writer of a create-only object."""
FULL = {errno.ENOSPC: "no space left on the disk", errno.EDQUOT: "the disk's quota is used up",
        errno.EFBIG: "no file of that size is allowed there (disk, quota or ulimit -f)"}  # fmt: skip
"""Errors of a write that no retry cures."""
CONFLICT_ATTEMPTS = 5
"""Create-only writes that AWS may refuse with 409 while another is in flight are tried this often."""


@dataclass(frozen=True, slots=True)
class Store:
    """A folder or ``s3://bucket/prefix`` that results are written to.

    Picklable and without secrets: it holds two strings, and every process opens its own connection at first
    use. Paths are relative, with ``/``, and never leave the root.

    Parameters
    ----------
    uri
        Local folder, ``file://`` URI or ``s3://bucket/prefix``.
    endpoint_url
        S3 endpoint; by default from ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``, resolved here so that
        workers with another environment reach the same server.

    Raises
    ------
    StoreError
        If the URI has an unknown scheme or carries a user name or password.
    """

    uri_root: str
    endpoint_url: str | None

    def __init__(self, uri: str | os.PathLike[str], *, endpoint_url: str | None = None) -> None:
        root = _normalised(os.fspath(uri))
        endpoint = endpoint_from_environment(endpoint_url) if root.startswith("s3://") else None
        if endpoint is not None:
            try:
                check_endpoint(endpoint)
            except ValueError as error:
                raise StoreError(f"the S3 endpoint (AWS_ENDPOINT_URL): {error}.") from None
        object.__setattr__(self, "uri_root", root)
        object.__setattr__(self, "endpoint_url", endpoint)

    @property
    def is_local(self) -> bool:
        return not self.uri_root.startswith("s3://")

    @property
    def fs(self) -> Any:
        """The fsspec file system of this process."""
        return _local() if self.is_local else s3_filesystem(self.endpoint_url)

    @property
    def root(self) -> str:
        """Root as the file system names it: an absolute folder, or ``bucket/prefix``."""
        return self.uri_root.removeprefix("s3://")

    def _full(self, path: str) -> str:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or "\\" in path or "\0" in path:
            raise StoreError(f"{path!r} is not a path inside the store; expected a relative path with '/'.")
        relative = str(parts)
        return self.root if relative == "." else f"{self.root}/{relative}"

    def uri(self, path: str = "") -> str:
        """Full URI of a path, for other programs to open."""
        return self._full(path) if self.is_local else "s3://" + self._full(path)

    # reading

    def read_bytes(self, path: str) -> bytes:
        """The whole object. Raises FileNotFoundError where there is none."""
        full = self._full(path)
        if self.is_local:
            return Path(full).read_bytes()
        try:
            return bytes(self.fs.cat_file(full, start=0))  # the reply to a range states the size
        except OSError as error:
            if http_status(error) == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                return b""
            raise

    def cat_range(self, path: str, start: int, end: int) -> bytes:
        """Bytes ``[start, end)`` of an object; a negative start counts from its end (then ``end`` is 0)."""
        full = self._full(path)
        if not self.is_local:
            return bytes(self.fs.cat_file(full, start=start, end=end if start >= 0 else None))
        with open(full, "rb") as file:
            file.seek(start, os.SEEK_SET if start >= 0 else os.SEEK_END)
            return file.read(end - start)

    def read_json(self, path: str) -> Any:
        return json.loads(self.read_bytes(path))

    def exists(self, path: str) -> bool:
        full = self._full(path)
        return Path(full).exists() if self.is_local else bool(self.fs.exists(full))

    def size(self, path: str) -> int:
        """Size of an object in bytes. Raises FileNotFoundError where there is none."""
        full = self._full(path)
        return Path(full).stat().st_size if self.is_local else int(self.fs.info(full)["size"])

    def list(self, path: str = "", *, recursive: bool = False) -> list[str]:
        """Sorted paths of the objects (unless recursive, folders too) in a folder; none if it is absent."""
        full = self._full(path)
        try:
            found = self.fs.find(full) if recursive else self.fs.ls(full, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        inside = full.rstrip("/") + "/"  # S3 may list the folder's own marker, and an object lists itself
        names = {
            str(n).rstrip("/").removeprefix(self.root).lstrip("/") for n in found if str(n).startswith(inside)
        }
        return sorted(n for n in names if n and n.split("/", 1)[0] != TEMPORARY_FOLDER)

    # writing

    def write_bytes(self, path: str, data: bytes | bytearray | memoryview) -> None:
        """Write a whole object, replacing any before it; readers see the old one or the new one."""
        full = self._full(path)
        if not self.is_local:
            body = data if isinstance(data, bytes | bytearray) else bytes(data)
            self.fs.pipe_file(full, body, chunksize=MULTIPART_BYTES)
            return
        with memoryview(data) as view:
            self._replace(full, _pieces(view), len(view))

    def write_many(self, objects: Mapping[str, bytes | memoryview]) -> None:
        """Write whole objects, side by side where each has to wait for a server; return when all are stored.

        Of a folder they are written in their order. After an error some may be there and some not.
        """
        if self.is_local or len(objects) < 2:
            for path, data in objects.items():
                self.write_bytes(path, data)
            return
        bodies = {self._full(path): bytes(data) for path, data in objects.items()}
        self.fs.pipe(bodies, chunksize=MULTIPART_BYTES)

    def write_file(self, path: str, local: Path) -> None:
        """Write a whole object from a file, as `write_bytes` does."""
        full = self._full(path)
        if not self.is_local:
            self.fs.put_file(os.fspath(local), full)
            return
        with local.open("rb") as file:
            self._replace(full, iter(partial(file.read, WRITE_BYTES), b""), local.stat().st_size)

    def _replace(self, full: str, pieces: Iterable[bytes | memoryview], size: int) -> None:
        temporary = self._write_temporary(full, pieces, size)
        try:
            try:
                os.replace(temporary, full)
            except OSError as error:
                if error.errno != errno.EXDEV:  # part of the output lies on another disk, behind a link
                    raise
                beside = Path(f"{full}.{temporary.name}")
                shutil.move(temporary, beside)
                os.replace(beside, full)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _in_words(error, full, size) from None

    def write_json(self, path: str, obj: Any) -> None:
        self.write_bytes(path, encode_json(obj))

    def put_if_absent(self, path: str, data: bytes | bytearray | memoryview) -> bool:
        """Write an object only where there is none; True if this call wrote it.

        A PUT may be applied and its reply lost, and the client's own retry is then refused with 412. So the
        object carries a token of this call, and a refusal is checked against it.
        """
        full = self._full(path)
        if not self.is_local:
            return self._s3_create(full, bytes(data))
        with memoryview(data) as view:
            temporary = self._write_temporary(full, _pieces(view), len(view))
        try:
            os.link(temporary, full)
        except FileExistsError:
            return os.stat(temporary).st_nlink > 1  # NFS: the link was made and the reply lost
        finally:
            temporary.unlink(missing_ok=True)
        return True

    def _write_temporary(self, full: str, pieces: Iterable[bytes | memoryview], size: int) -> Path:
        folder = Path(self.root) / TEMPORARY_FOLDER
        temporary = folder / uuid.uuid4().hex
        try:
            Path(full).parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(exist_ok=True)
            with temporary.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
        except OSError as error:
            with suppress(OSError):  # the folder may be none
                temporary.unlink()
            raise _in_words(error, full, size) from None
        return temporary

    def clear_temporary(self) -> int:
        """Remove what killed writers left half written; how many pieces. Only while nobody else writes."""
        if self.is_local:
            left = [*Path(self.root, TEMPORARY_FOLDER).glob("*")]
            left += Path(self.root).glob(
                "tables/*/_delta_log/*.json#*"
            )  # as Delta Lake's client names its own
            for path in left:
                path.unlink(missing_ok=True)
            return len(left)
        bucket, _, prefix = self.root.partition("/")
        found = self.fs.call_s3(
            "list_multipart_uploads", Bucket=bucket, Prefix=f"{prefix}/" if prefix else ""
        )
        uploads = found.get("Uploads") or []
        for upload in uploads:
            self.fs.call_s3(
                "abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"]
            )
        return len(uploads)

    def _s3_create(self, full: str, body: bytes) -> bool:
        token = uuid.uuid4().hex
        for attempt in range(CONFLICT_ATTEMPTS):
            try:
                self.fs.pipe_file(full, body, mode="create", chunksize=2**31, Metadata={WRITER_KEY: token})
                return True
            except OSError as error:
                status = http_status(error)
                if isinstance(error, FileExistsError) or status == 412:
                    return bool(self.fs.metadata(full).get(WRITER_KEY) == token)
                if status != 409 or attempt == CONFLICT_ATTEMPTS - 1:
                    raise
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Remove an object, or a folder with ``recursive``; nothing happens where there is none."""
        full = self._full(path)
        if recursive and full == self.root:
            raise StoreError(f"refusing to delete the whole store {self.uri_root}; delete it by hand.")
        try:
            if not self.is_local:
                self.fs.rm(full, recursive=recursive)
            elif recursive and Path(full).is_dir():
                shutil.rmtree(full)
            else:
                Path(full).unlink()
        except FileNotFoundError:
            pass

    def probe(self) -> None:
        """Check that this store can hold results.

        Raises
        ------
        StoreError
            In words: unreachable, no such bucket, refused, read-only, or a create-only write
            (``If-None-Match: *``) that replaced an object; on such a store concurrent commits lose rows.
        """
        path = f".her2-probe-{uuid.uuid4().hex}"
        try:
            check_bucket(self.uri_root, self.endpoint_url, to="write to")
            first, second = self.put_if_absent(path, b"first"), self.put_if_absent(path, b"second")
            kept = self.read_bytes(path)
            self.delete(path)
        except FileNotFoundError as error:
            raise StoreError(f"{self._named()} does not exist; create the bucket or folder first.") from error
        except (OSError, BotoCoreError) as error:
            if not self.is_local:
                raise explained(self.uri_root, self.endpoint_url, error, to="write to") from error
            raise self._unusable(error) from error
        if not first or second or kept != b"first":
            raise StoreError(
                f"{self._named()} ignores the conditional PUT (If-None-Match: *): a create-only write "
                "replaced an existing object, so concurrent commits would lose rows silently. Use a store "
                "that honours it (AWS S3, Ceph 16 or later, MinIO) or a local folder."
            )

    def reach(self, to: str = "read") -> None:
        """See that the store's server answers, before something is done with it; a folder is there or not.

        Parameters
        ----------
        to
            What is wanted of it, for the message.

        Raises
        ------
        StoreError
            In one line, within seconds.
        """
        check_bucket(self.uri_root, self.endpoint_url, to=to)

    def _unusable(self, error: BaseException) -> StoreError:
        """Why a folder cannot hold results."""
        if isinstance(error, PermissionError):
            return StoreError(
                f"{self._named()} refuses us ({error}); expected the right to list, read, write and delete. "
                "Check the folder's mode and that its disk has hard links."
            )
        return StoreError(f"{self._named()} cannot be used: {error}. Check that it can be written to.")

    def _named(self) -> str:
        return self.uri_root + (f" at {self.endpoint_url}" if self.endpoint_url else "")

    # for other libraries

    def zarr_store(self, path: str = "", *, read_only: bool = True) -> Any:
        """A Zarr store rooted at a path."""
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper
        from zarr.storage import FsspecStore, LocalStore

        full = self._full(path)
        if self.is_local:
            return LocalStore(full, read_only=read_only)
        # Zarr runs its own event loop. The wrapper calls the process's one client from threads, where a
        # second, asynchronous s3fs client would need its own connections and complain at exit that nobody
        # closed them.
        wrapped = AsyncFileSystemWrapper(self.fs, asynchronous=True)
        return FsspecStore(wrapped, read_only=read_only, path=full)

    def delta_uri(self, path: str) -> str:
        """What ``deltalake`` is given as the table's address."""
        return self.uri(path)

    def storage_options(self) -> dict[str, str]:
        """Options of ``deltalake`` for this store, empty for a folder. Pass them on at once and never keep
        them: they may hold credentials."""
        return {} if self.is_local else delta_options(self.endpoint_url)


def encode_json(obj: Any) -> bytes:
    """The bytes of a JSON document: the same for the same content."""
    return json.dumps(obj, sort_keys=True, indent=1, allow_nan=False).encode()


def content_key(stage: str, version: int, params: Any, inputs: Sequence[str]) -> str:
    """Digest that names a stage's output: 24 hexadecimal digits.

    Parameters
    ----------
    stage, version
        Which computation; raise the version when its results change.
    params
        Mapping or dataclass of the parameters that matter to it. 8 and 8.0 are the same value.
    inputs
        Identity of the slide and keys of what the stage reads, in a fixed order.

    Raises
    ------
    TypeError, ValueError
        For a value without one canonical text (a set, an object, NaN).
    """
    record = {"stage": stage, "version": version, "params": _canonical(params), "inputs": list(inputs)}
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def record_of(stage: str, key: str) -> str:
    """Where the record of a stage is published."""
    return f"stages/{stage}/{key}.json"


def _canonical(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _canonical(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return _canonical(value.value)
    if isinstance(value, Mapping):
        if not all(isinstance(k, str) for k in value):
            raise TypeError(f"parameter names are text; found {list(value)!r}.")
        return {k: _canonical(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_canonical(v) for v in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, bool | int | str):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no canonical text for a content key.")


def _normalised(uri: str) -> str:
    """Absolute local path, or ``s3://bucket/prefix`` without a trailing slash."""
    if carries_secret(uri):
        raise StoreError(f"the address of the store {CARRIES_SECRET}; see docs/s3.md.")
    if uri.startswith("s3://"):
        bucket = uri.removeprefix("s3://").split("/", 1)[0]
        if not bucket or "@" in bucket or ":" in bucket:
            raise StoreError("an S3 address is s3://bucket/prefix, without credentials; see docs/s3.md.")
        return uri.rstrip("/")
    local = uri.removeprefix("file://")
    if "://" in local:
        raise StoreError(f"{uri!r} has an unknown scheme; expected a folder or s3://bucket/prefix.")
    return os.path.abspath(os.path.expanduser(local)).rstrip("/") or "/"


def _pieces(view: memoryview) -> Iterator[memoryview]:
    """The parts of at most `WRITE_BYTES` that a file is written in."""
    return (view[start : start + WRITE_BYTES] for start in range(0, len(view), WRITE_BYTES))


def _in_words(error: OSError, full: str, size: int) -> Exception:
    """A full disk with its path and what is needed; any other error as it is."""
    if error.errno not in FULL:
        return error
    folder = Path(full).parent
    with suppress(OSError):
        free = f", {shutil.disk_usage(folder).free} bytes are free"
        return DiskFullError(
            f"{folder}: {FULL[error.errno]}: {size} bytes to write{free}; free some or give the output a "
            "larger disk, and run the same command again to resume"
        )
    return error


def _local() -> Any:
    from fsspec.implementations.local import LocalFileSystem

    return LocalFileSystem()
