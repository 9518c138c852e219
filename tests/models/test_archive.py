"""Models leave and arrive whole, or not at all."""

from __future__ import annotations

import errno
import hashlib
import re
import zipfile

import pytest
import torch

from nnunet_nacl.cli.main import main
from nnunet_nacl.documents.stored_map import same_map
from nnunet_nacl.errors import UserError
from nnunet_nacl.io.checkpoints import CALIBRATED, MARK, bake
from nnunet_nacl.models.archive import export_model
from nnunet_nacl.models.installation import install_model
from nnunet_nacl.prediction.trained_model import TrainedModel
from tests.models.travelling import MAPS, give_map, make_finished
from tests.runs.folders import write_json

FINAL = "checkpoint_final.pth"
TO_PREDICT = ("T__P__C/dataset.json", "T__P__C/plans.json", f"T__P__C/fold_0/{FINAL}")


@pytest.fixture
def model(tmp_path, monkeypatch):
    model = make_finished(tmp_path / "nnunet")
    for name, value in model.environment.items():
        monkeypatch.setenv(name, value)
    # nnU-Net reads the variables when it is imported, which other tests may have done
    monkeypatch.setattr("nnunetv2.model_sharing.model_export.nnUNet_results", model.environment["nnUNet_results"])
    monkeypatch.setattr("nnunetv2.utilities.file_path_utilities.nnUNet_results", model.environment["nnUNet_results"])
    monkeypatch.setattr("nnunetv2.utilities.dataset_name_id_conversion.nnUNet_results", str(tmp_path))
    return model


def refuse(what, message, *arguments, **keywords):
    with pytest.raises(UserError, match=message) as caught:
        what(*arguments, **keywords)
    assert "\n" not in str(caught.value)


def files(folder) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def install(archive, to, model):
    """Where the model of an archive lies after it was installed."""
    assert install_model(archive, to) == [f"{model.dataset}/{model.folder.name}"]
    return to / model.dataset / model.folder.name


def test_a_file_of_the_model_that_cannot_be_read_is_not_taken_for_the_zip(model, tmp_path, monkeypatch):
    def fail(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied", "fold_0/progress.png")

    monkeypatch.setattr("nnunetv2.model_sharing.model_export.export_pretrained_model", fail)
    message = "nnU-Net could not export the model: fold_0/progress.png: Permission denied; change its permissions"
    refuse(export_model, message, model.folder, tmp_path / "model.zip")


def test_a_model_goes_out_and_comes_in_as_it_was(model, tmp_path):
    give_map(model)
    (model.folder / "fold_0" / CALIBRATED).write_bytes(b"of an earlier version, or of --write_checkpoints")
    archive = export_model(model.folder, tmp_path / "out" / "model.zip")
    assert files(tmp_path / "out") == {"model.zip"}
    there = install(archive, tmp_path / "other", model)
    for name in ("plans.json", "calibration_map.json", f"fold_1/{FINAL}", f"fold_0/{FINAL}"):
        assert (there / name).read_bytes() == (model.folder / name).read_bytes()
    assert not list(there.rglob(CALIBRATED))
    card = (there / "model_card.md").read_text()
    hashes = dict(re.findall(r"^- `(.+)`: `([0-9a-f]{64})`$", card, re.MULTILINE))
    assert set(hashes) == {"calibration_map.json", *(f"fold_{fold}/{FINAL}" for fold in "01")}
    assert all(hashlib.sha256((there / name).read_bytes()).hexdigest() == found for name, found in hashes.items())
    assert "| anterior | 0.8, -0.2 | 0.9, 0.2 |" in card and "-log p\\_y + Dice" in card
    assert "on 12 held-out cases: the map is in calibration_map.json" in card
    assert "nnunet_nacl predict -i SCANS" in card and "-tr nnUNetTrainer -f 0 1\n" in card
    calibrated = TrainedModel.open(there)
    assert same_map(calibrated.treatment.map, MAPS["conditional"])


def test_only_an_archive_of_export_is_replaced(model, tmp_path):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as other:
        other.writestr("thesis.txt", "years of work")
    before = archive.read_bytes()
    refuse(export_model, "model.zip is no archive of .*choose another -o", model.folder, archive)
    assert archive.read_bytes() == before
    archive.unlink()
    export_model(model.folder, archive)
    export_model(model.folder, archive)  # its own may be replaced


@pytest.fixture
def ours(model):
    """The model under the name of a trainer of this package, in its folder and checkpoints."""
    for fold in "01":
        path = model.folder / f"fold_{fold}" / FINAL
        torch.save(torch.load(path, weights_only=False) | {"trainer_name": "nnUNetTrainerNACL_k5"}, path)
    model.folder.rename(model.folder.with_name(model.folder.name.replace("Trainer", "TrainerNACL_k5")))
    model.trainer = "nnUNetTrainerNACL_k5"
    return model


@pytest.mark.parametrize(
    "form, cost", [("temperature", "was not measured"), ("shift", "2.5% of the .* Dice by -0.0123"), ("", "")]
)
def test_portable_checkpoints_hold_an_affine_map_if_there_is_one_under_nnunets_own_trainer(ours, tmp_path, form, cost):
    if form:
        give_map(ours)
    before = files(ours.folder)
    said = []
    archive = export_model(ours.folder, tmp_path / "model.zip", portable=True, form=form, log=said.append)
    assert files(ours.folder) == before and re.search(f"{form}: .*{cost}", "\n".join(said))
    there = install(archive, tmp_path / "other", ours)
    assert not list(there.rglob(CALIBRATED))
    for fold in "01":
        found = torch.load(there / f"fold_{fold}" / FINAL, weights_only=False)
        original = torch.load(ours.folder / f"fold_{fold}" / FINAL, weights_only=False)
        weights, made = original.pop("network_weights"), found.pop("network_weights")
        assert all(torch.equal(weights[name], made[name]) for name in weights) == (not form)
        if form:
            torch.testing.assert_close(made, bake(weights, "decoder.seg_layers.0", 0, MAPS[form]))
        assert not form or found.pop(MARK)["maps"].keys() == {form}
        assert found == original | {"trainer_name": "nnUNetTrainer"}
    card = (there / "model_card.md").read_text()
    assert (f"the map is in the checkpoints ({form})" in card) == bool(form) and "nnUNetv2_predict -i SCANS" in card
    numbers = [f"{row[0]:.4g}" for row in (MAPS[form].slopes[0], MAPS[form].offsets[0])] if form else []
    assert not form or f"| any | {', '.join(numbers)} |" in card


@pytest.mark.parametrize("form", ["temperature", "shift"])
def test_a_portable_network_in_onnx_gives_the_calibrated_probabilities(ours, tmp_path, form):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"needs {name}: pip install onnx onnxscript onnxruntime")
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from onnxruntime import InferenceSession

    def network_of(folder):
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), ("1",), FINAL)
        predictor.network.load_state_dict(predictor.list_of_parameters[0])
        return predictor.network.eval()

    give_map(ours)
    archive = export_model(ours.folder, tmp_path / "model.zip", portable=True, form=form)
    there = install(archive, tmp_path / "other", ours)
    patch, path = torch.randn(1, 1, 8, 8, 8, generator=torch.manual_seed(1)), tmp_path / "network.onnx"
    torch.onnx.export(network_of(there), (patch,), path, input_names=["image"], dynamo=True)
    (logits,) = InferenceSession(path).run(None, {"image": patch.numpy()})
    with torch.no_grad():
        as_trained = network_of(ours.folder)(patch)
    expected = MAPS[form].on_logits(as_trained[0]).softmax(0)
    assert (expected - as_trained[0].softmax(0)).abs().max() > 0.05
    torch.testing.assert_close(torch.from_numpy(logits)[0].softmax(0), expected.float(), rtol=0, atol=1e-4)


def test_no_second_map_is_applied_to_a_portable_model(model, tmp_path):
    give_map(model)
    there = install(export_model(model.folder, tmp_path / "model.zip", portable=True), tmp_path / "other", model)
    found = TrainedModel.open(there)
    assert found.treatment.map is None and found.quality is None
    assert found.missing == (f"a map was written into {FINAL}: no other is applied to it, and no Dice is predicted.",)
    refuse(TrainedModel.open, "no other is applied", there, calibration_map=there / "calibration_map.json")


@pytest.mark.parametrize(
    "own, refused",
    [("batch_size = 1", False), ("build_network_architecture = staticmethod(lambda *a, **k: None)", True)],
    ids=["same network", "another network"],
)
def test_portable_is_refused_where_a_trainer_changes_the_network(model, tmp_path, monkeypatch, own, refused):
    toys = tmp_path / "toys"
    toys.mkdir()
    base = "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
    (toys / "toy_trainers.py").write_text(f"{base}class nnUNetTrainerToy(nnUNetTrainer):\n    {own}\n")
    monkeypatch.setenv("nnUNet_extTrainer", str(toys))
    path = model.folder / "fold_0" / FINAL
    torch.save(torch.load(path, weights_only=False) | {"trainer_name": "nnUNetTrainerToy"}, path)
    output = tmp_path / "out" / "model.zip"
    if refused:
        refuse(export_model, "Toy builds its own network.*leave out --portable", model.folder, output, portable=True)
        assert not output.parent.exists()
    else:
        assert export_model(model.folder, output, portable=True).is_file()


@pytest.mark.parametrize("name", ["progress.png", "validation/summary.json"])
def test_unfinished_folds_are_named_before_the_work(model, tmp_path, name):
    (model.folder / "fold_1" / name).unlink()
    output = tmp_path / "model.zip"
    refuse(export_model, f"fold_1/{name} is missing; finish this fold", model.folder, output, folds=["0", "1"])
    assert not output.exists()
    assert export_model(model.folder, output, folds=["0"]).is_file()


def test_a_map_of_other_networks_or_of_an_earlier_version_is_refused(model, tmp_path):
    output, path = tmp_path / "model.zip", model.folder / "calibration_map.json"
    content = give_map(model)
    checkpoint = model.folder / "fold_1" / FINAL
    torch.save(torch.load(checkpoint, weights_only=False) | {"trained": "again"}, checkpoint)
    refuse(export_model, "fitted to other networks than those of fold 1 .*; calibrate again", model.folder, output)
    export_model(model.folder, output, folds=["0"])
    output.unlink()
    old = {"schema_version": 1, "regions": False, "structures": [{"key": "1", "name": "a", "slope": 1, "offset": 0}]}
    write_json(path, old)
    refuse(export_model, "calibrate again", model.folder, output)
    del content["maps"]["temperature"], content["checkpoint_sha256"]
    write_json(path, content)
    refuse(export_model, "has no map of the form temperature, but shift", model.folder, output, portable=True)
    assert not output.exists()


def test_names_that_are_no_zip_are_refused(model, tmp_path):
    refuse(export_model, "ends with .zip", model.folder, tmp_path / "model.tar")
    (tmp_path / "folder.zip").mkdir()
    refuse(export_model, "is a folder", model.folder, tmp_path / "folder.zip")


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "Dataset001_A/..\\..\\evil.txt", "C:/evil.txt", "evil.txt"]
)
def test_paths_outside_the_folder_are_refused(tmp_path, name):
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("Dataset001_A/T__P__C/plans.json", "{}")
        opened.writestr(name, "")
    refuse(install_model, "holds .*evil.txt", archive, tmp_path / "results")
    assert files(tmp_path) == {"model.zip"}


def test_a_damaged_zip_leaves_nothing(model, tmp_path):
    archive = export_model(model.folder, tmp_path / "model.zip")
    whole = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        entry = next(info for info in opened.infolist() if info.filename.endswith(FINAL))
    results = tmp_path / "results"
    middle = entry.header_offset + entry.compress_size // 2
    for damaged in (whole[:-100], b"", whole[:middle] + bytes(50) + whole[middle + 50 :]):
        archive.write_bytes(damaged)
        refuse(install_model, "damaged or cut off.*copy it again", archive, results)
        assert not results.exists() or not files(results)


def test_what_is_there_stays_unless_it_may_be_replaced(tmp_path):
    archive, results = tmp_path / "model.zip", tmp_path / "results"
    with zipfile.ZipFile(archive, "w") as opened:
        for name in (*TO_PREDICT, "ensembles/E/summary.json", "inference_information.json"):
            opened.writestr(f"Dataset001_A/{name}", "new")
    model, chosen = results / "Dataset001_A" / "T__P__C", results / "Dataset001_A" / "inference_information.json"
    model.mkdir(parents=True)
    (model / "old.txt").write_text("old")
    chosen.write_text("old")
    refuse(install_model, "T__P__C is there already; pass --overwrite", archive, results)
    assert files(model) == {"old.txt"}
    model.rename(results / "Dataset001_A" / "U__P__C")
    install_model(archive, results)
    assert chosen.read_text() == "old" and (chosen.parent / "ensembles/E/summary.json").read_text() == "new"
    (model / "old.txt").write_text("old")
    install_model(archive, results, overwrite=True)
    assert "old.txt" not in files(model) and chosen.read_text() == "new"
    assert {path.name for path in results.iterdir()} == {"Dataset001_A"}


def test_the_commands_do_both(model, tmp_path, monkeypatch, capsys):
    archive = tmp_path / "model.zip"
    assert main(["export", "-d", model.dataset, "-c", "3d_fullres", "-f", "1", "-o", str(archive)]) == 0
    assert "written: " in capsys.readouterr().out
    assert main(["import", "-i", str(archive)]) == 2
    assert "is there already" in capsys.readouterr().err
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "other"))
    assert main(["import", "-i", str(archive)]) == 0
    assert (tmp_path / "other" / model.dataset / model.folder.name / "fold_1" / FINAL).is_file()
    assert main(["export", "-d", model.dataset, "-c", "3d_fullres", "-o", str(archive), "-form", "shift"]) == 2
    assert "pass --portable too" in capsys.readouterr().err
