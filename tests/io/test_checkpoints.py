"""The map inside checkpoints: the same for every architecture, checked before it is written, never half-written."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from torch import nn

from nnunet_nacl.calibration.log_odds_map import LogOddsMap
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.checkpoints import (
    CALIBRATED,
    MARK,
    bake,
    check_baked,
    write_calibrated,
)
from nnunet_nacl.io.class_layers import class_layers
from tests.calibration.models import KINDS, make_network, make_trained
from tests.processes import run_warm

MAP = LogOddsMap([0.7, 1.4], [-0.5, 0.3])
REGION_MAP = LogOddsMap([0.7, 1.4, 2.0], [-0.5, 0.3, 0.0], regions=True)


def last_layer(network) -> tuple[str, int]:
    (*_, layer), axis = class_layers(network)
    return layer, axis


@pytest.mark.parametrize("calibration", [MAP, REGION_MAP], ids=["classes", "regions"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_baked_network_computes_the_map(kind, calibration):
    network = make_network(kind, 3)
    original = {name: value.clone() for name, value in network.state_dict().items()}
    layer = last_layer(network)
    baked = bake(original, *layer, calibration)
    changed = {name for name in original if not torch.equal(original[name], baked[name])}
    assert changed == {f"{layer[0]}.weight", f"{layer[0]}.bias"}  # auxiliary heads stay
    image = torch.randn(1, 1, 8, 8, 8)
    network.eval()
    with torch.no_grad():
        before = network(image)[0]
        network.load_state_dict(baked)
        after = network(image)[0]
    if calibration.regions:
        expected = torch.stack([0.7 * before[0] - 0.5, 1.4 * before[1] + 0.3, 2.0 * before[2]])
    else:
        one, two = 0.7 * (before[1] - before[0]) - 0.5, 1.4 * (before[2] - before[0]) + 0.3
        expected = before[0] + torch.stack([torch.zeros_like(one), one, two])
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-5)
    assert (before - after).abs().max() > 0.1
    assert check_baked(network, original, baked, calibration, (1, 8, 8, 8)) < 1e-5


def test_networks_whose_last_layer_is_not_known_are_refused():
    with pytest.raises(UserError, match="the network Conv3d is none of PlainConvUNet.*Leave --write_checkpoints out"):
        class_layers(nn.Conv3d(1, 3, 1))


@pytest.mark.parametrize(
    "slopes, goes_on, message",
    [
        ([0.7, 1.4], True, "does something after the layer"),
        ([3000.0, 3000.0], False, "half precision"),
        ([1.0, 1.0, 1.0], False, "makes 3 channels, the map is for 4"),
    ],
)
def test_what_would_not_compute_the_map_is_refused(slopes, goes_on, message):
    network, calibration = make_network("plain", 3), LogOddsMap(slopes, [0] * len(slopes))
    original = {name: value.clone() for name, value in network.state_dict().items()}
    if goes_on:
        network.register_forward_hook(lambda module, inputs, output: output.tanh())
    with pytest.raises(UserError, match=message):
        baked = bake(original, *last_layer(network), calibration)
        check_baked(network, original, baked, calibration, (1, 8, 8, 8))


def test_logits_of_real_cases_count_where_they_were_measured(model):
    """Noise makes small logits; a case may make those that overflow when nnU-Net adds tiles up."""
    steep = LogOddsMap([3.0, 3.0], [0, 0])
    path = model.folder / "fold_1" / "validation" / "calibration.json"
    path.write_text(json.dumps({"metric_per_case": [{"case": "a"}, {"case": "b", "largest_logit": 400.0}]}))
    with pytest.raises(UserError, match="logits may reach 2000, .*half precision"):
        write_calibrated(model.folder, ["0", "1"], "checkpoint_final.pth", steep, {})
    assert not list(model.folder.rglob(CALIBRATED))
    path.write_text(json.dumps({"metric_per_case": [{"largest_logit": 40.0}, {"largest_logit": None}]}))
    write_calibrated(model.folder, ["0", "1"], "checkpoint_final.pth", steep, {})
    path.write_text("{")
    write_calibrated(model.folder, ["0", "1"], "checkpoint_final.pth", steep, {})


@pytest.fixture
def model(tmp_path):
    return make_trained(tmp_path, folds=2, cases=3)


def test_every_fold_gets_one_and_the_original_stays(model):
    originals = [model.folder / f"fold_{fold}" / "checkpoint_final.pth" for fold in range(2)]
    before = [path.read_bytes() for path in originals]
    write_calibrated(model.folder, ["0", "1"], "checkpoint_final.pth", MAP, {"form": "shift"})
    assert [path.read_bytes() for path in originals] == before
    for path in originals:
        made = torch.load(path.with_name(CALIBRATED), weights_only=False)
        assert made[MARK] == {"form": "shift"} and made["trainer_name"] == "nnUNetTrainer"
    with pytest.raises(UserError, match="calibrated already"):
        write_calibrated(model.folder, ["0"], CALIBRATED, MAP, {})


def test_no_fold_gets_one_where_one_cannot(model):
    (model.folder / "fold_1" / "checkpoint_final.pth").write_bytes(b"cut off")
    with pytest.raises(UserError, match="fold_1.*cannot be read as a checkpoint"):
        write_calibrated(model.folder, ["0", "1"], "checkpoint_final.pth", MAP, {})
    assert {p.name for p in (model.folder / "fold_0").iterdir()} == {"checkpoint_final.pth", "validation"}


def write_and_die(model_folder):
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
    write_calibrated(model_folder, ["0"], "checkpoint_final.pth", LogOddsMap([2, 2], [0, 0]), {"run": 2})


def test_a_kill_leaves_the_old_file_and_the_next_run_tidies_up(model):
    write_calibrated(model.folder, ["0"], "checkpoint_final.pth", MAP, {"run": 1})
    path = model.folder / "fold_0" / CALIBRATED
    before = path.read_bytes()
    result = run_warm(write_and_die, model.folder, folder=model.folder)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert path.read_bytes() == before
    assert list(path.parent.glob(".*.tmp"))
    write_calibrated(model.folder, ["0"], "checkpoint_final.pth", MAP, {"run": 3})
    assert torch.load(path, weights_only=False)[MARK] == {"run": 3}
    assert not list(path.parent.glob(".*"))
