"""Folders of predictions that this package writes, as nnU-Net would have: no half file, nothing of others lost."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.cases.image_files import verified
from nnunet_nacl.cases.prediction_folder import CaseFiles, PredictionFolder
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import first_line

__all__ = ["prepare_output", "remove_unfinished", "write_case"]

_UNFINISHED = ".unfinished-"  # nnU-Net does not look into folders


def prepare_output(output: Path, folder: PredictionFolder, marks: Sequence[str]) -> None:
    """Make a folder with dataset.json and plans.json, before hours of work; what killed runs left is removed.

    Args:
        output: The new folder.
        folder: The predictions that it is made from.
        marks: Names of entries by one of which a folder is known to be an earlier run's.

    Raises:
        UserError: ``output`` is or lies in the folder of predictions, is a file, holds images or predictions that are
            no earlier run's, or no file can be written there.
    """
    folder.check_output(output, marks[0])
    ours = any((output / mark).exists() for mark in marks)
    for entry in os.scandir(output):
        if not ours and entry.is_file() and entry.name.endswith((".npz", folder.file_ending)):
            raise UserError(f"{output} holds other images or predictions ({entry.name}); choose another -o.")
    remove_unfinished(output)
    for name, content in (("dataset.json", folder.dataset_json), ("plans.json", folder.plans)):
        write_atomically(output / name, to_json_text(content))


def remove_unfinished(output: Path, owner: str = "") -> None:
    """Remove what killed runs left in a folder.

    Args:
        output: The folder.
        owner: Only that of runs of this name: where others work on the same folder, what they have in hand stays.
    """
    for entry in os.scandir(output):
        if entry.name.startswith(f"{_UNFINISHED}{owner}"):
            shutil.rmtree(entry.path, ignore_errors=True)


def write_case(
    folder: PredictionFolder,
    files: CaseFiles,
    output: Path,
    segmentation: np.ndarray,
    properties: dict[str, Any],
    probabilities: np.ndarray | Path | None = None,
    *,
    owner: str = "",
) -> None:
    """Write a case beside the others, then move its files to their names: a killed run leaves no half file.

    Args:
        folder: The predictions that it was made from.
        files: The case's among them.
        output: The folder to write to.
        segmentation: (*spatial) label map.
        properties: Where the image lies, as ``folder`` read it.
        probabilities: To save, or the file to copy; its .pkl comes with it. The npz is moved last, and has the time of
            the one in ``folder``. None: there shall be none, and an earlier run's are removed.
        owner: Whose unfinished files they are, see :func:`remove_unfinished`.

    Raises:
        UserError: A file cannot be written; the message names the segmentation.
    """
    name = f"{files.case}{folder.file_ending}"
    pickled = files.probabilities.with_suffix(".pkl")
    try:
        with tempfile.TemporaryDirectory(prefix=f"{_UNFINISHED}{owner}", dir=output) as made:
            work = Path(made)
            target = work / files.probabilities.name
            if isinstance(probabilities, Path):
                shutil.copyfile(probabilities, target)
            elif probabilities is not None:
                np.savez_compressed(target, probabilities=probabilities)
            if probabilities is not None:
                status = files.probabilities.stat()
                os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
                if pickled.is_file():
                    shutil.copyfile(pickled, work / pickled.name)
            for path in (target, work / pickled.name):
                if not path.exists():  # an earlier run's must not lie beside another segmentation
                    (output / path.name).unlink(missing_ok=True)
            with verified(work / name):
                folder.reader.write_seg(segmentation, str(work / name), properties)
            for path in sorted(work.iterdir(), key=lambda path: (path.suffix == ".npz", path.name)):
                os.replace(path, output / path.name)  # some formats keep the spacing in a file of its own
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise UserError(f"{output / name}: cannot be written ({reason}); free space or choose another -o.") from None
