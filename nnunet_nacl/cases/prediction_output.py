"""Folders of predictions that this package writes, as nnU-Net would have: no half file, nothing of others lost."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_nacl.cases.image_files import check_name, verified
from nnunet_nacl.cases.map_images import to_dtype, write_image
from nnunet_nacl.cases.prediction_folder import CaseFiles, PredictionFolder
from nnunet_nacl.cases.reviewed_case import ReviewedCase
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import remove_leftovers, to_json_text, write_atomically
from nnunet_nacl.json_files import first_line, read_dict

MAPS = "maps"
"""Folder of the maps, a folder a case: nnU-Net takes every image beside the segmentations for one."""

_UNFINISHED = ".unfinished-"  # nnU-Net does not look into folders


def open_output(
    output: Path,
    sources: Iterable[Path],
    file_ending: str,
    record: tuple[str, Mapping[str, Any]],
    names: Collection[str],
    *,
    owner: str | None = None,
) -> None:
    """Make a folder for segmentations, before hours of work; what killed runs left in an earlier one is removed.

    A folder is an earlier run's if its record says so, whatever its files are called; nothing of others is replaced.

    Args:
        output: The folder.
        sources: Folders of images, which it must not be or lie in: nnU-Net would take its images for cases.
        file_ending: Of the images.
        record: Name and content of the file that tells whose the folder is, ``generated_by`` among it.
        names: What else will be written there.
        owner: Where several runs share the folder: whose unfinished files are removed.

    Raises:
        UserError: ``output`` cannot be used: the message says why.
    """
    check_name(output)
    for source in sources:
        if output.resolve() == source.resolve() or source.resolve() in output.resolve().parents:
            raise UserError(
                f"{output} is or lies in {source}; nnU-Net would take its images for cases. Choose another -o."
            )
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; give -o a folder.")
    theirs = os.listdir(output) if output.is_dir() else []  # before the record is looked for: of ours it is the first
    name, content = record
    with contextlib.suppress(UserError):
        if read_dict(output / name).get("generated_by") == content["generated_by"]:
            theirs = []
    for found in theirs:
        if found == name or found in names or found.endswith((".npz", file_ending)):
            raise UserError(f"{output} holds other images or predictions ({found}); choose another -o.")
    write_atomically(output / name, to_json_text(content))
    remove_unfinished(output, owner or "")
    if owner is None:  # of others, these may be in hand
        for folder in (output, *(output / name for name in names)):
            remove_leftovers(folder)


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
        probabilities: To save, or the file to copy; its .pkl comes with it, or is made of ``properties`` where the case
            was predicted now. The npz is moved last, and has the time of the one in ``folder``. None: there shall be
            none, and an earlier run's are removed.
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
            if probabilities is not None and files.probabilities.parent == output:  # predicted now: no file to copy
                with open(work / pickled.name, "wb") as file:
                    pickle.dump(properties, file)
            elif probabilities is not None:
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


def write_reviewed(
    folder: PredictionFolder,
    reviewed: ReviewedCase,
    output: Path,
    *,
    source: CaseFiles | None = None,
    probabilities: np.ndarray | Path | None = None,
    dtype: str = "uint8",
    owner: str = "",
) -> tuple[Path, ...]:
    """Write the segmentation of a case, and its maps into a folder of their own.

    Args:
        folder: Of the data set: its file format and reader.
        reviewed: The case.
        output: The folder to write to.
        source: The saved prediction that it was made from; None for one that never was.
        probabilities: To save, see :func:`write_case`.
        dtype: Of the maps, see :func:`~nnunet_nacl.cases.map_images.to_dtype`.
        owner: Whose unfinished files they are, see :func:`remove_unfinished`.

    Returns:
        What was written.

    Raises:
        UserError: A file cannot be written; the message names it.
    """
    case, name = reviewed.case, reviewed.case.name
    files = source or CaseFiles(name, output / f"{name}.npz", None, None)
    write_case(folder, files, output, case.segmentation, case.properties, probabilities, owner=owner)
    beside = () if probabilities is None else (output / f"{name}.npz", output / f"{name}.pkl")
    written = [output / f"{name}{folder.file_ending}", *(path for path in beside if path.is_file())]
    remove_leftovers(output / MAPS / name)
    for which, values in reviewed.maps.items():
        path = output / MAPS / name / f"{name}_{which}{folder.file_ending}"
        written += write_image(to_dtype(values, dtype), path, case.geometry)
    for path in (output / MAPS / name).glob(f"{name}_*"):  # of an earlier run with other settings
        if path not in written:
            path.unlink()
    return tuple(written)
