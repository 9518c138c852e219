"""The JSON schemas that go with the package, and the documents that the commands write."""

from __future__ import annotations

import copy
import json
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import jsonschema
import numpy as np
import pydantic
import pytest

import nnunet_nacl
from nnunet_nacl.cli.main import main
from nnunet_nacl.documents.map_record import SCOPE, CalibrationSet
from nnunet_nacl.documents.published import PUBLISHED, schema_of
from nnunet_nacl.json_files import read_dict
from tests.calibration.models import make_trained
from tests.prediction.untrained import write_scan
from tests.runs.folders import CLASSES, REGIONS

SCHEMAS = Path(nnunet_nacl.__file__).parent / "documents" / "schemas"


def check(name: str, document: dict) -> None:
    jsonschema.Draft202012Validator(read_dict(SCHEMAS / f"{name}.schema.json")).validate(document)


@pytest.mark.skipif(
    tuple(map(int, pydantic.VERSION.split(".")[:2])) < (2, 10), reason="earlier versions of pydantic describe less"
)
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_files_are_what_the_types_give(name) -> None:
    schema = read_dict(SCHEMAS / f"{name}.schema.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == schema_of(name), "run tools/write_schemas.py"


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_field_of_the_documents_is_described(name) -> None:
    schema = schema_of(name)
    assert all(field.get("description") for field in schema["properties"].values())
    assert "Attributes:" not in json.dumps(schema) and '"title"' not in json.dumps(schema)


@pytest.fixture(scope="module", params=[CLASSES, REGIONS], ids=["classes", "regions"])
def written(request, tmp_path_factory):
    """What calibrate, predict and review wrote of one model, and the model."""
    root = tmp_path_factory.mktemp("written")
    model = make_trained(root / "nnunet", cases=3, folds=2, sharpness=2.0, labels=request.param)
    (root / "scans").mkdir()
    write_scan(root / "scans" / "new_0000.nii.gz", np.random.default_rng(0).normal(size=(9, 10, 8)).astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in model.environment.items():
            patch.setenv(name, value)
        named = ("-d", model.dataset, "-c", "3d_fullres")
        assert main(["calibrate", *named, "-np", "1", "-groups", "^case_.(.)"]) == 0
        here = ("-device", "cpu", "-npp", "0", "-nps", "0", "--disable_progress_bar")
        assert main(["predict", "-i", str(root / "scans"), "-o", str(root / "out"), *named, *here]) == 0
        path, folder = model.folder / "calibration_map.json", str(model.validation(0))
        decide = ("-decide", "dice", "-np", "1")
        assert main(["review", "-i", folder, "-map", str(path), "-o", str(root / "reviewed"), *decide]) == 0
    documents = {"calibration_map": read_dict(path), "prediction": read_dict(root / "out" / "prediction.json")}
    reviewed = {"review": "prediction.json", "decision": "decision.json"}
    return documents | {name: read_dict(root / "reviewed" / file) for name, file in reviewed.items()}


def test_documents_fit_their_schema(written) -> None:
    check("calibration_map", written["calibration_map"])
    check("prediction", written["prediction"])
    check("prediction", written["review"])
    check("decision", written["decision"])
    for name in PUBLISHED:
        assert not written[name].keys() - schema_of(name)["properties"].keys()


def test_they_say_what_was_calibrated_and_for_whom(written) -> None:
    made, used = written["calibration_map"], written["prediction"]["calibration_map"]
    cases = sorted(case for part in made["cross_fit"].values() for case in part["cases"])
    text = "\n".join([*cases, *sorted(made["checkpoint_sha256"].values())])
    expected = {"n_cases": 6, "n_patients": 3, "sha256": sha256(text.encode()).hexdigest()}
    assert made["calibration_set"] == used["calibration_set"] == expected and len(made["checkpoint_sha256"]) == 2
    assert made["scope"] == used["scope"] == SCOPE and used["form"] == made["form"]
    assert used["effect"] == {name: made["effect"][name] for name in ("NLL all", "ECE predicted")}
    assert made["versions"]["nnunetv2"] == metadata.version("nnunetv2")
    assert written["review"]["calibration_map"] == used
    assert CalibrationSet.of(cases[::-1], None, made["checkpoint_sha256"]).sha256 == expected["sha256"]
    assert CalibrationSet.of(cases[1:], None, made["checkpoint_sha256"]).sha256 != expected["sha256"]


DAMAGE = {
    "calibration_map": [
        lambda one: one.pop("maps"),
        lambda one: one.update(n_cases="6"),
        lambda one: one["calibration_set"].pop("sha256"),
        lambda one: one["maps"][one["form"]].update(offsets=[["0"]]),
        lambda one: one["effect"]["NLL all"]["before"].pop("low"),
        lambda one: next(iter(one["quality"]["learned"]["argmax"]["volume"].values())).update(patient="x"),
    ],
    "prediction": [
        lambda one: one.pop("calibration_map"),
        lambda one: one["calibration_map"].pop("sha256"),
        lambda one: one.update(notes=None),
    ],
}


@pytest.mark.parametrize("name, i", [(name, i) for name, several in DAMAGE.items() for i in range(len(several))])
def test_damaged_documents_do_not(written, name, i) -> None:
    document = copy.deepcopy(written[name])
    DAMAGE[name][i](document)
    with pytest.raises(jsonschema.ValidationError):
        check(name, document)
