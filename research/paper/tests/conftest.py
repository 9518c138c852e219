"""What these tests share with the package's own: nnU-Net's folders, small models and data sets."""

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_nacl.registration.lookup import resolve
from nnunet_nacl_paper import trainers
from tests.conftest import clean_environ, make_validated
from tests.integration.conftest import workspace
from tests.trainers.conftest import nnunet_folders
from tests.trainers.plans import dataset_json, make_plans

__all__ = ["clean_environ", "make_validated", "nnunet_folders", "workspace"]


@pytest.fixture
def make_trainer(nnunet_folders):
    """Makes a trainer in 2D from its name, of this package whether it is registered or not."""

    def make(name: str) -> nnUNetTrainer:
        if set(trainers.NETWORKS) & set(name.split("_")):
            trainer = getattr(trainers, name)
        else:
            trainer = resolve(name)
        return trainer(make_plans(2), "2d", 0, dataset_json(), torch.device("cpu"))

    return make
