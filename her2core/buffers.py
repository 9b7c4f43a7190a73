"""Memory that a thread reuses from call to call: fresh pages cost more to touch than most reads take."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray


class ThreadBuffers(threading.local):
    """Bytes by name, each thread's own; a buffer grows to the largest that was requested of it."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.uint8]] = {}

    def flat(self, name: str, size: int, capacity: int = 0) -> NDArray[np.uint8]:
        """Shape ``(size,)``, with what was written there before; if new, of ``capacity`` bytes at once."""
        need = max(size, capacity)
        if name not in self._held or self._held[name].size < need:
            self._held.pop(name, None)  # the smaller one goes before the larger comes
            self._held[name] = np.empty(need, np.uint8)
        return self._held[name][:size]
