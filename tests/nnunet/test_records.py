"""Records that hold are found, others are made; kills, full disks and broken cases cost as little
as they can."""

from __future__ import annotations

import functools
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunet_nacl.cases import record_key
from nnunet_nacl.cases.record import CaseRecord, read_pictures, read_record, table
from nnunet_nacl.cli.main import main
from nnunet_nacl.estimators.log_odds_map import map_from_tables
from tests.nnunet.measuring import Watch, measured
from tests.processes import children, full_disk, is_alive, run_warm
from tests.runs.folders import read, write_image, write_json
from tests.runs.predictions import SPACING_MM

CASES = ["case_00", "case_01"]


@pytest.fixture
def model(make_validated):
    return make_validated(cases=2)


def test_another_truth_of_equal_size_and_time_is_another_truth(model):
    for path in model.references.glob("*.nii.gz"):  # not compressed: equal sizes
        path.write_bytes(gzip.decompress(path.read_bytes()))
    first = table(measured(model.validation()).values())
    other = model.root / "other"
    shutil.copytree(model.references, other)
    for path in other.glob("*.nii.gz"):
        content = bytearray(path.read_bytes())
        content[-200:] = b"\1" * 200
        path.write_bytes(content)
        time = (model.references / path.name).stat().st_mtime_ns
        os.utime(path, ns=(time, time))
    watch = Watch(model.validation())
    second = table(measured(model.validation(), other).values())
    assert watch.new() == CASES and second.Dice.mean() != first.Dice.mean()


def test_truths_that_were_exchanged_are_measured_again_whatever_their_size_and_time(model):
    first, second = (model.references / f"{case}.nii.gz" for case in CASES)
    for path in (first, second):  # not compressed: equal sizes
        path.write_bytes(gzip.decompress(path.read_bytes()))
        os.utime(path, ns=(10**18, 10**18))  # as archives with fixed dates leave them
    before = table(measured(model.validation()).values()).Dice.tolist()
    first.rename(model.root / "kept")
    second.rename(first)
    (model.root / "kept").rename(second)
    watch = Watch(model.validation())
    after = table(measured(model.validation()).values()).Dice.tolist()
    assert watch.new() == CASES and after != before
    assert after == table(measured(model.validation(), keep=False).values()).Dice.tolist()


@pytest.fixture
def read_files(monkeypatch) -> list[str]:
    """Names of the files that were read for their digest."""
    names = []
    digest_of = record_key.digest_of
    monkeypatch.setattr(
        record_key, "digest_of", lambda path: names.append(path.name) or digest_of(path)
    )
    return names


def test_a_record_without_inodes_holds_and_its_files_are_read_once(model, read_files):
    """As versions before 0.6 wrote it; and an inode that changed, as on some network file systems,
    is no other file."""
    measured(model.validation(), with_sample=True)
    path = model.validation() / "records" / "case_00.npz"

    def change_keys(change):
        record = read_record(path)
        files = {name: change(key) for name, key in record.key["files"].items()}
        replace(record, key={**record.key, "files": files}, pictures=b'{"slices": [1]}').save(path)

    change_keys(lambda key: {name: key[name] for name in ("path", "size", "mtime_ns", "digest")})
    # it could not be measured again
    (model.validation() / "case_00.npz").rename(model.root / "kept.npz")
    read_files.clear()
    for new in (["case_00.nii.gz", "case_00.nii.gz"], []):
        assert isinstance(measured(model.validation())["case_00"], CaseRecord)
        assert read_files == new
        read_files.clear()
    assert read_pictures(path) == {"slices": [1]} and read_record(path).sample is not None
    (model.root / "kept.npz").rename(model.validation() / "case_00.npz")
    change_keys(lambda key: {**key, "inode": 1})
    watch = Watch(model.validation())
    assert isinstance(measured(model.validation())["case_00"], CaseRecord)
    assert not watch.new() and len(read_files) == 3


def change_a_voxel(path):
    array = read(path)
    array.flat[0] = 1 - array.flat[0]
    write_image(array, path, SPACING_MM)


def change_labels(model, labels):
    dataset = json.loads((model.folder / "dataset.json").read_text())
    write_json(model.folder / "dataset.json", dataset | {"labels": {"background": 0, **labels}})


def cut_short(path):
    path.write_bytes(path.read_bytes()[:300])


def other_structures(model):
    path = model.validation() / "records" / "case_00.npz"
    record = read_record(path)
    replace(record, structures=record.structures.rename({"1": "7"})).save(path)


CHANGES = {
    "prediction": lambda model: change_a_voxel(model.validation() / "case_00.nii.gz"),
    "truth": lambda model: change_a_voxel(model.references / "case_00.nii.gz"),
    "an ignore label": lambda model: change_labels(
        model, {"anterior": 1, "posterior": 2, "ignore": 3}
    ),
    "a name": lambda model: change_labels(model, {"front": 1, "posterior": 2}),
    "settings": lambda model: {"n_bins": 10},
    "a sample": lambda model: {"with_sample": True},
    "a map": lambda model: {"calibration": map_from_tables([0.5, 0.5], [0, 0])},
    "damage": lambda model: cut_short(model.validation() / "records" / "case_00.npz"),
    "other structures": other_structures,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_other_contents_or_settings_are_measured_again_from_probabilities(model, change):
    measured(model.validation())
    probabilities = model.validation() / "case_00.npz"
    kept = probabilities.rename(model.root / "kept.npz")
    options = change(model)
    options = options if isinstance(options, dict) else {}
    watch = Watch(model.validation())
    found = measured(model.validation(), **options)
    reason = found["case_00"].reason
    assert f"{probabilities} is missing" in reason and "--npz" in reason and "\n" not in reason
    assert isinstance(found["case_01"], CaseRecord)
    kept.rename(probabilities)
    assert isinstance(measured(model.validation(), **options)["case_00"], CaseRecord)
    assert watch.new()[0] == "case_00"
    measured(model.validation(), **options)
    assert not watch.new()


def test_other_settings_keep_the_sample_and_which_network_it_was(model):
    """As `evaluate -bins` measures a validation that the trainer recorded: `calibrate` must go on
    from it."""
    made_by = {"checkpoint": "0" * 64, "step_size": 0.5, "mirroring": True}
    for case, record in measured(model.validation(), with_sample=True).items():
        replace(record, made_by=made_by).save(model.validation() / "records" / f"{case}.npz")
    npz = model.validation() / "case_01.npz"
    np.savez_compressed(npz, probabilities=np.load(npz)["probabilities"].astype(np.float64))
    anew = measured(model.validation(), n_bins=10)
    # other probabilities, who knows whose
    assert [record.made_by for record in anew.values()] == [made_by, {}]
    watch = Watch(model.validation())
    measured(model.validation(), n_bins=10, with_sample=True)
    assert not watch.new()


def evaluate(*arguments) -> int:
    return main(["evaluate", "-d", "999", "-c", "3d_fullres", "-np", "1", *map(str, arguments)])


def evaluate_and_die(at):
    """Kills itself at the moment when a finished temporary file would take its name: the worst
    one."""
    count = 0
    replace_file = os.replace

    def replace_or_die(*arguments):
        nonlocal count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        replace_file(*arguments)

    os.replace = replace_or_die
    return evaluate()


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_kill_between_writing_and_naming(make_validated, tmp_path, at):
    model = make_validated(cases=4)
    assert evaluate() == 0
    output = model.validation() / "calibration.json"
    records = model.validation() / "records"
    undisturbed = output.read_text()
    shutil.rmtree(records)
    output.write_text("")
    result = run_warm(evaluate_and_die, at, folder=tmp_path)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert output.read_text() == "" and len(list(records.glob("*.npz"))) == at - 1
    # what it left
    assert list(records.glob(".*")) if at < 5 else list(model.validation().glob(".*"))
    watch = Watch(model.validation())
    assert evaluate() == 0 and watch.new() == [f"case_0{i}" for i in range(at - 1, 4)]
    assert output.read_text() == undisturbed
    assert not list(model.validation().rglob(".*"))


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/stat").is_file(), reason="finds child processes through /proc"
)
@pytest.mark.parametrize("with_signal", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_parallel_runs_end_with_their_parent(make_validated, with_signal):
    model = make_validated(cases=40, shape=(16, 64, 64))
    records = model.validation() / "records"
    arguments = "-m nnunet_nacl evaluate -d 999 -c 3d_fullres -np 2".split()
    # a background shell's children ignore it
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=heed,
    )
    try:
        deadline = time.monotonic() + 400  # a busy computer starts Python slowly
        while len(list(records.glob("*.npz"))) < 2:
            is_at_work = process.poll() is None and time.monotonic() < deadline
            assert is_at_work, process.stderr.read().decode()
            time.sleep(0.01)
        workers = children(process.pid)
        assert len(workers) >= 2
        process.send_signal(with_signal)
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == (130 if with_signal == signal.SIGINT else -with_signal)
    deadline = time.monotonic() + 30
    while any(map(is_alive, workers)):
        assert time.monotonic() < deadline, "the workers outlive the run"
        time.sleep(0.1)
    assert not (model.validation() / "calibration.json").exists()
    finished = [read_record(path).name for path in records.glob("*.npz")]
    assert 2 <= len(finished) < 40
    watch = Watch(model.validation())
    assert evaluate() == 0
    assert not set(watch.new()) & set(finished)


def test_a_full_disk_is_named_and_leaves_the_old_files(model, capsys):
    (model.validation() / "calibration.json").write_text("")
    with full_disk(4096):
        assert evaluate() == 2
    error = capsys.readouterr().err
    assert (
        "error:" in error
        and "records/CASE.npz: cannot be written (File too" in error
        and "Traceback" not in error
    )
    assert (model.validation() / "calibration.json").read_text() == ""
    assert not list((model.validation() / "records").iterdir())
    assert evaluate() == 0
