"""Metrics of a structure against its truth, as a comparison shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.cases.findings import finding_channels


class StructureMetric(NamedTuple):
    """A metric of a structure in a case.

    Attributes:
        title: Its name for people.
        better: ``lower`` or ``higher``.
        meaning: What it is, in sentences.
        in_caption: What the caption of a table calls it; empty where it has words of its own.
        unit: ``mm`` or empty.
        tested: Whether differences are tested. Each tested metric adds a test for every structure
            to its family, so that Holm's correction takes power from all others.
    """

    title: str
    better: str
    meaning: str
    in_caption: str = ""
    unit: str = ""
    tested: bool = True

    def heading_of(self, structure: str = "") -> str:
        """The title, the name of the structure if there is one, and the unit if there is one."""
        parts = [self.title, structure, f"({self.unit})" if self.unit else ""]
        return " ".join(part for part in parts if part)


OVERLAP_METRICS = {
    "Dice": StructureMetric(
        "Dice",
        "higher",
        "Dice coefficient, the overlap of prediction and ground truth, from 0 (none) to 1 (the"
        " same).",
        in_caption="the Dice coefficient",
    ),
    "HD95_mm": StructureMetric(
        "HD95",
        "lower",
        "95th percentile of the distances between the surfaces of prediction and ground truth.",
        in_caption="the 95th percentile of the surface distances (HD95, mm, both directions"
        " pooled)",
        unit="mm",
    ),
}
"""By name of their column in a table of records: overlap and distances."""

COMPONENT_METRICS = {
    "component_recall": StructureMetric(
        "components touched",
        "higher",
        "Share of the connected components of the ground truth, such as lesions, that the"
        " segmentation touches with at least one voxel; scans whose truth has none do not count.",
    ),
    "false_components": StructureMetric(
        "false components",
        "lower",
        "Connected components of the segmentation, in a scan, that share no voxel with the ground"
        " truth.",
    ),
    "component_F1": StructureMetric(
        "component F1",
        "higher",
        "2 touched / (2 touched + missed + false), in connected components of a scan.",
    ),
}
"""By name of their column, see :mod:`nnunet_nacl.metrics.overlap`."""


def better_text(metrics: list[StructureMetric]) -> str:
    """Which values of some metrics (one or more) are better: `Higher Dice is better, lower
    HD95.`"""
    parts = []
    for better in ("higher", "lower"):
        titles = [metric.title for metric in metrics if metric.better == better]
        if titles:
            parts.append(f"{better} {' and '.join(titles)}")
    first, *others = parts
    sentence = ", ".join([f"{first} is better", *others])
    return f"{sentence[0].upper()}{sentence[1:]}."


def read_findings(labels: Labels, findings: Sequence[str] | None) -> list[str] | None:
    """nnU-Net's keys of the structures that a user names to have their components counted.

    Args:
        labels: The structures.
        findings: Their names or keys; an empty list: all; None: as :func:`lesion_structures`
            says, which is None here, too.

    Raises:
        UserError: There is no such structure.
    """
    if findings is None:
        return None
    return [labels.key(channel) for channel in finding_channels(labels, findings)]


def lesion_structures(table: pd.DataFrame) -> list[str]:
    """nnU-Net's keys of the structures that are lesions, by the truth of all cases.

    A lesion has several components in some case, and is absent from another. Several components
    alone make none: grey matter is in every scan, in hundreds.

    Args:
        table: A row for each case and structure, of :func:`nnunet_nacl.cases.record.table`.
    """
    true_components = table.groupby("key", sort=False).true_pieces.agg(["min", "max"])
    is_lesion = (true_components["max"] > 1) & (true_components["min"] == 0)
    return true_components.index[is_lesion].tolist()


def summarize_components(table: pd.DataFrame, structures: Sequence[str]) -> pd.DataFrame:
    """Components of the cases together, a row for each structure, by nnU-Net's key.

    Args:
        table: A row for each case and structure, of :func:`nnunet_nacl.cases.record.table`.
        structures: Their keys.

    Returns:
        Columns ``true``, ``touched`` and ``false``, components of all cases; and the means of the
        :data:`~nnunet_nacl.comparison.structure_metrics.COMPONENT_METRICS` over the cases where
        they are defined.
    """
    counted = table[table.key.isin(structures)]
    touched = (counted.component_recall * counted.true_pieces).fillna(0)
    counts = pd.DataFrame(
        {
            "key": counted.key,
            "true": counted.true_pieces,
            "touched": touched.round(),
            "false": counted.false_components,
        }
    )
    sums = counts.groupby("key", sort=False).sum().astype(int)
    means = counted.groupby("key", sort=False)[list(COMPONENT_METRICS)].mean()
    return sums.join(means)
