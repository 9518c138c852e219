"""The classes behind the names; schedules, checkpoints and splits as the name says, else nnU-Net's
own."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import (
    nnUNetTrainerNoDA,
)

from nnunet_nacl import losses
from nnunet_nacl.methods import METHODS, NAMED_TRAINERS
from nnunet_nacl.registration.lookup import registered_trainers
from nnunet_nacl_trainers import get_trainer
from tests.trainers.epochs import log_of, start, write_segmentations
from tests.trainers.plans import DATASET

STOCK_SETTINGS = (
    "num_epochs num_iterations_per_epoch num_val_iterations_per_epoch initial_lr weight_decay"
    " save_every "
)
STOCK_SETTINGS += "oversample_foreground_percent enable_deep_supervision"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("NACL", {}),
        ("NACL_100epochs", {"num_epochs": 100, "save_every": 10}),
        ("CE_15epochs", {"num_epochs": 15, "save_every": 1}),
        ("NACL_19iters", {"num_iterations_per_epoch": 19, "num_val_iterations_per_epoch": 1}),
    ],
)
def test_the_schedule_is_that_of_the_name_and_else_nnunets(
    make_trainer, name: str, settings: dict
) -> None:
    stock = make_trainer("nnUNetTrainer")
    trainer = make_trainer(f"nnUNetTrainer{name}")
    expected = {setting: getattr(stock, setting) for setting in STOCK_SETTINGS.split()} | settings
    assert {key: getattr(trainer, key) for key in expected} == expected


@pytest.mark.parametrize(("method", "num_epochs", "first_low"), [("NACL", 1, 1), ("DiceCE", 5, 3)])
def test_adam_is_the_papers(prepared, method: str, num_epochs: int, first_low: int) -> None:
    trainer = prepared(f"nnUNetTrainer{method}_{num_epochs}epochs_adam")
    rates = []
    (group,) = trainer.optimizer.param_groups
    assert type(trainer.optimizer) is torch.optim.Adam
    assert (group["weight_decay"], group["betas"]) == (0.0, (0.9, 0.999))
    for epoch in range(num_epochs):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        rates.append(group["lr"])
        assert trainer.lr_scheduler.get_last_lr() == rates[-1:]
    assert rates == pytest.approx([1e-3] * first_low + [1e-4] * (num_epochs - first_low))


NACL = (
    "NACLLoss(ignore_label=None, regions=False, penalty_weight=0.2, kernel_size=(5, 5),"
    " prior='mean', sigma=1.0, penalty='l2', space='logits', class_reduction='mean',"
    " padding='valid', prior_scale=1.0)"
)
DICE = "MemoryEfficientSoftDiceLoss(do_bg=False, batch_dice=True, smooth=1e-05, ddp=False)"
STOCK = (
    "DC_and_CE_loss(weight_dice=1, weight_ce=1, ce=RobustCrossEntropyLoss(reduction='mean',"
    f" ignore_index=-100, label_smoothing=0.0), dc={DICE})"
)
SCALES = "; weights of the deep supervision: 0.667, 0.333, 0"


@pytest.mark.parametrize(
    ("name", "compiled", "loss"),
    [
        ("NACL_lambda0p2_k5_l2", False, f"{NACL}{SCALES}"),
        ("DiceNACL_lambda0p2_k5_l2", True, f"{NACL} + 1 * {DICE}{SCALES}"),
        (
            "DiceNACL_anneal_lambda0p2_k5_l2_8epochs",
            False,
            f"{NACL} + 1 * {DICE}; the weight of the Dice term falls to 0 by half-time{SCALES}",
        ),
        ("DiceCE_8epochs", True, f"{STOCK}{SCALES}"),  # it is nnU-Net's own loss
    ],
)
def test_the_log_of_a_training_names_the_loss_with_all_settings_in_one_line(
    make_trainer, nnunet_folders, name: str, compiled: bool, loss: str
) -> None:
    write_segmentations(nnunet_folders, "classes")
    trainer = make_trainer(f"nnUNetTrainer{name}")
    trainer._do_i_compile = lambda: compiled
    start(trainer)
    (line,) = [line for line in log_of(trainer).splitlines() if "Loss:" in line]
    assert line.partition("Loss: ")[2].strip() == loss


def test_a_checkpoint_is_replaced_only_by_a_complete_one(
    prepared, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = prepared("nnUNetTrainerNACL")
    path = tmp_path / "checkpoint.pth"
    trainer.save_checkpoint(str(path))
    assert [file.name for file in tmp_path.glob("checkpoint*")] == [path.name]
    before = path.read_bytes()

    def killed_while_writing(checkpoint: dict, filename: str) -> None:
        with open(filename, "wb") as file:
            file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed_while_writing)
        with pytest.raises(KeyboardInterrupt):
            trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before

    # what the killed run left must not be taken for a checkpoint
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize(("method", "label_space"), [("NACL", "classes"), ("CE", "regions")])
def test_annealing_lowers_the_dice_term_to_nothing_at_half(
    prepared, method: str, label_space: str
) -> None:
    trainer = prepared(f"nnUNetTrainerDice{method}_anneal_8epochs", label_space=label_space)
    weights = []
    for epoch in range(8):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_start()
        weights.append(trainer.loss.loss.weight_dice)
    assert weights == pytest.approx([1, 0.75, 0.5, 0.25, 0, 0, 0, 0])


@pytest.fixture
def split_of(make_trainer, nnunet_folders):
    """Training and validation cases of a trainer, of 40 and 10."""
    cases = [f"case_{number:02d}" for number in range(50)]
    splits = []
    for fold in range(5):
        validated = cases[fold::5]
        trained = [case for case in cases if case not in validated]
        splits.append({"train": trained, "val": validated})
    (nnunet_folders / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps(splits))
    return lambda name, fold=0: make_trainer(name, fold=fold).do_split()


@pytest.mark.parametrize(("percent", "number"), [("1", 1), ("12p5", 5), ("51", 21)])
def test_train_percent_cuts_the_training_cases(split_of, percent: str, number: int) -> None:
    training, validation = split_of(f"nnUNetTrainerCE_train{percent}")
    every_case, stock_validation = split_of("nnUNetTrainer")
    assert split_of("nnUNetTrainerNACL") == (every_case, stock_validation)
    assert len(training) == len(set(training)) == number
    assert set(training) <= set(every_case) and training == sorted(training)
    assert validation == stock_validation


def test_the_choice_is_the_same_for_every_trainer_and_time(split_of) -> None:
    for fold in (0, 3):
        shares = [
            set(split_of(f"nnUNetTrainerCE_train{percent}", fold)[0])
            for percent in (5, 10, 25, 50, 75)
        ]
        assert all(smaller < larger for smaller, larger in zip(shares, shares[1:], strict=False))
    chosen = split_of("nnUNetTrainerCE_train10")[0]
    assert chosen == split_of("nnUNetTrainerDiceNACL_l2_train10")[0]
    # What was chosen once must be chosen for ever, or results of different times could not be
    # compared.
    assert chosen == ["case_02", "case_13", "case_39", "case_44"]


@pytest.mark.parametrize(("value", "threads"), [("1", 1), ("all", 2)])
def test_threads_on_the_cpu_are_those_that_the_user_allows(
    make_trainer, monkeypatch, value: str, threads: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    torch.set_num_threads(2)
    make_trainer("nnUNetTrainerNACL")
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("num_axes", [2, 3])
def test_noda_is_nnunets_switch_off(make_trainer, num_axes: int) -> None:
    def transforms(trainer: type, *arguments) -> list[type]:
        return [type(step) for step in trainer.get_training_transforms(*arguments).transforms]

    ours = make_trainer("nnUNetTrainerCE_noda", num_axes=num_axes)
    stock = make_trainer("nnUNetTrainerCE")
    arguments = ([16] * num_axes, (0, 0), [[1.0] * num_axes], (0, 1), False)
    assert transforms(ours, *arguments) == transforms(nnUNetTrainerNoDA, *arguments)
    assert len(transforms(stock, *arguments)) > len(transforms(ours, *arguments))
    _, _, patch_size, mirror_axes = (
        ours.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    assert (
        list(patch_size) == [16] * num_axes
        and mirror_axes is ours.inference_allowed_mirroring_axes is None
    )
    _, _, patch_size, mirror_axes = (
        stock.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    assert min(patch_size) > 16 and mirror_axes == stock.inference_allowed_mirroring_axes == (0, 1)


def test_a_seed_fixes_the_batches_of_each_rank_and_start(
    make_trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draws(name: str, rank: int = 0, epoch: int = 0) -> tuple[float, ...]:
        trainer = make_trainer(f"nnUNetTrainer{name}")
        trainer.local_rank = rank
        trainer.current_epoch = epoch
        return trainer.get_dataloaders()

    monkeypatch.setattr(
        nnUNetTrainer,
        "get_dataloaders",
        lambda self: (np.random.rand(), random.random(), torch.rand(()).item()),
    )
    assert draws("CE_seed1") == draws("NACL_seed1")
    # Other seeds, other GPUs, a training that is continued, and trainings without a seed.
    drawn = {
        *draws("CE_seed1"),
        *draws("CE_seed2"),
        *draws("CE_seed1", rank=1),
        *draws("CE_seed1", epoch=1),
        *draws("CE"),
        *draws("CE"),
    }
    assert len(drawn) == 18


ON_DEMAND = (
    "nnUNetTrainerNACL_lambda0p2_k5_gaussian_sigma2_l2_100epochs_adam",
    "nnUNetTrainerDiceCE_40epochs_50iters_adam",
)
EVERY_NAME = [*NAMED_TRAINERS, *ON_DEMAND]


def test_each_class_is_an_entry_point_and_a_row_of_the_table() -> None:
    ours = {trainer.name: trainer for trainer in registered_trainers() if trainer.is_ours}
    assert set(ours) == set(NAMED_TRAINERS)
    for name, trainer in ours.items():
        method = METHODS[name.removeprefix("nnUNetTrainer").removeprefix("Dice")]
        assert trainer.load() is get_trainer(name)
        assert trainer.load().__module__ == f"nnunet_nacl_trainers.{method.function}"
        assert trainer.load().loss_class is getattr(losses, method.loss_class)
        assert trainer.load().with_dice == ("Dice" in name)


def test_tokens_set_the_attributes_of_a_subclass() -> None:
    trainer = get_trainer(
        "nnUNetTrainerDiceNACL_anneal_lambda0p2_k5_100epochs_50iters_adam_train25_nomirror_seed2"
    )
    assert issubclass(trainer, get_trainer("nnUNetTrainerDiceNACL"))
    assert trainer.loss_settings == {"penalty_weight": 0.2, "kernel_size": 5}
    assert trainer.anneal_dice
    assert (trainer.epochs, trainer.iterations_per_epoch) == (100, 50)
    assert trainer.use_adam
    assert trainer.train_percent == 25.0
    assert (trainer.augmentation, trainer.mirroring) == (True, False)
    assert trainer.seed == 2


def test_pickles_are_read_by_a_python_that_never_saw_the_names() -> None:
    code = (
        "import pickle, sys; found = pickle.loads(sys.stdin.buffer.read())\nimport"
        " nnunet_nacl_trainers; assert all(one is getattr(nnunet_nacl_trainers, one.__name__) for"
        " one in found)\ndescribed = [(t.__name__, t.__mro__[1].__name__, t.all_loss_settings(),"
        " t.epochs) for t in found]\nsys.stdout.buffer.write(pickle.dumps(described))"
    )
    trainers = [get_trainer(name) for name in EVERY_NAME]
    process = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(trainers),
        stdout=subprocess.PIPE,
        check=True,
    )
    expected = [
        (t.__name__, t.__mro__[1].__name__, t.all_loss_settings(), t.epochs) for t in trainers
    ]
    assert pickle.loads(process.stdout) == expected
