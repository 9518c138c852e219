"""A case from the folders of an ensemble's members: their mean probabilities, and what they disagree about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.ensemble_members import MemberCase
from nnunet_nacl.cases.geometry import geometry_difference
from nnunet_nacl.cases.prediction_folder import PredictionFolder
from nnunet_nacl.cases.probabilities import SavedProbabilities
from nnunet_nacl.cases.review_row import Members
from nnunet_nacl.errors import UserError
from nnunet_nacl.metrics.disagreement import MemberSums


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
    sums = MemberSums([labels.values[channel] for channel in labels.foreground], labels.label_map, regions=regions)
    for i, (folder, files) in enumerate(zip(folders, case.files)):
        one = folder.load(files, truth=False) if i else first
        if differing := geometry_difference(
            first.geometry, one.geometry, first.segmentation.shape, one.segmentation.shape
        ):
            raise UserError(
                f"{files.segmentation}: other geometry than {case.files[0].segmentation} ({differing}); "
                "give predictions of the same images."
            )
        try:
            sums.add(one.probabilities.whole(), one.segmentation)
        except ValueError as error:
            raise UserError(f"{files.probabilities}: {error}; predict this case again.") from None
    probs = sums.probs
    segmentation = labels.label_map(probs)
    found = sums.result(segmentation != 0)
    maps = {"mutual_information": found.mutual_information, "expected_entropy": sums.expected_entropy}
    sizes = found.voxels * first.geometry.voxel_size
    members = Members(found.dice, sizes, found.foreground_mutual_information, maps)
    return replace(first, segmentation=segmentation, probabilities=SavedProbabilities(probs, regions)), members
