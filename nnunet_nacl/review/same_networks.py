"""Whether predictions are of the networks that a calibration map was learned from, as far as their folder tells."""

from __future__ import annotations

import contextlib
from pathlib import Path

from nnunet_nacl.calibrate.calibration_map import CalibrationMap
from nnunet_nacl.calibrate.map_file import APPLIED_FILE, check_networks, sha256
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import decode, read_dict
from nnunet_nacl.nnunet.locate import fold_of
from nnunet_nacl.nnunet.prediction_folder import PredictionFolder
from nnunet_nacl.review.prediction_json import UsedModel


def check_same_networks(path: Path, predictions: PredictionFolder) -> str:
    """Compare checkpoints, and trainer, plans and configuration, where both the map and the folder state them.

    A fold's validation lies beside its checkpoint, and `nnunet_nacl predict` records the checkpoints; of other folders
    nobody knows. A folder that a map calibrated before is of that map's networks.

    Returns:
        A note where it cannot be known; empty where the checkpoints are the same.

    Raises:
        UserError: They are of other networks.
    """
    record, folder = CalibrationMap.load(path), predictions.folder.resolve()
    if (folder / APPLIED_FILE).is_file() or record.source == str(folder):
        return ""
    model, networks = _model_of(folder)
    check_networks(path, record, networks)
    if networks and networks.keys() <= record.checkpoint_sha256.keys():
        return ""
    stated = model.split("__") if model else ["", str(predictions.plans.get("plans_name", "")), ""]
    learned = Path(record.source).name.split("__")
    for here, there in zip(stated, learned if len(learned) == 3 else ()):
        if here not in ("", there):
            raise UserError(f"{path} was learned with {there}, {folder} has {here}; give the map of this model.")
    return (
        f"Whether {path} was learned from the networks that predicted {folder} cannot be known from their files: it "
        "holds for no others."
    )


def _model_of(folder: Path) -> tuple[str, dict[str, str]]:
    """Name of the model's folder, and by fold the SHA-256 of the checkpoints that predicted; empty where unknown."""
    if folder.name.startswith("validation") and (fold := fold_of(folder.parent)):
        made_by = folder / "predicted_by.json"
        known = read_dict(made_by) if made_by.is_file() else {}
        checkpoint = folder.parent / Path(str(known.get("checkpoint", "checkpoint_final.pth"))).name
        return folder.parents[1].name, {fold: sha256(checkpoint)} if checkpoint.is_file() else {}
    with contextlib.suppress(UserError):  # nnU-Net's own predictions have none
        document = folder / "prediction.json"
        model = decode(UsedModel, read_dict(document).get("model"), document)
        return Path(model["folder"]).name, model["checkpoints_sha256"]
    return "", {}
