"""Blurs in whole numbers."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from her2core.kernels.blur import ONE, blur, gaussian_taps


@settings(deadline=None)
@given(
    sigma=st.floats(0.5, 12), reach=st.integers(1, 40), seed=st.integers(0, 99), contrast=st.booleans(),
    height=st.integers(41, 70), width=st.integers(41, 70),
)  # fmt: skip
def test_a_blur_is_opencvs_bit_by_bit(
    sigma: float, reach: int, seed: int, contrast: bool, height: int, width: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    if contrast:
        image = (255 * (image > 127)).astype(np.uint8)
    found = np.empty_like(image)
    blur(image, gaussian_taps(sigma, reach), found)
    np.testing.assert_array_equal(found, cv2.GaussianBlur(image, (2 * reach + 1,) * 2, sigma))


@given(sigma=st.floats(0.5, 12), reach=st.integers(1, 40))
def test_weights_are_whole_and_complete(sigma: float, reach: int) -> None:
    taps = gaussian_taps(sigma, reach)
    assert taps[0] + 2 * taps[1:].sum() == ONE
    exact = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    assert np.abs(taps - ONE * exact[reach:] / exact.sum()).max() <= 1.5
