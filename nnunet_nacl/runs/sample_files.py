"""The file of a case's sample: where it lies, what it holds, and whether it is of what lies beside it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.calibration.case_voxels import MASK_BITS, read_voxels
from nnunet_nacl.calibration.sampling import Sample, draw_sample
from nnunet_nacl.documents.results import NEAR, EvaluationSettings
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import regular_only, replacing
from nnunet_nacl.io.case import Case, CaseFiles
from nnunet_nacl.io.geometry import slicing_axis
from nnunet_nacl.io.labels import Labels
from nnunet_nacl.io.prediction_folder import PredictionFolder
from nnunet_nacl.json_files import first_line, parse_json
from nnunet_nacl.metrics.voxel_uncertainty import confidence
from nnunet_nacl.runs.ledger import same_contents
from nnunet_nacl.runs.measure import sign

SAMPLES_FOLDER = "calibration_samples"
_KEYS = ("log_odds", "target", "label", "masks", "stratum", "drawn_of", "outside", "regions", "signature")
_FURTHER = ("true_log", "tempered")  # where there are many classes; not in samples of earlier versions
_SCHEMA = 2
_NUMBER = 5  # slices at the quantiles of the structures, beside the one that holds most of them
_MOST_BYTES = 60_000  # of a case's slices, compressed


@dataclass(frozen=True, eq=False)
class KeptSlices:
    """Confidence in n slices of a case, kept for pictures when the probabilities are not.

    Which slices is known from the ground truth alone, so that all methods keep the same ones and can be shown beside
    each other.

    Attributes:
        axis: Array axis across the slices.
        index: (n,) numbers of the slices.
        values: (n, rows, columns) uint8: confidence times 255.
    """

    axis: int
    index: np.ndarray
    values: np.ndarray

    def confidence(self, index: int) -> np.ndarray | None:
        """(rows, columns) float32 confidence in a slice, to 0.002; None if it was not kept."""
        where = np.flatnonzero(self.index == index)
        return self.values[where[0]].astype(np.float32) / 255 if len(where) else None


def sample_path(files: CaseFiles) -> Path:
    """Where the sample of a case lies."""
    return files.probabilities.parent / SAMPLES_FOLDER / f"{files.case}.sample"


def find_sample(files: CaseFiles, labels: Labels, settings: EvaluationSettings) -> Sample | None:
    """The sample that lies there, if it is of these contents of segmentation, ground truth and probabilities.

    Probabilities that are gone, or never were, are no reason to give it up: the segmentation and the truth tell. Where
    they are there, one of an earlier version, which lacks a mask, is as none, and so is one that is damaged.

    Raises:
        OSError: Another file cannot be read.
    """
    try:
        found = read_sample(sample_path(files), labels)
        known = parse_json(found.signature)
    except ValueError:  # UserError too
        return None
    if not isinstance(known, dict) or (_lacks_near(found) and files.probabilities.is_file()):
        return None
    return found if same_contents(known, _signature(files, labels, settings, known)) else None


def _lacks_near(sample: Sample) -> bool:
    """Whether an earlier version drew it, which knew no mask ``near``: all that is predicted lies in it."""
    predicted, near = (sample.masks >> MASK_BITS.index(name) & 1 for name in ("predicted", NEAR))
    return bool((predicted > near).any())


def make_sample(
    data: Case, files: CaseFiles, folder: PredictionFolder, settings: EvaluationSettings, *, save: bool
) -> Sample:
    """Draw the sample of a case in memory; a few slices are kept in its file, for pictures.

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
        valid = data.truth_and_masks(settings.dilation_mm, settings.boundary_mm).valid
        slices = _keep_slices(data, valid, slicing_axis(data.spacing_mm, folder.plans))
        write_sample(replace(drawn, extra=slices), sample_path(files))
    return drawn


def write_sample(sample: Sample, path: Path) -> None:
    """Write under a temporary name, then rename; UserError where that is not possible.

    The file is an npz archive under another ending: nnU-Net takes every ``*.npz`` of a folder for a prediction.
    """
    arrays: dict[str, Any] = {name: np.asarray(getattr(sample, name)) for name in _KEYS} | sample.extra
    arrays |= {name: array for name in _FURTHER if (array := getattr(sample, name)) is not None}
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
            values = {name: data[name] for name in (*_KEYS, *(name for name in _FURTHER if name in data.files))}
            extra = {name: data[name] for name in data.files if name not in (*values, "schema")}
        plain = {"regions": bool(values["regions"]), "signature": str(values["signature"])}
        found = Sample(**values | plain, extra=extra)
        if (found.num_structures, found.regions) != (len(labels.foreground), labels.regions):
            raise ValueError(f"of {found.num_structures} structures")
        return found
    except Exception as error:  # zipfile, zlib and NumPy raise anything on broken bytes
        problem = f"not a sample of this version of nnunet_nacl ({first_line(error)})"
        raise UserError(f"{path}: {problem}; calibrate again.") from None


def slices_in(sample: Sample) -> KeptSlices | None:
    """The slices in the file of a sample, if it has any."""
    extra = sample.extra
    try:
        axis, index, values = int(extra["slice_axis"]), extra["slice_index"], extra["slices"]
    except (KeyError, TypeError, ValueError):
        return None
    return KeptSlices(axis, index, values) if values.ndim == 3 and index.shape == values.shape[:1] else None


def _signature(
    files: CaseFiles, labels: Labels, settings: EvaluationSettings, known: Mapping[str, Any]
) -> dict[str, Any]:
    found = sign(labels, settings, files, known)
    return found | {"settings": [settings.dilation_mm, settings.boundary_mm]}  # bins are drawn from it later


def _keep_slices(data: Case, valid: np.ndarray | None, axis: int) -> dict[str, np.ndarray]:
    """Slices of a case, as many as the space for them allows: what :func:`slices_in` reads."""
    shape = data.truth.shape
    rest = [n for i, n in enumerate(shape) if i != axis]
    index, values, size = [], [], 0
    for i in _worth_keeping(data.truth, valid, axis):
        where = tuple(slice(i, i + 1) if a == axis else slice(0, n) for a, n in enumerate(shape))
        plane = confidence(data.probabilities.in_box(where), regions=data.labels.regions, check_values=False)
        small = np.rint(255 * plane.reshape(rest)).astype(np.uint8)
        size += len(zlib.compress(small.tobytes(), 1))
        if size > _MOST_BYTES:
            break
        index.append(i)
        values.append(small)
    kept = np.stack(values) if values else np.zeros((0, *rest), np.uint8)
    return {"slice_axis": np.asarray(axis), "slice_index": np.array(index, dtype=np.int64), "slices": kept}


def _worth_keeping(truth: np.ndarray, valid: np.ndarray | None, axis: int) -> list[int]:
    """The slice that holds most of the structures, then those that divide them evenly; the middle if there are none."""
    others = tuple(i for i in range(truth.ndim) if i != axis)
    counts = np.count_nonzero(truth if valid is None else (truth != 0) & valid, axis=others)
    if not counts.any():
        return [len(counts) // 2]
    quantiles = (np.arange(_NUMBER) + 0.5) / _NUMBER * counts.sum()
    return list(dict.fromkeys(map(int, [counts.argmax(), *np.searchsorted(counts.cumsum(), quantiles)])))
