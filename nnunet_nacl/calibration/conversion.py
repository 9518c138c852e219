"""Applies a map to a folder of saved probabilities: a complete sibling folder, as nnU-Net would have written it."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.calibration.heldout import CaseFiles, PredictionFolder, structures_of
from nnunet_nacl.calibration.map_file import APPLIED_FILE, map_to_json, read_map
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import can_write, remove_leftovers, to_json_text, write_atomically
from nnunet_nacl.json_files import read_json

__all__ = ["apply_to_folder"]

_WORK = ".nnunet_nacl.tmp.d"


def apply_to_folder(
    folder: PredictionFolder,
    map_path: str | os.PathLike,
    output: str | os.PathLike,
    *,
    num_processes: int = 1,
    progress: bool = False,
) -> tuple[list[str], dict[str, str]]:
    """Write calibrated predictions of every case: npz, pkl and segmentation, dataset.json and plans.json.

    Cases that an earlier run finished from the same files by the same map are kept.

    Args:
        folder: Predictions with probabilities.
        map_path: calibration_map.json.
        output: The new folder.
        num_processes: Cases at the same time.
        progress: Show a progress bar on stderr.

    Returns:
        The cases that are done, and what is wrong with the others.

    Raises:
        UserError: The map is of other structures, the folder is calibrated already, or ``output`` cannot be used.
    """
    from tqdm import tqdm

    labels, output = folder.labels, Path(output)
    calibration = read_map(map_path, structures_of(folder), labels.regions)
    if (folder.folder / APPLIED_FILE).is_file():
        raise UserError(f"{folder.folder} is calibrated already ({APPLIED_FILE}); give the folder that it came from.")
    inside, source = output.resolve(), folder.folder.resolve()
    if inside == source or source in inside.parents:
        raise UserError(f"{output} is or lies in the folder of predictions; choose another -o.")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{output}: cannot be made ({error.strerror}); choose another -o.") from None
    if not can_write(output):
        raise UserError(f"{output}: no file can be written there; choose another -o.")
    found, problems = folder.cases(chill=True)
    digest = hashlib.sha256(Path(map_path).read_bytes()).hexdigest()  # names the map, as a model's card does
    record = map_to_json(calibration, structures_of(folder)) | {"applied_to": str(source), "map_sha256": digest}
    _start(output, record)
    todo = [files for files in found if not _finished(files, output, folder.file_ending)]
    done = [files.case for files in found if files not in todo]
    with tqdm(total=len(found), initial=len(done), desc="apply", unit="case", disable=not progress or not todo) as bar:
        for case, problem in _run(folder, calibration, output, todo, num_processes):
            bar.update()
            if problem:
                problems[case] = problem
            else:
                done.append(case)
    for name, content in (("dataset.json", folder.dataset_json), ("plans.json", folder.plans)):
        write_atomically(output / name, to_json_text(content))
    return sorted(done), dict(sorted(problems.items()))


def _start(output: Path, record: dict[str, Any]) -> None:
    """Note the map before the first case, once nothing is left that another map made."""
    remove_leftovers(output)
    for left in output.glob(f".*{_WORK}"):
        shutil.rmtree(left, ignore_errors=True)
    path = output / APPLIED_FILE
    if path.is_file():
        if read_json(path) == record:
            return
    elif any(entry.suffix == ".npz" for entry in output.iterdir()):
        raise UserError(f"{output} holds predictions that are not of `nnunet_nacl apply`; choose another -o.")
    for old in output.glob("*.npz"):
        old.unlink()
    write_atomically(path, to_json_text(record))


def _finished(files: CaseFiles, output: Path, ending: str) -> bool:
    """The npz is written last, and gets the time of the one it came from."""
    made = output / files.probabilities.name
    try:
        same = made.stat().st_mtime_ns == files.probabilities.stat().st_mtime_ns
    except OSError:
        return False
    return same and (output / f"{files.case}{ending}").is_file()


def _run(folder, calibration, output, todo, num_processes):
    if min(num_processes, len(todo)) <= 1:
        yield from ((files.case, _convert(folder, calibration, output, files)) for files in todo)
        return
    context = get_context("spawn")  # as nnU-Net; PyTorch does not survive a fork
    workers = min(num_processes, len(todo))
    with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        futures = {pool.submit(_convert, folder, calibration, output, files): files for files in todo}
        for future in as_completed(futures):
            files = futures[future]
            try:
                yield files.case, future.result()
            except Exception as error:  # a worker that died
                yield files.case, f"{files.probabilities}: {error}; run again with a smaller -np."


def _convert(folder: PredictionFolder, calibration: AffineMap, output: Path, files: CaseFiles) -> str:
    """Convert one case; what is wrong with it, in words, or nothing."""
    try:
        prediction = folder.load_prediction(files)
        probs = calibration(prediction.probs)
        segmentation = np.asarray(folder.label_manager.convert_probabilities_to_segmentation(probs))
        status = files.probabilities.stat()
        work = output / f".{secrets.token_hex(6)}{_WORK}"
        work.mkdir()
        try:
            image = work / f"{files.case}{folder.file_ending}"
            many = max(folder.labels.known) > 255
            folder.reader.write_seg(
                segmentation.astype(np.uint16 if many else np.uint8), str(image), prediction.properties
            )
            with open(work / "probabilities", "wb") as file:  # an open file: NumPy would add .npz to a name
                np.savez_compressed(file, probabilities=probs)
            os.utime(work / "probabilities", ns=(status.st_atime_ns, status.st_mtime_ns))
            properties = files.probabilities.with_suffix(".pkl")
            if properties.is_file():
                shutil.copyfile(properties, work / "properties")
                os.replace(work / "properties", output / properties.name)
            for made in work.iterdir():  # some formats keep the spacing in a file of its own
                if made.name != "probabilities":
                    os.replace(made, output / made.name)
            os.replace(work / "probabilities", output / files.probabilities.name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except UserError as error:
        return str(error)
    except MemoryError:
        return f"{files.probabilities}: not enough memory; run with a smaller -np."
    except OSError as error:
        return f"{files.probabilities}: {error.strerror or error}; make room in {output}."
    return ""
