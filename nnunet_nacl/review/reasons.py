"""Why a case needs a look, in words; below which predicted Dice it does, and below which true Dice a case is bad."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nnunet_nacl.errors import UserError, some
from nnunet_nacl.review.row import LIKELY, CaseReview, StructureReview, volume_text

DEFAULT_DICE = 0.8
"""Where neither the user nor a calibration map tells."""
ALL = ""
"""In place of a structure's name: all that are not named."""

ThresholdSpec = float | Mapping[str, float]
"""One Dice for all structures, or by name or nnU-Net's key; structures that are not among them have the default."""

LOWEST_MEMBERS_DICE = 0.7
"""Members whose segmentations overlap less disagree: a Dice above 0.7 is called excellent agreement (Zijdenbos et al.,
IEEE TMI 13, 1994)."""

_LARGEST_PIECE = 0.5  # two kidneys are two pieces of half the size, and no reason to look
_MOST_NAMES = 5


@dataclass(frozen=True)
class Thresholds:
    """What is too low: the predicted Dice of a structure, or the score of a scan.

    Attributes:
        dice: By name of each structure; empty where the score decides.
        score: See :mod:`nnunet_nacl.calibration.scan_score`; NaN where structures decide, or none of them has a rank.
    """

    dice: dict[str, float]
    score: float = math.nan

    @classmethod
    def of(
        cls, given: ThresholdSpec, structures: Mapping[str, str], lowest_tenth: Mapping[str, float] | None = None
    ) -> Thresholds:
        """The thresholds that a user gives, and the defaults of the other structures.

        Args:
            given: What the user gives.
            structures: Name of each structure by nnU-Net's key, in order.
            lowest_tenth: By key, the default: the predicted Dice that a tenth of a map's held-out cases stayed below.
                NaN, or None: ``DEFAULT_DICE``.

        Raises:
            UserError: There is no such structure, or a value is no Dice.
        """
        asked = dict(given) if isinstance(given, Mapping) else {ALL: float(given)}
        known = {name: key for key, name in structures.items()} | {key: key for key in structures} | {ALL: ALL}
        by_key: dict[str, float] = {}
        for name, value in asked.items():
            if name not in known:
                there = ", ".join(f"{one} ({key})" for key, one in structures.items())
                raise UserError(f"-threshold {name}={value:g}: there is no such structure; there are {there}.")
            if not 0 <= value <= 1:
                raise UserError(f"-threshold is a Dice, from 0 to 1, got {value:g}.")
            by_key[known[name]] = float(value)
        usual = {key: value for key, value in (lowest_tenth or {}).items() if not math.isnan(value)}
        usual = {} if ALL in by_key else usual
        others = by_key.get(ALL, DEFAULT_DICE)
        return cls({name: by_key.get(key, usual.get(key, others)) for key, name in structures.items()})

    @property
    def flag_nothing(self) -> bool:
        """Whether no predicted Dice, however low, is a reason to look."""
        return not self.dice and math.isnan(self.score)

    @property
    def explanation(self) -> str:
        """One sentence, without its full stop."""
        if self.dice:
            alike = len(set(self.dice.values())) == 1
            words = (f"{value:.3g}" if alike else f"{name} {value:.3g}" for name, value in self.dice.items())
            return f"A predicted Dice below {some(list(dict.fromkeys(words)))} is a reason to look"
        if self.flag_nothing:
            return "No predicted Dice is a reason to look: on held-out patients a constant was as near to the truth"
        return (
            f"A score below {self.score:.2g} is a reason to look: nine in ten held-out scans have no lower one (the "
            "smallest share, over the structures, of held-out patients with a lower predicted Dice)"
        )

    def to_json(self) -> dict[str, float]:
        """By name of the structure, or of the score."""
        return self.dice or {"score": self.score}


def parse_thresholds(texts: Sequence[str]) -> dict[str, float]:
    """``0.7``, ``Infarct=0.5``, ``3=0.5``; UserError for what is none of these."""
    found = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise UserError(
                f"-threshold {text}: a Dice is expected, such as 0.7, or STRUCTURE=DICE, such as Infarct=0.5."
            ) from None
        if not 0 <= found[name] <= 1:  # neither is NaN
            raise UserError(f"-threshold is a Dice, from 0 to 1, got {value}.")
    return found


def reasons_to_look(
    review: CaseReview,
    thresholds: Thresholds | None,
    differences: Sequence[str],
    listed: Collection[str] = (),
) -> dict[str, list[str]]:
    """All reasons, the gravest first, and the names of the structures that each is about.

    Args:
        review: The case's row, with what a map has learned of it.
        thresholds: A lower predicted Dice, or score, is a reason; None: none is.
        differences: How the image differs from the training's.
        listed: Names of the structures whose pieces are findings: that there are several of them is no reason.
    """
    others = {difference: list[str]() for difference in differences}
    if review.empty and any(math.isnan(structure.present) for structure in review.structures):
        nearest = max(review.structures, key=lambda s: s.max_probability)
        nothing = f"nothing was segmented (largest probability {nearest.max_probability:.2f}, of {nearest.name})"
        return {nothing: [], **others}
    low, there, absent, disputed, torn = (dict[str, str]() for _ in range(5))  # by structure
    reasons: dict[str, list[str]] = {}
    limits = thresholds or Thresholds({})
    if unusual := [s for s in review.worst_first if s.rank < limits.score]:  # NaN is not
        named = some([f"{s.name} {dice_text(s)}" for s in unusual], _MOST_NAMES)
        below = f"score {review.score:.2g}, below {limits.score:.2g}"
        reasons[f"predicted Dice of {named} is unusually low ({below})"] = [s.name for s in unusual]
    for structure, threshold in zip(review.structures, limits.dice.values()):
        if structure.predicted_dice < threshold - 1e-9:  # NaN is not; where all are alike, rounding is no reason
            low[structure.name] = f"predicted Dice of {structure.name} {dice_text(structure)}, below {threshold:.3g}"
    for structure in review.structures:
        name, p = structure.name, structure.present
        if structure.pieces == 0 and p >= LIKELY:
            there[name] = f"{name} was not segmented, but is probably there ({p:.2f})"
        elif structure.pieces and p < LIKELY:
            there[name] = f"{name} is probably not there ({p:.2f})"
        elif structure.pieces == 0 and math.isnan(p):
            absent[name] = name
        if structure.members_dice < LOWEST_MEMBERS_DICE:  # NaN is not
            volumes = f"{volume_text(min(structure.member_volumes))} to {volume_text(max(structure.member_volumes))}"
            disputed[name] = f"{name} (Dice {structure.members_dice:.2f}, {volumes} {review.unit})"
        if structure.largest_piece < _LARGEST_PIECE and name not in listed:
            share = f"{100 * structure.largest_piece:.0f} %"
            torn[name] = f"{name} is in {structure.pieces} pieces, the largest holds {share}"
    reasons |= _each(low) | _each(there)
    for together, words in ((absent, "empty: "), (disputed, "folds disagree on ")):
        if together:
            reasons[words + some(list(together.values()), _MOST_NAMES)] = list(together)
    return reasons | _each(torn) | others


def dice_text(structure: StructureReview) -> str:
    """``0.83 (0.70 to 0.90)``: predicted Dice with its interval, where that is known."""
    low, high = structure.dice_interval
    return f"{structure.predicted_dice:.2f}" + ("" if math.isnan(low) else f" ({low:.2f} to {high:.2f})")


def _each(texts: Mapping[str, str]) -> dict[str, list[str]]:
    """A reason for each structure, and one for all beyond the first few."""
    reasons, more = {text: [name] for name, text in list(texts.items())[:_MOST_NAMES]}, list(texts)[_MOST_NAMES:]
    return {**reasons, f"{len(more)} more structures likewise": more} if more else reasons
