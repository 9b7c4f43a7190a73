"""Arrow without pandas, which it imports, in a quarter second, to see whether its first list is a Series."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import pyarrow as pa


class _NotNow:
    """Finds no pandas, for as long as Arrow looks."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "pandas":
            raise ImportError("not needed here")
        return None


def leave_pandas_out() -> None:
    """Have Arrow look for pandas now, once, and not find it. ``to_pandas`` works as before.

    For processes of ours that hand it lists and arrays alone.
    """
    sys.meta_path.insert(0, _NotNow)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_NotNow)
