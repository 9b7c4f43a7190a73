"""Where levels, shards and chunks of a pyramid lie: integers in, tuples and boxes out, no pixels.

::

    level 0   |---------- shard ----------|     shard / chunk x shard / chunk chunks
    level 1   |--- shard/2 ---|                 the same ground in half the pixels
      ...
    level b-1 |chunk|                           one chunk
    level b   |---------- shard ----------|     the next band begins

Levels come in bands of ``b = log2(shard / chunk) + 1``. A shard of a band's first level covers the same
ground as one shard of every other level of that band, so one task can write all of them, whole.

Where level 0 holds a slide's own tiles, the first band is another (chunk 512, shard 4096, block 8), and every
other level is stored, as scanners do::

    level 0   tiles of the slide, as they are: a block of 8 x 8 shards
    level 2   8192 px a shard, 16 x 16 chunks    with loss, for viewers
    level 4   2048 px, 4 x 4 chunks              exact; the next band begins above it

Copied tiles are so small that a task makes a block of shards: the other levels are then few objects, and what
is read and stored for one shard goes on while the next is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from her2core.errors import ConfigError
from her2core.records import Box

EXACT_LEVEL = 4
"""Level from which on a pyramid of copied tiles is stored without loss (ours: 1/256 of the pixels, and the
profile's coarse picture lies at 4 or above for any slide of up to 0.7 µm/px)."""
BLOCK = 8
"""Edge, in shards, of the block of a task that copies tiles. Ours: 64 shards are nine seconds of work, and a
slide of two gigapixels is then four tasks and nine shards beside its level 0."""
STEP = 2
"""Of pyramids of copied tiles every second level is stored: each a sixteenth of the one before."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Geometry of one pyramid.

    Parameters
    ----------
    height, width
        Size of level 0 in pixels.
    chunk
        Chunk edge in pixels at every level: a power of two, at least 2; beside copied tiles any even number.
    shard
        Shard edge in pixels at level 0: ``chunk`` times a power of two.
    tile
        Chunk edge at level 0 where that holds a slide's own tiles; 0 where it is like any other.
    block
        Edge in shards of what one task makes; more than 1 only of copied tiles.

    Raises
    ------
    ConfigError
        If a size is out of these bounds.
    """

    height: int
    width: int
    chunk: int
    shard: int
    tile: int = 0
    block: int = 1

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ConfigError(f"image of {self.height} x {self.width} px; expected at least 1 x 1.")
        if self.chunk < 2 or self.chunk % 2 or (not self.tile and self.chunk & (self.chunk - 1)):
            raise ConfigError(f"pyramid.chunk = {self.chunk}; expected a power of two, such as 512.")
        side = self.shard // self.chunk
        if self.shard % self.chunk or side < 1 or side & (side - 1):
            raise ConfigError(
                f"pyramid.shard = {self.shard}; expected pyramid.chunk ({self.chunk}) times a power of two."
            )
        if self.tile and (self.tile < 0 or self.shard % self.tile or self.shard % 2**EXACT_LEVEL):
            raise ConfigError(
                f"tiles of {self.tile} px in shards of {self.shard}; expected a whole number of them."
            )

    @property
    def band(self) -> int:
        """Levels of a band."""
        return (self.shard // self.chunk).bit_length()

    @property
    def first_band(self) -> int:
        """Levels of the first band: those that one task makes."""
        return EXACT_LEVEL + 1 if self.tile else self.band

    @property
    def bands(self) -> tuple[int, ...]:
        """First level of every band."""
        return (0, *range(self.first_band, self.levels, self.band))

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

    @property
    def stored(self) -> tuple[int, ...]:
        """The levels that are stored."""
        return tuple(level for level in range(self.levels) if self.is_stored(level))

    def is_stored(self, level: int) -> bool:
        """Whether a level is stored."""
        return not self.tile or level % STEP == 0

    def exact_from(self, level: int) -> int:
        """The nearest finer level, or this one, whose stored pixels are what analysis reads."""
        if not self.tile:
            return level
        return 0 if level < EXACT_LEVEL else level - level % STEP

    def shard_px(self, level: int) -> int:
        """Shard edge at a level, in the level's own pixels."""
        if level < self.first_band:
            return self.shard * (self.block if level else 1) >> level
        return self.shard >> (level - self.first_band) % self.band

    def chunk_px(self, level: int) -> int:
        """Chunk edge at a level, in the level's own pixels."""
        return self.tile if self.tile and level == 0 else min(self.chunk, self.shard_px(level))

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
        """``(iy, ix)`` of every task: the blocks of shards of level 0, row by row."""
        rows, columns = (-(-count // self.block) for count in self.shard_counts(0))
        return tuple((iy, ix) for iy in range(rows) for ix in range(columns))

    def task_box(self, iy: int, ix: int) -> Box:
        """Pixels of level 0 that a task makes."""
        edge = self.shard * self.block
        return Box(iy * edge, ix * edge, min((iy + 1) * edge, self.height), min((ix + 1) * edge, self.width))

    def last_shard(self, iy: int, ix: int) -> tuple[int, int]:
        """The shard of level 0 that a task writes last of all."""
        rows, columns = self.shard_counts(0)
        return min((iy + 1) * self.block, rows) - 1, min((ix + 1) * self.block, columns) - 1

    def shard_box(self, level: int, iy: int, ix: int) -> Box:
        """Pixels of a level that a shard holds, cut at the image's edge."""
        height, width = self.level_shape(level)
        edge = self.shard_px(level)
        return Box(iy * edge, ix * edge, min((iy + 1) * edge, height), min((ix + 1) * edge, width))

    def band_levels(self, first: int) -> range:
        """Levels of the band that begins at level ``first``."""
        return range(first, min(first + (self.band if first else self.first_band), self.levels))

    @property
    def objects(self) -> int:
        """Objects of the whole pyramid: every shard, one document a level and one for the group."""
        shards = 0
        for level in self.stored:
            rows, columns = self.shard_counts(level)
            shards += rows * columns
        return shards + len(self.stored) + 1
