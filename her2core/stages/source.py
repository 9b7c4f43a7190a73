"""A slide file as workers open it; what reads slides is loaded where one is opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from her2core.errors import Reason, SlideError
from her2core.records import SlideInfo, SlideRow
from her2core.storage.sources import Scratch, file_identity, file_stamp

if TYPE_CHECKING:
    from her2core.readers import SlideReader

STAGED_READERS = frozenset({"openslide", "dicom"})
"""Readers that need the whole file on a disk; the others read remote slides by ranges."""


@dataclass(frozen=True, slots=True)
class Source:
    """A slide file as a worker opens it; ``stamp`` is `file_stamp` from before it was inspected.

    ``outlines`` is the identity of the file of nuclei that the manifest names, if it does.
    """

    info: SlideInfo
    row: SlideRow
    scratch: Scratch
    endpoint_url: str | None
    stamp: str
    outlines: str = ""

    @contextmanager
    def opened(self) -> Iterator[SlideReader]:
        """The process's shared reader of this slide, over a staged copy where the format needs one."""
        from her2core.readers import shared_reader

        info = self.info
        staged = info.reader in STAGED_READERS and info.uri.startswith("s3://")
        place = self.scratch.stage(info.uri, self.endpoint_url) if staged else nullcontext(info.uri)
        with (
            place as path,
            shared_reader(
                path,
                identity=info.identity,
                scene=info.scene,
                mpp=info.mpp,
                uri=info.uri,
                assay=self.row.assay,
                channels=self.row.channels,
                endpoint_url=self.endpoint_url,
            ) as reader,
        ):
            yield reader

    def require_unchanged(self) -> None:
        """Refuse a file that is another one now than when it was inspected."""
        if file_stamp(self.info.uri, self.endpoint_url) == self.stamp:
            return
        if (
            file_identity(self.info.uri, self.endpoint_url)[1] != self.info.identity
        ):  # else it was only touched
            raise SlideError(
                Reason.FILE_CHANGED,
                f"{self.info.uri}: replaced while it was read; run again when it is complete.",
            )
