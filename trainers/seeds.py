"""Seeds of the random numbers of a training."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_process(*entropy: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators (of all devices) of this process.

    ``entropy`` are whole numbers that are not negative.
    """
    (seed,) = make_seeds(1, entropy)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def make_seeds(number: int, entropy: tuple[int, ...]) -> list[int]:
    """Different seeds, which follow from the numbers of ``entropy``."""
    return [int(seed) for seed in np.random.SeedSequence(entropy).generate_state(number)]
