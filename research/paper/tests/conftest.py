"""What these tests share with the package's own: real data, a server that has nnU-Net loaded, tiny data sets."""

import os
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_nacl.training.lookup import resolve
from nnunet_nacl_paper import trainers
from tests.conftest import clean_environ, make_validated
from tests.integration.conftest import workspace
from tests.trainers.conftest import nnunet_folders
from tests.trainers.plans import dataset_json, make_plans

__all__ = ["clean_environ", "make_validated", "nnunet_folders", "workspace"]


@pytest.fixture(scope="session")
def decathlon_task() -> Path:
    """A task of the Medical Segmentation Decathlon, as published: dataset.json, imagesTr, labelsTr, imagesTs."""
    folder = os.environ.get("NNUNET_NACL_TEST_DATA")
    if not folder:
        pytest.skip("needs real data: set NNUNET_NACL_TEST_DATA to the folder of a Decathlon task")
    path = Path(folder)
    if not (path / "dataset.json").is_file():
        pytest.skip(f"NNUNET_NACL_TEST_DATA={folder} is not the folder of a Decathlon task: it has no dataset.json")
    return path


@pytest.fixture
def make_trainer(nnunet_folders):
    """Makes a trainer in 2D from its name, of this package whether it is registered or not."""

    def make(name: str) -> nnUNetTrainer:
        trainer = getattr(trainers, name) if set(trainers.NETWORKS) & set(name.split("_")) else resolve(name)
        return trainer(make_plans(2), "2d", 0, dataset_json(), torch.device("cpu"))

    return make
