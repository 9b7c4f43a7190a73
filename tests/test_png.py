"""PNG files: every pixel comes back, from two readers that know nothing of each other."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from her2core.png import png


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (37, 211)])
def test_every_pixel_comes_back(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    data = png(rgb, 100.0)
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr is not None
    assert (bgr[..., ::-1] == rgb).all()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.mode, image.size) == ("RGB", shape[::-1])
        assert image.info["dpi"] == pytest.approx((100.0, 100.0), abs=0.01)
        assert (np.asarray(image) == rgb).all()


def test_a_view_is_written_as_it_looks() -> None:
    rgba = np.random.default_rng(1).integers(0, 256, (9, 12, 4), dtype=np.uint8)
    view = rgba[::2, ::-1, :3]
    assert png(view, 100.0) == png(view.copy(), 100.0)
