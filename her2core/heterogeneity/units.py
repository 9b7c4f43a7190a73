"""What is compared: a block, slide or lesion with what its cells or nuclei add up to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
from numpy.typing import NDArray

from her2core.heterogeneity.bootstrap import UNIT, replicate_sums, whole

Reals = NDArray[np.float64]

MIN_UNITS = 2
CELL_SUMS = ("n", "od", "od_squares", "score_0", "score_1", "score_2", "score_3")
"""What a unit's cells add up to; 2u is a score of 2."""
NUCLEUS_SUMS = ("n", "her2", "her2_squares", "cep17", "amplified")
"""What a unit's nuclei add up to; ``cep17`` is 0 of a single probe."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What some cells or nuclei add up to, exactly, and what 95 % intervals are made of.

    Attributes
    ----------
    total
        `CELL_SUMS` or `NUCLEUS_SUMS`, shape ``(k,)``: multiples of `bootstrap.UNIT`, so that sums are exact.
    replicates
        The same of bootstrap replicates, shape ``(replicates, k)``; None if blocks are too few.
    """

    total: Reals
    replicates: Reals | None

    @classmethod
    def of(cls, blocks: Reals, replicates: int, name: str) -> Sums:
        """Sums of one slide.

        Parameters
        ----------
        blocks
            What each compact block of tissue holds, shape ``(m, k)``.
        name
            The slide's: slides are drawn independently of each other, and of the order they come in.
        """
        rounded = whole(blocks)
        drawn = replicate_sums(rounded, replicates, name)
        return cls(rounded.sum(axis=0) * UNIT, None if drawn is None else drawn * UNIT)

    def __add__(self, other: Sums) -> Sums:
        """Of both together."""
        if self.replicates is None or other.replicates is None:
            return Sums(self.total + other.total, None)
        return Sums(self.total + other.total, self.replicates + other.replicates)


@dataclass(frozen=True, slots=True)
class Unit:
    """A block, slide or lesion.

    Attributes
    ----------
    n
        Its evaluable tumour cells, or nuclei.
    sums
        What they add up to; None where fewer than `MIN_UNITS` units have cells enough to be compared.
    score
        IHC score as a rank, 0 to 3; None if there is none.
    h_score
        0 to 300; None without IHC.
    """

    name: str
    n: int
    sums: Sums | None
    score: int | None = None
    h_score: float | None = None


def pooled(sums: Sequence[Sums]) -> Sums:
    """Sums of several slides together."""
    return reduce(add, sums)
