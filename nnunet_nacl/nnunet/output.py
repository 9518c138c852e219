"""Writes folders of predictions as nnU-Net does: files appear whole, and files of others stay."""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from nnunet_nacl.cases.case import Case
from nnunet_nacl.cases.ownership import OwnedFiles, check_no_others
from nnunet_nacl.nnunet.dataset import Dataset
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import (
    check_ours,
    check_writable,
    locked,
    remove_leftovers,
    to_json_text,
    write_atomically,
)
from nnunet_nacl.utilities.images import check_name, verified
from nnunet_nacl.utilities.json_files import read_dict

if TYPE_CHECKING:
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter

MAPS_FOLDER = "maps"
"""Folder of the uncertainty images, a folder a case.

nnU-Net takes every image beside the segmentations for one.
"""
SENSITIVE = "sensitive"
"""Folder of the sensitive labels."""

_INTEGER_ENDINGS = (".png", ".bmp")


@contextlib.contextmanager
def open_output(
    output: Path,
    sources: Iterable[Path],
    dataset: Dataset,
    claim: tuple[str, Mapping[str, object]],
    names: Collection[str],
    *,
    part: int = 0,
) -> Iterator[None]:
    """Lock a folder for segmentations, before hours of work.

    While the block runs, no other run of the same part opens the folder. What killed runs left is
    removed, nothing of others. Nothing is written: :func:`claim_output` does, when all else was
    checked.

    Args:
        output: The folder.
        sources: Folders that it must not be, or lie in.
        dataset: Whose dataset.json, plans.json and file ending its files will have.
        claim: Name and content of the file that tells that the folder is this program's, whatever
            else is in it.
        names: Of files that will be written beside the segmentations.
        part: Of a run in several parts.

    Raises:
        UserError: The folder is not this program's to write to, or another run is at work in it.
    """
    check_name(output)
    # unlike resolve(), it takes links that lead in circles
    real_output = Path(os.path.realpath(output))
    for source in sources:
        if Path(os.path.realpath(source)) in (real_output, *real_output.parents):
            raise UserError(
                f"{output} is or lies in {source}, and would be taken for its cases; choose"
                " another [[output]]."
            )
    check_writable(output / claim[0])
    taken = (
        f"another run is at work in {output}; wait until it has ended, or choose another"
        " [[output]] or"
        " [[part]]."
    )
    with locked(output / f".nnunet_nacl.part_{part}.lock", taken):
        _check_empty_or_ours(output, dataset, claim, names)
        check_ours(output / name for name in names)
        for name in names:
            remove_leftovers(output / name)
        try:
            yield
        finally:
            remove_leftovers(output)  # of workers that were killed


def _check_empty_or_ours(
    output: Path,
    dataset: Dataset,
    claim: tuple[str, Mapping[str, object]],
    names: Collection[str],
) -> None:
    """UserError where a folder that no run has written to may hold images or predictions."""
    files = os.listdir(output)  # before the claim is looked for: of ours it is the first
    claim_name, content = claim
    with contextlib.suppress(UserError):  # there is none, or another program's
        if read_dict(output / claim_name).get("generated_by") == content["generated_by"]:
            return
    taken = {claim_name, *_companions(dataset), *names}
    for file in files:
        if file in taken or file.endswith((".npz", dataset.file_ending)):
            raise UserError(
                f"{output} holds other images or predictions ({file}); choose another [[output]]."
            )


def claim_output(output: Path, dataset: Dataset, claim: tuple[str, Mapping[str, object]]) -> None:
    """Write the file that tells whose a folder is, then dataset.json and plans.json."""
    claim_name, content = claim
    for file, document in {claim_name: content, **_companions(dataset)}.items():
        write_atomically(output / file, to_json_text(document))


def _companions(dataset: Dataset) -> dict[str, Mapping[str, object]]:
    """What nnU-Net writes beside segmentations."""
    return {"dataset.json": dataset.dataset_json, "plans.json": dataset.plans}


def file_names_of_case(
    dataset: Dataset, case: str, maps: Iterable[str] = (), sensitive: Iterable[str] = ()
) -> list[str]:
    """Where :func:`write_case` writes files of a case, or removes those of an earlier run.

    Args:
        dataset: Of the segmentations.
        case: Its name.
        maps: Names of uncertainty images.
        sensitive: Names of the files of sensitive labels, without their ending.
    """
    from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

    images = [case]
    images += [f"{SENSITIVE}/{name}" for name in sensitive]
    images += [_name_of_map(case, name) for name in maps]
    file_names = [f"{image}{dataset.file_ending}" for image in images]
    if isinstance(dataset.reader, Tiff3DIO):  # it keeps the spacing in a file of its own
        file_names += [f"{image}.json" for image in images]
    return [*file_names, f"{case}.npz", f"{case}.pkl"]


def _name_of_map(case: str, name: str) -> str:
    return f"{MAPS_FOLDER}/{case}/{case}_{name}"


def write_case(
    dataset: Dataset,
    case: Case,
    files: OwnedFiles,
    *,
    maps: Mapping[str, np.ndarray] = MappingProxyType({}),
    sensitive: Mapping[str, np.ndarray] = MappingProxyType({}),
    probabilities: np.ndarray | Path | None = None,
) -> None:
    """Write the segmentation of a case and what belongs to it.

    Each file gets its name when it is whole; probabilities get theirs last: where they lie, the
    segmentation does.

    Args:
        dataset: Whose reader and file ending are used.
        case: Whose segmentation it is.
        files: The files of the case, of which is known which a run wrote.
        maps: Uncertainty images by name, which get a folder of the case.
        sensitive: Sensitive labels by the name of their file without its ending.
        probabilities: They are saved, or their file is copied with its .pkl; None: an earlier run's
            are removed.

    Raises:
        UserError: The disk is full, or a file of others has one of the names.
    """
    check_no_others(files.others(file_names_of_case(dataset, case.name, maps, sensitive)))
    ending = dataset.file_ending
    file_name = f"{case.name}{ending}"
    with files.staging(file_name) as work:
        save_image(case.segmentation, work / file_name, dataset.reader, case.properties)
        _save_probabilities(case, probabilities, work)
        for name in (f"{case.name}.npz", f"{case.name}.pkl"):
            # an earlier run's must not lie beside another segmentation
            if not (work / name).exists():
                files.remove(name)
    for name, label_map in sensitive.items():
        file_name = f"{SENSITIVE}/{name}{ending}"
        with files.staging(file_name) as work:
            save_image(label_map, work / Path(file_name).name, dataset.reader, case.properties)
    remove_leftovers(files.folder / MAPS_FOLDER / case.name)
    for name, values in maps.items():
        file_name = f"{_name_of_map(case.name, name)}{ending}"
        with files.staging(file_name) as work:
            save_map(values, work / Path(file_name).name, dataset.reader, case.properties)


def _save_probabilities(case: Case, probabilities: np.ndarray | Path | None, work: Path) -> None:
    """Save probabilities, or a copy of their file, and what nnU-Net keeps beside them."""
    if probabilities is None:
        return
    if isinstance(probabilities, Path):
        shutil.copyfile(probabilities, work / f"{case.name}.npz")
    else:
        np.savez_compressed(work / f"{case.name}.npz", probabilities=probabilities)
    if case.saved is None:
        (work / f"{case.name}.pkl").write_bytes(pickle.dumps(case.properties))
    elif case.saved.with_suffix(".pkl").is_file():
        shutil.copyfile(case.saved.with_suffix(".pkl"), work / f"{case.name}.pkl")


class _KeepsType(np.ndarray):
    """An array that nnU-Net's writers write with the type that it has.

    They are made for label maps, and would turn it into integers by ``astype``.
    """

    def astype(self, *arguments: object, **options: object) -> np.ndarray:
        """The array, whatever is asked for."""
        return self.view(np.ndarray)


def save_map(
    values: np.ndarray, path: Path, writer: BaseReaderWriter, properties: Mapping[str, object]
) -> None:
    """Save (*spatial) values in [0, 1] as :func:`save_image`, rounded to 1/255 to be compressed.

    Formats of integers alone hold 255 times them.
    """
    steps = np.ascontiguousarray(np.rint(np.clip(values, 0, 1) * np.float32(255)))
    array: np.ndarray
    if path.suffix.lower() in _INTEGER_ENDINGS:
        array = steps.astype(np.uint8)
    else:
        array = steps.astype(np.float32) / np.float32(255)
    save_image(array.view(_KeepsType), path, writer, properties)


def save_image(
    array: np.ndarray, path: Path, writer: BaseReaderWriter, properties: Mapping[str, object]
) -> None:
    """Save a label map by nnU-Net's writer; OSError where that is not whole."""
    with verified(path):
        writer.write_seg(array, str(path), properties)
