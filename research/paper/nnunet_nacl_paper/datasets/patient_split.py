"""Who is for training, validation and testing: whole patients, drawn at random, and nnU-Net's folds
of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nnunet_nacl_paper.datasets.layouts import SourceCase
from nnunet_nacl_paper.files import InputError


def split_patients(
    patients: Sequence[str], sizes: tuple[int, int, int], seed: int
) -> dict[str, list[str]]:
    """A random split, the same for the same patients and seed, in whatever order they are given.

    Args:
        patients: Each once.
        sizes: Number for training, validation and test, where there are as many patients as in the
            paper; of any other number of patients each part gets its share, see
            :func:`proportional_sizes`.
        seed: Of NumPy's generator.

    Returns:
        Patients of ``training``, ``validation`` and ``test`` in alphabetic order.

    Raises:
        InputError: There are fewer than three patients.
    """
    names = sorted(patients)
    order = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    training, validation, _ = proportional_sizes(len(order), sizes)
    parts = (
        order[:training],
        order[training : training + validation],
        order[training + validation :],
    )
    return dict(zip(("training", "validation", "test"), map(sorted, parts)))


def proportional_sizes(total: int, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """``total`` in the proportion of ``sizes``, by the largest remainders; no part is empty.

    Raises:
        InputError: ``total`` is below three.
    """
    if total < 3:
        raise InputError(
            f"a split into training, validation and test needs at least 3 patients, found {total}."
        )
    shares = [total * size / sum(sizes) for size in sizes]
    parts = [max(1, int(share)) for share in shares]
    while sum(parts) != total:
        step = 1 if sum(parts) < total else -1
        rest = [
            step * (share - part) if part + step >= 1 else -np.inf
            for share, part in zip(shares, parts)
        ]
        parts[int(np.argmax(rest))] += step
    return parts[0], parts[1], parts[2]


def folds_of(
    cases: Sequence[SourceCase], split: Mapping[str, Sequence[str]], leave_one_out: bool
) -> list[dict[str, list[str]]]:
    """nnU-Net's splits_final.json: the split's one fold, or one for each patient that is not for
    testing."""
    patients = {*split["training"], *split["validation"]}
    folds = (
        [{patient} for patient in sorted(patients)] if leave_one_out else [set(split["validation"])]
    )
    return [
        {
            "train": [case.name for case in cases if case.patient in patients - held_out],
            "val": [case.name for case in cases if case.patient in held_out],
        }
        for held_out in folds
    ]
