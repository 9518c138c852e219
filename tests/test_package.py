"""The package itself: what it exports, and that importing it costs nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import nnunet_nacl


def test_importing_it_imports_neither_torch_nor_nnunet() -> None:
    code = "import sys, nnunet_nacl; sys.exit(int(bool({'torch', 'numpy', 'nnunetv2'} & set(sys.modules))))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_losses_are_exported() -> None:
    from nnunet_nacl import losses

    for name in nnunet_nacl.__all__:
        assert name in dir(nnunet_nacl)
        if name != "__version__":
            assert getattr(nnunet_nacl, name) is getattr(losses, name)
    assert {name for name in losses.__all__ if name.endswith("Loss")} <= set(nnunet_nacl.__all__)


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchLoss"):
        nnunet_nacl.NoSuchLoss  # noqa: B018


def test_the_citation_file_states_the_same_version() -> None:
    citation = Path(nnunet_nacl.__file__).parents[1] / "CITATION.cff"
    if not citation.is_file():
        pytest.skip("not run from the source tree")
    assert (
        re.search(r"^version: (.*)$", citation.read_text(encoding="utf-8"), re.MULTILINE)[1] == nnunet_nacl.__version__
    )
