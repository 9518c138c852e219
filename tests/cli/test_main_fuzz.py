"""Whatever lies in a folder, a command ends in a result or in a message that names the file."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from nnunet_nacl.cli.main import main
from tests.metrics.models import give_map, make_trained
from tests.mutated_json import mutations
from tests.runs.folders import (
    make_model,
    write_json,
)
from tests.runs.predictions import predictions_in


def evaluated(root: Path) -> tuple[list, list[Path]]:
    """A model with the records of its cases."""
    model = make_model(root / "nnunet", cases=2, shape=(3, 6, 5))
    command = ["evaluate", "-d", "999", "-c", "3d_fullres", "-np", "1"]
    assert call(command)[0] == 0
    splits = model.references.parent / "splits_final.json"
    return command, [splits, model.folder / "plans.json", model.folder / "dataset.json"]


def reviewed(root: Path) -> tuple[list, list[Path]]:
    """Predictions that say by which map they are calibrated, and their review."""
    folder = predictions_in(root)(cases=1, shape=(3, 6, 5))
    out = root / "out"
    write_json(
        folder / "calibration_applied.json", {"map": "elsewhere/map.json", "map_sha256": "0" * 64}
    )
    command = ["review", "-i", folder, "-o", out, "-np", "1", "-maps", "entropy"]
    assert call(command)[0] == 0
    names = ("dataset.json", "plans.json", "calibration_applied.json")
    return command, [out / "review_args.json", *(folder / name for name in names)]


def given(root: Path) -> tuple[list, list[Path]]:
    """A model, and a map for it from another site."""
    model = make_trained(root / "nnunet", folds=2, cases=1, shape=(3, 6, 5))
    write_json(root / "given.json", give_map(model))
    command = ["calibrate", "-d", "999", "-c", "3d_fullres", "-map", root / "given.json"]
    return command, [
        root / "given.json",
        model.folder / "plans.json",
        model.folder / "dataset.json",
    ]


@pytest.mark.parametrize(("make", "number"), [(evaluated, 8), (reviewed, 20), (given, 12)])
def test_whatever_a_document_says_ends_in_a_message(make, number, tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / "nnunet" / name))
    command, documents = make(tmp_path)
    failed = []
    for path in documents:
        whole = path.read_text()
        for where, value, text in (*mutations(whole, number), ((), "as it was", whole)):
            path.write_text(text)
            try:
                status, _, error = call(command)
            except Exception as error:
                failed.append((path.name, where, value, repr(error)))
                continue
            said = error.rpartition(f"nnunet_nacl {command[0]}: ")[2].splitlines()
            if (
                ": unexpected " in error
                or status
                and not (said and all(line.startswith("  ") for line in said[1:]))
            ):
                failed.append((path.name, where, value, error))
        assert status == 0, error
    assert not failed


def call(arguments: list) -> tuple[int, str, str]:
    output = io.StringIO()
    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(output):
        status = main([*map(str, arguments)])
    return status, output.getvalue(), error.getvalue()
