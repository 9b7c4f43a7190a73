"""Which rules apply to a slide: the configuration's, or those of the tumour and specimen in its row."""

from __future__ import annotations

from dataclasses import dataclass, replace

from her2core.errors import ConfigError
from her2core.guidelines.rules_ihc import RuleSet, load_rules, rules_for
from her2core.guidelines.rules_ish import ish_rules_for
from her2core.params import ISHScoreParams, ScoreParams
from her2core.records import SlideRow

DEFAULT = {"breast": "breast_asco_cap_2018"}
"""Rule set of a tumour that has several for one specimen."""


@dataclass(frozen=True, slots=True)
class Judging:
    """Parameters of a slide's score, with the rule sets that are for it."""

    score: ScoreParams
    ish: ISHScoreParams

    @property
    def rules(self) -> RuleSet:
        """The IHC rule set."""
        return load_rules(self.score.rules)

    def of(self, slide: SlideRow) -> Judging:
        """These parameters if their rules are for the slide, else with the rules of what it is.

        A slide whose manifest row names neither tumour nor specimen is what these rules are for.

        Raises
        ------
        ConfigError
            If not one rule set is for it.
        """
        own = self.rules
        tumour, specimen = slide.tumour_type or own.tumour, slide.specimen_type
        if tumour == own.tumour and specimen in (None, *own.specimens):
            return self
        found = rules_for(tumour, specimen)
        name = DEFAULT.get(tumour) if DEFAULT.get(tumour) in found else found[0] if len(found) == 1 else None
        if name is None:
            what = " ".join(part for part in (tumour, specimen) if part)
            raise ConfigError(
                f"slide {slide.slide_id}: {what} has the rule sets {', '.join(found) or 'none'}, and "
                f"ihc_score.rules is {own.name}; write its specimen_type, or "
                "set ihc_score.rules to one of them"
            )
        ish = self.ish if tumour == own.tumour else replace(self.ish, rules=ish_rules_for(tumour))
        return Judging(replace(self.score, rules=name), ish)
