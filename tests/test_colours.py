"""Colours of a set stay apart for every kind of colour vision."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from her2core.pictures.colours import (
    CLASS_COLOURS,
    HER2_CLASS_COLOURS,
    ISH_COLOURS,
    OTHER_COLOUR,
    SCORE_COLOURS,
    ink_on,
)

VISIONS = {  # Machado, Oliveira and Fernandes 2009, severity 1.0
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                   [0.0193339, 0.1191920, 0.9503041]]) / np.array([[0.95047], [1.0], [1.08883]])  # fmt: skip
LEAST = 24.0
"""CIE76 difference; one just seen side by side is 2.3. Ours."""


def lab(colour: str, seen: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of a colour as it is seen."""
    level = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    xyz = TO_XYZ @ np.clip(seen @ linear, 0, 1)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


MAIN = ("null", "ultralow", "low_1plus", "low_2plus", "pos_IHC2_ISHpos", "pos_IHC3", "indeterminate")
SETS = {
    "classes of cells": [*CLASS_COLOURS.values(), OTHER_COLOUR],
    "scores": [*SCORE_COLOURS.values(), OTHER_COLOUR],
    "classes of specimens": [HER2_CLASS_COLOURS[name] for name in MAIN],
    "ISH groups": [*(ISH_COLOURS[group] for group in "12345"), OTHER_COLOUR],
}


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("which", SETS)
def test_any_two_colours_of_a_set_stay_apart(which: str, vision: str) -> None:
    seen = VISIONS[vision]
    apart = {(a, b): np.linalg.norm(lab(a, seen) - lab(b, seen)) for a, b in combinations(SETS[which], 2)}
    nearest = min(apart, key=lambda pair: apart[pair])
    assert apart[nearest] >= LEAST, f"{nearest}: {apart[nearest]:.1f}"


def test_a_stronger_class_is_darker_from_class_one_on() -> None:
    lightness = [lab(colour, np.eye(3))[0] for colour in list(CLASS_COLOURS.values())[1:]]
    assert lightness == sorted(lightness, reverse=True)


@pytest.mark.parametrize(("colour", "ink"), [("#33084A", "white"), ("#F3E85C", "#222222")])
def test_words_are_legible_on_a_colour(colour: str, ink: str) -> None:
    assert ink_on(colour) == ink
