"""The examples in the docstrings of the public modules, those that docs/python.md names."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest

import nnunet_nacl
from tests.metrics.models import make_trained
from tests.pages import ROOT

PUBLIC = re.findall(
    r"^::: ([\w.]+)$", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.MULTILINE
)
NOTEBOOK = ROOT / "docs" / "examples.ipynb"
NUMBER = re.compile(r"\d+\.\d+")
COMMANDS = ("evaluate", "compare", "calibrate", "predict", "review")
NEED_FOLDERS = {f"nnunet_nacl.commands.{name}" for name in COMMANDS} | {
    "nnunet_nacl.worklist.predictor"
}


def module_of(name: str) -> ModuleType:
    """The module in which a public function or class is defined; its public name may be that of a
    package above."""
    owner, _, attribute = name.rpartition(".")
    public = getattr(importlib.import_module(owner), attribute)
    return importlib.import_module(public.__module__)


MODULES = {module.__name__: module for module in map(module_of, PUBLIC)}


def examples(module: ModuleType, **names) -> dict[str, doctest.TestResults]:
    """What came of the examples of each docstring, which may use these names."""
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    found = {}
    for each in doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=names):
        if each.examples:
            found[each.name] = runner.run(each)
    return found


@pytest.mark.parametrize("name", sorted(MODULES.keys() - NEED_FOLDERS))
def test_examples_hold(name: str) -> None:
    assert not {each: result for each, result in examples(MODULES[name]).items() if result.failed}


def run_example(name: str, **names) -> None:
    """The example of a command's function gives what it shows; it may use these names."""
    function = getattr(nnunet_nacl, name)
    [example] = doctest.DocTestFinder(recurse=False).find(
        function, name, globs={name: function, **names}
    )
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert result.attempted and not result.failed


def test_a_model_is_calibrated_as_its_docstring_shows(tmp_path, monkeypatch) -> None:
    model = make_trained(tmp_path / "nnunet", cases=5, folds=2, sharpness=2.0)
    for variable, value in model.environment.items():
        monkeypatch.setenv(variable, value)
    run_example("calibrate", model_folder=model.folder)


def test_folders_of_predictions_are_evaluated_and_compared_as_the_docstrings_show(
    make_validated, tmp_path
) -> None:
    model = make_validated(cases=3)
    names = {"labels": model.references, "predictions": str(model.validation())}
    other = shutil.copytree(model.validation(), tmp_path / "other")
    for name in ("dataset.json", "plans.json"):
        shutil.copy(model.folder / name, other)
    run_example("compare", **names, other_predictions=str(other))
    run_example("evaluate", **names)


def test_scans_and_predictions_are_listed_as_the_docstrings_show(
    tmp_path, predict, monkeypatch
) -> None:
    from tests.nnunet.untrained import calibrate, make_model, make_scans

    monkeypatch.chdir(tmp_path)
    model = make_model(tmp_path)
    calibrate(model)
    run_example("predict", model_folder=model, scans=make_scans(tmp_path / "scans", 1))
    run_example("review", predictions=predict(cases=1))


def test_an_image_is_predicted_as_the_docstring_shows(tmp_path) -> None:
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    from tests.nnunet.untrained import calibrate, make_model, make_scans

    model = make_model(tmp_path)
    scans = make_scans(tmp_path / "scans", 1)
    calibrate(model)
    image, properties = SimpleITKIO().read_images(sorted(map(str, scans.iterdir())))
    found = examples(
        MODULES["nnunet_nacl.worklist.predictor"],
        model_folder=model,
        image=image,
        properties=properties,
    )
    assert [result.failed for result in found.values()] == [0]


def test_each_cell_of_the_notebook_is_stored_with_what_it_prints() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(cell["outputs"] for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs_and_says_what_its_text_says() -> None:
    nbclient, nbformat = (pytest.importorskip(name) for name in ("nbclient", "nbformat"))
    notebook = nbformat.read(NOTEBOOK, 4)
    stored = printed_by(notebook)
    nbclient.NotebookClient(notebook, timeout=300).execute()
    printed = printed_by(notebook)
    assert "NACLLoss  highest confidence 0.950" in printed  # 1 - lambda / K
    before, after = map(float, re.findall(r"segmented: ([\d.]+) -> ([\d.]+)", printed)[0])
    assert after < 0.1 < before
    assert words_of(stored) == words_of(printed)
    # rounding differs between machines
    assert numbers_of(stored) == pytest.approx(numbers_of(printed), abs=0.02)


def printed_by(notebook: Mapping[str, Any]) -> str:
    """All that the cells of a notebook print, as it is stored there."""
    texts: list[str] = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            texts += output.get("text", "")
    return "".join(texts)


def words_of(text: str) -> list[str]:
    return NUMBER.sub(" ", text).split()


def numbers_of(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]
