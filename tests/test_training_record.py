"""The sums of an epoch and the file that keeps them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from nnunet_nacl.errors import UserError
from nnunet_nacl.training_record import (
    FILE_NAME,
    MAX_MATRIX_CLASSES,
    EpochSums,
    MaxLogitBins,
    TrainingRecord,
    describe_epoch,
    read_training_record,
    tracked_values,
)


def make_sums(num_channels: int = 3, regions: bool = False, seed: int = 0) -> EpochSums:
    rng = np.random.default_rng(seed)
    shapes = EpochSums.shapes(regions, num_channels)
    values = {name: rng.integers(1, 100, shape) for name, shape in shapes.items()}
    values["max_logit_count"] = np.zeros(shapes["max_logit_count"])
    values["max_logit_count"][..., 50] = values["count"].sum(-1)
    values["not_finite"] = [0]
    return EpochSums(**values)


def header(num_channels: int = 3, regions: bool = False) -> dict:
    channels = [f"structure {k}" for k in range(num_channels)]
    return {
        "trainer": "nnUNetTrainerNACL",
        "dataset": "Dataset001_Test",
        "configuration": "2d",
        "fold": 0,
        "regions": regions,
        "channels": channels,
        "true_classes": ["outside all regions", *channels] if regions else channels,
        "n_bins": 15,
        "max_logit_bins": asdict(MaxLogitBins()),
    }


def make_record(epochs: int = 3, num_channels: int = 3, regions: bool = False) -> TrainingRecord:
    record = TrainingRecord(header(num_channels, regions))
    for epoch in range(epochs):
        record.append(make_sums(num_channels, regions, seed=epoch).entry(epoch, 1000.0 + epoch))
    return record


@pytest.mark.parametrize("regions", [False, True])
def test_sums_add_up_in_their_types(regions: bool) -> None:
    a, b = make_sums(regions=regions, seed=1), make_sums(regions=regions, seed=2)
    both = a + b
    assert both.regions == regions
    for name in both.__dataclass_fields__:
        assert (getattr(both, name) == getattr(a, name) + getattr(b, name)).all()
    assert both.count.dtype == np.int64 and both.confidence.dtype == np.float64


def test_counts_are_exact_beyond_what_floats_hold() -> None:
    zero = make_sums()
    values = {**vars(zero), "count": np.full_like(zero.count, 2**54 + 1), "correct": zero.count}
    assert ((EpochSums(**values) + EpochSums(**values)).count == 2**55 + 2).all()


def test_sums_of_other_shapes_are_refused() -> None:
    values = {**vars(make_sums()), "count": np.zeros((1, 3, 15))}
    with pytest.raises(ValueError, match="EpochSums.count must have shape"):
        EpochSums(**values)
    with pytest.raises(TypeError):
        make_sums() + 1


def test_masks_are_sums_of_groups() -> None:
    sums = make_sums()
    for mask, groups in {"foreground": [1, 3], "predicted": [2, 3], "all": [0, 1, 2, 3]}.items():
        assert (sums.bins(mask).count == sums.count[:, groups].sum(1)).all()
        entry = sums.entry(0)
        assert entry["calibration"][mask]["n_voxels"] == sums.count[0, groups].sum()
        assert entry["calibration"][mask]["confidence"] == pytest.approx(
            sums.confidence[:, groups].sum() / sums.count[:, groups].sum(), rel=1e-8
        )


def test_what_was_not_seen_is_none() -> None:
    shapes = EpochSums.shapes(False, 3)
    entry = EpochSums(**{name: np.zeros(shape) for name, shape in shapes.items()}).entry(4)
    assert entry["epoch"] == 4 and entry["epoch_start_timestamp"] is None
    assert entry["calibration"]["foreground"] == {"n_voxels": 0, "ECE": None, "accuracy": None, "confidence": None}
    assert entry["max_logit"]["all"] == {"mean": None, "first_bin": 0, "counts": []}
    assert entry["mean_logits"] == [[None] * 3] * 3
    assert "foreground undefined" in describe_epoch(entry) and tracked_values(entry) == {}


@pytest.mark.parametrize(("num_channels", "regions"), [(3, False), (3, True), (1, True), (MAX_MATRIX_CLASSES, False)])
def test_mean_logits_stand_under_their_true_class(num_channels: int, regions: bool) -> None:
    sums = make_sums(num_channels, regions)
    entry = sums.entry(0)
    np.testing.assert_allclose(entry["mean_logits"], sums.logit_sum / sums.class_count[:, None], rtol=1e-5)
    own = [None] * regions + [entry["mean_logits"][k + regions][k] for k in range(num_channels)]
    assert entry["mean_logit_of_true_class"] == own


def test_many_classes_do_not_blow_up_the_file() -> None:
    entry = make_sums(MAX_MATRIX_CLASSES + 1).entry(0)
    assert entry["mean_logits"] is None and len(entry["mean_logit_of_true_class"]) == MAX_MATRIX_CLASSES + 1


def test_a_record_comes_back_as_it_was_written(tmp_path) -> None:
    record = make_record()
    record.write(tmp_path / FILE_NAME)
    assert read_training_record(tmp_path) == read_training_record(tmp_path / FILE_NAME) == record.to_dict()
    text = (tmp_path / FILE_NAME).read_text()
    assert json.loads(text)["schema_version"] == 1
    assert sum(line.startswith('  {"epoch"') for line in text.splitlines()) == 3
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_an_epoch_that_comes_again_takes_the_place_of_the_old_ones(tmp_path) -> None:
    record = make_record(5)
    record.append(make_sums(seed=9).entry(2, 5000.0))
    record.write(tmp_path / FILE_NAME)
    found = read_training_record(tmp_path)["epochs"]
    assert [(entry["epoch"], entry["epoch_start_timestamp"]) for entry in found] == [(0, 1000), (1, 1001), (2, 5000)]


def test_a_record_without_epochs_is_a_record(tmp_path) -> None:
    TrainingRecord(header()).write(tmp_path / FILE_NAME)
    assert read_training_record(tmp_path)["epochs"] == []


def test_other_classes_are_another_kind() -> None:
    record = make_record()
    assert record.same_kind(header()) and not record.same_kind(header(4)) and not record.same_kind(header(3, True))


def test_an_entry_that_is_no_strict_json_is_refused() -> None:
    record = make_record(1)
    with pytest.raises(ValueError):
        record.append({**make_sums().entry(1), "x": float("nan")})
    assert len(record.epochs) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "expected a JSON object, got list"),
        ("{}", "schema_version 1, got None"),
        ('{"schema_version": 2}', "got 2"),
        ('{"schema_version": 1}', "not the record of a training"),
    ],
)
def test_other_files_are_refused(tmp_path, content: str, message: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(UserError, match=message):
        read_training_record(tmp_path)


@pytest.mark.parametrize("key", ["channels", "true_classes", "epochs", "regions", "n_bins", "max_logit_bins"])
def test_a_record_with_a_missing_part_is_refused(tmp_path, key: str) -> None:
    content = make_record().to_dict()
    del content[key]
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    with pytest.raises(UserError, match="not the record of a training"):
        read_training_record(tmp_path)


@pytest.mark.parametrize("entry", [1, {}, {**make_sums().entry(0), "epoch": "0"}])
def test_an_epoch_of_another_kind_is_refused(tmp_path, entry) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps({**make_record().to_dict(), "epochs": [entry]}))
    with pytest.raises(UserError, match="not the record of a training"):
        read_training_record(tmp_path)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=FILE_NAME):
        read_training_record(tmp_path)


def test_nnunet_is_not_needed_to_read_a_record() -> None:
    modules = "nnunet_nacl.training_record, nnunet_nacl.show.calibration_progress"
    code = f"import sys, {modules}; sys.exit('nnunetv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
