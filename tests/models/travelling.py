"""Models that are trained to the end, as nnU-Net's export wants them."""

from __future__ import annotations

import os
from pathlib import Path

from nnunet_nacl.calibration.affine import AffineMap
from nnunet_nacl.cases.checkpoints import write_calibrated
from nnunet_nacl.documents.map_file import map_to_json
from tests.calibration.models import make_trained
from tests.cases.folders import Model, write_json

MAP = AffineMap([0.7, 1.4], [-0.5, 0.3])
MARK = map_to_json(MAP, {"1": "anterior", "2": "posterior"})


def make_finished(root: Path, **arguments) -> Model:
    """Two folds of untrained networks, with the files that a training leaves; the environment is not set."""
    model = make_trained(root, **{"folds": 2, "cases": 1} | arguments)
    write_json(model.folder / "dataset_fingerprint.json", {})
    for fold in (0, 1):
        (model.folder / f"fold_{fold}" / "progress.png").write_bytes(b"a picture")
        write_json(model.validation(fold) / "summary.json", {"foreground_mean": {}})
        os.utime(
            model.folder / f"fold_{fold}" / "checkpoint_final.pth", (1e9, 1e9)
        )  # zip files know no year before 1980
    return model


def calibrate_folds(model: Model, *folds: str) -> None:
    """Give folds a calibrated checkpoint, and the model its map."""
    write_calibrated(model.folder, folds, "checkpoint_final.pth", MAP, MARK)
    write_json(model.folder / "calibration_map.json", MARK | {"folds": ["0", "1"]})
