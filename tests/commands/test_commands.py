"""The function of each command: what its help says, and in which words its errors speak."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import re
from pathlib import Path

import pytest

import nnunet_nacl
from nnunet_nacl.cli.main import build_parser, main
from nnunet_nacl.commands.python_function import ARGUMENTS_OF_FUNCTIONS
from nnunet_nacl.errors import UserError, name_arguments

COMMANDS = ("evaluate", "compare", "calibrate", "predict", "review")


@pytest.mark.parametrize("name", COMMANDS)
def test_its_help_names_every_argument_and_what_it_returns(name: str) -> None:
    function = getattr(nnunet_nacl, name)
    assert function is getattr(importlib.import_module(f"nnunet_nacl.commands.{name}"), name)
    text = inspect.getdoc(function) or ""
    arguments = text.partition("\nArgs:\n")[2].partition("\nReturns:\n")[0]
    unnamed = [
        each for each in inspect.signature(function).parameters if f"    {each}: " not in arguments
    ]
    assert not unnamed
    assert "\nRaises:\n" in text and "\nExamples:\n" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_what_it_returns_documents_its_fields(name: str) -> None:
    module = importlib.import_module(f"nnunet_nacl.commands.{name}")
    returned = getattr(module, inspect.signature(getattr(nnunet_nacl, name)).return_annotation)
    fields = inspect.getdoc(returned).partition("\nAttributes:\n")[2]
    assert not [field for field in returned.__dataclass_fields__ if f"    {field}: " not in fields]
    public = [
        value
        for key, value in vars(returned).items()
        if not key.startswith("_") and key != "output"
    ]
    assert all(inspect.getdoc(each) for each in public)


def test_errors_name_arguments_in_python_and_options_on_a_command_line(
    tmp_path: Path, capsys
) -> None:
    with pytest.raises(
        UserError, match=f"^{tmp_path}: no dataset.json .* give it with dataset_json.$"
    ):
        nnunet_nacl.evaluate(tmp_path, tmp_path)
    assert main(["evaluate", "-i", str(tmp_path), "-gt", str(tmp_path)]) == 2
    assert "give it with -djfile." in capsys.readouterr().err


ON_THE_COMMAND_LINE_ALONE = {"-h", "--help", "--quiet", "--continue_prediction"}
OF_THE_MODEL = {"-d", "-c", "-tr", "-p"}
"""Functions take the folder of the model, for which these options stand."""


@pytest.mark.parametrize("name", COMMANDS)
def test_errors_name_an_argument_for_every_option(name: str) -> None:
    """An option without one, or with one that no function of the command has, would be named in
    the messages of functions, where nobody could give it."""
    functions = {"calibrate": ("calibrate", "take_map"), "review": ("review", "read_back")}
    module = importlib.import_module(f"nnunet_nacl.commands.{name}")
    arguments: dict[str, str] = {}
    parameters: set[str] = set()
    for function in functions.get(name, (name,)):
        arguments |= ARGUMENTS_OF_FUNCTIONS[function]
        parameters |= inspect.signature(getattr(module, function)).parameters.keys()
    options = options_of(name) - ON_THE_COMMAND_LINE_ALONE
    if name != "compare":
        options -= OF_THE_MODEL
    unknown = []
    for option in sorted(options):
        named = name_arguments(f"{option}: what is wrong.", arguments)
        if named.partition(":")[0].partition("=")[0] not in parameters:
            unknown.append(named)
    assert not unknown


def test_messages_name_no_option_that_functions_do_not_have() -> None:
    root = Path(nnunet_nacl.__file__).parent
    sources = [path for path in root.rglob("*.py") if path.parent.name not in ("cli", "demo")]
    named: set[str] = set()
    for path in sources:
        named |= options_in_texts(path)
    assert "-bad" in named and "--any_size" in named
    assert not named & ON_THE_COMMAND_LINE_ALONE


def options_of(command: str) -> set[str]:
    """The options of a command, with their dashes."""
    # argparse has no public way
    parser = build_parser([command])._subparsers._group_actions[0].choices[command]
    return set(parser._option_string_actions)


def options_in_texts(path: Path) -> set[str]:
    """What looks like an option in the texts of a module, but in docstrings and in commands in
    backquotes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    options = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings:
                text = re.sub("`[^`]*`", "", node.value)
                options.update(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", text))
    return options


def test_nothing_is_printed_but_logged(make_validated, capfd, caplog) -> None:
    model = make_validated(cases=6, sharpness=2.0)
    with caplog.at_level(logging.INFO, "nnunet_nacl"):
        nnunet_nacl.evaluate(model.validation(), model.references)
        nnunet_nacl.calibrate(
            predictions=model.validation(), labels=model.references, form="temperature"
        )
    assert capfd.readouterr().out == ""
    assert f"{model.validation()} is taken for a folder of predictions" in caplog.text
