"""The file of a case's sample: where it lies, what it holds, and whether it is of what lies beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.case.case import Case, CaseFiles
from nnunet_nacl.case.labels import Labels
from nnunet_nacl.case.measure import sign
from nnunet_nacl.case.results import EvaluationSettings
from nnunet_nacl.case.sampling import Sample, draw_sample
from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.files import regular_only, replacing
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.numbers.case_voxels import read_voxels
from nnunet_nacl.runs.ledger import same_contents

SAMPLES_FOLDER = "calibration_samples"
_KEYS = ("log_odds", "target", "label", "masks", "stratum", "drawn_of", "outside", "regions", "tempered", "signature")
_SCHEMA = 2


def sample_path(files: CaseFiles) -> Path:
    """Where the sample of a case lies."""
    return files.probabilities.parent / SAMPLES_FOLDER / f"{files.case}.sample"


def find_sample(files: CaseFiles, labels: Labels, settings: EvaluationSettings) -> Sample | None:
    """The sample that lies there, if it is of these contents of segmentation, ground truth and probabilities.

    Probabilities that are gone, or never were, are no reason to give it up: the segmentation and the truth tell. One
    that is damaged is as none.

    Raises:
        OSError: Another file cannot be read.
    """
    try:
        found = read_sample(sample_path(files), labels)
        known = json.loads(found.signature)
    except ValueError:  # UserError too
        return None
    if not isinstance(known, dict):
        return None
    return found if same_contents(known, _signature(files, labels, settings, known)) else None


def make_sample(
    data: Case, files: CaseFiles, folder: PredictionFolder, settings: EvaluationSettings, *, save: bool
) -> Sample:
    """Draw the sample of a case.

    Args:
        data: Its content.
        files: Its files.
        folder: Where they lie.
        settings: Of the masks.
        save: Write it too.

    Raises:
        ValueError: The network saw no voxel that has a truth; UserError where the sample cannot be written.
        OSError: A file cannot be read.
    """
    labels = folder.labels
    drawn = draw_sample(
        read_voxels(data, labels, settings), signature=json.dumps(_signature(files, labels, settings, {}))
    )
    if save:
        write_sample(drawn, sample_path(files))
    return drawn


def write_sample(sample: Sample, path: Path) -> None:
    """Write under a temporary name, then rename; UserError where that is not possible.

    The file is an npz archive under another ending: nnU-Net takes every ``*.npz`` of a folder for a prediction.
    """
    arrays: dict[str, Any] = {name: np.asarray(getattr(sample, name)) for name in _KEYS}
    if sample.true_log is not None:  # where there are many classes
        arrays["true_log"] = sample.true_log
    with replacing(path) as temporary, open(temporary, "xb") as file:  # an open file: NumPy would add .npz to a name
        np.savez_compressed(file, schema=_SCHEMA, **arrays)


def read_sample(path: Path, labels: Labels) -> Sample:
    """Inverse of :func:`write_sample`.

    Raises:
        UserError: The file is missing, broken, of another version, or of other structures than the labels have.
    """
    try:
        with open(path, "rb", opener=regular_only) as file, np.load(file, allow_pickle=False) as data:
            if int(data["schema"]) != _SCHEMA:
                raise ValueError(f"schema {int(data['schema'])}")
            values = {name: data[name] for name in (*_KEYS, *(["true_log"] if "true_log" in data.files else []))}
        plain = {"regions": bool(values["regions"]), "signature": str(values["signature"])}
        found = Sample(**values | plain)
        if (found.num_structures, found.regions) != (len(labels.foreground), labels.regions):
            raise ValueError(f"of {found.num_structures} structures")
        return found
    except Exception as error:  # zipfile, zlib and NumPy raise anything on broken bytes
        problem = f"not a sample of this version of nnunet_nacl ({first_line(error)})"
        raise UserError(f"{path}: {problem}; calibrate again.") from None


def _signature(
    files: CaseFiles, labels: Labels, settings: EvaluationSettings, known: Mapping[str, Any]
) -> dict[str, Any]:
    found = sign(labels, settings, files, known)
    return found | {"settings": [settings.dilation_mm, settings.boundary_mm]}  # bins are drawn from it later
