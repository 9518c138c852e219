"""What `nnunet_nacl calibrate` found, for the terminal: a screen of it, or all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nnunet_nacl.documents.map_file import DICE_MEAN
from nnunet_nacl.documents.results import MASK_NOTES, EvaluationSettings
from nnunet_nacl.documents.stored_map import stored_map
from nnunet_nacl.models.workflow import PREDICTED_DICE_ERROR
from nnunet_nacl.show.case_tables import LABELS, detected_text, presence_text
from nnunet_nacl.show.text_table import aligned, effect_table

if TYPE_CHECKING:
    from nnunet_nacl.models.workflow import Calibration

_SHOWN = ("NLL all", "NLL predicted", "NLL dilated", "Brier all", "Brier predicted", "ECE predicted")
_MASKS = ("all", "predicted", "dilated")
_MOST_STRUCTURES = 6
_DECISION = "Dice of nnU-Net's labels (before), and decided for the highest expected Dice (after, -decide dice):"


def calibration_text(calibration: Calibration, settings: EvaluationSettings, *, verbose: bool = False) -> str:
    """The map, what it changes on cases that its fit has not seen, and what it promises.

    Args:
        calibration: What was found.
        settings: Of the evaluation, for what the masks are.
        verbose: Every number, not only the main ones.
    """
    names = calibration.structures
    effect, decision = calibration.effect, calibration.decision
    if not verbose:
        effect = {name: effect[name] for name in (*_SHOWN, PREDICTED_DICE_ERROR) if name in effect}
        decision = decision if len(names) <= _MOST_STRUCTURES else {DICE_MEAN: decision[DICE_MEAN]}
    masks = "; ".join(f"{mask}: {MASK_NOTES[mask].format(**vars(settings))}" for mask in _MASKS)
    lines = [*_form(calibration), *(_slopes(calibration) if verbose else [])]
    lines += [
        "",
        "nnU-Net's own labels before and after the map, each case under one that has not seen it:",
    ]
    lines += [effect_table(effect, names), masks]
    if verbose:
        lines += ["NLL all is what the map is fitted by; masks that look at the truth first may get worse."]
    lines += ["", _DECISION, effect_table(decision, names), ""]
    if detected := detected_text({LABELS[kind]: found for kind, found in calibration.detected.items()}, names):
        lines += [detected, ""]
    few = verbose or len(names) <= _MOST_STRUCTURES
    lines.append(calibration.quality.table() if few else "How far off predicted Dice and volumes are: --verbose.")
    if presence := presence_text(calibration.quality.presence, every_kind=verbose):
        lines += ["", presence]
    return "\n".join(lines)


def _form(calibration: Calibration) -> list[str]:
    chosen, forms = calibration.chosen, calibration.best_of_forms
    scores = ", ".join(f"{form} {each.score.nll:.5f}" for form, each in forms.items())
    shrunk = "" if math.isinf(chosen.ridge) else f", ridge {chosen.ridge:g}"
    size = f"{len(calibration.parts)} cases, {len(chosen.part_maps)} parts"
    return [f"form {chosen.form}{shrunk}, {size}; cross-validated NLL in nnU-Net's crop: {scores}"]


def _slopes(calibration: Calibration) -> list[str]:
    """A line for each row of the map, with standard errors; what acts across structures stands in the file."""
    stored: Any = stored_map(calibration.chosen.fit.map, calibration.chosen.fit.standard_errors)
    rows = [["label", "structure", "slope", "offset", "of -log p of the background"]]
    names = [f"{key} {name}" for key, name in calibration.structures.items()]
    by_row = "rows" in stored
    for i, structure in enumerate(names):
        numbers = [f"{stored[key][0][i]:+.3f}" for key in ("slopes", "offsets")]
        if not by_row:
            errors = (stored[f"{key}_standard_errors"][0][i] for key in ("slope", "offset"))
            numbers = [f"{value} ({error:.3f})" for value, error in zip(numbers, errors)]
        rows.append(["any other" if by_row else "any", structure, *numbers, ""])
    for row in stored.get("rows", []):
        slope, total, offset = (
            f"{row[key]:+.3f} ({error:.3f})" for key, error in zip(("slope", "total", "offset"), row["standard_errors"])
        )
        rows.append([calibration.labels[row["label"]], names[row["structure"]], slope, offset, total])
    certain = calibration.certain
    return [
        *aligned(rows, (0, 1)),
        f"left as they are, no structure above 1e-6: {certain.voxels:.1%} of the voxels with "
        f"{certain.expected_volume:.2%} of the expected volume",
    ]
