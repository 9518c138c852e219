"""Begins a training where each voxel has the classes' frequencies for probabilities, instead of equal ones.

While classes are equally probable nearly all of the gradient of a loss without a Dice term says that most voxels are
background, and under nnU-Net's SGD nothing else is learned for many epochs (Lin et al., Focal loss for dense object
detection, ICCV 2017, section 4.1).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from tqdm import tqdm

from nnunet_nacl.cases.case import Labels

if TYPE_CHECKING:
    from nnunet_nacl_trainers.base import CalibrationTrainer


class FrequencyStart:
    """Sets the biases of all segmentation layers of a trainer's new network; what is loaded later is left alone."""

    def __init__(self, trainer: CalibrationTrainer) -> None:
        self._trainer = trainer
        self._made = {name: bias.detach().clone() for name, bias in self._biases().items()}

    def on_train_start(self) -> None:
        """Count the training cases' voxels and set the biases, where a training begins.

        A training that is continued keeps all it has loaded, and layers with biases of pretrained weights keep those.
        """
        trainer = self._trainer
        if trainer.current_epoch > 0:
            return
        new = [bias for name, bias in self._biases().items() if torch.equal(bias, self._made[name])]
        if not new:
            reason = "are loaded" if self._made else f"of {type(trainer.bare_network()).__name__} are not known"
            self._log(f"The biases of the segmentation layers {reason}: they are not set to the classes' frequencies.")
            return
        labels = Labels.of(trainer.label_manager, trainer.dataset_json, Path(trainer.preprocessed_dataset_folder_base))
        shared: list[Any] = [self._count(labels) if trainer.local_rank == 0 else None]
        if trainer.is_ddp:
            dist.broadcast_object_list(shared)
        labelled = shared[0][list(labels.all_values)].sum()
        frequencies = np.array([shared[0][np.atleast_1d(value)].sum() for value in labels.values]) / max(labelled, 1)
        biases = biases_at(frequencies, labels.regions)
        with torch.no_grad():
            for bias in new:
                bias.copy_(torch.tensor(biases, dtype=bias.dtype))
        rows = (f"{name} {share:.4g} ({bias:.2f})" for name, share, bias in zip(labels.names, frequencies, biases))
        self._log(f"Frequencies in the training cases (biases of the segmentation layers): {', '.join(rows)}")

    def _biases(self) -> dict[str, nn.Parameter]:
        """By the names of their layers; empty where the architecture is not known."""
        network = self._trainer.bare_network()
        layers = {name: network.get_submodule(name) for name in class_layers(network)}
        return {name: layer.bias for name, layer in layers.items() if isinstance(layer.bias, nn.Parameter)}

    def _count(self, labels: Labels) -> np.ndarray:
        """Voxels by label in all training cases."""
        cases, _ = self._trainer.get_tr_and_val_datasets()
        counts = np.zeros(max(labels.all_values) + 1, np.int64)  # the ignore label is beyond them
        for case in tqdm(cases.identifiers, "count the voxels of each class", unit="case", mininterval=10, delay=10):
            counts += count_labels(cases.load_case(case)[1], len(counts))
        return counts

    def _log(self, line: str) -> None:
        if self._trainer.local_rank == 0:  # nnU-Net prints those of the others
            self._trainer.print_to_log_file(line)


def class_layers(network: nn.Module) -> list[str]:
    """Names of the layers that make class channels, one for each resolution that is trained; none where not known.

    Networks beside nnU-Net's say it themselves: ``class_layer`` is the name of a convolution with nothing after it.
    """
    from dynamic_network_architectures.architectures.primus import Primus
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    if isinstance(network, (PlainConvUNet, ResidualEncoderUNet)):
        return [f"decoder.seg_layers.{index}" for index in range(len(network.decoder.seg_layers))]
    if isinstance(named := getattr(network, "class_layer", None), str):
        return [named]
    if isinstance(network, Primus):  # ends in a transposed convolution
        return [f"up_projection.decode.{len(network.up_projection.decode) - 1}"]
    return []


def count_labels(segmentation: Any, num_labels: int) -> np.ndarray:
    """(num_labels,) int64 voxels of each label in a preprocessed segmentation; those beyond are left out.

    ``segmentation`` are (1, *spatial) integers, an array of NumPy or of blosc2. -1, which nnU-Net's preprocessing
    leaves around the image, counts as 0, since nnU-Net's transforms make it 0.
    """
    planes = np.asarray(segmentation[:])[0]  # a block at a time would be decompressed more than once
    counts = (np.bincount(np.maximum(plane, 0).ravel(), minlength=num_labels)[:num_labels] for plane in planes)
    return sum(counts, np.zeros(num_labels, np.int64))


def biases_at(frequencies: np.ndarray, regions: bool) -> np.ndarray:
    """Biases at which a last layer with weights of 0 predicts the frequencies, which are shares of the valid voxels.

    For (K,) classes ``log f_k``, less the largest; for (R,) regions ``log f_r - log(1 - f_r)``. What occurs nowhere
    gets the smallest frequency that was found; zeros where nothing was found.
    """
    sides = np.stack([frequencies, 1 - frequencies]) if regions else frequencies[None]
    logs = np.log(np.where(sides > 0, sides, sides.min(where=sides > 0, initial=1)))
    return logs[0] - logs[1] if regions else logs[0] - logs[0].max()
