"""New networks start at the classes' frequencies; what was loaded, has a Dice term or is not known
stays as it is."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2 import configuration as nnunets_configuration
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from torch import Tensor

from nnunet_nacl_trainers import frequency_start
from nnunet_nacl_trainers.frequency_start import biases_at, class_layers
from tests.metrics.models import make_network
from tests.trainers.epochs import (
    TRAINING,
    TinyNetwork,
    log_of,
    make_batch,
    run_epoch,
    start,
    write_segmentations,
)
from tests.trainers.plans import LABEL_SPACES

HEADS = [f"decoder.seg_layers.{index}" for index in range(3)]


@pytest.fixture
def voxels(nnunet_folders) -> np.ndarray:
    """Labels of the training cases of a data set of classes."""
    return write_segmentations(nnunet_folders, "classes")


def biases_of(trainer) -> list[Tensor]:
    network = trainer.bare_network()
    return [network.get_submodule(name).bias.detach().clone() for name in HEADS]


@pytest.mark.parametrize("label_space", LABEL_SPACES)
def test_new_networks_start_at_the_frequencies_of_what_is_not_ignored(
    make_trainer, nnunet_folders, label_space
) -> None:
    labels = np.maximum(write_segmentations(nnunet_folders, label_space), 0)
    labels = labels[labels != 3]
    regions = label_space.startswith("regions")
    frequencies = [
        np.isin(labels, values).mean() for values in (([1, 2], [2]) if regions else ([0], [1], [2]))
    ]
    trainer = make_trainer("nnUNetTrainerCE", label_space, residual=label_space == "regions")
    start(trainer)
    for bias in biases_of(trainer):
        np.testing.assert_allclose(bias, biases_at(np.array(frequencies), regions), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "reference", "is_set"),
    [
        ("nnUNetTrainerDiceNACL", "nnUNetTrainer", False),
        ("nnUNetTrainerNACL_plainstart", "nnUNetTrainer", False),
        ("nnUNetTrainerCE_seed1", "nnUNetTrainerDiceCE_seed1", True),
    ],
)
def test_nothing_but_these_biases_differs_from_nnunets_start(
    make_trainer, voxels, name: str, reference: str, is_set: bool
) -> None:
    weights = []
    drawn = []
    for trainer in (make_trainer(name), make_trainer(reference)):
        torch.manual_seed(1)
        start(trainer)
        weights.append(trainer.network.state_dict())
        drawn.append(torch.rand(3).tolist())  # nothing else has drawn a random number
    different = [
        key for key, value in weights[0].items() if not torch.equal(value, weights[1][key])
    ]
    assert different == ([f"{layer}.bias" for layer in HEADS] if is_set else [])
    assert drawn[0] == drawn[1]


def test_a_continued_training_keeps_what_it_loads(make_trainer, voxels) -> None:
    first = make_trainer("nnUNetTrainerNACL_4epochs")
    start(first)
    batches = [make_batch("classes", 2, seed, 3) for seed in (1, 2)]
    run_epoch(first, batches, batches)
    second = make_trainer("nnUNetTrainerNACL_4epochs")
    second.load_checkpoint(f"{first.output_folder}/checkpoint_best.pth")
    start(second)
    assert all(map(torch.equal, biases_of(first), biases_of(second)))


def unnamed_network(*_) -> TinyNetwork:
    """One whose class layer nnU-Net does not know, and so loads."""
    network = TinyNetwork(2, 3, 3)
    network.decoder = SimpleNamespace()
    return network


@pytest.mark.parametrize("is_new", [True, False])
def test_layers_that_pretrained_weights_fill_stay(
    make_trainer, voxels, tmp_path, is_new: bool
) -> None:
    def named_network(*_) -> TinyNetwork:
        network = unnamed_network()
        network.class_layer = "layer"
        return network

    earlier = make_trainer("nnUNetTrainerNACL")
    trainer = make_trainer("nnUNetTrainerNACL")
    if not is_new:
        earlier.build_network_architecture = trainer.build_network_architecture = named_network
    earlier.initialize()
    with torch.no_grad():
        for parameter in earlier.network.parameters():
            parameter.add_(1)
    earlier.save_checkpoint(str(tmp_path / "pretrained.pth"))
    trainer.initialize()
    load_pretrained_weights(trainer.network, str(tmp_path / "pretrained.pth"))
    loaded = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    start(trainer)
    changed = {
        key
        for key, value in trainer.network.state_dict().items()
        if not torch.equal(value, loaded[key])
    }
    assert changed == ({f"{layer}.bias" for layer in HEADS} if is_new else set())
    assert ("segmentation layers are loaded" in log_of(trainer)) != is_new


def test_the_network_inside_a_compiled_one_is_set(make_trainer, voxels) -> None:
    trainer = make_trainer("nnUNetTrainerNACL")
    trainer._do_i_compile = lambda: True
    start(trainer)
    assert hasattr(trainer.network, "_orig_mod")
    assert all(bias[0] == 0 and bias[1:].max() < -0.5 for bias in biases_of(trainer))


def test_a_network_that_is_not_known_starts_as_nnunets(make_trainer, voxels) -> None:
    trainer = make_trainer("nnUNetTrainerNACL")
    network = unnamed_network()
    before = network.layer.bias.detach().clone()
    trainer.build_network_architecture = lambda plans_manager, *others: network
    start(trainer)
    assert torch.equal(network.layer.bias, before) and "of TinyNetwork are not known" in log_of(
        trainer
    )


@pytest.mark.parametrize("kind", ["plain", "residual", "primus"])
def test_the_last_class_layer_alone_makes_the_logits(kind: str) -> None:
    network = make_network(kind, 3)
    layer = network.get_submodule(class_layers(network)[-1])
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
        logits = network.eval()(torch.randn(1, 1, 8, 8, 8))
    assert torch.equal(logits, layer.bias.view(1, 3, 1, 1, 1).expand_as(logits))


@pytest.mark.parametrize(
    ("frequencies", "regions", "expected"),
    [
        ([0.6, 0.3, 0.1], False, np.log([1, 1 / 2, 1 / 6])),
        ([1.0, 0.0, 0.0], False, [0, 0, 0]),
        ([0.4, 0.0], True, np.log([4 / 6, 0.4])),
        ([0.0, 0.0], True, [0, 0]),
    ],
)
def test_biases(frequencies, regions, expected) -> None:
    biases = biases_at(np.array(frequencies), regions)
    np.testing.assert_allclose(biases, expected, atol=1e-12)
    assert np.isfinite(biases).all()


def test_several_processes_count_what_one_counts_and_the_log_says_how_long(
    make_trainer, voxels, monkeypatch: pytest.MonkeyPatch, warm_nnunet
) -> None:
    shared_cases: list[str] = []
    count_in_parallel = frequency_start._count_in_parallel

    def recorded(dataset, cases, num_labels, num_processes):
        shared_cases.extend(cases)
        return count_in_parallel(dataset, cases, num_labels, num_processes)

    monkeypatch.setattr(frequency_start, "_count_in_parallel", recorded)
    monkeypatch.setattr(nnunets_configuration, "default_num_processes", 2)
    biases = {}
    for seconds_alone in (0, 3600):
        monkeypatch.setattr(frequency_start, "ALONE_S", seconds_alone)
        trainer = make_trainer("nnUNetTrainerCE")
        start(trainer)
        biases[seconds_alone] = biases_of(trainer)
        assert shared_cases == list(TRAINING)  # of the first round alone
        assert re.search(r"voxels of each class in 3 training cases in \d+\.\d s", log_of(trainer))
    assert all(map(torch.equal, biases[0], biases[3600]))
