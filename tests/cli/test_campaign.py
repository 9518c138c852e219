"""`nnunet_nacl campaign` as a user types it, without running anything."""

from __future__ import annotations

import json
import re
import sys

import pytest

from nnunet_nacl.campaign import snakemake_run
from nnunet_nacl.campaign.campaign_file import read_campaign
from nnunet_nacl.cli.main import main
from tests.campaign.conftest import nnunet_folders  # noqa: F401  (used by pytest)
from tests.campaign.files import write_campaign_file


def test_without_snakemake_the_line_to_install_it_is_said(tmp_path, monkeypatch, capsys) -> None:
    path = write_campaign_file(tmp_path)
    monkeypatch.setattr(snakemake_run.importlib.util, "find_spec", lambda name: None)
    assert main(["campaign", str(path), "-o", str(tmp_path / "out")]) == 2
    wanted = "Python 3.11" if sys.version_info < (3, 11) else "pip install 'nnunet_nacl[campaign]'"
    assert wanted in capsys.readouterr().err


def test_the_dry_run_lists_the_jobs(tmp_path, capfd) -> None:
    pytest.importorskip("snakemake", reason="needs nnunet_nacl[campaign], Python 3.11")
    path = write_campaign_file(tmp_path, treatments=["calibrated"])
    assert main(["campaign", str(path), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    counts = dict(re.findall(r"^(\w+) +(\d+)$", capfd.readouterr().out, re.MULTILINE))
    expected = {"preprocess": 1, "train": 4, "calibrate": 2, "evaluate": 2, "compare": 1, "all": 1}
    assert counts == {name: str(count) for name, count in (expected | {"total": 11}).items()}


def test_status_needs_no_engine_but_a_campaign_that_was_started(tmp_path, capsys) -> None:
    command = ["campaign", str(write_campaign_file(tmp_path)), "-o", str(tmp_path / "out"), "--status"]
    assert main(command) == 2
    assert f"{tmp_path / 'out'}: no campaign was started there" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / snakemake_run.CAMPAIGN_FILE).touch()
    assert main(command) == 0
    assert "trainings: 0 of 4 done, 0 running, 4 waiting" in capsys.readouterr().out


def test_no_name_reaches_a_shell_as_a_command(tmp_path, capfd) -> None:
    pytest.importorskip("snakemake", reason="needs nnunet_nacl[campaign], Python 3.11")
    campaign = read_campaign(write_campaign_file(tmp_path)) | {"environment": {}}
    campaign["datasets"][0]["name"] = "Dataset077_a b$(touch PWNED)"
    (tmp_path / snakemake_run.CAMPAIGN_FILE).write_text(json.dumps(campaign))
    assert snakemake_run.run_engine(tmp_path, [], cores=1, dry_run=True, options=["--printshellcmds"]) == 0
    commands = [line.split() for line in capfd.readouterr().out.splitlines() if " -m nnunet_nacl.campaign.job " in line]
    assert len(commands) == 5 + 1  # a preprocessing, four trainings, and the comparison
    assert ["preprocess/'Dataset077_a", "b$(touch", "PWNED)/2d'"] in [command[-3:] for command in commands]
