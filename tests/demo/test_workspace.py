"""The demo's folder: its state survives, and only one demo works in it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_nacl.demo.workspace import Workspace
from nnunet_nacl.errors import UserError


@pytest.fixture
def workspace(tmp_path):
    one = Workspace(tmp_path / "demo")
    one.create()
    return one


def test_everything_lies_in_the_folder(workspace):
    for folder in (workspace.raw, workspace.preprocessed, workspace.results, workspace.data, workspace.logs):
        assert folder.is_dir() and folder.parent == workspace.folder


def test_the_state_is_kept(workspace):
    workspace.set_source("Dataset004_A", Path("/data/Task04_A"))
    workspace.set_preprocessed("Dataset004_A", "2d")
    again = Workspace(workspace.folder)
    assert again.source_of("Dataset004_A") == Path("/data/Task04_A") and again.source_of("Dataset005_B") is None
    assert not again.is_preprocessed("Dataset004_A", "2d")  # the plans are not there (any more)
    (workspace.preprocessed / "Dataset004_A").mkdir()
    (workspace.preprocessed / "Dataset004_A" / "nnUNetPlans.json").touch()
    assert again.is_preprocessed("Dataset004_A", "2d") and not again.is_preprocessed("Dataset004_A", "3d_fullres")


def test_a_second_demo_is_refused(workspace):
    with workspace.lock(), pytest.raises(UserError, match="-o"), Workspace(workspace.folder).lock():
        pass
    with workspace.lock():
        pass


def test_a_command_that_outlives_the_demo_still_holds_the_folder(workspace):
    with workspace.lock() as inherited:
        command = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=inherited)
    try:
        with pytest.raises(UserError, match="another demo"), workspace.lock():
            pass
    finally:
        command.communicate(b"\n")
    with workspace.lock():
        pass


@pytest.mark.parametrize("content", ["", '{"converted": {"Data', "null", '{"preprocessed": ["2d"]}'])
def test_a_damaged_state_is_an_error_that_says_what_to_do(workspace, content):
    (workspace.folder / "demo_state.json").write_text(content)
    with pytest.raises(UserError, match="demo_state.json is damaged.*remove it"):
        workspace.source_of("Dataset004_A")
