"""The picture of a training: it is drawn for every kind of record, and states its numbers."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from nnunet_nacl.show.calibration_progress import draw_calibration_progress
from nnunet_nacl.training_record import EpochSums
from tests.test_training_record import make_record


def svg_of(record: dict, tmp_path) -> str:
    return draw_calibration_progress(record, tmp_path / "figure.svg").read_text()


@pytest.mark.parametrize("suffix", [".png", ".pdf"])  # the other tests draw .svg
def test_every_format(tmp_path, suffix: str) -> None:
    path = tmp_path / "new" / f"figure{suffix}"
    assert draw_calibration_progress(make_record().to_dict(), path) == path
    assert path.read_bytes().startswith({".png": b"\x89PNG", ".pdf": b"%PDF"}[suffix])
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("num_channels", "regions", "epochs"),
    [
        (2, False, 30),
        (6, False, 2),
        (7, False, 30),
        (40, False, 1),
        (1, True, 30),
        (3, True, 2),
        (9, True, 1),
    ],
)
def test_every_kind_of_record(tmp_path, num_channels: int, regions: bool, epochs: int) -> None:
    text = svg_of(make_record(epochs, num_channels, regions).to_dict(), tmp_path)
    assert "ECE (lower is better)" in text and "Maximum logit, foreground" in text
    if num_channels <= 6:
        assert f'id="logit {num_channels - 1} of true class {num_channels - 1 + regions}"' in text
    elif num_channels <= 32:
        assert f"each true class, epoch {epochs - 1}" in text
    else:
        assert "Mean logit vectors are not shown: 40 channels" in text
    assert ("|logit|" in text) == regions


def test_it_states_data_numbers_and_last_values(tmp_path) -> None:
    record = make_record().to_dict()
    text = svg_of(record, tmp_path)
    errors = [entry["calibration"]["foreground"]["ECE"] for entry in record["epochs"]]
    logits = [entry["max_logit"]["all"]["mean"] for entry in record["epochs"]]
    assert "mean of the last 3 epochs" in text
    assert f"foreground {np.mean(errors):.4f}" in text and f"mean, all {np.mean(logits):.2f}" in text
    assert "nnUNetTrainerNACL" in text and "Dataset001_Test, 2d, fold 0; epochs 0 to 2" in text and "n = " in text


def test_gaps_and_epochs_without_foreground_are_left_out(tmp_path) -> None:
    record = make_record(6)
    record.epochs[:] = [entry for entry in record.epochs if entry["epoch"] not in (0, 3)]
    empty = EpochSums(**{name: 0 * value for name, value in vars(make_sums_like(record)).items()}).entry(7)
    record.append(empty)
    values = [entry["calibration"]["foreground"]["ECE"] for entry in record.epochs[:-1]]
    assert f"foreground {np.mean(values):.4f}" in svg_of(record.to_dict(), tmp_path)
    only_empty = {**record.to_dict(), "epochs": [empty]}
    assert "no voxel" in svg_of(only_empty, tmp_path)


def make_sums_like(record) -> EpochSums:
    from tests.test_training_record import make_sums

    return make_sums(len(record.header["channels"]))


@pytest.mark.parametrize(("accuracy", "told"), [(0.7, "+0.200"), (0.95, "−0.050")])
def test_it_tells_overconfidence_from_underconfidence(tmp_path, accuracy: float, told: str) -> None:
    record = copy.deepcopy(make_record().to_dict())
    for entry in record["epochs"]:
        entry["calibration"]["predicted"] |= {"accuracy": accuracy, "confidence": 0.9}
    assert f"predicted {told}" in svg_of(record, tmp_path)


def test_the_first_epochs_do_not_squash_the_others(tmp_path) -> None:
    record = copy.deepcopy(make_record(30).to_dict())
    for entry in record["epochs"]:
        for values in entry["calibration"].values():
            values["ECE"] = 0.6 if entry["epoch"] == 0 else 0.01
    text = svg_of(record, tmp_path)
    assert "ECE runs out of the picture" in text and ">0.60<" not in text
    record["epochs"][20]["calibration"]["all"]["ECE"] = 0.6  # this one matters
    assert "ECE runs out of the picture" not in svg_of(record, tmp_path)


def test_voxels_that_were_left_out_are_told(tmp_path) -> None:
    record = copy.deepcopy(make_record().to_dict())
    record["epochs"][1]["n_not_finite"] = 1234
    assert "1,234 voxels" in svg_of(record, tmp_path)


def test_names_from_the_data_are_no_markup(tmp_path) -> None:
    record = {**make_record().to_dict(), "dataset": "<b>$x$ & co", "channels": ["a<b", "$y$", "&c"]}
    text = svg_of(record, tmp_path)
    assert "&lt;b&gt;$x$ &amp; co" in text and "a&lt;b" in text


def test_it_refuses_what_it_cannot_draw(tmp_path) -> None:
    with pytest.raises(ValueError, match="no epoch yet"):
        draw_calibration_progress(make_record(0).to_dict(), tmp_path / "figure.png")
    with pytest.raises(ValueError, match="'.jpg'"):
        draw_calibration_progress(make_record().to_dict(), tmp_path / "figure.jpg")
