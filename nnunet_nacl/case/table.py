"""Records as tables: a row for each case and structure, and a row for each case with its calibration scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import pandas as pd

from nnunet_nacl.case.settings import MASKS
from nnunet_nacl.numbers.binning import BinStats
from nnunet_nacl.numbers.calibration_error import mask_metrics

WITH_TRUTH = ("TP", "FP", "FN", "TN", "Dice", "IoU", "HD95_mm", "HD95_voxels", "ASSD_mm", "true_volume", "true_pieces")
"""Columns that need a ground truth: voxel counts, overlap, distances, and what the truth has of the structure."""

ALWAYS = (
    *("volume", "pieces", "largest_piece", "predicted_dice", "predicted_volume", "max_probability"),
    *("network_volume", "network_dice", "members_dice"),
)
"""Columns that every record has: the segmentation, and what the probabilities say of it."""


class HasTables(Protocol):
    """What a record shows of a case.

    Attributes:
        case: Its name.
        structures: A row for each structure, by nnU-Net's key.
        scan: Values of the case as a whole, by column.
        bins: By mask, sums for its calibration; empty without a ground truth.
    """

    @property
    def case(self) -> str:
        """See the attributes."""

    @property
    def structures(self) -> pd.DataFrame:
        """See the attributes."""

    @property
    def scan(self) -> Mapping[str, Any]:
        """See the attributes."""

    @property
    def bins(self) -> Mapping[str, BinStats]:
        """See the attributes."""


def table(records: Iterable[HasTables]) -> pd.DataFrame:
    """The one table that every command reads: a row for each case and structure, NaN where a value is not defined.

    Columns: ``case``, ``key`` and ``name`` of the structure; those of :data:`WITH_TRUTH`; ``volume`` and ``pieces`` of
    its segmentation and the share of the ``largest_piece``; ``predicted_dice`` and ``predicted_volume``, which follow
    from the probabilities (under the map, where there is one); of the network's own probabilities the largest
    (``max_probability``), their sum (``network_volume``) and the largest expected Dice that any set of voxels has
    (``network_dice``); ``members_dice`` where several networks predicted. Then, the same in all rows of a case:
    ``unit`` of volumes, ``voxel_volume``, ``entropy`` and ``confidence`` over the segmented structures, and whatever
    else a record's ``scan`` has.
    """
    rows = []
    for record in records:
        structures = record.structures.rename_axis("key").reset_index().assign(**record.scan)
        structures.insert(0, "case", record.case)
        rows.append(structures)
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["case", "key", "name", *WITH_TRUTH])


def scores(records: Iterable[HasTables]) -> pd.DataFrame:
    """A row for each case, by its name, with its calibration: columns ``ECE:foreground``, ``NLL:all`` and so on.

    The metrics are those of :func:`~nnunet_nacl.numbers.calibration_error.mask_metrics`, on each of
    :data:`~nnunet_nacl.case.settings.MASKS`; ``n_voxels:MASK`` is how many voxels the mask has.
    """
    return pd.DataFrame.from_dict(
        {
            record.case: {
                f"{metric}:{mask}": value for mask in MASKS for metric, value in mask_metrics(record.bins[mask]).items()
            }
            for record in records
        },
        orient="index",
    )
