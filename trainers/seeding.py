"""Seeds the random numbers of a training: the network's first weights, the sampling of patches, their augmentation."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

__all__ = ["seed_process", "seed_workers"]


def seed_process(*entropy: int) -> None:
    """Seed Python's, numpy's and PyTorch's generators (of all devices) of this process.

    Args:
        *entropy: Numbers, not negative; other ones give unrelated random numbers.
    """
    (seed,) = _seeds(1, entropy)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_workers(loader: Any, *entropy: int) -> None:
    """Start the background workers of one of nnU-Net's loaders anew, each with a seed of its own.

    nnU-Net starts them unseeded. A loader without workers draws from the process's own generators: it is left alone.
    """
    if isinstance(loader, NonDetMultiThreadedAugmenter):
        loader.seeds = _seeds(loader.num_processes, entropy)
        loader.restart()


def _seeds(number: int, entropy: tuple[int, ...]) -> list[int]:
    return [int(seed) for seed in np.random.SeedSequence(entropy).generate_state(number)]
