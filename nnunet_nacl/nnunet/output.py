"""Writes folders of predictions as nnU-Net does: files appear when they are whole, and files of others stay."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nnunet_nacl.case.case import Case
from nnunet_nacl.case.geometry import Geometry
from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.files import (
    check_ours,
    check_writable,
    locked,
    name_finished,
    remove_leftovers,
    replacing,
    temporary_folder,
    to_json_text,
    write_atomically,
)
from nnunet_nacl.images import check_name, verified
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder

MAPS = "maps"
"""Folder of the maps, a folder a case: nnU-Net takes every image beside the segmentations for one."""
SENSITIVE = "sensitive"
"""Folder of the labels that miss less."""

_INTEGER_ENDINGS = (".png", ".bmp")


@contextlib.contextmanager
def open_output(
    output: Path,
    sources: Iterable[Path],
    data: PredictionFolder,
    record: tuple[str, Mapping[str, Any]],
    names: Collection[str],
    *,
    part: int = 0,
) -> Iterator[None]:
    """Make a folder for segmentations, before hours of work; UserError where it is not this program's to write to.

    It is if its record says so, whatever its files are called; what killed runs left is removed, nothing of others.
    While the block runs, no other run of the same part opens the folder.

    Args:
        output: The folder.
        sources: Folders of images, which it must not be or lie in.
        data: Its dataset.json and plans.json belong into the folder.
        record: Name and content, with ``generated_by``, of the file that tells whose the folder is.
        names: What will be written beside them.
        part: Number of this run among those that share the folder.
    """
    check_name(output)
    place = Path(os.path.realpath(output))  # unlike resolve(), it takes links that lead in circles
    for source in sources:
        if Path(os.path.realpath(source)) in (place, *place.parents):
            raise UserError(f"{output} is or lies in {source}, and would be taken for its cases; choose another -o.")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; give -o a folder.")
    check_writable(output / record[0])
    taken = f"another run is at work in {output}; wait until it has ended, or choose another -o or -part_id."
    with locked(output / f".nnunet_nacl.part_{part}.lock", taken):
        theirs = os.listdir(output)  # before the record is looked for: of ours it is the first
        (name, content), companions = record, {"dataset.json": data.dataset_json, "plans.json": data.plans}
        with contextlib.suppress(UserError):
            if read_dict(output / name).get("generated_by") == content["generated_by"]:
                theirs = []
        for file in theirs:
            if file in (name, *companions, *names) or file.endswith((".npz", data.file_ending)):
                raise UserError(f"{output} holds other images or predictions ({file}); choose another -o.")
        check_ours(output / name for name in names)
        for file, made in {name: content, **companions}.items():
            write_atomically(output / file, to_json_text(made))
        for folder in (output / name for name in names):
            remove_leftovers(folder)
        try:
            yield
        finally:
            remove_leftovers(output)  # of workers that were killed


def write_case(
    folder: PredictionFolder,
    case: Case,
    output: Path,
    *,
    maps: Mapping[str, np.ndarray] = MappingProxyType({}),
    sensitive: Mapping[str, np.ndarray] = MappingProxyType({}),
    saved: Path | None = None,
    probabilities: np.ndarray | Path | None = None,
) -> tuple[Path, ...]:
    """Write the segmentation of a case, what belongs to it, and say which files; UserError where the disk is full.

    Args:
        folder: Of the data set: its file format and writer.
        case: With its segmentation.
        output: The folder to write to.
        maps: (*spatial) by name, which get a folder for each case.
        sensitive: (*spatial) labels that miss less, by the name of their file without its ending.
        saved: The npz that the case was read from, if any: its time and .pkl are kept; else a .pkl is made.
        probabilities: To save, or the file to copy. None: an earlier run's are removed.
    """
    name = case.name
    segmentation, npz, pkl = (f"{name}{ending}" for ending in (folder.file_ending, ".npz", ".pkl"))
    try:
        with temporary_folder(output) as work:  # nnU-Net does not look into folders
            if probabilities is not None:
                _save_probabilities(work / npz, work / pkl, probabilities, saved, case.properties)
            for file in (npz, pkl):
                if not (work / file).exists():  # an earlier run's must not lie beside another segmentation
                    (output / file).unlink(missing_ok=True)
            with verified(work / segmentation):
                folder.reader.write_seg(case.segmentation, str(work / segmentation), case.properties)
            written = name_finished(work, output)  # some formats keep the spacing in a file of its own
        if sensitive:
            (output / SENSITIVE).mkdir(exist_ok=True)
            with temporary_folder(output / SENSITIVE) as work:
                for file, labels in sensitive.items():
                    path = work / f"{file}{folder.file_ending}"
                    with verified(path):
                        folder.reader.write_seg(labels, str(path), case.properties)
                written += name_finished(work, output / SENSITIVE)
    except OSError as error:
        path, reason = output / segmentation, error.strerror or first_line(error)
        raise UserError(f"{path}: cannot be written ({reason}); free space or choose another -o.") from None
    remove_leftovers(output / MAPS / name)
    for which, values in maps.items():
        path = output / MAPS / name / f"{name}_{which}{folder.file_ending}"
        written += write_map(values, path, folder.reader, case.properties)
    return tuple(written)


def _save_probabilities(
    npz: Path, pkl: Path, probabilities: np.ndarray | Path, saved: Path | None, properties: dict[str, Any]
) -> None:
    if isinstance(probabilities, Path):
        shutil.copyfile(probabilities, npz)
    else:
        np.savez_compressed(npz, probabilities=probabilities)
    if saved is None:
        with open(pkl, "wb") as file:
            pickle.dump(properties, file)
        return
    status = saved.stat()
    os.utime(npz, ns=(status.st_atime_ns, status.st_mtime_ns))
    if (properties_file := saved.with_suffix(".pkl")).is_file():
        shutil.copyfile(properties_file, pkl)


class _KeepsType(np.ndarray):
    """An array that nnU-Net's writers, which ask for integers, write as it is."""

    def astype(self, *arguments: Any, **options: Any) -> np.ndarray:
        """The array, whatever is asked for."""
        return self.view(np.ndarray)


def write_map(values: np.ndarray, path: Path, writer: Any, properties: Mapping[str, Any]) -> list[Path]:
    """Write (*spatial) values in [0, 1] as an image, and say which files; UserError where the disk is full.

    They are float32 rounded to 1/255, which formats compress; formats of integers alone hold 255 times them. A tif has
    its spacing, of nnU-Net's ``properties``, in a file beside it.
    """
    import tifffile

    steps = np.ascontiguousarray(np.rint(np.clip(values, 0, 1) * np.float32(255)))
    integers = path.suffix.lower() in _INTEGER_ENDINGS
    array = steps.astype(np.uint8) if integers else steps.astype(np.float32) / np.float32(255)
    is_tiff = path.suffix.lower() in (".tif", ".tiff") and not Geometry.of(properties).is_2d
    with replacing(path, ending=".nii.gz" if path.name.endswith(".nii.gz") else path.suffix) as temporary:
        with verified(temporary):
            if is_tiff:  # else 3 or 4 slices become colours
                tifffile.imwrite(temporary, array, compression="zlib", photometric="minisblack")
            else:
                writer.write_seg(array.view(_KeepsType), str(temporary), properties)
    if not is_tiff:
        return [path]
    spacing_file = path.with_suffix(".json")
    write_atomically(spacing_file, json.dumps({"spacing": properties["spacing"]}))
    return [path, spacing_file]
