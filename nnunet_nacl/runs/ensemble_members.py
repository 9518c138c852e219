"""Several predictions of the same cases: folds or trainers as the members of an ensemble, and their mean."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_nacl.errors import UserError
from nnunet_nacl.io.case import Case, CaseFiles
from nnunet_nacl.io.companion_files import fold_folders
from nnunet_nacl.io.geometry import geometry_difference
from nnunet_nacl.io.prediction_folder import RERUN, PredictionFolder
from nnunet_nacl.io.probabilities import SavedProbabilities
from nnunet_nacl.metrics.disagreement import Disagreement, MemberSums


@dataclass(frozen=True)
class MemberCase:
    """One case in all folders."""

    case: str
    files: tuple[CaseFiles, ...]

    @property
    def path(self) -> Path:
        """The probabilities in the first folder, which name the case where something is wrong with it."""
        return self.files[0].probabilities


def open_members(
    folders: Sequence[str | os.PathLike],
    *,
    dataset_json: str | os.PathLike | None = None,
    plans: str | os.PathLike | None = None,
) -> list[PredictionFolder]:
    """Open folders of predictions that shall be compared voxel by voxel; no ground truth is looked for.

    Raises:
        UserError: A folder cannot be used, holds no probabilities or is given twice, or the folders differ in their
            labels or readers.
    """
    opened = [
        PredictionFolder.open(folder, dataset_json=dataset_json, plans=plans, need_reference=False)
        for folder in folders
    ]
    for member in opened:
        _check_probabilities(member.folder)
    first = opened[0]
    seen: dict[Path, Path] = {}
    for member in opened:
        resolved = member.folder.resolve()
        if resolved in seen:
            raise UserError(f"{member.folder} is given twice; a member counted twice would hide the disagreement.")
        seen[resolved] = member.folder
        for kind, mine, theirs in (
            ("labels", *(dict(zip(each.labels.names, each.labels.values)) for each in (member, first))),
            ("reader", *(type(each.reader).__name__ for each in (member, first))),
        ):
            if mine != theirs:
                raise UserError(
                    f"{member.folder} has another {kind} ({mine}) than {first.folder} ({theirs}); "
                    "give predictions of one data set."
                )
    return opened


def _check_probabilities(folder: Path) -> None:
    """UserError for a folder without a single npz: one line instead of one for each case."""
    if next(folder.glob("*.npz"), None) is not None:
        return
    for validation in (folder / "validation", *(fold / "validation" for fold in fold_folders(folder).values())):
        if next(validation.glob("*.npz"), None) is not None:
            raise UserError(f"{folder} holds no predictions, but {validation} does: give that.")
    raise UserError(f"{folder} holds no probabilities (*.npz); {RERUN}.")


def find_cases(members: Sequence[PredictionFolder]) -> tuple[list[MemberCase], dict[str, str]]:
    """The cases that every folder has, and what is wrong with the others.

    Raises:
        UserError: A folder holds no predictions, or the folders have no case in common.
    """
    problems: dict[str, str] = {}
    readable: list[dict[str, CaseFiles]] = []
    names: list[set[str]] = []
    for member in members:
        files, wrong = member.cases()
        readable.append({each.case: each for each in files})
        names.append(readable[-1].keys() | wrong.keys())
        for case, problem in wrong.items():
            problems[case] = f"{problems[case]} {problem}" if case in problems else problem
    if len(members) > 1 and not set.intersection(*names):
        raise UserError(
            f"{' and '.join(str(member.folder) for member in members)} have no case in common. The validation folders "
            "of different folds hold different cases: predict the same images with each fold (nnUNetv2_predict ... "
            "-f FOLD -o FOLDER --save_probabilities) and give those folders."
        )
    for case in sorted(set.union(*names)):
        missing = [str(member.folder) for member, there in zip(members, names) if case not in there]
        if missing:
            problems[case] = f"not predicted in {', '.join(missing)}; predict it there or leave that folder out."
    complete = (case for case in sorted(readable[0]) if case not in problems)
    return [MemberCase(case, tuple(files[case] for files in readable)) for case in complete], problems


def read_ensemble(folders: Sequence[PredictionFolder], case: MemberCase) -> tuple[Case, Disagreement | None]:
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
        member = folder.load(files, truth=False) if i else first
        if differing := geometry_difference(
            first.geometry, member.geometry, first.segmentation.shape, member.segmentation.shape
        ):
            raise UserError(
                f"{files.segmentation}: other geometry than {case.files[0].segmentation} ({differing}); "
                "give predictions of the same images."
            )
        try:
            sums.add(member.probabilities.whole(), member.segmentation)
        except ValueError as error:
            raise UserError(f"{files.probabilities}: {error}; predict this case again.") from None
    probs = sums.probs
    segmentation = labels.label_map(probs)
    members = replace(sums.result(segmentation != 0), expected_entropy=sums.expected_entropy)
    return replace(first, segmentation=segmentation, probabilities=SavedProbabilities(probs, regions)), members


def member_names(folders: Sequence[Path]) -> list[str]:
    """Short names of folders: the parts of their paths that not all of them share.

    For example ``fold_0`` and ``fold_1`` for ``a/fold_0/validation`` and ``a/fold_1/validation``, ``A`` and ``B`` for
    ``A__nnUNetPlans__2d/fold_0/validation`` and ``B__nnUNetPlans__2d/fold_0/validation``.
    """
    if len(folders) == 1:
        return [folders[0].resolve().name]
    names = ["/".join(p) for p in _without_common_ends([list(folder.resolve().parts) for folder in folders])]
    if not any("/" in name for name in names):
        names = ["__".join(p) for p in _without_common_ends([name.split("__") for name in names])]
    names = [name or folder.resolve().name for name, folder in zip(names, folders)]
    return names if len(set(names)) == len(names) else [str(folder.resolve()) for folder in folders]


def _without_common_ends(parts: list[list[str]]) -> list[list[str]]:
    for end, rest in ((0, slice(1, None)), (-1, slice(None, -1))):
        while all(parts) and len({p[end] for p in parts}) == 1:
            parts = [p[rest] for p in parts]
    return parts
