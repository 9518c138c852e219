"""Models that are trained to the end, as nnU-Net's export wants them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.documents.map_file import map_to_json, sha256
from tests.calibration.models import make_trained
from tests.runs.folders import Model, write_json

MAPS = {
    "temperature": LogOddsMap([0.5, 0.5], [0.0, 0.0]),
    "shift": LogOddsMap([0.7, 0.7], [-0.5, 0.3]),
    "conditional": LogOddsMap([[0.6, 0.7], [0.8, 0.9], [1.1, 1.2]], [[-0.1, 0.1], [-0.2, 0.2], [-0.3, 0.3]]),
}


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


def give_map(model: Model, **changes: Any) -> dict[str, Any]:
    """Give a model the map of its two folds, and what of its content the export tells."""
    content = map_to_json(MAPS, "conditional", {"1": "anterior", "2": "posterior"})
    hashes = {fold: sha256(model.folder / f"fold_{fold}" / "checkpoint_final.pth") for fold in "01"}
    content |= {"labels": ["background", "anterior", "posterior"], "folds": ["0", "1"], "n_cases": 12}
    content |= {"checkpoint_sha256": hashes}
    content |= {"relabelled": {"shift": {"n_structure": 1000, "n_changed": 25, "dice": -0.0123}}} | changes
    write_json(model.folder / "calibration_map.json", content)
    return content
