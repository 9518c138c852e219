"""What is planned for a fold's validation cases: what is kept of nnU-Net's, what is predicted."""

from __future__ import annotations

import pytest

from nnunet_nacl.nnunet.records import Work
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.nnunet.validation import FoldPlan, plan_fold
from nnunet_nacl.settings import NetworkSettings
from nnunet_nacl.utilities.errors import UserError
from tests.metrics.models import make_trained
from tests.nnunet.measuring import measured

CASES = ["case_00", "case_01"]


@pytest.fixture
def model(tmp_path, monkeypatch):
    model = make_trained(tmp_path / "nnunet", folds=1, cases=len(CASES))
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    return model


def plan(model) -> FoldPlan:
    network = NetworkSettings(device="cpu")
    return plan_fold(TrainedModel.open(model.folder).of_fold("0"), network, Work())


def test_a_validation_that_cannot_be_read_is_an_error_and_not_predicted_anew(model):
    damaged = model.validation(0) / "dataset.json"
    damaged.write_text("{")
    with pytest.raises(UserError, match="validation/dataset.json: not a JSON file"):
        plan(model)


def test_records_whose_segmentations_were_deleted_are_predicted_anew(model):
    assert list(measured(model.validation(0))) == CASES
    assert list(plan(model).kept) == CASES
    for ending in (".npz", ".nii.gz"):
        for case in CASES:
            (model.validation(0) / f"{case}{ending}").unlink()
    assert plan(model).cases_to_predict == CASES
