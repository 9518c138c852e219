"""Writes folders of predictions as nnU-Net does: files appear when they are whole, and files of others stay."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from nnunet_nacl.cases.case import Case
from nnunet_nacl.errors import UserError, first_line
from nnunet_nacl.files import (
    check_ours,
    check_writable,
    locked,
    remove_leftovers,
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

    It is if its ``record``, name and content of a file, says so, whatever its files are called; what killed runs left
    is removed, nothing of others. It must not be or lie in one of ``sources``; ``names`` will be written beside the
    segmentations. While the block runs, no other run of the same part opens the folder.
    """
    check_name(output)
    place = Path(os.path.realpath(output))  # unlike resolve(), it takes links that lead in circles
    for source in sources:
        if Path(os.path.realpath(source)) in (place, *place.parents):
            raise UserError(f"{output} is or lies in {source}, and would be taken for its cases; choose another -o.")
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
    probabilities: np.ndarray | Path | None = None,
) -> tuple[Path, ...]:
    """Write the segmentation of a case, what belongs to it, and say which files; UserError where the disk is full.

    ``maps`` by name get a folder for each case; ``sensitive`` are labels by the name of their file without its ending.
    ``probabilities`` are saved, or their file copied with its .pkl; without, an earlier run's are removed.
    """
    name, ending, reader = case.name, folder.file_ending, folder.reader

    def save_probabilities(work: Path) -> None:
        pkl = case.saved and case.saved.with_suffix(".pkl")
        if isinstance(probabilities, Path):
            shutil.copyfile(probabilities, work / f"{name}.npz")
        elif probabilities is not None:
            np.savez_compressed(work / f"{name}.npz", probabilities=probabilities)
        if pkl is None and probabilities is not None:
            (work / f"{name}.pkl").write_bytes(pickle.dumps(case.properties))
        elif pkl is not None and probabilities is not None and pkl.is_file():
            shutil.copyfile(pkl, work / f"{name}.pkl")
        for file in (f"{name}.npz", f"{name}.pkl"):
            if not (work / file).exists():  # an earlier run's must not lie beside another segmentation
                (output / file).unlink(missing_ok=True)

    written = write_image(case.segmentation, output / f"{name}{ending}", reader, case.properties, save_probabilities)
    for file, labels in sensitive.items():
        written += write_image(labels, output / SENSITIVE / f"{file}{ending}", reader, case.properties)
    remove_leftovers(output / MAPS / name)
    for which, values in maps.items():
        written += write_map(values, output / MAPS / name / f"{name}_{which}{ending}", reader, case.properties)
    return tuple(written)


class _KeepsType(np.ndarray):
    """An array that nnU-Net's writers, which ask for integers, write as it is."""

    def astype(self, *arguments: Any, **options: Any) -> np.ndarray:
        """The array, whatever is asked for."""
        return self.view(np.ndarray)


def write_map(values: np.ndarray, path: Path, writer: Any, properties: Mapping[str, Any]) -> list[Path]:
    """As :func:`write_image` (*spatial) values in [0, 1], which are rounded to 1/255 so that formats compress them.

    Formats of integers alone hold 255 times them.
    """
    steps = np.ascontiguousarray(np.rint(np.clip(values, 0, 1) * np.float32(255)))
    integers = path.suffix.lower() in _INTEGER_ENDINGS
    array = steps.astype(np.uint8) if integers else steps.astype(np.float32) / np.float32(255)
    return write_image(array.view(_KeepsType), path, writer, properties)


def write_image(
    array: np.ndarray,
    path: Path,
    writer: Any,
    properties: Mapping[str, Any],
    add: Callable[[Path], None] = lambda work: None,
) -> list[Path]:
    """Write a label map by nnU-Net's writer, and say which files; UserError where the disk is full.

    Files get their names when all are whole: those that ``add`` writes into a folder, too. Probabilities get theirs
    last: where they lie, all do.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(path.parent) as work:  # nnU-Net does not look into folders
            add(work)
            with verified(work / path.name):
                writer.write_seg(array, str(work / path.name), properties)
            # some formats keep the spacing in a file of its own
            made = sorted((file.name for file in work.iterdir()), key=lambda name: (name.endswith(".npz"), name))
            for name in made:
                os.replace(work / name, path.with_name(name))
            return [path.with_name(name) for name in made]
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise UserError(f"{path}: cannot be written ({reason}); free some space or choose another -o.") from None
