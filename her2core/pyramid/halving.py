"""The 2 x 2 mean that every level is made by, in place and in the processor's cache."""

from __future__ import annotations

import cv2

from her2core.pixels import Pixels


def halve(pixels: Pixels, out: Pixels) -> None:
    """2 x 2 mean, ``(a + b + c + d + 2) >> 2``: what OpenCV's area interpolation computes at this ratio.

    Of two interleaved channels it would round halves to even; each is then halved alone.
    """
    size = (out.shape[1], out.shape[0])
    if out.shape[2] != 2:
        cv2.resize(pixels, size, dst=out, interpolation=cv2.INTER_AREA)
        return
    for channel in range(2):
        alone = cv2.extractChannel(pixels, channel)
        cv2.insertChannel(cv2.resize(alone, size, interpolation=cv2.INTER_AREA), out, channel)


def repeat_edges(chunk: Pixels, height: int, width: int) -> None:
    """Repeat the last valid row and column to the chunk's end: odd sizes halve rightly, padding is small."""
    below, beside = chunk.shape[0] - height, chunk.shape[1] - width
    if below or beside:
        cv2.copyMakeBorder(chunk[:height, :width], 0, below, 0, beside, cv2.BORDER_REPLICATE, dst=chunk)
