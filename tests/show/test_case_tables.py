"""What is promised of single cases, as a comparison reports it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunet_nacl.numbers.learned_quality import predict_dice_parts
from nnunet_nacl.numbers.quality_report import quality_report
from nnunet_nacl.show.case_tables import quality_text
from tests.numbers.problems import quality_of

NAN = float("nan")


def test_numbers_of_a_method():
    expected, true = [0.9, 0.6, 0.7, NAN], [0.8, 0.5, 0.9, 0.0]
    rows = quality_of({"1": (expected, true), "2": ([0.8, NAN, 0.9, NAN], [0.9, NAN, 0.7, NAN])})
    intervals = np.stack([rows.predicted[..., 0], *np.full((2, 4, 2), [[[0.6]], [[0.8]]])], axis=-1)
    rows = replace(rows, predicted=np.where(np.isnan(intervals[..., :1]), NAN, intervals), level=0.9)
    printed = quality_text(rows, 0.75)  # errors 0.1, 0.1, 0.2, 0.1, 0.2; within are the 0.8 and the 0.7, ends included
    assert "MAE predicted 0.140" in " ".join(printed.split()) and "40 % of 5" in printed and "3 of 4" in printed
    assert quality_report(rows, 0.75).width == pytest.approx(0.2)


def test_no_case_teaches_its_own_part():
    rng = np.random.default_rng(0)
    expected, parts = rng.uniform(0.5, 0.9, 30), [i // 3 for i in range(30)]
    true = expected - 0.1 + rng.normal(0, 0.02, 30)
    rows = quality_of({"1": (expected, true), "2": (expected, expected)})
    before = predict_dice_parts(rows, range(30), parts).predicted
    other = quality_of({"1": (expected, np.where(np.arange(30) // 3 == 4, 0.0, true)), "2": (expected, expected)})
    after = predict_dice_parts(other, range(30), parts).predicted
    same = before[:, 0, 1] == after[:, 0, 1]
    assert same[12:15].all() and not same[:12].any() and not same[15:].any()
    assert np.array_equal(before[:, 1], after[:, 1]) and np.array_equal(before[..., 0], after[..., 0])


def test_frames_of_a_patient_count_as_one():
    rng = np.random.default_rng(0)
    patients, expected = list("abcdefghijklmnop"), rng.uniform(0.5, 0.9, 16)
    true, parts = expected + rng.normal(0, 0.1, 16), [i % 4 for i in range(16)]
    rows, frames = quality_of({"1": (expected, true)}), quality_of({"1": (np.tile(expected, 2), np.tile(true, 2))})
    once = predict_dice_parts(rows, patients, parts).predicted[:, 0]
    twice = predict_dice_parts(frames, patients * 2, parts * 2).predicted[:16, 0]
    apart = predict_dice_parts(frames, range(32), parts * 2).predicted[:, 0]
    assert abs(twice - once).max() < 0.01
    assert (apart[:, 2] - apart[:, 1]).mean() < 0.97 * (once[:, 2] - once[:, 1]).mean()
