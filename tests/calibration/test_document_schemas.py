"""The JSON schemas of the documents, and the documents that the commands write."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest

from nnunet_nacl.calibration.map_parts import SCOPE
from nnunet_nacl.cli.main import main
from nnunet_nacl.utilities.json_files import read_dict
from tests.documents import check_document
from tests.metrics.models import make_trained
from tests.nnunet.untrained import write_scan
from tests.runs.folders import CLASSES, REGIONS, read


@pytest.fixture(scope="module", params=[CLASSES, REGIONS], ids=["classes", "regions"])
def written(request, tmp_path_factory):
    """What calibrate, predict and review wrote of one model, and the model."""
    root = tmp_path_factory.mktemp("written")
    model = make_trained(root / "nnunet", cases=3, folds=2, sharpness=2.0, labels=request.param)
    (root / "scans").mkdir()
    write_scan(
        root / "scans" / "new_0000.nii.gz",
        np.random.default_rng(0).normal(size=(9, 10, 8)).astype(np.float32),
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in model.environment.items():
            patch.setenv(name, value)
        named = ("-d", model.dataset, "-c", "3d_fullres")
        assert main(["calibrate", *named, "-np", "1", "-groups", "^case_.(.)"]) == 0
        here = (
            "-device",
            "cpu",
            "-npp",
            "0",
            "-nps",
            "0",
            "--disable_progress_bar",
            "-also",
            "1",
            "--slicer",
            "-recall",
            "0.5",
        )
        assert (
            main(["predict", "-i", str(root / "scans"), "-o", str(root / "out"), *named, *here])
            == 0
        )
        path, folder = model.folder / "calibration_map.json", str(model.validation(0))
        assert (
            main(
                [
                    "review",
                    "-i",
                    folder,
                    "-map",
                    str(path),
                    "-o",
                    str(root / "reviewed"),
                    "-np",
                    "1",
                ]
            )
            == 0
        )
        assert (
            main(["review", "-back", str(root / "reviewed"), "-corrected", str(model.references)])
            == 0
        )
    documents = {
        "calibration_map": read_dict(path),
        "prediction": read_dict(root / "out" / "prediction.json"),
    }
    documents |= {"outcome": read_dict(root / "reviewed" / "outcome.json")}
    documents["out"] = root / "out"
    return documents | {"review": read_dict(root / "reviewed" / "prediction.json")}


@pytest.mark.parametrize("name", ["calibration_map", "outcome", "prediction", "review"])
def test_documents_fit_their_schema(written, name: str) -> None:
    check_document("prediction" if name == "review" else name, written[name])


def test_they_say_what_was_calibrated_and_for_whom(written) -> None:
    made, used = written["calibration_map"], written["prediction"]["calibration_map"]
    fitted, origin = made["fitted"], made["origin"]
    assert (used["n_cases"], used["n_patients"]) == (6, 3) and len(origin["checkpoint_sha256"]) == 2
    assert origin["scope"] == used["scope"] == SCOPE and used["form"] == made["form"]
    assert used["effect"] == {
        name: fitted["effect"][name] for name in ("NLL predicted", "pooled ECE predicted")
    }
    assert origin["versions"]["nnunetv2"] == metadata.version("nnunetv2")
    assert written["review"]["calibration_map"] == used


def test_sensitive_labels_are_written_beside_those_of_nnunet_and_shown(written) -> None:
    out = written["out"]
    sensitive = written["prediction"]["sensitive"]
    names = [row["name"] for row in written["calibration_map"]["structures"]]
    assert sensitive["recall"] == 0.5
    assert {*sensitive["thresholds"], *sensitive["refused"]} == {*names}
    regions = written["calibration_map"]["regions"]
    files = ["new.nii.gz"]
    if regions:
        files = [f"new_{name}.nii.gz" for name in names if name in sensitive["thresholds"]]
    assert sorted(path.name for path in (out / "sensitive").iterdir()) == sorted(files)
    pages = [(out / name).read_text(encoding="utf-8") for name in ("index.html", "review/new.html")]
    assert "sensitive labels, which aim to miss on average at most 50 %" in pages[0]
    assert "dotted, the sensitive labels, in the folder sensitive, which are to hold" in pages[1]
    stock, first = read(out / "new.nii.gz"), read(out / "sensitive" / files[0])
    if not regions:
        np.testing.assert_array_equal(first[stock > 0], stock[stock > 0])
