"""The examples of docs/python.md, and those in the docstrings of what docs/reference.md names."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import nnunet_nacl
from tests.metrics.models import make_trained
from tests.pages import ROOT, blocks

PUBLIC = re.findall(
    r"^::: ([\w.]+)$", (ROOT / "docs/reference.md").read_text(encoding="utf-8"), re.MULTILINE
)
NOTEBOOK = ROOT / "docs" / "examples.ipynb"
NUMBER = re.compile(r"\d+\.\d+")
COMMANDS = ("evaluate", "compare", "calibrate", "tune", "predict", "review", "Predictor")
NEED_FOLDERS = {getattr(nnunet_nacl, name).__module__ for name in COMMANDS}


class PageExample(NamedTuple):
    """An example of docs/python.md.

    Attributes:
        code: What a reader types.
        printed: What the page says that it prints; None where that depends on the reader's files.
    """

    code: str
    printed: str | None


def examples_of_page() -> dict[str, PageExample]:
    """The examples of docs/python.md by their headings."""
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    page_examples = {}
    for section in page.split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        code_by_language = dict(blocks(text))
        if "python" in code_by_language:
            code = code_by_language["python"]
            page_examples[heading] = PageExample(code, code_by_language.get("text"))
    return page_examples


PAGE_EXAMPLES = examples_of_page()
EVALUATE = "5. Evaluate predictions"
COMPARE = "6. Compare methods"
CALIBRATE = "7. Calibrate a model"
PREDICT = "8. Predict scans and list those to check"
REVIEW = "9. List predictions that you have, and read back the marks"
PREDICTOR = "10. Predict an image in memory"
READ_FILES = {EVALUATE, COMPARE, CALIBRATE, PREDICT, REVIEW, PREDICTOR}


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


def test_the_own_trainers_of_the_page_on_losses_can_be_trained() -> None:
    import torch

    from nnunet_nacl_trainers.base import CalibrationTrainer

    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": __name__}
    for language, code in blocks(page):
        if language == "python":
            exec(compile(code, "losses.md", "exec"), names)
    trainers = [value for name, value in names.items() if name.startswith("nnUNetTrainerNACL")]
    assert len(trainers) == 4  # three of the page, and the one that two of them inherit from
    for trainer in trainers:
        assert issubclass(trainer, CalibrationTrainer)
        trainer.check_attributes()
    loss_function = names["NACLAndFocalLoss"](focal_weight=0.3, ignore_label=255)
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    loss_function(logits, torch.randint(3, (2, 1, 8, 8))).backward()
    assert logits.grad is not None and logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(MODULES.keys() - NEED_FOLDERS))
def test_examples_hold(name: str) -> None:
    assert not {each: result for each, result in examples(MODULES[name]).items() if result.failed}


@pytest.mark.parametrize("heading", [name for name in PAGE_EXAMPLES if name not in READ_FILES])
def test_an_example_of_the_page_prints_what_the_page_says(heading: str, capsys) -> None:
    run_page_example(heading)
    printed = capsys.readouterr().out
    stored = PAGE_EXAMPLES[heading].printed
    assert stored is not None
    assert words_of(stored) == words_of(printed)
    # torch and NumPy may round otherwise on another machine
    assert numbers_of(stored) == pytest.approx(numbers_of(printed), abs=0.011)


def run_page_example(heading: str, replacements: Mapping[str, object] | None = None) -> None:
    """Run an example of docs/python.md, with these texts in place of the files that it names."""
    code = PAGE_EXAMPLES[heading].code
    if replacements:
        assert all(name in code for name in replacements)
        # all at once: a folder of the test may have a name of the page in its path
        any_name = "|".join(map(re.escape, replacements))
        code = re.sub(any_name, lambda name: str(replacements[name[0]]), code)
    exec(compile(code, heading, "exec"), {"__name__": "example"})


def run_example(name: str, **names) -> None:
    """The example of a command's function gives what it shows; it may use these names."""
    function = getattr(nnunet_nacl, name)
    [example] = doctest.DocTestFinder(recurse=False).find(
        function, name, globs={name: function, **names}
    )
    result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example)
    assert result.attempted and not result.failed


def test_a_model_is_calibrated_as_docstring_and_page_show(tmp_path, monkeypatch) -> None:
    model = make_trained(tmp_path / "nnunet", cases=5, folds=2, sharpness=2.0)
    for variable, value in model.environment.items():
        monkeypatch.setenv(variable, value)
    run_example("calibrate", model_folder=model.folder)
    written = model.folder / "calibration_map.json"
    written.unlink()
    run_page_example(CALIBRATE, {"MODEL_FOLDER": model.folder})
    assert written.is_file()


def test_folders_of_predictions_are_evaluated_and_compared_as_docstrings_and_page_show(
    make_validated, tmp_path, monkeypatch, without_figures
) -> None:
    model = make_validated(cases=3)
    names = {"labels": model.references, "predictions": str(model.validation())}
    other = shutil.copytree(model.validation(), tmp_path / "other")
    for name in ("dataset.json", "plans.json"):
        shutil.copy(model.folder / name, other)
    run_example("compare", **names, other_predictions=str(other))
    run_example("evaluate", **names)
    monkeypatch.chdir(tmp_path)
    run_page_example(EVALUATE, {"labelsTs": model.references, "predictions": model.validation()})
    run_page_example(
        COMPARE, {"labelsTs": model.references, "test_a": model.validation(), "test_b": other}
    )
    assert (tmp_path / "comparison" / "report.html").is_file()


def test_scans_and_predictions_are_listed_as_docstrings_and_page_show(
    tmp_path, predict, monkeypatch
) -> None:
    from tests.nnunet.untrained import calibrate, make_model, make_scans

    monkeypatch.chdir(tmp_path)
    model = make_model(tmp_path)
    calibrate(model)
    run_example("predict", model_folder=model, scans=make_scans(tmp_path / "scans", 1))
    predictions = predict(cases=1)
    run_example("review", predictions=predictions)
    run_page_example(PREDICT, {"MODEL_FOLDER": model})
    Path("marks.csv").write_text("case,mark\ncase_0,reject\n")
    shutil.rmtree("reviewed")  # which holds the images that the docstring asks for
    run_page_example(REVIEW, {'"predictions"': repr(str(predictions))})
    assert json.loads(Path("reviewed/outcome.json").read_text())["groups"]["other"]["bad"] == 1


def test_an_image_is_predicted_as_docstring_and_page_show(tmp_path, capsys) -> None:
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    from tests.nnunet.untrained import calibrate, make_model, make_scans

    model = make_model(tmp_path)
    scans = make_scans(tmp_path / "scans", 1)
    calibrate(model)
    channels = sorted(map(str, scans.iterdir()))
    image, properties = SimpleITKIO().read_images(channels)
    found = examples(
        MODULES["nnunet_nacl.worklist.predictor"],
        model_folder=model,
        image=image,
        properties=properties,
    )
    assert [result.failed for result in found.values()] == [0]
    capsys.readouterr()
    run_page_example(PREDICTOR, {"MODEL_FOLDER": model, '["scan_0000.nii.gz"]': channels})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "anterior",
        "posterior",
    ]


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
