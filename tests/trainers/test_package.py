"""The classes behind the names: one per name, importable, picklable, with nnU-Net's constructor."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_nacl.training.grammar import parse
from nnunet_nacl.training.lookup import registered_trainers
from nnunet_nacl_trainers import NAMED_TRAINERS, get_trainer
from nnunet_nacl_trainers.base import CalibrationTrainer

ON_DEMAND = (
    "nnUNetTrainerNACL_lambda0p2_k5_gaussian_sigma2_l2_100epochs_adam",
    "nnUNetTrainerDiceCE_40epochs_50iters_adam",
)
EVERY_NAME = [*NAMED_TRAINERS, *ON_DEMAND]


def test_each_of_them_is_an_entry_point() -> None:
    ours = {trainer.name: trainer for trainer in registered_trainers() if trainer.is_ours}
    assert set(ours) == set(NAMED_TRAINERS)
    assert all(trainer.load() is get_trainer(name) for name, trainer in ours.items())


@pytest.mark.parametrize("name", ["nnUNetTrainerNACL", *ON_DEMAND])
def test_a_name_is_one_class_with_the_settings_of_its_name(name: str) -> None:
    trainer = get_trainer(name)
    assert trainer is get_trainer(name)
    assert trainer.__name__ == trainer.__qualname__ == name
    assert issubclass(trainer, CalibrationTrainer) and issubclass(trainer, nnUNetTrainer)
    assert trainer.variant == parse(name)


def test_pickles_are_read_by_a_python_that_never_saw_the_names() -> None:
    code = (
        "import pickle, sys; found = pickle.loads(sys.stdin.buffer.read())\n"
        "import nnunet_nacl_trainers; assert all(one is getattr(nnunet_nacl_trainers, one.__name__) for one in found)\n"
        "sys.stdout.buffer.write(pickle.dumps([(t.__name__, t.__mro__[1].__name__, t.variant) for t in found]))"
    )
    trainers = [get_trainer(name) for name in EVERY_NAME]
    process = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(trainers), stdout=subprocess.PIPE, check=True
    )
    assert pickle.loads(process.stdout) == [(t.__name__, t.__mro__[1].__name__, t.variant) for t in trainers]
