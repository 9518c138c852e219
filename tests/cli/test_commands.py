"""The function of each command: what its help says, and in which words its errors speak."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import logging
import pickle
import re
from pathlib import Path

import pytest

import nnunet_nacl
from nnunet_nacl.cli.argument_names import option_of
from nnunet_nacl.cli.main import SUBCOMMANDS, build_parser, main
from nnunet_nacl.cli.options import setting
from nnunet_nacl.settings import (
    ComparisonSettings,
    FitSettings,
    GivenCases,
    ListSettings,
    MeasureSettings,
    NetworkSettings,
    Output,
    ScanSettings,
    TuneSettings,
)
from nnunet_nacl.utilities.errors import Message, UserError, name_arguments, named_together

COMMANDS = ("evaluate", "compare", "calibrate", "tune", "predict", "review")


@pytest.mark.parametrize("name", COMMANDS)
def test_its_help_names_every_argument_and_what_it_returns(name: str) -> None:
    function = getattr(nnunet_nacl, name)
    assert function.__module__.endswith(f".{name}")  # it stands in a file of its own
    text = inspect.getdoc(function) or ""
    arguments = text.partition("\nArgs:\n")[2].partition("\nReturns:\n")[0]
    before_colons = re.findall(r"^    (\w[\w, \n]*):", arguments, re.MULTILINE)
    named = set(re.findall(r"\w+", " ".join(before_colons)))
    assert inspect.signature(function).parameters.keys() <= named
    assert "\nRaises:\n" in text and "\nExamples:\n" in text


@pytest.mark.parametrize(
    "kind",
    [
        NetworkSettings,
        ListSettings,
        ScanSettings,
        Output,
        GivenCases,
        FitSettings,
        TuneSettings,
        MeasureSettings,
        ComparisonSettings,
    ],
)
def test_settings_are_arguments_with_the_same_defaults(kind: type) -> None:
    documented = inspect.getdoc(kind).partition("\nAttributes:\n")[2]
    functions = [getattr(nnunet_nacl, name) for name in (*COMMANDS, "Predictor")]
    for field in dataclasses.fields(kind):
        assert f"    {field.name}: " in documented
        defaults = [
            inspect.signature(function).parameters[field.name].default
            for function in functions
            if field.name in inspect.signature(function).parameters
        ]
        assert defaults
        if field.default is not dataclasses.MISSING and field.name != "checkpoint":
            required = repr(inspect.Parameter.empty)
            assert set(map(repr, defaults)) - {required} <= {repr(field.default)}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_it_returns_documents_its_fields(name: str) -> None:
    function = getattr(nnunet_nacl, name)
    module = importlib.import_module(function.__module__)
    returned = getattr(module, inspect.signature(function).return_annotation)
    fields = inspect.getdoc(returned).partition("\nAttributes:\n")[2]
    assert not [field for field in returned.__dataclass_fields__ if f"    {field}: " not in fields]
    public = [
        value
        for key, value in vars(returned).items()
        if not key.startswith("_") and key != "output"
    ]
    assert all(inspect.getdoc(each) for each in public)


def test_options_are_made_where_python_leaves_documentation_out(monkeypatch) -> None:
    monkeypatch.setattr(ListSettings, "__doc__", None)
    option = setting(ListSettings, "find", "SHARE")
    assert option == {"metavar": "SHARE", "help": "", "default": None, "type": float}


def test_errors_name_arguments_in_python_and_options_on_a_command_line(
    tmp_path: Path, capsys
) -> None:
    (tmp_path / "case.npz").touch()
    with pytest.raises(
        UserError, match=f"^{tmp_path}: no dataset.json .* give it with dataset_json.$"
    ):
        nnunet_nacl.evaluate(tmp_path, tmp_path)
    assert main(["evaluate", "-i", str(tmp_path), "-gt", str(tmp_path)]) == 2
    assert "give it with -djfile." in capsys.readouterr().err


MARK = re.compile(r"\[\[([a-z_]+)(?::([a-z]+))?(?:=([^\[\]]*))?\]\]")
OF_THE_DEMO = {"data"}
NAMES_OPTIONS = {"command_lines.py"}
"""The module that makes commands: ours, to copy, and those of image viewers."""


def test_every_argument_that_a_message_marks_is_one_of_a_function_and_has_an_option() -> None:
    functions = [getattr(nnunet_nacl, name) for name in (*COMMANDS, "Predictor")]
    functions += [importlib.import_module("nnunet_nacl.worklist.review").read_back]
    arguments = set().union(*(inspect.signature(each).parameters for each in functions))
    options = set().union(*map(options_of, SUBCOMMANDS))
    marks = {mark for text in texts_of_messages() for mark in MARK.findall(text)}
    assert ("bad", "", "0.7") in marks and ("methods", "models", "") in marks
    assert {name for name, *_ in marks} - OF_THE_DEMO <= arguments
    for name, kind, value in marks:
        assert option_of(name, kind, value or None).split()[0] in options


def test_messages_below_the_command_line_name_no_options() -> None:
    """Functions have none: what a message names is marked, and ``cli`` fills in options."""
    named = set()
    for text in texts_of_messages():
        without_commands = re.sub("`[^`]*`", "", text)
        named.update(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", without_commands))
    for page in Path(nnunet_nacl.__file__).parent.rglob("*.html"):
        code_and_tags = r"<(code|style|script)\b.*?</\1>|<[^>]*>|{[{%#].*?[}%#]}"
        text = re.sub(code_and_tags, " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        named.update(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text))
    of_formulas_and_axes = {"-log", "-sum_k", "-p_k", "-x", "-y"}
    assert named <= of_formulas_and_axes


def texts_of_messages() -> list[str]:
    """The texts of the modules below ``cli``, without docstrings and the demo's commands."""
    root = Path(nnunet_nacl.__file__).parent
    texts = []
    for path in root.rglob("*.py"):
        if "cli" in path.parts or path.name in NAMES_OPTIONS:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        if path.parent.name == "demo":
            raised = [node for node in ast.walk(tree) if isinstance(node, ast.Raise)]
        else:
            raised = [tree]
        for part in raised:
            for node in ast.walk(part):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    if id(node) not in docstrings:
                        texts.append(node.value)
    return texts


def test_problems_name_arguments_in_python_and_options_on_a_command_line() -> None:
    error = UserError("scan: pass [[any_size=True]], [[mirroring=False]] or [[find=0.9]].")
    assert str(error) == "scan: pass any_size=True, mirroring=False or find=0.9."
    copied = pickle.loads(pickle.dumps(error.message))
    assert isinstance(copied, Message) and copied == str(error)
    (line,) = named_together({"scan": copied})
    assert name_arguments(line, option_of) == (
        "scan: scan: pass --any_size, --disable_tta or -find 0.9."
    )


def options_of(command: str) -> set[str]:
    """The options of a command, with their dashes."""
    # argparse has no public way
    parser = build_parser([command])._subparsers._group_actions[0].choices[command]
    return set(parser._option_string_actions)


def test_nothing_is_printed_but_logged(make_validated, capfd, caplog) -> None:
    model = make_validated(cases=6, sharpness=2.0)
    with caplog.at_level(logging.INFO, "nnunet_nacl"):
        nnunet_nacl.evaluate(model.validation(), model.references)
        nnunet_nacl.calibrate(
            predictions=model.validation(), labels=model.references, form="temperature"
        )
    assert capfd.readouterr().out == ""
    assert f"{model.validation()} is taken for a folder of predictions" in caplog.text
