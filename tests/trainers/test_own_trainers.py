"""A user's own classes: those of docs/losses.md, found in a folder as nnU-Net does, and what may
not be mixed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.loss.nnUNetTrainerDiceLoss import (
    nnUNetTrainerDiceLoss,
)
from nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs import (
    nnUNetTrainer_20epochs,
)
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_nacl.registration import bridge_folder
from nnunet_nacl_trainers import nnUNetTrainerDiceNACL, nnUNetTrainerNACL
from tests.pages import ROOT, blocks
from tests.trainers.epochs import make_batch, prepare, run_epoch
from tests.trainers.plans import dataset_json, make_plans

OWN = "nnUNetTrainerNACL_ours"
MIXED = "nnUNetTrainerNACL_mixed"


def example_of(name: str) -> str:
    """The code block of docs/losses.md that defines a class."""
    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    (code,) = [
        code for language, code in blocks(page) if language == "python" and f"class {name}(" in code
    ]
    return code


def construct_class(trainer: type[nnUNetTrainer], **plans) -> nnUNetTrainer:
    return trainer(make_plans(2, **plans), "2d", 0, dataset_json(), torch.device("cpu"))


def make_subclass(name: str, *parents: type, **attributes) -> type:
    return type(name, parents, attributes)


@pytest.fixture
def users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that nnU-Net searches before that of this package."""
    folder = tmp_path / "my_trainers"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_extTrainer", f"{folder}{os.pathsep}{bridge_folder()}")
    return folder


def test_the_example_of_the_documentation_trains_and_goes_on(
    nnunet_folders, users_folder: Path
) -> None:
    (users_folder / "some_name.py").write_text(example_of(OWN))
    first = construct_class(recursive_find_trainer_class_by_name(OWN))
    assert "some_name" not in sys.modules  # nnU-Net forgets it: nothing may pickle the trainer
    assert (
        first.num_epochs == 250 and Path(first.output_folder_base).name == f"{OWN}__nnUNetPlans__2d"
    )
    prepare(first)
    settings = first.loss.loss.voxelwise.settings
    assert settings["penalty_weight"] == 0.3 and settings["kernel_size"] == (5, 5)
    batches = [make_batch("classes", 2, seed, 3) for seed in (1, 2)]
    first.save_every = 1
    run_epoch(first, batches, batches)

    second = prepare(construct_class(recursive_find_trainer_class_by_name(OWN)))
    second.load_checkpoint(f"{first.output_folder}/checkpoint_latest.pth")
    run_epoch(second, batches, batches)
    assert second.current_epoch == 2
    assert len(second.logger.get_checkpoint()["val_nll"]) == 2


@pytest.mark.parametrize("is_first", [True, False])
def test_nnunets_variants_can_be_mixed_in_before_and_after(nnunet_folders, is_first: bool) -> None:
    for variant in (nnUNetTrainerNoMirroring, nnUNetTrainer_20epochs):
        parents = (variant, nnUNetTrainerNACL) if is_first else (nnUNetTrainerNACL, variant)
        trainer = construct_class(make_subclass(MIXED, *parents))
        *_, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        assert (mirror_axes is None) == (variant is nnUNetTrainerNoMirroring)
        assert trainer.num_epochs == (20 if variant is nnUNetTrainer_20epochs else 1000)
        assert type(prepare(trainer).loss.loss.voxelwise).__name__ == "NACLLoss"


def test_the_mixed_example_of_the_documentation_mirrors_nothing(
    nnunet_folders, users_folder: Path
) -> None:
    (users_folder / "mixed.py").write_text(example_of(MIXED))
    trainer = construct_class(recursive_find_trainer_class_by_name(MIXED))
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert trainer.inference_allowed_mirroring_axes is None


@pytest.mark.parametrize("is_first", [True, False])
def test_a_variant_that_builds_a_loss_is_refused(nnunet_folders, is_first: bool) -> None:
    parents = (nnUNetTrainerDiceLoss, nnUNetTrainerNACL)
    trainer = make_subclass(
        "nnUNetTrainerNACL_two_losses", *(parents if is_first else parents[::-1])
    )
    with pytest.raises(
        ValueError, match="its parent nnUNetTrainerDiceLoss builds a loss of its own"
    ):
        construct_class(trainer)


def test_settings_of_a_subclass_are_laid_over_its_parents(nnunet_folders) -> None:
    parent = make_subclass(
        "nnUNetTrainerNACL_a", nnUNetTrainerNACL, loss_settings={"penalty_weight": 0.3, "sigma": 2}
    )
    child = make_subclass("nnUNetTrainerNACL_b", parent, loss_settings={"penalty_weight": 0.5})
    assert child.all_loss_settings() == {"penalty_weight": 0.5, "sigma": 2}
    sizes = make_subclass("nnUNetTrainerNACL_c", parent, loss_settings={"kernel_size": (3, 5)})
    assert construct_class(sizes, first_kernel=[1, 3]).neighborhood_size() == (3, 5)
    whole = make_subclass("nnUNetTrainerNACL_d", parent, loss_settings={"kernel_size": 5})
    assert construct_class(whole, first_kernel=[1, 3]).neighborhood_size() == (1, 5)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"loss_settings": {"penalty_wieght": 0.3}},
            "NACLLoss has no setting 'penalty_wieght'; it has penalty_weight",
        ),
        ({"loss_settings": {"kernel_size": 4}}, "kernel_size must be"),
        ({"loss_settings": {"regions": True}}, "'regions' follows from the data set"),
        ({"epochs": 0}, "epochs must be a positive integer"),
        ({"iterations_per_epoch": 2.5}, "iterations_per_epoch must be a positive integer"),
        ({"train_percent": 101}, "train_percent must be"),
        ({"with_dice": False, "anneal_dice": True}, "anneal_dice needs with_dice"),
    ],
)
def test_a_bad_attribute_is_an_error_of_the_constructor_alone(
    nnunet_folders, attributes: dict, message: str
) -> None:
    trainer = make_subclass("nnUNetTrainerNACL_bad", nnUNetTrainerDiceNACL, **attributes)
    with pytest.raises(ValueError, match=f"nnUNetTrainerNACL_bad.*{message}"):
        construct_class(trainer)
    assert not list((nnunet_folders / "results").iterdir())  # nothing was begun


@pytest.mark.parametrize("name", ["nnUNetTrainerNACL_NoMirroring_250epochs", "nnUNetTrainerMyNACL"])
def test_a_users_class_in_a_later_folder_is_found_without_a_hint(
    users_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog, name: str
) -> None:
    definition = (
        f"from nnunet_nacl_trainers import nnUNetTrainerNACL\nclass {name}(nnUNetTrainerNACL):\n   "
        " pass\n"
    )
    search: Callable = recursive_find_trainer_class_by_name
    monkeypatch.setenv("nnUNet_extTrainer", f"{bridge_folder()}{os.pathsep}{users_folder}")
    (users_folder / "broken.py.txt").write_text("no Python")
    (users_folder / "later.py").write_text(definition)
    assert search(name).__module__ == "later"
    assert "did you mean" not in caplog.text
