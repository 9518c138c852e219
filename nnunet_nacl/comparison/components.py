"""Connected components, such as lesions: which structures are counted by them, and their sums."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from nnunet_nacl.cases.case import Labels
from nnunet_nacl.cases.findings import finding_channels
from nnunet_nacl.comparison.structure_metrics import COMPONENT_METRICS


def read_findings(labels: Labels, findings: Sequence[str] | None) -> list[str] | None:
    """nnU-Net's keys of the structures that a user names to have their components counted.

    Args:
        labels: The structures.
        findings: Their names or keys; an empty list: all; None: as :func:`fragmented_structures`
            says, which is None here, too.

    Raises:
        UserError: There is no such structure.
    """
    if findings is None:
        return None
    return [labels.key(channel) for channel in finding_channels(labels, findings)]


def fragmented_structures(table: pd.DataFrame) -> list[str]:
    """nnU-Net's keys of the structures that have several components in the truth of some case.

    Args:
        table: A row for each case and structure, of :func:`nnunet_nacl.cases.record.table`.
    """
    most_components = table.groupby("key", sort=False).true_pieces.max()
    return most_components.index[most_components > 1].tolist()


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
