"""Finds what belongs to a folder of predictions: its files, dataset.json, plans.json, and the ground truth."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_nacl.errors import UserError


def list_folder(folder: Path) -> tuple[list[str], set[str]]:
    """Names of the files in a folder, and those of everything else: folders, links that lead nowhere or in circles."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); change its permissions.") from None
    files = [name for name in names if os.path.isfile(folder / name)]
    return files, set(names).difference(files)


def find_above(folder: Path, name: str, given: str | os.PathLike | None, flag: str) -> Path:
    """A file that lies in the folder or up to two levels above, unless it is given; UserError if it is not there."""
    if given is not None:
        return Path(given)
    resolved = folder.resolve()
    for candidate in (folder, resolved.parent, resolved.parent.parent):
        if (candidate / name).is_file():
            return candidate / name
    raise UserError(f"{folder}: no {name} there or up to two levels above; give it with {flag}.")


def find_references(dataset_name: str | None, folder: Path) -> Path:
    """nnU-Net's own ground truth of a data set, for the predictions in ``folder``; UserError if there is none."""
    if not dataset_name:
        raise UserError(f"plans.json of {folder} names no data set; give the ground-truth folder too.")
    looked = []
    for variable, sub in (("nnUNet_preprocessed", "gt_segmentations"), ("nnUNet_raw", "labelsTr")):
        root = os.environ.get(variable)
        if not root:
            looked.append(f"{variable} (not set)")
            continue
        candidate = Path(root) / dataset_name / sub
        if candidate.is_dir():
            return candidate
        looked.append(str(candidate))
    raise UserError(f"no ground truth of {dataset_name} for {folder}: looked in {' and '.join(looked)}.")
