"""The cohort's picture: every specimen in its place, bars and dots as long and as far as their numbers."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from her2core.guidelines.rules_case import HER2_CLASSES
from her2core.guidelines.rules_ihc import CellClass
from her2core.pictures.canvas import DPI
from her2core.pictures.cohort import (
    AXIS_IN,
    BAR_IN,
    BOTTOM_IN,
    CHIP_IN,
    CHIPS,
    COLUMNS,
    GAP_IN,
    MOST_NAMED,
    NAME_IN,
    ROW_IN,
    TOP_IN,
    cohort_picture,
)
from her2core.pictures.colours import CLASS_COLOURS

RGB = npt.NDArray[np.uint8]
CHIPS_PX = round((GAP_IN + NAME_IN) * DPI)
BARS_PX = round((2 * GAP_IN + NAME_IN + CHIP_IN) * DPI)
RATIO_PX = round((3 * GAP_IN + NAME_IN + CHIP_IN + BAR_IN) * DPI)


def specimen(name: str, her2_class: str = "null", counts: tuple[int, ...] = (0,) * 5, **more: Any) -> Any:
    """What the picture looks at of a row of ``cases``; counts are of class 3, 2, 2u, 1 and 0."""
    names = [f"ish_{value}{end}" for value in ("ratio", "her2_mean") for end in ("", "_low", "_high")]
    names += ["specimen_id", "site", "score", "h_score", "pending", "ish_group", "ish_arm_source"]
    row: dict[str, Any] = dict.fromkeys(names)
    row |= {f"{edge}_{end}_pct": 50.0 for edge in ("p3", "p2", "p_any") for end in ("low", "high")}
    row |= {"case_id": name, "her2_class": her2_class, "her2_status": "Negative", "n_slides": 1}
    row |= dict.fromkeys(("reasons", "slides_indeterminate", "slides_failed", "slides_skipped"), ())
    return row | dict(zip(("n3", "n2", "n2u", "n1", "n0"), counts, strict=True)) | more


def dual(ratio: float, low: float, high: float, copies: float = 4.0) -> dict[str, float]:
    return {
        "ish_ratio": ratio, "ish_ratio_low": low, "ish_ratio_high": high,
        "ish_her2_mean": copies, "ish_her2_mean_low": copies - 0.1, "ish_her2_mean_high": copies + 0.1,
    }  # fmt: skip


def drawn(rows: list[Any]) -> RGB:
    image = cv2.imdecode(np.frombuffer(cohort_picture(rows), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image[..., ::-1], np.uint8)


def shows(pixels: RGB, colour: str) -> npt.NDArray[np.bool_]:
    wanted = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])
    near: npt.NDArray[np.bool_] = (np.abs(pixels.astype(int) - wanted) <= 3).all(axis=-1)
    return near


def line(image: RGB, row: int, up: float = 0.3) -> RGB:
    """The pixels of a row of the picture, ``up`` of its height above its middle, clear of words."""
    return image[round((TOP_IN + (row + 0.5 - up) * ROW_IN) * DPI)]


def test_bars_are_stacked_from_the_strongest_class_as_long_as_their_shares() -> None:
    image = drawn([specimen("one", counts=(30, 20, 0, 40, 10))])
    bar = line(image, 0)[BARS_PX : BARS_PX + round(BAR_IN * DPI)]
    edges = {}
    for kind in (CellClass.C3, CellClass.C2, CellClass.C1, CellClass.C0):
        here = np.flatnonzero(shows(bar, CLASS_COLOURS[kind]))
        edges[kind] = (here.min() / len(bar), (here.max() + 1) / len(bar))
    assert edges[CellClass.C3] == pytest.approx((0.0, 0.3), abs=0.006)
    assert edges[CellClass.C2] == pytest.approx((0.3, 0.5), abs=0.006)
    assert edges[CellClass.C1] == pytest.approx((0.5, 0.9), abs=0.006)
    assert edges[CellClass.C0] == pytest.approx((0.9, 1.0), abs=0.006)
    assert not shows(bar, CLASS_COLOURS[CellClass.C2U]).any()


def test_specimens_come_by_class_in_its_colour() -> None:
    image = drawn([specimen(name, name) for name in sorted(HER2_CLASSES)])
    for row, name in enumerate(HER2_CLASSES):
        chip = line(image, row)[CHIPS_PX + 5 : CHIPS_PX + round(CHIP_IN * DPI) - 5]
        assert shows(chip, CHIPS[name][1]).all(), name


def test_a_ratio_and_its_interval_lie_on_a_logarithmic_scale_from_a_half_to_eight() -> None:
    image = drawn(
        [
            specimen("two"),
            specimen("one", **dual(2.0, 1.0, 4.0)),
            specimen("three", **dual(40.0, 9.0, 50.0, 9.0)),
        ]
    )
    wide = round(AXIS_IN * DPI)
    spans = []
    for row in range(2):
        dark = line(image, row, up=0.0)[RATIO_PX - 5 : RATIO_PX + wide + 5].max(axis=1) < 100
        places = (np.flatnonzero(dark) - 5) / wide
        spans.append((places.min(), places.max()))
    three, one = spans  # more copies come first
    assert one == pytest.approx((0.25, 0.75), abs=0.015)
    assert three[1] == pytest.approx(1.0, abs=0.03)  # beyond the scale: at its end, never left out


def test_a_specimen_without_cells_is_pale_and_not_negative() -> None:
    image = drawn([specimen("lost", "indeterminate", her2_status="Indeterminate", slides_failed=("s",))])
    row = line(image, 0)
    assert not shows(row, CLASS_COLOURS[CellClass.C0]).any()
    assert shows(row[BARS_PX + 60 : BARS_PX + 400], CHIPS["indeterminate"][1]).all()


@pytest.mark.parametrize("n", [0, 1, MOST_NAMED, MOST_NAMED + 1, 3000])
def test_cohorts_of_any_size(n: int) -> None:
    rows = [
        specimen(f"odd $name_{{ with a \\ {i} " * 3, counts=(i, 1, 1, 1, 1), **dual(1, 1, 1))
        for i in range(n)
    ]
    image = drawn(rows)
    assert image.shape[0] <= (TOP_IN + BOTTOM_IN + MOST_NAMED * ROW_IN) * DPI + 1
    assert (image[:, -1] == 255).all()  # nothing runs out of the page
    assert (image[-1] == 255).all()


def test_the_order_of_the_rows_does_not_matter() -> None:
    rows = [specimen(name, name, (1, 1, 1, 1, i)) for i, name in enumerate(HER2_CLASSES)]
    assert cohort_picture(rows) == cohort_picture(rows[::-1])


def test_no_other_column_is_looked_at() -> None:
    rows = [specimen(name, name, (1, 1, 1, 1, i), **dual(3, 2, 4)) for i, name in enumerate(HER2_CLASSES)]
    rows[0] |= {"ish_arm_source": "external", "pending": "PENDING_IHC", "score": "3+", "ish_group": "1"}
    assert cohort_picture([{name: row[name] for name in COLUMNS} for row in rows]) == cohort_picture(rows)
