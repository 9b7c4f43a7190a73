"""A marker object that means "look now": who uploads writes it last, who takes in removes it."""

from __future__ import annotations

from her2core.storage.sources import file_stamp
from her2core.storage.store import Store


class Marker:
    """A file or object that an upload leaves when it is complete.

    Parameters
    ----------
    uri
        Path or ``s3://`` address.
    """

    def __init__(self, uri: str, endpoint_url: str | None = None) -> None:
        folder, _, self.name = uri.removeprefix("file://").rpartition("/")
        self.uri, self.endpoint_url = uri, endpoint_url
        self.folder = Store(folder or ".", endpoint_url=endpoint_url)
        self._seen: str | None = None

    def is_there(self) -> bool:
        """Whether it lies there: one request."""
        if not self.folder.exists(self.name):
            return False
        self._seen = file_stamp(self.uri, self.endpoint_url)
        return True

    def clear(self) -> bool:
        """Remove it, unless it was written again since it was seen: that requests another look."""
        if self._seen is None or not self.folder.exists(self.name):
            return False
        if file_stamp(self.uri, self.endpoint_url) != self._seen:
            return False
        self.folder.delete(self.name)
        return True
