"""Everything under a folder or bucket prefix, object by object: memory does not grow with their number."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from her2core.errors import StoreError
from her2core.storage.s3 import ANY_REGION, CONNECT_TIMEOUT_S, READ_TIMEOUT_S, RETRIES
from her2core.storage.s3check import check_bucket, explained
from her2core.storage.store import TEMPORARY_FOLDER, Store

log = logging.getLogger(__name__)

MAX_DEPTH = 32
"""Deepest local folder that is looked into, beside the check for links that lead back. Ours."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One object or file.

    Attributes
    ----------
    path
        Relative to the store that was listed, with ``/``.
    tag
        ETag of an object; of a file its modification time and inode, which other bytes hardly share.
    changed
        When it was last written, in seconds since 1970: of a file its change time, which no program sets.
    """

    path: str
    size: int
    tag: str
    changed: float


def walk(store: Store) -> Iterator[Listed]:
    """Every object of a store, those of one folder together; of a folder on disk, files before folders.

    Raises
    ------
    StoreError
        If it cannot be listed.
    """
    if store.is_local:
        if not os.path.isdir(store.root):
            raise StoreError(f"{store.uri()}: no such folder; correct the address.")
        yield from _local(store.root, "", 0, set())
    else:
        yield from _remote(store)


def walk_folder(store: Store, folder: str) -> Iterator[Listed]:
    """Every object in a folder of a store, by its path in the store; none if there is no such folder."""
    if store.exists(folder):
        for each in walk(Store(store.uri(folder), endpoint_url=store.endpoint_url)):
            yield replace(each, path=f"{folder}/{each.path}")


def uploads_in_flight(store: Store) -> frozenset[str]:
    """Paths of objects whose multipart upload has begun and not ended; empty for a folder.

    A server or policy that does not list uploads counts as having none, and a warning is logged.
    """
    if store.is_local:
        return frozenset()
    bucket, prefix = _place(store)
    client = _client(store)
    try:
        pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=prefix)
        return frozenset(
            str(upload["Key"]).removeprefix(prefix) for page in pages for upload in page.get("Uploads") or ()
        )
    except (BotoCoreError, ClientError) as error:
        log.warning(
            "%s: uploads in flight cannot be listed (%s); only the settle time protects half-uploaded slides",
            store.uri(),
            type(error).__name__,
        )
        return frozenset()
    finally:
        client.close()


def _local(root: str, inside: str, depth: int, seen: set[tuple[int, int]]) -> Iterator[Listed]:
    folder = os.path.join(root, inside)  # noqa: PTH118, a hundred thousand Paths take seconds
    try:
        here = os.stat(folder)
        if depth > MAX_DEPTH or (here.st_dev, here.st_ino) in seen:
            return
        seen.add((here.st_dev, here.st_ino))
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except FileNotFoundError:  # it went just now
        return
    except PermissionError:
        if not inside:
            raise StoreError(f"{root}: not allowed to look into it; check the folder's mode.") from None
        log.warning("%s/%s: not allowed to look into it; what it holds is not listed", root, inside)
        return
    folders = []
    for entry in found:
        path = f"{inside}/{entry.name}" if inside else entry.name
        if entry.name == TEMPORARY_FOLDER:
            continue
        try:
            if entry.is_dir():
                folders.append(path)
                continue
            stat = entry.stat()
        except OSError:  # a link to nothing, or it went just now
            continue
        yield Listed(path, stat.st_size, f"{stat.st_mtime_ns}-{stat.st_ino}", stat.st_ctime)
    for below in folders:
        yield from _local(root, below, depth + 1, seen)


def _remote(store: Store) -> Iterator[Listed]:
    check_bucket(store.uri(), store.endpoint_url)
    bucket, prefix = _place(store)
    client = _client(store)
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            for item in page.get("Contents") or ():
                path = str(item["Key"]).removeprefix(prefix)
                if path and not path.endswith("/"):  # else the marker of a folder
                    modified: datetime = item["LastModified"]
                    yield Listed(
                        path,
                        int(item["Size"]),
                        str(item["ETag"]).strip('"'),
                        modified.astimezone(UTC).timestamp(),
                    )
    except (BotoCoreError, ClientError) as error:
        raise explained(store.uri(), store.endpoint_url, error, to="list") from error
    finally:
        client.close()


def _place(store: Store) -> tuple[str, str]:
    bucket, _, prefix = store.root.partition("/")
    return bucket, f"{prefix}/" if prefix else ""


def _client(store: Store) -> Any:
    import botocore.config  # slow to import: not where a folder is listed
    import botocore.session

    session = botocore.session.Session()
    config = botocore.config.Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"max_attempts": RETRIES, "mode": "legacy"},
    )
    region = session.get_config_variable("region") or ANY_REGION
    return session.create_client("s3", region_name=region, endpoint_url=store.endpoint_url, config=config)
