"""The words of a comparison, explained for readers who do not work on calibration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nnunet_nacl.evaluation.results import MASK_NOTES, MASKS

__all__ = ["glossary"]

_METRICS = {
    "Dice": ("DSC (Dice)", "Overlap of prediction and ground truth, from 0 (none) to 1 (the same). Higher is better."),
    "HD95_mm": (
        "HD95",
        "95th percentile of the distances between the surfaces of prediction and ground truth, in mm. Lower is better.",
    ),
    "ECE": (
        "ECE",
        "Expected calibration error: by how much confidence and accuracy differ, on average over the voxels. Of a "
        "network with ECE 0 the answers given with 90 % confidence are right nine times in ten. Lower is better.",
    ),
    "ECE_chosen": (
        "ECE of the chosen label",
        "The same for the label that the segmentation has, against the probability of that very label. It is the ECE "
        "where the likeliest label was taken, and another question where the segmentation was decided for Dice or "
        "postprocessed.",
    ),
    "CECE_mean": ("CECE", "The same for each class's probability by itself, rare classes included; mean over classes."),
    "CECE_sum": ("CECE (sum)", "The sum over classes instead of the mean."),
    "NLL": (
        "NLL",
        "Negative log likelihood in nats: grows where the truth was given little probability. It rewards being right "
        "as well as being calibrated. Lower is better.",
    ),
    "Brier": (
        "Brier",
        "Squared distance between the probabilities and the truth. Rewards both, as NLL does, but forgives single bad "
        "voxels. Lower is better.",
    ),
}
_TRUTH = (
    "All masks but predicted and all look at the ground truth, which is not known in use. On foreground, even a "
    "network whose confidence is perfect does not reach an ECE of 0, because voxels wrongly called a structure are "
    "left out."
)


def glossary(
    columns: Iterable[Mapping[str, Any]], evaluation: Mapping[str, Any], *, tested: bool = False
) -> list[tuple[str, str]]:
    """Terms and what they mean: the metrics that were compared, the masks, intervals and tests.

    Args:
        columns: Of comparison.json.
        evaluation: Settings of the evaluation: the masks' radii.
        tested: Whether differences were tested.
    """
    columns = list(columns)
    metrics = {column["metric"] for column in columns}
    result = [entry for metric, entry in _METRICS.items() if metric in metrics]
    masks = [mask for mask in MASKS if mask in {column["mask"] for column in columns}]
    if masks:
        result.append(("Masks", "Which voxels a calibration metric looks at. " + _TRUTH))
        notes = {mask: MASK_NOTES[mask].format(**evaluation) for mask in masks}
        result += [(f"Mask {mask}", f"{note[:1].upper()}{note[1:]}.") for mask, note in notes.items()]
    result.append(
        (
            "Interval",
            "Where the mean would lie with other cases of the same kind, from drawing the cases again many times "
            "(bootstrap). If the interval of a difference holds 0, the cases leave open which method is better. Each "
            "interval stands for itself: among many, some miss 0 by chance.",
        )
    )
    if tested:
        result.append(
            (
                "Test, p (Holm)",
                "Wilcoxon's signed-rank test asks whether one method has the larger value in so many cases, and by so "
                "much, that chance hardly explains it. p is how often chance alone would do it; Holm's correction "
                "raises it for the number of tests in a table. Below 0.05 the page speaks of a difference.",
            )
        )
    return result
