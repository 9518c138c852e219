"""Campaign files, and the folders that they name."""

from __future__ import annotations

import json
from pathlib import Path

TRAINERS = ("nnUNetTrainer", "nnUNetTrainerNACL")


def write_campaign_file(folder: Path, **entries: object) -> Path:
    """A campaign file, which is YAML as JSON is."""
    path = folder / "small.yaml"
    known = {"datasets": [4], "configurations": ["2d"], "folds": [0, 1], "trainers": list(TRAINERS), "device": "cpu"}
    content = {key: value for key, value in (known | entries).items() if value is not None}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
