"""Pictures of ISH slides: nuclei in the colour of their state, signals ringed, and a fair gallery."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from her2core.pictures import ish
from her2core.pictures.canvas import png_bytes
from her2core.pictures.ish import (
    AMPLIFIED,
    CROP_UM,
    GALLERY,
    NOT_AMPLIFIED,
    PROBE_COLOURS,
    CloseUp,
    ISHNuclei,
    ISHSummary,
    composite,
    crop_box,
    gallery,
    ish_picture,
    read_crops,
)
from her2core.records import RGB, PyramidRef

FISH = ("DAPI", "HER2", "CEP17")
MPP = 0.1
SUMMARY = ISHSummary("block 1", "scored", "Positive", "1", 4.25, (3.9, 4.6), 8.5, 2.0, "limited")


def nuclei(
    her2: list[int], cep17: list[int] | None, evaluable: list[bool] | None = None, um: float = 20.0
) -> ISHNuclei:
    place = um * np.arange(1.0, len(her2) + 1.0)
    counts = None if cep17 is None else np.array(cep17, np.int64)
    flags = np.ones(len(her2), np.bool_) if evaluable is None else np.array(evaluable, np.bool_)
    return ISHNuclei(place, place, np.array(her2, np.int64), counts, flags)


def close_up(
    pixels: npt.NDArray[np.generic], spots: list[tuple[int, float, float]], her2: int = 1, cep17: int = 1
) -> CloseUp:
    probe, y, x = (np.array([spot[k] for spot in spots], np.float64) for k in range(3))
    return CloseUp(pixels, her2, cep17, probe.astype(np.int64), y, x, np.full(len(spots), 8.0))


@pytest.fixture(autouse=True, scope="module")
def exact() -> Iterator[None]:
    """Pictures without loss, whose colours can be looked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ish, "jpeg_bytes", png_bytes)
        yield


def decoded(png: bytes) -> npt.NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image[..., ::-1], np.uint8)


def places(image: npt.NDArray[np.uint8], colour: str, within: int = 3) -> npt.NDArray[np.int64]:
    """(n, 2) pixels of a colour, above the legend."""
    target = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)], np.int64)
    return np.argwhere((np.abs(image[:-70].astype(np.int64) - target) <= within).all(axis=2))


def test_amplified_means_ratio_two_or_six_copies_and_only_of_evaluable_nuclei() -> None:
    two = nuclei([3, 4, 12, 12], [2, 2, 7, 1], [True, True, True, False])
    assert two.amplified.tolist() == [False, True, False, False]
    assert nuclei([5, 6, 20], None, [True, True, False]).amplified.tolist() == [False, True, False]


def test_dots_lie_where_their_nuclei_do() -> None:
    thumbnail = np.full((500, 500, 3), 240, np.uint8)  # 2 mm: dots are filled
    places_um = np.array([400.0, 1600.0])
    drawn = ISHNuclei(places_um, places_um[::-1], np.array([8, 2]), np.array([2, 2]), np.ones(2, np.bool_))
    image = decoded(ish_picture(thumbnail, 4.0, RGB, drawn, [], MPP, SUMMARY))
    moved = places(image, NOT_AMPLIFIED).mean(axis=0) - places(image, AMPLIFIED).mean(axis=0)
    np.testing.assert_allclose(moved, (420.0, -420.0), atol=1.5)  # a panel is 700 px for 2000 µm


def test_signals_are_ringed_where_they_are() -> None:
    crop = np.full((160, 160, 3), 240, np.uint8)
    shown = [close_up(crop, [(0, 40.0, 60.0), (1, 120.0, 100.0)])]
    thumbnail = np.full((500, 500, 3), 240, np.uint8)
    image = decoded(ish_picture(thumbnail, 4.0, RGB, nuclei([], []), shown, MPP, SUMMARY))
    rings = [places(image, colour, 40) for colour in PROBE_COLOURS]  # thin, so mixed with what is near
    assert all(len(ring) > 20 for ring in rings)
    middles = [(ring.max(axis=0) + ring.min(axis=0)) / 2 for ring in rings]
    # a close-up is 220 px for 160
    np.testing.assert_allclose(middles[1] - middles[0], (80 * 220 / 160, 40 * 220 / 160), atol=2.0)


def test_gallery_spreads_over_copies_and_leaves_out_what_does_not_count() -> None:
    her2 = list(range(100))
    shown = gallery(nuclei(her2, [2] * 100, [k % 2 == 0 for k in her2]))
    assert len(shown) == GALLERY
    assert (shown % 2 == 0).all()
    assert (np.diff(shown) > 0).all()
    np.testing.assert_allclose(np.diff(shown), 100 / GALLERY, atol=2.0)
    assert gallery(nuclei([1, 5, 3], [1, 1, 1], [True, False, True])).tolist() == [0, 2]
    assert len(gallery(nuclei([3, 3], [1, 1], [False, False]))) == 0


@given(st.permutations(range(30)), st.booleans())
def test_gallery_does_not_depend_on_the_order_of_nuclei(order: list[int], dual: bool) -> None:
    her2 = [k % 4 for k in range(30)]
    whole = nuclei(her2, [k % 3 for k in range(30)] if dual else None)
    turned = ISHNuclei(
        whole.y_um[order],
        whole.x_um[order],
        whole.her2[order],
        None if whole.cep17 is None else whole.cep17[order],
        whole.evaluable[order],
    )
    assert [order[k] for k in gallery(turned)] == gallery(whole).tolist()


def test_composite_shows_each_channel_in_its_own_colour() -> None:
    pixels = np.full((100, 100, 3), 500, np.uint16)
    pixels[20:24, 20:24, 1] = 60000
    pixels[70:74, 70:74, 2] = 3000  # a weak channel is shown as clearly as a strong one
    rgb = composite(pixels, FISH).astype(int)
    her2, cep17 = rgb[21, 21], rgb[71, 71]
    assert her2[0] == 255
    assert her2[0] > 2 * her2[1] > 2 * her2[2]
    assert cep17[1] > 200
    assert cep17[1] > 2 * cep17[0]
    assert (rgb[50, 50] == 0).all()


@pytest.mark.parametrize("shape", [(900, 300), (300, 1000), (40, 2000), (1, 1)])
@pytest.mark.parametrize("n", [0, 30])
@pytest.mark.parametrize("channels", [RGB, FISH, FISH[:2]])
def test_any_shape_channels_and_no_nuclei(shape: tuple[int, int], n: int, channels: tuple[str, ...]) -> None:
    dtype = np.uint8 if channels == RGB else np.uint16
    thumbnail = np.full((*shape, len(channels)), 100, dtype)
    summary = ISHSummary(
        "odd $name_{ with a \\ very, " * 5, "indeterminate", None, None, None, None, None, None, "blur " * 60
    )
    drawn = nuclei(list(range(n)), None if len(channels) == 2 else [1] * n)
    crop = np.zeros((20, 20, len(channels)), dtype)
    shown = [close_up(crop, [], her2=k) for k in range(min(n, GALLERY))]
    image = decoded(ish_picture(thumbnail, 8.0, channels, drawn, shown, MPP, summary))
    assert image.shape[0] > 200
    for edge in (image[-1], image[:, 0], image[:, -1]):  # nothing runs out of the page
        assert (edge == 255).all()


def test_same_bytes_from_any_thread() -> None:
    rng = np.random.default_rng(1)
    thumbnail = rng.integers(0, 4096, (300, 300, 3), dtype=np.uint16)
    drawn = nuclei([1, 4, 9], [2, 2, 2])
    shown = [close_up(thumbnail[:160, :160], [(0, 40.0, 60.0)])]

    def draw(_: int) -> bytes:
        return ish_picture(thumbnail, 1.0, FISH, drawn, shown, MPP, SUMMARY)

    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(draw, range(4)))) == 1


def test_crops_are_read_around_their_nuclei_at_full_resolution() -> None:
    class Levels:
        def read(self, level: int, y0: int, x0: int, out: npt.NDArray[np.generic]) -> None:
            assert level == 0
            out[...] = np.array(y0 + np.arange(out.shape[0]), out.dtype)[:, np.newaxis, np.newaxis]

    ref = PyramidRef("p", "id", ((4000, 4000),), 512, 4096, MPP, "zstd", 0, 0, FISH, "uint16")
    box = crop_box(1000.4, 2000.0, MPP)
    assert (box.y0 + box.y1, box.x0 + box.x1) == (2000, 4000)
    assert box.height == box.width == pytest.approx(CROP_UM / MPP, abs=2)
    (crop,) = read_crops(Levels(), ref, [box])
    assert crop.shape == (box.height, box.width, 3)
    assert crop.dtype == np.uint16
    assert crop[box.height // 2, 0, 0] == 1000
