"""Begins a training where each voxel has the classes' frequencies for probabilities, instead of
equal ones.

While classes are equally probable nearly all of the gradient of a loss without a Dice term says
that most voxels are background, and under nnU-Net's SGD nothing else is learned for many epochs
(Lin et al., Focal loss for dense object detection, ICCV 2017, section 4.1).
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2 import configuration as nnunets_configuration
from torch import nn
from tqdm import tqdm

from nnunet_nacl.nnunet.class_layers import class_layers

if TYPE_CHECKING:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    from nnunet_nacl_trainers.base import CalibrationTrainer

ALONE_S = 10.0
"""Seconds for which one process counts before others are started, which takes each of them some
seconds."""


class FrequencyStart:
    """Sets the biases of all segmentation layers of a trainer's new network; what is loaded later
    is left alone."""

    def __init__(self, trainer: CalibrationTrainer) -> None:
        self._trainer = trainer
        biases = self._find_biases()
        self._first_biases = {name: bias.detach().clone() for name, bias in biases.items()}

    def on_train_start(self) -> None:
        """Count the training cases' voxels and set the biases, where a training begins.

        A training that is continued keeps all it has loaded, and layers with biases of pretrained
        weights keep those.
        """
        if self._trainer.current_epoch > 0:
            return
        new_biases = self._find_new_biases()
        if not new_biases:
            network = type(self._trainer.bare_network()).__name__
            reason = f"of {network} are not known" if not self._first_biases else "are loaded"
            self._log(
                f"The biases of the segmentation layers {reason}: they are not set to the classes'"
                " frequencies."
            )
            return
        label_manager = self._trainer.label_manager
        frequencies = frequencies_of_channels(self._count_on_first_rank(), label_manager)
        biases = biases_at(frequencies, label_manager.has_regions)
        with torch.no_grad():
            for bias in new_biases:
                bias.copy_(torch.tensor(biases, dtype=bias.dtype))
        rows = zip(channel_names(label_manager), frequencies, biases)
        rows_as_text = ", ".join(f"{name} {share:.4g} ({bias:.2f})" for name, share, bias in rows)
        self._log(
            f"Frequencies in the training cases (biases of the segmentation layers): {rows_as_text}"
        )

    def _find_biases(self) -> dict[str, nn.Parameter]:
        """By the names of their layers; empty where the architecture is not known."""
        network = self._trainer.bare_network()
        biases = {}
        for name in class_layers(network):
            bias = network.get_submodule(name).bias
            if isinstance(bias, nn.Parameter):
                biases[name] = bias
        return biases

    def _find_new_biases(self) -> list[nn.Parameter]:
        """Those that are as the network was made with."""
        biases = self._find_biases().items()
        return [bias for name, bias in biases if torch.equal(bias, self._first_biases[name])]

    def _count_on_first_rank(self) -> np.ndarray:
        """Voxels by label in all training cases, the same on all ranks."""
        trainer = self._trainer
        shared = [self._count()] if trainer.local_rank == 0 else [np.empty(0, np.int64)]
        if trainer.is_ddp:
            dist.broadcast_object_list(shared)
        return shared[0]

    def _count(self) -> np.ndarray:
        training_cases, _ = self._trainer.get_tr_and_val_datasets()
        # The ignore label is higher than all of these and is not counted.
        num_labels = int(max(self._trainer.label_manager.all_labels)) + 1
        num_processes = nnunets_configuration.default_num_processes
        start = time.monotonic()
        counts = count_labels_of_cases(training_cases, num_labels, num_processes)
        seconds = time.monotonic() - start
        num_cases = len(training_cases.identifiers)
        self._log(
            f"Counted the voxels of each class in {num_cases} training cases in {seconds:.1f} s."
        )
        return counts

    def _log(self, line: str) -> None:
        if self._trainer.local_rank == 0:  # on other ranks nnU-Net would print the line once more
            self._trainer.print_to_log_file(line)


def count_labels_of_cases(
    dataset: nnUNetBaseDataset, num_labels: int, num_processes: int
) -> np.ndarray:
    """(num_labels,) int64 voxels of each label in all cases of a data set of nnU-Net's.

    One process counts for ``ALONE_S`` seconds; if cases are left, ``num_processes`` share them. The
    counts are whole numbers, so their sum does not depend on that.
    """
    counts = np.zeros(num_labels, np.int64)
    waiting_cases = list(dataset.identifiers)
    start = time.monotonic()
    title = "count the voxels of each class"
    with tqdm(
        total=len(waiting_cases), desc=title, unit="case", mininterval=10, delay=10
    ) as progress:
        while waiting_cases and (num_processes <= 1 or time.monotonic() - start < ALONE_S):
            counts += count_labels_of_case(dataset, waiting_cases.pop(0), num_labels)
            progress.update()
        for counts_of_case in _count_in_parallel(dataset, waiting_cases, num_labels, num_processes):
            counts += counts_of_case
            progress.update()
    return counts


def _count_in_parallel(
    dataset: nnUNetBaseDataset, cases: Sequence[str], num_labels: int, num_processes: int
) -> Iterator[np.ndarray]:
    """Counts of each case, in the order in which they are ready."""
    if not cases:
        return
    # as nnU-Net: a fork may hang where CUDA is in use
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(num_processes, len(cases)), mp_context=context) as pool:
        tasks = [pool.submit(count_labels_of_case, dataset, case, num_labels) for case in cases]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process that counted voxels was killed, most likely because memory ran out: set "
                "the environment variable nnUNet_def_n_proc to fewer processes"
            ) from error


def count_labels_of_case(dataset: nnUNetBaseDataset, case: str, num_labels: int) -> np.ndarray:
    """(num_labels,) int64 voxels of each label in one preprocessed case."""
    return count_labels(dataset.load_case(case)[1], num_labels)


def count_labels(segmentation: Any, num_labels: int) -> np.ndarray:
    """(num_labels,) int64 voxels of each label in a preprocessed segmentation; those beyond are
    left out.

    ``segmentation`` are (1, *spatial) integers, an array of NumPy or of blosc2. -1, which nnU-Net's
    preprocessing leaves around the image, counts as 0, since nnU-Net's transforms make it 0.
    """
    counts = np.zeros(num_labels, np.int64)
    whole = np.asarray(segmentation[:])  # by plane, blocks would be decompressed more than once
    for plane in whole[0]:
        counts += np.bincount(np.maximum(plane, 0).ravel(), minlength=num_labels)[:num_labels]
    return counts


def channel_labels(label_manager: LabelManager) -> Sequence[int | tuple[int, ...]]:
    """The label, or for a region the labels, of each channel of the network."""
    if label_manager.has_regions:
        return label_manager.foreground_regions
    return label_manager.all_labels


def channel_names(label_manager: LabelManager) -> list[str]:
    """The name in dataset.json of each channel of the network."""
    names = {}
    for name, labels in label_manager.label_dict.items():
        names[_sorted_labels(labels)] = name
    return [names[_sorted_labels(labels)] for labels in channel_labels(label_manager)]


def _sorted_labels(labels: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(map(int, np.atleast_1d(labels))))


def frequencies_of_channels(counts: np.ndarray, label_manager: LabelManager) -> np.ndarray:
    """Share of each class (K,), or of each region (R,), in the voxels that are labelled.

    ``counts`` are voxels by label; all are 0 where nothing is labelled.

    """
    num_labelled = counts[list(label_manager.all_labels)].sum()
    voxels = [counts[np.atleast_1d(labels)].sum() for labels in channel_labels(label_manager)]
    return np.array(voxels) / max(num_labelled, 1)


def biases_at(frequencies: np.ndarray, regions: bool) -> np.ndarray:
    """Biases at which a last layer with weights of 0 predicts the frequencies, which are shares of
    the valid voxels.

    For (K,) classes ``log f_k``, minus the largest; for (R,) regions ``log f_r - log(1 - f_r)``.
    What occurs nowhere, for a region also its outside, gets the smallest frequency that was found.
    All biases are 0 where nothing was found.

    """
    shares = np.stack([frequencies, 1 - frequencies]) if regions else frequencies[None]
    smallest = shares.min(where=shares > 0, initial=1)  # 1, with logarithm 0, if nothing was found
    logs = np.log(np.where(shares > 0, shares, smallest))
    if regions:
        return logs[0] - logs[1]
    return logs[0] - logs[0].max()
