"""Trainers that are constructed, as nnU-Net does, but do not train."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from tests.trainers.epochs import construct, prepare
from tests.trainers.plans import DATASET
from tests.trainers.validation import make_validator, write_cases


def make_folders(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net's three, empty."""
    for name in ("raw", "preprocessed", "results"):
        (parent / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(parent / name))


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """nnU-Net's three folders, empty but for the data set's preprocessed cases."""
    make_folders(tmp_path, monkeypatch)
    for configuration in ("2d", "3d_fullres"):
        folder = tmp_path / "preprocessed" / DATASET / f"nnUNetPlans_{configuration}"
        folder.mkdir(parents=True)
        for number in range(5):
            # nnU-Net tells its data format by the file names
            (folder / f"case_{number}.b2nd").touch()
            (folder / f"case_{number}_seg.b2nd").touch()
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)  # nnU-Net's trainers and ours set it


@pytest.fixture
def make_trainer(nnunet_folders) -> Callable[..., nnUNetTrainer]:
    """Makes a trainer from its name, nnU-Net's own included."""
    return construct


@pytest.fixture
def prepared(make_trainer):
    """Makes a trainer with a tiny network that is ready to go through epochs."""

    def make(
        name: str, label_space: str = "classes", num_axes: int = 2, deep_supervision: bool = True
    ):
        trainer = make_trainer(name, label_space, num_axes=num_axes)
        return prepare(trainer, num_axes=num_axes, deep_supervision=deep_supervision)

    return make


@pytest.fixture
def make_loss(make_trainer):
    """Makes the loss that a trainer trains with."""
    return lambda *args, **kwargs: make_trainer(*args, **kwargs)._build_loss()


@pytest.fixture
def validator(tmp_path, monkeypatch):
    """Function that makes a trainer that can validate; nnU-Net's worker does its work in this
    process."""
    make_folders(tmp_path, monkeypatch)

    class Pool(contextlib.nullcontext):
        _pool = ()

        def __enter__(self):
            return self

        def starmap_async(self, function, arguments):
            results = [function(*each) for each in arguments]
            return type("Result", (), {"get": lambda self: results, "ready": lambda self: True})()

    context = type("Context", (), {"Pool": Pool})
    monkeypatch.setattr(
        module, "multiprocessing", type("Here", (), {"get_context": lambda kind: context})
    )
    monkeypatch.setattr(
        module,
        "compute_metrics_on_folder",
        lambda *_, **__: {"mean": {}, "foreground_mean": {"Dice": 0.0}},
    )

    def make(label_space="classes", **options):
        write_cases(tmp_path, label_space)
        return make_validator(label_space, **options)

    return make
