"""A case from the folders of an ensemble's members: their mean probabilities, and what they disagree about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.ensemble_members import MemberCase
from nnunet_nacl.cases.geometry import geometry_difference
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.cases.probabilities import SavedProbabilities
from nnunet_nacl.cases.reviewed_case import Members
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.calibration_error import nanmean
from nnunet_nacl.metrics.foreground_mean import foreground_mean
from nnunet_nacl.metrics.overlap import count_overlap
from nnunet_nacl.metrics.voxel_uncertainty import normalised_entropy

__all__ = ["read_ensemble"]


def read_ensemble(folders: Sequence[PredictionFolder], case: MemberCase) -> tuple[Case, Members | None]:
    """Read a case from every folder, one after the other.

    With one folder the segmentation is the saved one, postprocessing included. With several it follows from the mean
    probabilities, as nnUNetv2_ensemble makes it.

    Args:
        folders: The members.
        case: The case's files in each.

    Returns:
        The case, and what the members disagree about; None with one.

    Raises:
        UserError: A file cannot be read or does not fit; the message names it.
    """
    first, files = folders[0].load(case.files[0], truth=False), case.files[0]
    if len(folders) == 1:
        return first, None
    labels, regions = first.labels, first.labels.regions
    # Sums of the probabilities and entropies of the members, added in place: memory holds two of each. The entropies
    # are kept for each region, because the mutual information of a voxel is that of its most disputed region.
    sums: list[np.ndarray] = []
    segmentations = []
    for folder, files in zip(folders, case.files):
        one = folder.load(files, truth=False) if sums else first
        segmentations.append(one.segmentation)
        if differing := geometry_difference(
            first.geometry, one.geometry, first.segmentation.shape, one.segmentation.shape
        ):
            raise UserError(
                f"{files.segmentation}: other geometry than {case.files[0].segmentation} ({differing}); "
                "give predictions of the same images."
            )
        probs = one.probabilities.whole()
        probs = probs.astype(np.promote_types(probs.dtype, np.float32), copy=bool(not sums))
        try:
            entropy = normalised_entropy(probs, regions=regions, aggregate=False)
        except ValueError as error:
            raise UserError(f"{files.probabilities}: {error}; predict this case again.") from None
        sums = [np.add(total, part, out=total) for total, part in zip(sums, (probs, entropy))] or [probs, entropy]
    probs, shared = (np.divide(total, len(folders), out=total) for total in sums)
    segmentation = labels.label_map(probs)
    # each member was checked, and a mean of probabilities is one
    information = normalised_entropy(probs, regions=regions, aggregate=False, check_values=False) - shared
    maps = {"mutual_information": information.clip(0, 1), "expected_entropy": shared}
    maps = {name: (values.max(0) if regions else values).astype(np.float32) for name, values in maps.items()}
    masks = [[labels.mask(one, channel) for channel in labels.foreground] for one in segmentations]
    dice = [nanmean(count_overlap(*pair).dice for pair in combinations(of_one, 2)) for of_one in zip(*masks)]
    sizes = [[np.count_nonzero(mask) * first.geometry.voxel_size for mask in of_member] for of_member in masks]
    mean = foreground_mean(maps["mutual_information"], segmentation != 0)
    members = Members(np.array(dice), np.array(sizes), mean, maps)
    return replace(first, segmentation=segmentation, probabilities=SavedProbabilities(probs, regions)), members
