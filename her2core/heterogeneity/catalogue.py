"""Every metric of heterogeneity by name: what it means, its unit, and the sizes at which it is given.

Wide tables have a column a metric and size, so these names do not change. Sizes are those of the default
`HeterogeneityParams`; what a run measures at others stands in the tidy tables alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from her2core.params import HeterogeneityParams


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """A metric.

    Attributes
    ----------
    scales_um
        Sizes or reaches at which it is given; none for what has no scale.
    labelled
        Whether a word goes with the number that is a finding of its own.
    """

    name: str
    meaning: str
    unit: str = ""
    scales_um: tuple[float, ...] = ()
    labelled: bool = False

    @property
    def columns(self) -> dict[float | None, str]:
        """Column of a wide table that holds its value, by size."""
        return {scale: f"{self.name}_{scale:g}um" for scale in self.scales_um} or {None: self.name}

    @property
    def pattern(self) -> str:
        """Its columns in short: sizes in braces."""
        sizes = ",".join(f"{scale:g}" for scale in self.scales_um)
        if not sizes:
            return self.name
        return f"{self.name}_{{{sizes}}}um" if len(self.scales_um) > 1 else f"{self.name}_{sizes}um"


def _slide(params: HeterogeneityParams) -> Iterator[MetricSpec]:
    sizes = params.sweep_um
    yield MetricSpec("membrane_od_mean", "Mean membrane OD of cells.", "OD")
    yield MetricSpec("shannon", "Entropy of the scores of cells.", "nats")
    yield MetricSpec("evenness", "Entropy of the scores of cells over its largest value.")
    yield MetricSpec("gini_simpson", "Chance that two cells differ in score.")
    yield MetricSpec("rao_q", "Mean difference in score of two cells; 3 steps are 1.")
    yield MetricSpec("membrane_od_sd", "Standard deviation of membrane OD.", "OD")
    yield MetricSpec("membrane_od_mad", "Median distance of membrane OD from its median.", "OD")
    yield MetricSpec("membrane_od_cv", "Coefficient of variation of membrane OD.")
    yield MetricSpec("membrane_od_gini", "Gini coefficient of membrane OD.")
    yield MetricSpec("bimodality", "Bimodality coefficient of membrane OD.")
    yield MetricSpec("ashman_d", "Ashman's D of two populations in membrane OD.")
    yield MetricSpec("eta2", "Share of the variance of OD between regions.", "fraction", sizes)
    yield MetricSpec("eta2_expected", "The same of cells placed at random.", "fraction", sizes)
    yield MetricSpec("discordant_fraction", "Regions whose score is not the slide's.", "fraction", sizes)
    yield MetricSpec("two_step_fraction", "Regions two or three scores away.", "fraction", sizes)
    yield MetricSpec("region_score_range", "Highest less lowest regional score.", "score steps", sizes)
    yield from _lattice("od", "mean membrane OD", sizes)
    yield from _lattice("completeness", "mean completeness", sizes)
    for word, kind in (("3", "class 3"), ("2up", "class 2, 2u and 3")):
        link = (params.link_um,)
        yield MetricSpec(f"label_l_{word}", f"Ripley's L of cells of {kind} above random labels.", "µm",
                    params.reach_um)  # fmt: skip
        what = f"by {kind} or not"
        yield MetricSpec(f"pattern_minority_{word}", f"Rarer cells {what}; the label is the pattern's type.",
                    "fraction", link, labelled=True)  # fmt: skip
        yield MetricSpec(
            f"pattern_largest_{word}", f"Largest group of the rarer cells {what}.", "fraction", link
        )
        cohesive = f"Largest cohesive group of the rarer cells {what}."
        yield MetricSpec(f"pattern_cohesive_{word}", cohesive, "fraction", link)
        yield MetricSpec(
            f"pattern_scattered_{word}", f"Rarer cells {what} in groups of 1 to 3.", "fraction", link
        )
        yield MetricSpec(f"pattern_groups_{word}", f"Groups of 20 rarer cells {what}, or more.", "", link)
    for od in params.proximity_od:
        yield MetricSpec(f"proximity_od_{round(100 * od):03d}", f"Cells of {od:.2f} OD, or that near to one.",
                    "fraction", params.proximity_um)  # fmt: skip
    for core, name, size in (
        ("needle", "needle cores", params.needle_length_um),
        ("tma", "microarray cores", params.tma_diameter_um),
    ):
        for how, what in (("other", "another"), ("lower", "a lower")):
            for k in range(1, params.biopsy_cores + 1):
                text = f"Probability that {name} ({k}) have {what} score than the section."
                yield MetricSpec(f"biopsy_{core}_{how}_{k}", text, "probability", (size,))
    yield MetricSpec("copies_mean", "Mean HER2 signals a nucleus.", "signals")
    yield MetricSpec("copies_sd", "Standard deviation of HER2 signals a nucleus.", "signals")
    yield MetricSpec("copies_cv", "Coefficient of variation of HER2 signals.")
    for arm, beyond in (("ratio_arm", "ratio above 2.2"), ("copies_arm", "more than 6 copies")):
        yield MetricSpec(f"amplified_{arm}", f"Nuclei with {beyond}; the label is the category of CAP 2009.",
                    "fraction", labelled=True)  # fmt: skip
        yield MetricSpec(f"amplified_excess_{arm}", f"Nuclei with {beyond} that truncation does not explain.",
                    "fraction")  # fmt: skip
    yield MetricSpec("copies_ashman_d", "Ashman's D of two populations in HER2 signals.")
    for which, text in (("min", "Least"), ("max", "Greatest"), ("range", "Greatest less least")):
        text += " amplified fraction of a region."
        yield MetricSpec(f"region_amplified_{which}", text, "fraction", sizes)
    yield from _lattice("copies", "mean HER2 signals", sizes)
    yield from _lattice("amplified", "amplified fraction", sizes)


def _lattice(what: str, words: str, sizes: tuple[float, ...]) -> Iterator[MetricSpec]:
    of = f"of the regions' {words}."
    yield MetricSpec(f"moran_i_{what}", f"Moran's I {of}", "", sizes)
    yield MetricSpec(f"moran_p_{what}", f"Its p {of}", "probability", sizes)
    yield MetricSpec(f"geary_c_{what}", f"Geary's C {of}", "", sizes)
    yield MetricSpec(f"geary_p_{what}", f"Its p {of}", "probability", sizes)
    yield MetricSpec(f"hot_fraction_{what}", f"Hot regions (Getis-Ord Gi*) {of}", "fraction", sizes)
    yield MetricSpec(f"cold_fraction_{what}", f"Cold regions (Getis-Ord Gi*) {of}", "fraction", sizes)
    yield MetricSpec(f"variogram_range_um_{what}", f"Range of the semivariogram {of}", "µm", sizes)
    yield MetricSpec(
        f"variogram_nugget_{what}", f"Nugget's share of the semivariogram {of}", "fraction", sizes
    )
    yield MetricSpec(f"texture_entropy_{what}", f"Entropy of neighbouring levels {of}", "bits", sizes)
    yield MetricSpec(f"texture_contrast_{what}", f"Contrast of neighbouring levels {of}", "", sizes)


_NUMBERS = (
    ("p3_pct", "%", "percentage of class 3"),
    ("p2_pct", "%", "cumulative percentage of class 2, 2u and 3"),
    ("membrane_od_mean", "OD", "mean membrane OD"),
    ("h_score", "", "H-score"),
    ("copies_mean", "signals", "mean HER2 signals a nucleus"),
    ("ratio", "", "ratio of HER2 to CEP17 signals"),
    ("amplified", "fraction", "amplified fraction"),
)
"""What blocks, slides and lesions are compared by."""


def _between(prefix: str, what: str) -> Iterator[MetricSpec]:
    """Metrics of units that are called ``what``."""
    yield MetricSpec(f"{prefix}_eta2_od", f"Share of the variance of membrane OD between {what}.", "fraction")
    yield MetricSpec(
        f"{prefix}_js_divergence", f"Jensen-Shannon divergence of cells' scores between {what}.", "nats"
    )
    yield MetricSpec(
        f"{prefix}_eta2_copies", f"Share of the variance of HER2 signals between {what}.", "fraction"
    )
    for name, unit, words in _NUMBERS:
        yield MetricSpec(f"{prefix}_{name}_sd", f"Standard deviation over {what} of the {words}.", unit)
        yield MetricSpec(f"{prefix}_{name}_range", f"Highest less lowest of {what}: {words}.", unit)
    yield MetricSpec(f"{prefix}_score_range", f"Highest less lowest IHC score of {what}.", "score steps")


def _change() -> Iterator[MetricSpec]:
    for name, unit, words in (*_NUMBERS, ("score", "score steps", "IHC score")):
        yield MetricSpec(f"metastasis_less_primary_{name}", f"Metastasis less primary: {words}.", unit)


SLIDE_METRICS = tuple(_slide(HeterogeneityParams()))
CASE_METRICS = (*_between("slides", "slides"), *_between("blocks", "blocks"))
PATIENT_METRICS = (*_between("lesions", "lesions"), *_change())
