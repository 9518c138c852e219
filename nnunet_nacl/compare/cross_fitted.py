"""A fold's predictions as if they had been calibrated, each case by a map that was fitted without its part.

Nothing of it is written: calibration changes no label, and what it makes of a case follows from the case's document and
sample.
"""

from __future__ import annotations

from dataclasses import replace

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.calibrate.map_file import MAP_FILE, check_networks, sha256
from nnunet_nacl.case.document import Evaluation
from nnunet_nacl.errors import UserError
from nnunet_nacl.nnunet.locate import calibrate_command
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.numbers.log_odds_map import LogOddsMap
from nnunet_nacl.runs.heldout import HeldOut


def calibrated(document: Evaluation, folder: PredictionFolder) -> Evaluation:
    """What was measured of a fold's cases as it would be under the maps that were fitted without them.

    See :meth:`~nnunet_nacl.runs.heldout.HeldOut.through`.

    Raises:
        UserError: There are no such maps, or a case has neither probabilities nor a sample.
    """
    held_out, maps = HeldOut({"": folder}, document.settings), part_maps(folder)
    return replace(document, metric_per_case=[held_out.through(result, maps[result.case]) for result in document.cases])


def part_maps(folder: PredictionFolder) -> dict[str, LogOddsMap]:
    """By case of a fold, the map that was fitted to the other parts of the cross-fit.

    Raises:
        UserError: `nnunet_nacl calibrate` has not been run on these predictions.
    """
    fold = folder.folder.parent.resolve()
    path, checkpoint = fold.parent / MAP_FILE, fold / "checkpoint_final.pth"
    command = f"run `{calibrate_command(fold.parent, fold.parent.name.rpartition('__')[2])}`"
    if not path.is_file():
        raise UserError(f"{fold.parent} has no {MAP_FILE}; {command}.")
    record, name = CalibrationMap.load(path), fold.name.removeprefix("fold_")
    if checkpoint.is_file() and name in record.checkpoint_sha256:
        check_networks(path, record, {name: sha256(checkpoint)})
    maps = record.part_maps
    lacking = [files.case for files in folder.cases(known=maps)[0] if files.case not in maps]
    if lacking or not maps:
        problem = f"{lacking[0]} was not calibrated" if lacking else "it holds no map of its parts"
        raise UserError(f"{path}: {problem}; {command} again.")
    return maps
