"""What `nnunet_nacl calibrate` found, for the terminal: a screen of it, or all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nnunet_nacl.calibration.learned_quality import DELIVERED, SINGLE_NETWORKS
from nnunet_nacl.documents.map_file import DICE_MEAN
from nnunet_nacl.documents.results import MASK_NOTES, EvaluationSettings
from nnunet_nacl.documents.stored_map import stored_map
from nnunet_nacl.json_files import one_line
from nnunet_nacl.models.workflow import PREDICTED_DICE_ERROR
from nnunet_nacl.show.case_tables import LABELS, detected_text, presence_text
from nnunet_nacl.show.effect_table import effect_table
from nnunet_nacl.show.text_table import aligned

if TYPE_CHECKING:
    from nnunet_nacl.models.held_out_quality import HeldOutQuality
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
    if found := detected_text({LABELS[kind]: one for kind, one in calibration.detected.items()}, names):
        lines += [found, ""]
    lines += [calibration.quality.table()] if verbose else _promises(calibration.quality)
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
    """A line for each row of the map; what acts across structures stands in the file."""
    lines, stored = [], stored_map(calibration.chosen.fit.map, calibration.chosen.fit.standard_errors)
    names = [f"{key} {name}" for key, name in calibration.structures.items()]
    for i, structure in enumerate(names):
        slope, offset = stored["slopes"][0][i], stored["offsets"][0][i]
        lines.append(f"  any other label, {structure}: slope {slope:.3f}, offset {offset:+.3f}")
        if "rows" not in stored:
            slope_error, offset_error = (
                stored[key][0][i] for key in ("slope_standard_errors", "offset_standard_errors")
            )
            numbers = f"slope {slope:.3f} (standard error {slope_error:.3f}), offset {offset:+.3f} ({offset_error:.3f})"
            lines[-1] = f"  any label, {structure}: {numbers}"
    for row in stored.get("rows", []):
        values = {"slope": row["slope"], "of -log p of the background": row["total"], "offset": row["offset"]}
        pairs = zip(values.items(), row["standard_errors"])
        shown = ", ".join(f"{name} {value:.3f} ({error:.3f})" for (name, value), error in pairs)
        lines.append(f"  {calibration.labels[row['label']]}, {names[row['structure']]}: {shown}")
    lines.append(
        f"left as they are, no structure above 1e-6: {calibration.certain.voxels:.1%} of the voxels with "
        f"{calibration.certain.expected_volume:.2%} of the expected volume"
    )
    return lines


def _promises(quality: HeldOutQuality) -> list[str]:
    """What is promised of new cases with nnU-Net's labels: a line for each structure."""
    if quality.why_not:
        return [f"nothing was learned about Dice and volumes: {quality.why_not}"]
    delivered = DELIVERED[0]
    header = ["predicted for new cases, off by", "Dice", "a constant", "90 % interval covers"]
    header += [f"volume ({quality.unit})", "a constant", "90 % interval covers", "cases"]
    rows, why = [header], {}
    for key, name in list(quality.names.items())[:_MOST_STRUCTURES]:
        rows.append([name])
        for kind in ("dice", "volume"):
            check, estimate = quality.checks[delivered][kind][key], getattr(quality.learned[delivered], kind)[key]
            rows[-1] += [f"{check.error:.3g}", f"{check.error_of_constant:.3g}"]
            rows[-1].append("-" if math.isnan(check.coverage.share) else f"{check.coverage.share:.2f}")
            if estimate.why_no_interval:
                why[name] = estimate.why_no_interval
        rows[-1].append(str(quality.checks[delivered]["dice"][key].n))
    lines = aligned(rows, indent="")
    if more := len(quality.names) - _MOST_STRUCTURES:
        lines += [f"and {more} more structures (--verbose)"] if more > 0 else []
    lines += [f"{one_line(name)}: {reason}" for name, reason in why.items()]
    if not quality.learned[delivered].as_deployed:
        lines.append(f"Learned {SINGLE_NETWORKS}.")
    return lines
