"""Memory that a kernel reuses from call to call."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Buffers:
    """Planes by name, for one thread.

    Fresh pages cost more to touch than most filters do to run, so a plane that is requested again, and is no
    larger, is the same memory, with what was written there before.

    Attributes
    ----------
    headroom
        How many times larger than requested a new buffer is made: room for the largest call to come.
    """

    def __init__(self) -> None:
        self.headroom = 1.0
        self._held: dict[str, NDArray[Any]] = {}

    def plane(self, name: str, height: int, width: int, dtype: Any = np.uint8) -> NDArray[Any]:
        """A contiguous array ``(height, width)``; a name always has the same ``dtype``."""
        size = height * width
        if name not in self._held or self._held[name].size < size:
            self._held[name] = np.empty(math.ceil(size * self.headroom), dtype)
        return self._held[name][:size].reshape(height, width)
