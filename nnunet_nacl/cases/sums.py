"""Sums over the blocks of a case: for its calibration, and for the quality of its segmentation."""

from __future__ import annotations

import math

import numpy as np

from nnunet_nacl.cases.case import Case, Truth
from nnunet_nacl.cases.probabilities import Box
from nnunet_nacl.estimators.recall import THRESHOLDS, count_addable
from nnunet_nacl.metrics.binning import BinStats
from nnunet_nacl.metrics.counting import count_masks
from nnunet_nacl.metrics.expected_dice import count_expected, count_probabilities
from nnunet_nacl.metrics.voxel_uncertainty import mean_uncertainty


class CaseSums:
    """Sums over the voxels of a case that have been added; S is the number of structures.

    Attributes:
        bins: For calibration, by mask; empty without a ground truth.
        addable: (2, S, thresholds) voxels that could be added to each structure, the true ones and
            all, as :func:`~nnunet_nacl.estimators.recall.count_addable` counts them.
        n_changed: Voxels where the segmentation is not the network's own.
        expected: (3, S) what :func:`~nnunet_nacl.metrics.expected_dice.count_expected` gives.
        network: What :func:`~nnunet_nacl.metrics.expected_dice.count_probabilities` gives of the
            network's own probabilities.
        max_probability: (S,) largest probability of each structure.
    """

    def __init__(self, case: Case, truth: Truth | None, n_bins: int) -> None:
        self._case = case
        self._truth = truth
        self._n_bins = n_bins
        num_structures = len(case.labels.foreground)
        self.bins = dict[str, BinStats]()
        self.addable = np.zeros((2, num_structures, len(THRESHOLDS)), np.int64)
        self.n_changed = 0
        self.expected = np.zeros((3, num_structures))
        self.network = count_probabilities(np.zeros((num_structures, 0)))
        self.max_probability = np.zeros(num_structures)
        self._uncertainty = {"entropy": 0.0, "confidence": 0.0}
        self._n_predicted = 0

    def add(self, where: Box, probs: np.ndarray, raw: np.ndarray) -> None:
        """Take a box of the image.

        Args:
            where: The box.
            probs: (C, *block) probabilities, under the map if there is one.
            raw: (C, *block) the network's own.
        """
        labels = self._case.labels
        segmentation = self._case.segmentation[where]
        delivered = labels.channels_of(segmentation)  # the labels that the user gets
        valid = None
        if self._truth is not None:
            if self._truth.valid is not None:
                valid = self._truth.valid[where]
            self._add_beside_truth(self._truth, where, probs, raw, valid)
        first = labels.foreground[0]
        self.expected += count_expected(probs, delivered, regions=labels.regions, valid=valid)
        self.network += count_probabilities(raw[first:], valid)
        self._add_max_probability(probs[first:], valid)
        is_predicted = segmentation > 0
        if valid is not None:
            is_predicted &= valid
        self._add_uncertainty(probs, delivered, np.flatnonzero(is_predicted))

    def _add_beside_truth(
        self, truth: Truth, where: Box, probs: np.ndarray, raw: np.ndarray, valid: np.ndarray | None
    ) -> None:
        labels = self._case.labels
        segmentation = self._case.segmentation[where]
        delivered = labels.channels_of(segmentation)
        true = labels.channels_of(truth.label_map[where])
        self.addable += count_addable(raw, delivered, true, labels.regions, valid)
        bins_of_block = count_masks(
            probs,
            true,
            segmentation=delivered,
            extra_masks={name: mask[where] for name, mask in truth.around.items()},
            valid=valid,
            regions=labels.regions,
            n_bins=self._n_bins,
        )
        for mask, stats in bins_of_block.items():
            if mask in self.bins:
                self.bins[mask] = self.bins[mask] + stats
            else:
                self.bins[mask] = stats
        is_changed = labels.label_map(raw) != segmentation
        if valid is not None:
            is_changed &= valid
        self.n_changed += int(np.count_nonzero(is_changed))

    def _add_max_probability(self, structures: np.ndarray, valid: np.ndarray | None) -> None:
        flat = structures.reshape(len(structures), -1)
        if valid is not None:
            flat = flat[:, valid.ravel()]
        np.maximum(self.max_probability, flat.max(axis=1, initial=0), out=self.max_probability)

    def _add_uncertainty(
        self, probs: np.ndarray, delivered: np.ndarray, predicted: np.ndarray
    ) -> None:
        """Of the voxels with the numbers ``predicted`` in the block."""
        if not len(predicted):
            return
        regions = self._case.labels.regions
        if regions:
            delivered_of_predicted = delivered.reshape(len(delivered), -1)[:, predicted]
        else:
            delivered_of_predicted = delivered.ravel()[predicted]
        probs_of_predicted = np.take(probs.reshape(len(probs), -1), predicted, axis=1)
        means = mean_uncertainty(probs_of_predicted, delivered_of_predicted, regions=regions)
        for name, mean in means.items():
            self._uncertainty[name] += mean * len(predicted)
        self._n_predicted += len(predicted)

    @property
    def mean_uncertainty(self) -> dict[str, float]:
        """``entropy`` and ``confidence`` over the segmented structures; NaN without any."""
        if not self._n_predicted:
            return dict.fromkeys(self._uncertainty, math.nan)
        return {name: total / self._n_predicted for name, total in self._uncertainty.items()}
