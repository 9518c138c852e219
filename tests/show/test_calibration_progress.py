"""The picture of trainings: a line for each, whatever their epochs have."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_nacl.show.calibration_progress import ECE_KEY, NLL_KEY, draw_calibration_progress


def make_log(epochs: int, seed: int = 0) -> dict[str, list[float]]:
    values = np.random.default_rng(seed).uniform(0.1, 0.2, (3, epochs)).tolist()
    return dict(zip((ECE_KEY, NLL_KEY, "mean_fg_dice"), values))


def test_each_training_has_its_lines_and_last_means(tmp_path) -> None:
    trainings = {"nnUNetTrainerCE": make_log(30), "nnUNetTrainerNACL": make_log(2, 1)}
    text = draw_calibration_progress(trainings, tmp_path / "figure.svg", subtitle="Dataset001, 2d").read_text()
    for name, logged in trainings.items():
        numbers = [f"{np.mean(values[-5:]):.4f}" for values in logged.values()]
        assert f"{name}: ECE of the foreground {numbers[0]}, NLL {numbers[1]}, Dice {numbers[2]}" in text
        assert all(f'id="{key} {name}"' in text for key in logged)
    assert "Dataset001, 2d" in text


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_gaps_and_lost_keys_are_drawn_as_nothing(tmp_path, value: float) -> None:
    logged = make_log(12)
    logged[ECE_KEY][10:] = [value, value]
    del logged[NLL_KEY]
    text = draw_calibration_progress({"a": logged, "empty": {}}, tmp_path / "figure.svg").read_text()
    mean, dice = np.mean(logged[ECE_KEY][7:10]), np.mean(logged["mean_fg_dice"][-5:])
    assert f"a: ECE of the foreground {mean:.4f}, Dice {dice:.4f}" in text
