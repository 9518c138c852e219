"""`nnunet_nacl tune`: the networks that it writes, in nnU-Net's own prediction, and what it
refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import nnunet_nacl
from nnunet_nacl.calibration.calibrator import Calibrator, find_map
from nnunet_nacl.cli.main import main
from nnunet_nacl.nnunet.trained_model import TrainedModel
from nnunet_nacl.settings import TUNED
from nnunet_nacl.utilities.errors import UserError
from tests.metrics.models import make_trained
from tests.nnunet.untrained import (
    CLASSES,
    calibrate,
    make_model,
    make_scans,
    segmentations,
    write_scan,
)
from tests.runs.folders import REGIONS, Model, write_prediction

pytestmark = pytest.mark.usefixtures("one_thread")
HIDDEN = (2.0, 3.0)
IGNORE = CLASSES | {"ignore": 3}


def predict_with_nnunet(
    model: Path, scans: Path, output: Path, checkpoint: str, previous: Path | None = None
) -> dict[str, np.ndarray]:
    """Label maps of both folds of a checkpoint by nnU-Net's own predictor, with probabilities."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    output.mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0, 1), checkpoint)
    predictor.predict_from_files_sequential(
        str(scans),
        str(output),
        save_probabilities=True,
        folder_with_segs_from_prev_stage=None if previous is None else str(previous),
    )
    return segmentations(output)


def biased_labels(output: Path, case: str, biases: tuple[float, ...], regions: bool) -> np.ndarray:
    """argmax(z + b) of saved probabilities, or the regions with z + b above 0 painted in order."""
    probs = np.load(output / f"{case}.npz")["probabilities"].astype(np.float64)
    probs = probs.clip(1e-30, 1 - 1e-16)
    if regions:
        odds = np.log(probs) - np.log1p(-probs)
        inside = odds + np.reshape(biases, (-1, 1, 1, 1)) > 0
        return np.select([inside[1], inside[0]], [2, 1], 0)
    logits = np.log(probs)
    logits[1:] += np.reshape(biases, (-1, 1, 1, 1))
    return logits.argmax(0)


def differing_share(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    n_differing = sum(int((found[case] != expected[case]).sum()) for case in expected)
    return n_differing / sum(label_map.size for label_map in expected.values())


def make_tunable(root: Path, labels: dict, cases: int = 12) -> tuple[Path, Path, Path]:
    """A model of two folds, scans, and truths that its logits with hidden biases give."""
    model = make_model(root, labels=labels, folds=2)
    scans = make_scans(root / "scans", cases)
    output = root / "argmax"
    truths = root / "truths"
    truths.mkdir()
    for case in predict_with_nnunet(model, scans, output, "checkpoint_final.pth"):
        truth = biased_labels(output, case, HIDDEN, labels is REGIONS).astype(np.uint8)
        if "ignore" in labels:
            truth[0] = labels["ignore"]
        write_scan(truths / f"{case}.nii.gz", truth)
    return model, scans, truths


@pytest.mark.parametrize("labels", [CLASSES, REGIONS, IGNORE], ids=["classes", "regions", "ignore"])
def test_nnunet_predicts_what_was_learned(tmp_path, labels, capsys):
    model, scans, truths = make_tunable(tmp_path, labels)
    command = ["tune", "-m", model, "-i", scans, "-gt", truths, "-device", "cpu", "-np", 1]
    assert main([*map(str, command)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].endswith(f"-chk {TUNED}")
    about = json.loads((model / "fold_1" / "tuned.json").read_text())
    change = {(row["structure"], row["value"]): row for row in about["changes"]}
    for key in about["biases"]:
        assert change[key, "Dice"]["after"] > change[key, "Dice"]["before"] + 0.02
        assert change[key, "Dice"]["after"] > 0.97

    output = tmp_path / "tuned"
    found = predict_with_nnunet(model, scans, output, TUNED)
    biases = tuple(about["biases"].values())
    argmax = tmp_path / "argmax"
    expected = {case: biased_labels(argmax, case, biases, labels is REGIONS) for case in found}
    assert differing_share(found, expected) < 0.003  # half precision, where the best two tie
    assert differing_share(segmentations(argmax), expected) > 0.03

    # run again: nothing is measured anew, and its own file is replaced
    records = {path: path.stat().st_mtime_ns for path in model.rglob("records/*.npz")}
    assert records and main([*map(str, command)]) == 0
    assert records == {path: path.stat().st_mtime_ns for path in model.rglob("records/*.npz")}


def test_a_cascade_is_cut_at_thresholds(tmp_path):
    model = make_model(tmp_path, folds=2, cascade=True)
    scans = make_scans(tmp_path / "scans", 2)
    previous = tmp_path / "previous"
    previous.mkdir()
    for number in range(2):
        before = np.random.default_rng(number).integers(0, 3, (9, 17, 14)).astype(np.uint8)
        write_scan(previous / f"scan_{number}.nii.gz", before)
    result = nnunet_nacl.tune(model, thresholds={"2": 0.1}, device="cpu")
    assert result.biases == pytest.approx({"1": 0, "2": np.log(9)})
    assert [path.name for path in result.write()] == [TUNED, TUNED]
    output = tmp_path / "argmax"
    predict_with_nnunet(model, scans, output, "checkpoint_final.pth", previous)
    found = predict_with_nnunet(model, scans, tmp_path / "tuned", TUNED, previous)
    expected = {case: biased_labels(output, case, (0, np.log(9)), False) for case in found}
    assert differing_share(found, expected) < 0.003


def hide_structure(model: Model, structure: int, bias: float) -> None:
    """Saved validation cases whose logits of a structure are lower than those that fit."""
    for path in model.folder.glob("fold_*/validation/*.npz"):
        logits = np.log(np.load(path)["probabilities"])
        logits[structure] -= bias
        probs = np.exp(logits) / np.exp(logits).sum(0)
        labels = probs.argmax(0).astype(np.uint8)
        write_prediction(path.parent, path.stem, probs, labels, (2.0, 1.0, 0.5), ".nii.gz")


def test_validation_cases_of_five_folds_teach_by_patient(tmp_path, monkeypatch, capsys):
    model = make_trained(tmp_path / "nnunet", cases=4, folds=5, sharpness=3.0)
    hide_structure(model, 2, 3.0)
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    patients = tmp_path / "patients.json"
    patients.write_text(
        json.dumps({f"case_{fold}{i}": f"{fold}{i // 2}" for fold in range(5) for i in range(4)})
    )
    options = ["-structures", "posterior", "-metric", "present", "-groups", patients]
    command = ["tune", "-d", "999", "-c", "3d_fullres", *options, "-device", "cpu", "-np", 1]
    assert main([*map(str, command)]) == 0
    printed = capsys.readouterr().out
    assert "20 cases of 10 patients, in 10 parts" in printed
    assert "with the structure in the truth." in printed
    assert f"-chk {TUNED} -groups {patients}" in printed.splitlines()[-1]
    for fold in range(5):
        about = json.loads((model.folder / f"fold_{fold}" / "tuned.json").read_text())
        assert about["biases"]["1"] == 0
        assert about["biases"]["2"] == pytest.approx(3, abs=1.5)
        change = {(row["structure"], row["value"]): row for row in about["changes"]}
        assert change["2", "Dice"]["low"] > 0 and change["", "Dice"]["low"] > 0
        # what is undefined before is left out after, too
        assert change["2", "HD95_mm"]["after"] < change["2", "HD95_mm"]["before"]
    patients.write_text("{}")
    assert main([*map(str, command)]) == 2
    assert "gives no patient for 20 cases" in capsys.readouterr().err


@pytest.fixture(scope="module")
def untuned(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), folds=2)


@pytest.fixture
def model(untuned, tmp_path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(untuned, tmp_path / "model" / untuned.parent.name / untuned.name))


def write_threshold(model: Path, threshold: float = 0.3) -> None:
    nnunet_nacl.tune(model, thresholds={"1": threshold}, device="cpu").write()


def test_all_but_bias_and_optimiser_stays(model):
    path = model / "fold_0" / "checkpoint_final.pth"
    before = torch.load(path, weights_only=False)
    torch.save(before | {"optimizer_state": {"state": 1}, "current_epoch": 7}, path)
    write_threshold(model, 0.25)
    after = torch.load(path.with_name(TUNED), weights_only=False)
    assert "optimizer_state" not in after and after["current_epoch"] == 7
    assert after["trainer_name"] == before["trainer_name"]
    changed = []
    for name, weight in before["network_weights"].items():
        if not torch.equal(weight, after["network_weights"][name]):
            changed.append(name)
            added = after["network_weights"][name] - weight
            assert added.tolist() == pytest.approx([0, np.log(3), 0])
    assert changed == ["decoder.seg_layers.0.bias"]


def test_files_of_others_are_not_replaced_and_its_own_are(model):
    write_threshold(model)
    first = (model / "fold_0" / TUNED).read_bytes()
    write_threshold(model, 0.4)
    assert (model / "fold_0" / TUNED).read_bytes() != first
    write_threshold(model)
    assert (model / "fold_0" / TUNED).read_bytes() == first  # so that its map stays its own
    shutil.copy(model / "fold_0" / "checkpoint_final.pth", model / "fold_1" / TUNED)
    with pytest.raises(UserError, match="was not written by `nnunet_nacl tune`"):
        write_threshold(model)


def test_a_network_that_was_trained_again_makes_the_tuned_one_stale(model):
    write_threshold(model)
    assert TrainedModel.open(model, checkpoint=TUNED).checkpoint == TUNED
    path = model / "fold_1" / "checkpoint_final.pth"
    torch.save(torch.load(path, weights_only=False) | {"current_epoch": 8}, path)
    with pytest.raises(UserError, match="from an earlier checkpoint_final.pth; tune again"):
        TrainedModel.open(model, checkpoint=TUNED)
    path.unlink()  # a model that was passed on without it
    assert TrainedModel.open(model, checkpoint=TUNED).folds == ("0", "1")


def test_folds_that_are_cut_at_different_places_are_refused(model):
    write_threshold(model)
    nnunet_nacl.tune(model, thresholds={"1": 0.1}, folds=[1], device="cpu").write()
    with pytest.raises(UserError, match="the folds have different biases"):
        TrainedModel.open(model, checkpoint=TUNED)
    assert TrainedModel.open(model, ["1"], TUNED).folds == ("1",)


def test_an_earlier_network_is_named_where_argmax_stays(model, capsys):
    write_threshold(model)
    assert main(["tune", "-m", str(model), "-threshold", "1=0.5", "-device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("still there, from an earlier run") == 2
    assert "argmax is as good" not in printed  # nothing was measured


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"checkpoint": TUNED}, "tuned already"),
        ({"metric": "iou"}, "dice or present"),
        ({"thresholds": {"1": 1.5}}, "probability above 0 and below 1"),
        ({"thresholds": ["1=half"]}, "probability above 0 and below 1"),
        ({"thresholds": ["1=0.3", "anterior=0.4"]}, "given twice"),
        ({"groups": "case", "thresholds": {"1": 0.5}}, "nothing is measured"),
        ({"thresholds": ["0.3"]}, "STRUCTURE=P is expected, such as anterior=0.3"),
        ({"thresholds": {"liver": 0.5}}, "no such structure"),
        ({"structures": ["liver"]}, "no such structure"),
        ({"structures": ["liver"], "thresholds": {"1": 0.5}}, "nothing is measured"),
        ({"images": "scans"}, "go together"),
    ],
)
def test_what_does_not_fit_is_refused(model, arguments, problem):
    with pytest.raises(UserError, match=problem):
        nnunet_nacl.tune(model, device="cpu", **arguments)


def test_networks_that_were_trained_on_all_cases_have_none_to_learn_from(model):
    (model / "fold_0").rename(model / "fold_all")
    with pytest.raises(UserError, match="fold all was trained on every case"):
        nnunet_nacl.tune(model, folds=["all"], device="cpu")


def test_few_patients_teach_no_decision(tmp_path):
    model, scans, truths = make_tunable(tmp_path, CLASSES, cases=4)
    with pytest.raises(UserError, match="10 patients at least, and the 4 cases are of 4 "):
        nnunet_nacl.tune(model, scans, truths, device="cpu")
    assert not list(model.glob("*_records")), "said after the cases were predicted"


def break_layer(monkeypatch, network_change) -> None:
    """Networks are changed as soon as they are built."""
    from nnunet_nacl.nnunet import decision_layer

    original = decision_layer.Network

    class Changed(original):
        @property
        def module(self):
            network = super().module
            network_change(network)
            return network

    monkeypatch.setattr(decision_layer, "Network", Changed)


def remove_bias(network: torch.nn.Module) -> None:
    network.decoder.seg_layers[-1].bias = None


def scale_output(network: torch.nn.Module) -> None:
    network.register_forward_hook(lambda module, inputs, output: 2 * output)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (remove_bias, "has no bias"),
        (scale_output, "does not shift the logits by as much"),
        (lambda network: setattr(network, "__class__", torch.nn.Module), "is not known"),
    ],
)
def test_a_layer_that_carries_no_decision_is_refused(model, monkeypatch, change, problem):
    break_layer(monkeypatch, change)
    with pytest.raises(UserError, match=problem):
        write_threshold(model)
    assert not list(model.rglob(TUNED))


def test_a_full_disk_leaves_no_half_network(model, monkeypatch):
    def fail(content, file):
        file.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=f"{TUNED}: cannot be written"):
        write_threshold(model)
    assert not list(model.rglob("*tuned*")) and not list(model.rglob(".*"))


def test_each_checkpoint_has_a_map_of_its_own(model):
    calibrate(model)  # writes calibration_map.json for the final networks
    write_threshold(model)
    tuned = TrainedModel.open(model, checkpoint=TUNED)
    assert find_map(tuned) == model / "calibration_map_tuned.json"
    assert "no calibration_map_tuned.json" in Calibrator.of_model(tuned).missing[0]
    assert f"-chk {TUNED}" in Calibrator.of_model(tuned).missing[0]
    assert Calibrator.of_model(TrainedModel.open(model)).log_odds_map is not None
    # an earlier version wrote the map of this checkpoint into calibration_map.json
    content = json.loads((model / "calibration_map.json").read_text())
    content["origin"]["checkpoint_sha256"] = dict(zip(tuned.folds, tuned.hashes))
    (model / "calibration_map.json").write_text(json.dumps(content))
    assert find_map(tuned) == model / "calibration_map.json"
