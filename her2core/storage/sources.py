"""Slide files where they lie: their identity, ranged reads, and staging to bounded local scratch.

A remote slide is read by ranges where its reader can (:func:`open_remote`); other formats need a file on
disk, which :class:`Scratch` provides.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import BotoCoreError

from her2core.errors import Reason, ScratchError, SlideError, StoreError
from her2core.storage.s3 import endpoint_from_environment, s3_filesystem
from her2core.storage.s3check import check_bucket, explained
from her2core.text import CARRIES_SECRET, carries_secret

RANGE_BLOCK_BYTES = 2**20
"""Granule of ranged reads: a few JPEG tiles of 256 px a request. Ours."""
RANGE_BLOCKS = 32
"""Blocks kept per open remote file, so that its memory is bounded. Ours."""
WAIT_FOR_SPACE_S = 3600.0
"""How long a task waits for others to give scratch space back before it fails. Ours."""
POLL_S = 0.2


KEY_FILES = (".vms", ".vmu")
"""Suffixes of Hamamatsu's key files: texts that name the pictures beside them."""
KEY_FILE_BYTES = 1 << 16
"""Longest key file that is read; OpenSlide reads none that is longer."""
_NAMED_FILE = re.compile(
    rb"^\s*(?:ImageFile[^=\r\n]*|MapFile|MacroImage|OptimisationFile)\s*="
    rb"\s*([^/\\\s\0.][^/\\\r\n\0]{0,199}?)\s*$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class _Member:
    """One file of a slide: most have one, MRXS, VMS and DICOM folders have many."""

    name: str  # relative to the folder that a staged copy lies in
    place: str  # as the file system names it
    size: int
    tag: str  # ETag of a remote object; empty for a local file, whose content is digested


def file_identity(uri: str, endpoint_url: str | None = None) -> tuple[int, str]:
    """Size in bytes and identity of a slide: equal identity means equal pixels.

    Local files are digested (SHA-256, once a process while size and times stay as they are); remote objects
    are known by size and ETag. A slide of several files (MRXS with its folder, VMS with its pictures, a DICOM
    or OME-Zarr folder) has the digest of its members' names and identities.

    Returns
    -------
    size_bytes, identity
        ``identity`` is ``"<size>-<digest or ETag>"``.

    Raises
    ------
    SlideError
        ``FILE_MISSING``, ``FILE_EMPTY`` or ``FILE_UNREADABLE``.
    """
    members = _members(uri, endpoint_url)
    size = sum(m.size for m in members)
    if size == 0:
        raise SlideError(Reason.FILE_EMPTY, f"{uri}: 0 bytes; expected a slide. Copy the file again.")
    tags = [m.tag or _sha256(m.place) for m in members]
    if len(members) == 1:
        return size, f"{size}-{tags[0]}"
    lines = "".join(f"{m.name}\n{m.size}-{tag}\n" for m, tag in zip(members, tags, strict=True))
    return size, f"{size}-{hashlib.sha256(lines.encode()).hexdigest()}"


def slide_bytes(uri: str, endpoint_url: str | None = None) -> int:
    """Size in bytes of a slide with every file that belongs to it; nothing is read.

    Raises
    ------
    SlideError
        As :func:`file_identity`.
    """
    return sum(member.size for member in _members(uri, endpoint_url))


def file_stamp(uri: str, endpoint_url: str | None = None) -> str:
    """Digest of names, sizes and times or ETags of a slide's files: other bytes have another one.

    It is quickly had, and unlike `file_identity` changes when a local file is merely touched.
    """
    lines = []
    for member in _members(uri, endpoint_url):
        found = os.stat(member.place) if not member.tag else None
        when = member.tag if found is None else f"{found.st_mtime_ns} {found.st_ino}"
        lines.append(f"{member.name}\n{member.size} {when}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def open_remote(uri: str, endpoint_url: str | None = None) -> BinaryIO:
    """A seekable binary file over a local path or an S3 object; remote reads fetch blocks and keep a few.

    Raises
    ------
    StoreError
        If the address carries credentials.
    """
    if carries_secret(uri):
        raise StoreError(f"an address {CARRIES_SECRET}; see docs/s3.md.")
    if not uri.startswith("s3://"):
        return open(_local_path(uri), "rb")
    fs = s3_filesystem(endpoint_from_environment(endpoint_url))
    file: BinaryIO = fs.open(
        uri.removeprefix("s3://"),
        "rb",
        block_size=RANGE_BLOCK_BYTES,
        cache_type="blockcache",
        cache_options={"maxblocks": RANGE_BLOCKS},
    )
    return file


def read_small(uri: str, endpoint_url: str | None, most: int) -> bytes:
    """Bytes of a small file, one more than ``most`` if it is longer.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    OSError
        If a local file cannot be read.
    StoreError
        If the address carries credentials, or its server cannot be used: in one line, within seconds.
    """
    check_bucket(uri, endpoint_url)
    try:
        with open_remote(uri, endpoint_url) as file:
            return file.read(most + 1)
    except FileNotFoundError:
        raise
    except (OSError, BotoCoreError) as error:
        if not uri.startswith("s3://"):
            raise
        raise explained(uri, endpoint_from_environment(endpoint_url), error) from error


@dataclass(frozen=True, slots=True)
class Scratch:
    """A local folder of staged slides, bounded in bytes and shared by all workers of one machine.

    A staged copy stays for the next task that needs it and is evicted, least recently used first, when
    another slide needs its space; a copy in use is never evicted. Two tasks that need one slide download it
    once. What a killed process leaves behind is evicted like any idle copy.

    Attributes
    ----------
    directory
        Created at first use.
    max_bytes
        Most bytes of staged slides at any time.
    """

    # One lock file a slide carries everything: its flock is shared by users and exclusive to who downloads
    # or evicts; its content is the bytes reserved; its modification time is the last use.

    directory: str
    max_bytes: int

    @contextmanager
    def stage(self, uri: str, endpoint_url: str | None = None) -> Iterator[Path]:
        """Path of a local copy for the length of the block; a local slide is its own copy.

        Raises
        ------
        SlideError
            If the slide is missing or unreadable.
        ScratchError
            If it cannot fit into the scratch folder.
        """
        if not uri.startswith("s3://"):
            _members(uri, endpoint_url)
            yield _local_path(uri)
            return
        members = _members(uri, endpoint_url)
        listing = repr((endpoint_from_environment(endpoint_url), uri, members))
        key = hashlib.sha256(listing.encode()).hexdigest()[:24]
        folder = Path(self.directory) / key
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ScratchError(
                f"the scratch folder {self.directory} cannot be made ({error.strerror}); set run.scratch_dir."
            ) from None
        while True:
            with _lock(folder.with_suffix(".lock"), fcntl.LOCK_SH) as lock:
                if folder.exists():
                    try:
                        yield folder / members[0].name.split("/", 1)[0]
                    finally:
                        now = time.time_ns()  # the kernel's own clock for this ticks in milliseconds
                        os.utime(lock.fileno(), ns=(now, now))
                    return
            with _lock(folder.with_suffix(".lock"), fcntl.LOCK_EX) as lock:
                if not folder.exists():
                    self._download(uri, endpoint_url, members, folder, lock)

    def clear(self) -> None:
        """Remove every staged slide that nobody uses now."""
        if not Path(self.directory).exists():
            return
        with _lock(Path(self.directory) / "space", fcntl.LOCK_EX):
            while self._evict_one():
                pass

    def _download(
        self, uri: str, endpoint_url: str | None, members: list[_Member], folder: Path, lock: BinaryIO
    ) -> None:
        lock.truncate(0)  # what a killed download had reserved
        self._reserve(uri, sum(m.size for m in members), lock)
        partial = folder.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        fs = s3_filesystem(endpoint_from_environment(endpoint_url))
        try:
            for member in members:
                target = partial / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                fs.get_file(member.place, str(target))
                arrived = target.stat().st_size
                if arrived != member.size:
                    raise OSError(f"{uri}: {arrived} bytes of {member.name} arrived, expected {member.size}.")
            if _members(uri, endpoint_url) != members:
                raise OSError(f"{uri} was replaced while it was read; run again when its upload is complete.")
            partial.rename(folder)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise self._full(uri, sum(m.size for m in members)) from None
            raise
        finally:
            if not folder.exists():
                shutil.rmtree(partial, ignore_errors=True)
                lock.truncate(0)

    def _reserve(self, uri: str, size: int, lock: BinaryIO) -> None:
        """Take ``size`` bytes of the bound, evicting idle copies or waiting for busy ones."""
        if size > self.max_bytes:
            raise ScratchError(
                f"{uri}: {size} bytes do not fit into the scratch folder {self.directory} of at most "
                f"{self.max_bytes}; raise run.scratch_bytes."
            )
        deadline = time.monotonic() + WAIT_FOR_SPACE_S
        while True:
            with _lock(Path(self.directory) / "space", fcntl.LOCK_EX):
                while (short := self._short_of(size)) and self._evict_one():
                    pass
                if not short:
                    lock.write(str(size).encode())
                    lock.flush()
                    return
                if not self._reserved():  # nobody will give anything back
                    raise self._full(uri, size)
            if time.monotonic() > deadline:
                raise ScratchError(
                    f"{uri}: no scratch space in {self.directory} after {WAIT_FOR_SPACE_S:.0f} s; raise "
                    "run.scratch_bytes or lower run.slides_in_flight."
                )
            time.sleep(POLL_S)

    def _short_of(self, size: int) -> bool:
        """Whether ``size`` more bytes go beyond the bound, or beyond the disk."""
        beyond = self._reserved() + size > self.max_bytes
        return beyond or shutil.disk_usage(self.directory).free < size

    def _full(self, uri: str, size: int) -> ScratchError:
        free = shutil.disk_usage(self.directory).free
        return ScratchError(
            f"{uri}: {size} bytes to stage, but {self.directory} has {free} bytes free; "
            "free some, or set run.scratch_dir to a folder with space, and run again."
        )

    def _reserved(self) -> int:
        total = 0
        for path in Path(self.directory).glob("*.lock"):
            try:
                total += int(path.read_bytes() or b"0")
            except FileNotFoundError:  # given back just now
                continue
        return total

    def _evict_one(self) -> bool:
        """Remove the longest idle copy; False when every copy is in use. The caller holds the space lock."""
        locks = [p for p in Path(self.directory).glob("*.lock") if p.stat().st_size]
        for path in sorted(locks, key=lambda p: p.stat().st_mtime_ns):
            with open(path, "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                shutil.rmtree(path.with_suffix(".part"), ignore_errors=True)
                path.unlink()
                return True
        return False


@contextmanager
def _lock(path: Path, kind: int) -> Iterator[BinaryIO]:
    """Hold ``flock`` on the file that is at ``path`` now (eviction may unlink it while one waits)."""
    while True:
        with open(path, "ab") as file:
            fcntl.flock(file, kind)
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                yield file
                return


def _local_path(uri: str) -> Path:
    return Path(os.path.expanduser(uri.removeprefix("file://")))  # of an unknown user it is a name


def _members(uri: str, endpoint_url: str | None) -> list[_Member]:
    """Every file of a slide, in a fixed order, the one to open first."""
    if carries_secret(uri):
        raise SlideError(Reason.FILE_UNREADABLE, f"the slide's address {CARRIES_SECRET}; see docs/s3.md.")
    try:
        if uri.startswith("s3://"):
            found = _remote_members(uri.removeprefix("s3://").rstrip("/"), endpoint_url)
        else:
            found = _local_members(_local_path(uri))
    except FileNotFoundError as error:
        raise SlideError(
            Reason.FILE_MISSING, f"{uri}: no such file; correct uri in the manifest or copy the slide there."
        ) from error
    except PermissionError as error:
        raise SlideError(
            Reason.FILE_UNREADABLE, f"{uri}: not allowed to read it; check its mode, policy or credentials."
        ) from error
    if not found:
        raise SlideError(Reason.FILE_EMPTY, f"{uri}: a folder without files; expected a slide.")
    return found


def named_in(key_file: bytes) -> list[str]:
    """Names of the files that a key file lists as its own, in a fixed order."""
    return sorted({name.decode("utf-8", "replace") for name in _NAMED_FILE.findall(key_file)})


def _local_members(path: Path) -> list[_Member]:
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file())
    elif path.suffix.lower() == ".mrxs":
        files = [path, *sorted(p for p in path.with_suffix("").rglob("*") if p.is_file())]
    elif path.suffix.lower() in KEY_FILES:
        with path.open("rb") as opened:
            named = named_in(opened.read(KEY_FILE_BYTES))
        files = [path, *(path.with_name(n) for n in named if path.with_name(n).is_file())]
    else:
        files = [path]
    return [_Member(str(p.relative_to(path.parent)), str(p), p.stat().st_size, "") for p in files]


def _remote_members(path: str, endpoint_url: str | None) -> list[_Member]:
    fs = s3_filesystem(endpoint_from_environment(endpoint_url))
    info = fs.info(path)
    parent = path.rpartition("/")[0]

    def inside(folder: str) -> list[Any]:
        return [i for _, i in sorted(fs.find(folder, detail=True).items()) if i["type"] == "file"]

    if info["type"] == "directory":
        files = inside(path)
    elif path.lower().endswith(".mrxs"):
        files = [info, *inside(path[: -len(".mrxs")])]
    elif path.lower().endswith(KEY_FILES):
        named = named_in(fs.cat_file(path, start=0, end=KEY_FILE_BYTES))
        files = [info, *(fs.info(f"{parent}/{n}") for n in named if fs.exists(f"{parent}/{n}"))]
    else:
        files = [info]
    return [_Member(i["name"].removeprefix(parent + "/"), i["name"], int(i["size"]), i["ETag"].strip('"'))
            for i in files]  # fmt: skip


def _sha256(place: str) -> str:
    stat = os.stat(place)
    return _digest(place, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=4096)
def _digest(place: str, size: int, mtime_ns: int, inode: int) -> str:
    with open(place, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
