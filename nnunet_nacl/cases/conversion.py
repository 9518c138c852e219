"""Applies a map to a folder of saved probabilities: a complete sibling folder, as nnU-Net would have written it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.cases.prediction_folder import CaseFiles, PredictionFolder
from nnunet_nacl.cases.prediction_output import prepare_output, write_case
from nnunet_nacl.cases.worker_processes import guarded, run_in_workers
from nnunet_nacl.documents.map_file import APPLIED_FILE, map_to_json, read_map, sha256, structures_of
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text, write_atomically
from nnunet_nacl.json_files import read_json

__all__ = ["apply_to_folder"]


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

    output, structures = Path(output), structures_of(folder.labels)
    calibration = read_map(map_path, structures, folder.labels.regions)
    if (folder.folder / APPLIED_FILE).is_file():
        raise UserError(f"{folder.folder} is calibrated already ({APPLIED_FILE}); give the folder that it came from.")
    prepare_output(output, folder, [APPLIED_FILE])
    record = map_to_json(calibration, structures)
    map_path = Path(map_path).resolve()
    record |= {"applied_to": str(folder.folder.resolve()), "map": str(map_path), "map_sha256": sha256(map_path)}
    if not (output / APPLIED_FILE).is_file() or read_json(output / APPLIED_FILE) != record:
        for old in output.glob("*.npz"):  # nothing of another map may count as finished
            old.unlink()
        write_atomically(output / APPLIED_FILE, to_json_text(record))
    found, problems = folder.cases(chill=True)
    todo = [(folder, calibration, output, files) for files in found if not _finished(folder, files, output)]
    processes = min(num_processes, len(todo))
    outcomes = run_in_workers(_convert, todo, processes) if processes > 1 else ((one, _convert(one)) for one in todo)
    silent, known = not (progress and todo), len(found) - len(todo)
    for (*_, files), problem in tqdm(outcomes, "apply", len(found), initial=known, unit="case", disable=silent):
        if problem is None:
            problem = f"{files.probabilities}: its process died, for lack of memory perhaps; run with a smaller -np."
        if problem:
            problems[files.case] = problem
    return [files.case for files in found if files.case not in problems], dict(sorted(problems.items()))


def _finished(folder: PredictionFolder, files: CaseFiles, output: Path) -> bool:
    """The npz is written last, and has the time of the one it came from."""
    try:
        same = (output / files.probabilities.name).stat().st_mtime_ns == files.probabilities.stat().st_mtime_ns
    except OSError:
        return False
    return same and (output / f"{files.case}{folder.file_ending}").is_file()


def _convert(task: tuple[PredictionFolder, AffineMap, Path, CaseFiles]) -> str:
    """Convert one case; what is wrong with it, in words, or nothing."""
    folder, calibration, output, files = task

    def convert() -> str:
        prediction = folder.load(files, truth=False)
        probs = calibration(prediction.probabilities.whole())
        labels = np.asarray(folder.label_manager.convert_probabilities_to_segmentation(probs))
        kind = np.uint16 if max(folder.labels.known) > 255 else np.uint8
        write_case(folder, files, output, labels.astype(kind), prediction.properties, probs)
        return ""

    return guarded(files.probabilities, convert)
