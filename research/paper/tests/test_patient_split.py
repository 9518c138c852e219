"""The split: sizes, and that it depends on nothing but patients and seed."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_nacl_paper.datasets.challenges import CHALLENGES
from nnunet_nacl_paper.datasets.patient_split import proportional_sizes, split_patients

SIZES = st.tuples(*[st.integers(1, 300)] * 3)


@given(total=st.integers(3, 1000), sizes=SIZES)
def test_each_part_has_its_share_to_within_one_patient_unless_that_is_none(total, sizes) -> None:
    parts = proportional_sizes(total, sizes)
    assert sum(parts) == total
    assert min(parts) >= 1
    shares = [total * size / sum(sizes) for size in sizes]
    if min(shares) >= 1:
        assert max(abs(part - share) for part, share in zip(parts, shares)) < 1


@given(
    numbers=st.sets(st.integers(0, 999), min_size=3),
    sizes=SIZES,
    seed=st.integers(0, 99),
    random=st.randoms(),
)
def test_everyone_is_in_one_part_whatever_the_order(numbers, sizes, seed, random) -> None:
    names = sorted(f"patient{number}" for number in numbers)
    split = split_patients(random.sample(names, len(names)), sizes, seed)
    assert sorted(itertools.chain(*split.values())) == names
    assert split == split_patients(names, sizes, seed)


@pytest.mark.parametrize(
    ("name", "patients", "expected"),
    [
        ("acdc", 100, (70, 10, 20)),
        ("brats19", 335, (235, 35, 65)),
        ("flare21", 360, (240, 40, 80)),
        ("flare21", 361, (241, 40, 80)),
        ("prostate", 32, (22, 3, 7)),
        ("kits19", 210, (150, 25, 35)),
        ("mrbrains18", 7, (4, 1, 2)),
    ],
)
def test_the_papers_sizes(name, patients, expected) -> None:
    assert proportional_sizes(patients, CHALLENGES[name].sizes) == expected
