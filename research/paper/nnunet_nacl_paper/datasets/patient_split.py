"""Patients for training, validation and testing, drawn at random, and nnU-Net's folds of them."""

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
    num_training, num_validation, _ = proportional_sizes(len(order), sizes)
    first_test = num_training + num_validation
    return {
        "training": sorted(order[:num_training]),
        "validation": sorted(order[num_training:first_test]),
        "test": sorted(order[first_test:]),
    }


def proportional_sizes(total: int, sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """``total`` in the proportion of ``sizes``, by the largest remainders; no part is empty.

    Raises:
        InputError: ``total`` is below three.
    """
    if total < 3:
        raise InputError(
            f"a split into training, validation and test needs at least 3 patients, found {total}."
        )
    shares = total * np.array(sizes) / sum(sizes)
    parts = np.maximum(1, np.floor(shares)).astype(int)
    while parts.sum() < total:
        parts[np.argmax(shares - parts)] += 1
    while parts.sum() > total:  # for the sake of a part that would have been empty
        surplus = np.where(parts > 1, parts - shares, -np.inf)
        parts[np.argmax(surplus)] -= 1
    training, validation, test = parts.tolist()
    return training, validation, test


def folds_of(
    cases: Sequence[SourceCase], split: Mapping[str, Sequence[str]], leave_one_out: bool
) -> list[dict[str, list[str]]]:
    """nnU-Net's splits_final.json.

    It has one fold, that of the split; with ``leave_one_out`` one for each patient that is not for
    testing.
    """
    patients = {*split["training"], *split["validation"]}
    held_out_patients = [set(split["validation"])]
    if leave_one_out:
        held_out_patients = [{patient} for patient in sorted(patients)]
    folds = []
    for held_out in held_out_patients:
        others = patients - held_out
        training = [case.name for case in cases if case.patient in others]
        validation = [case.name for case in cases if case.patient in held_out]
        folds.append({"train": training, "val": validation})
    return folds
