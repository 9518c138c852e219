"""Options and the defaults that depend on the device."""

from __future__ import annotations

import pytest

from nnunet_nacl.demo import options as module
from nnunet_nacl.demo.options import DemoSettings, available_cores
from nnunet_nacl.errors import UserError
from nnunet_nacl.registration.health import Check


@pytest.fixture(autouse=True)
def two_cores_no_gpu(monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.mark.parametrize(
    ("count", "cores", "expected"),
    [(1, 2, 1), (2, 2, 2), (3, 2, 3), (4, 2, 2), (5, 2, 3), (6, 4, 6), (3, 16, 3), (7, 1, 1)],
)
def test_no_core_is_idle_at_the_end(count, cores, expected):
    assert module.busy_cores(count, cores) == expected


def test_without_a_gpu_trainings_share_the_cores():
    settings = DemoSettings()
    epochs, iterations = module.SCHEDULES["virtual brains"]
    assert (settings.device, settings.parallel, settings.folds) == ("cpu", 3, ("0",))
    assert settings.trainers == tuple(
        f"nnUNetTrainer{method}_{epochs}epochs_{iterations}iters_adam" for method in ("DiceCE", "CE", "NACL")
    )


def test_other_data_train_longer():
    assert DemoSettings(data="Task04_Hippocampus").trainers[2] == "nnUNetTrainerNACL_40epochs_50iters_adam"
    assert DemoSettings(download="Task04_Hippocampus").trainers[2] == "nnUNetTrainerNACL_40epochs_50iters_adam"


def test_a_gpu_is_used_for_one_training_at_a_time(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    settings = DemoSettings()
    epochs, iterations = module.SCHEDULES["gpu"]
    assert (settings.device, settings.parallel) == ("cuda", 1)
    assert settings.trainers[1] == f"nnUNetTrainerCE_{epochs}epochs_{iterations}iters_adam"
    assert DemoSettings(device="cpu").device == "cpu"


def test_what_is_given_is_taken():
    settings = DemoSettings(
        trainers=("nnUNetTrainerNACL", "nnUNetTrainerNACL"),
        folds=("1", "0", "1"),
        epochs=3,
        iterations=7,
        adam=False,
        parallel=8,
        configuration="3d_fullres",
    )
    assert settings.trainers == ("nnUNetTrainerNACL_3epochs_7iters",)
    assert (settings.folds, settings.parallel, settings.configuration) == (("1", "0"), 2, "3d_fullres")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "a", "download": "b"}, "not both"),
        ({"folds": ("5",)}, "'5'"),
        ({"parallel": 0}, "-np"),
        ({"epochs": 0}, "-epochs"),
        ({"trainers": ("nnUNetTrainerNACL_wrong",)}, "wrong"),
        ({"trainers": ("nope",)}, "-tr nope: nnU-Net finds no such trainer"),
        ({"trainers": ("nnUNetTrainerNACk",)}, "did you mean nnUNetTrainerNACL"),
    ],
)
def test_bad_options_are_errors_that_name_them(options, message):
    with pytest.raises(UserError, match=message):
        DemoSettings(**options)


def test_without_nnunet_the_error_says_what_to_do(monkeypatch):
    missing = Check("FAIL", "nnU-Net", "not installed", "install it")
    monkeypatch.setattr("nnunet_nacl.registration.health.check_nnunet", lambda: (missing, None))
    with pytest.raises(UserError, match="nnU-Net: not installed; install it"):
        DemoSettings(trainers=["nnUNetTrainerUnknown"])


def test_a_trainer_of_nnunets_own_is_known():
    assert DemoSettings(trainers=("nnUNetTrainer_5epochs",)).trainers == ("nnUNetTrainer_5epochs",)


def test_there_is_a_core():
    assert available_cores() >= 1
