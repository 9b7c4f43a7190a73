"""The colours of classes, scores and groups, for every picture, figure and page.

Chosen so that any two of a set stay apart for readers with protanopia, deuteranopia and tritanopia (simulated
after Machado, Oliveira and Fernandes, IEEE TVCG 15:1291, 2009), and so that from class 1 on the stronger
class is the darker: they stay in order in grey print. No drawing library is imported here.
"""

from __future__ import annotations

from her2core.guidelines.rules_ihc import CellClass

CLASS_COLOURS = {
    CellClass.C0: "#8CC8EE",
    CellClass.C1: "#F3E85C",
    CellClass.C2U: "#C97B12",
    CellClass.C2: "#A8284A",
    CellClass.C3: "#33084A",
}
OTHER_COLOUR = "#8E8E8E"
"""Cells that are not counted; whatever is undecided."""
SCORE_COLOURS = {
    "0": CLASS_COLOURS[CellClass.C0],
    "1+": CLASS_COLOURS[CellClass.C1],
    "2+": CLASS_COLOURS[CellClass.C2],
    "3+": CLASS_COLOURS[CellClass.C3],
}
"""IHC scores: each as the class of cell that makes it."""
HER2_CLASS_COLOURS = {
    "pos_IHC3": "#33084A",
    "pos_IHC2_ISHpos": "#A8284A",
    "pos_ISH_only": "#6E4FB0",
    "equivocal": "#F2B8A0",
    "low_2plus": "#C97B12",
    "low_1plus": "#F3E85C",
    "ultralow": "#5BA3DB",
    "0_unresolved": "#9CC7E4",
    "null": "#CFE3F1",
    "negative": "#CFE3F1",
    "indeterminate": OTHER_COLOUR,
}
"""Classes of a specimen, highest first."""
ISH_COLOURS = {
    "1": "#33084A",
    "2": "#A8284A",
    "3": "#C97B12",
    "4": "#F3E85C",
    "5": "#8CC8EE",
    "single_positive": "#33084A",
    "single_equivocal": "#C97B12",
    "single_negative": "#8CC8EE",
}
"""ISH groups."""
STATUS_COLOURS = {
    "Positive": "#33084A",
    "Equivocal": "#C97B12",
    "Negative": "#8CC8EE",
    "Indeterminate": OTHER_COLOUR,
}


def ink_on(colour: str) -> str:
    """White or near-black: what has more contrast (WCAG 2) on a colour, ``#RRGGBB``."""
    levels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if luminance < 0.179 else "#222222"
