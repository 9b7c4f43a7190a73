"""Where levels, shards and chunks of a pyramid lie: integers in, tuples and boxes out, no pixels.

::

    level 0   |---------- shard ----------|     shard / chunk x shard / chunk chunks
    level 1   |--- shard/2 ---|                 the same ground in half the pixels
      ...
    level b-1 |chunk|                           one chunk
    level b   |---------- shard ----------|     the next band begins

Levels come in bands of ``b = log2(shard / chunk) + 1``. A shard of a band's first level covers the same
ground as one shard of every other level of that band, so one task can write all of them, whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from her2core.errors import ConfigError
from her2core.records import Box


@dataclass(frozen=True, slots=True)
class Grid:
    """Geometry of one pyramid.

    Parameters
    ----------
    height, width
        Size of level 0 in pixels.
    chunk
        Chunk edge in pixels at every level: a power of two, at least 2.
    shard
        Shard edge in pixels at level 0: ``chunk`` times a power of two.

    Raises
    ------
    ConfigError
        If a size is out of these bounds.
    """

    height: int
    width: int
    chunk: int
    shard: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ConfigError(f"image of {self.height} x {self.width} px; expected at least 1 x 1.")
        if self.chunk < 2 or self.chunk & (self.chunk - 1):
            raise ConfigError(f"pyramid.chunk = {self.chunk}; expected a power of two, such as 512.")
        side = self.shard // self.chunk
        if self.shard % self.chunk or side < 1 or side & (side - 1):
            raise ConfigError(
                f"pyramid.shard = {self.shard}; expected pyramid.chunk ({self.chunk}) times a power of two."
            )

    @property
    def band(self) -> int:
        """Levels that one task writes."""
        return (self.shard // self.chunk).bit_length()

    @property
    def levels(self) -> int:
        """Number of levels; the coarsest is the first that fits one chunk."""
        return max((-(-max(self.height, self.width) // self.chunk) - 1).bit_length(), 0) + 1

    def level_shape(self, level: int) -> tuple[int, int]:
        """``(height, width)`` of a level in its own pixels."""
        return -(-self.height >> level), -(-self.width >> level)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple(self.level_shape(level) for level in range(self.levels))

    def shard_px(self, level: int) -> int:
        """Shard edge at a level, in the level's own pixels."""
        return self.shard >> (level % self.band)

    def shard_counts(self, level: int) -> tuple[int, int]:
        """Rows and columns of shards at a level."""
        height, width = self.level_shape(level)
        edge = self.shard_px(level)
        return -(-height // edge), -(-width // edge)

    def shards(self, level: int) -> Iterator[tuple[int, int]]:
        """``(iy, ix)`` of every shard of a level, row by row."""
        rows, columns = self.shard_counts(level)
        return ((iy, ix) for iy in range(rows) for ix in range(columns))

    def tasks(self) -> tuple[tuple[int, int], ...]:
        """``(iy, ix)`` of every task: the shards of level 0."""
        return tuple(self.shards(0))

    def shard_box(self, level: int, iy: int, ix: int) -> Box:
        """Pixels of a level that a shard holds, cut at the image's edge."""
        height, width = self.level_shape(level)
        edge = self.shard_px(level)
        return Box(iy * edge, ix * edge, min((iy + 1) * edge, height), min((ix + 1) * edge, width))

    def band_levels(self, first: int) -> range:
        """Levels of the band that begins at level ``first``."""
        return range(first, min(first + self.band, self.levels))

    @property
    def objects(self) -> int:
        """Objects of the whole pyramid: every shard, one document a level and one for the group."""
        shards = 0
        for level in range(self.levels):
            rows, columns = self.shard_counts(level)
            shards += rows * columns
        return shards + self.levels + 1
