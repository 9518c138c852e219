"""The options of the commands, each with the same meaning wherever it is one, and their checks."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import inspect
import itertools
import logging
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar

from nnunet_nacl.cli.argument_names import option_of
from nnunet_nacl.settings import (
    DEVICES,
    PAGES,
    ListSettings,
    NetworkSettings,
    Output,
    settings_of,
)
from nnunet_nacl.utilities.errors import (
    UserError,
    list_problems,
    one_line,
    some,
    termination_as_interrupt,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

_Settings = TypeVar("_Settings")


class _FurtherSettings(TypedDict, total=False):
    action: Literal["store_true", "extend"]
    choices: Sequence[str]
    default: object
    dest: str
    nargs: Literal["+", "*"]
    required: bool
    type: Callable[[str], object]


class OptionSettings(_FurtherSettings, total=False):
    """What argparse is told of an option, see ``argparse.ArgumentParser.add_argument``."""

    help: str
    metavar: str


def _value(metavar: str, text: str, **further: Unpack[_FurtherSettings]) -> OptionSettings:
    """An option with a value."""
    return {"metavar": metavar, "help": text, **further}


def _switch(text: str) -> OptionSettings:
    """An option without a value."""
    return {"action": "store_true", "help": text}


def setting(
    kind: type, name: str, metavar: str = "", text: str = "", **further: Unpack[_FurtherSettings]
) -> OptionSettings:
    """The option of a setting, whose type, default and help are those of its class.

    Args:
        kind: Of the settings.
        name: Of the setting.
        metavar: Of its value; empty for a switch.
        text: The help, where it is not what the class says first.
        **further: What differs from the class.
    """
    (field,) = [field for field in dataclasses.fields(kind) if field.name == name]
    text = text or _first_sentence(kind, name)
    if field.type == "bool":
        return _switch(text)
    settings = _value(metavar, text, default=field.default)
    number = {"float": float, "int": int}.get(field.type.removesuffix(" | None"))
    if number is not None:
        settings["type"] = number
    if field.type.startswith("Sequence"):
        settings["nargs"] = "+"
    settings.update(further)
    return settings


def _first_sentence(kind: type, name: str) -> str:
    """What the documentation of a setting says first, with options in place of arguments; empty
    where Python was told to leave documentation out (``-OO``)."""
    attributes = (inspect.getdoc(kind) or "").partition("Attributes:")[2]
    found = re.search(rf"^    {name}: (.*?)(?=\n    \w|\Z)", attributes, re.DOTALL | re.MULTILINE)
    if found is None:
        return ""
    sentence = re.split(r"(?<=[^.])\.(?:\s|$)", " ".join(found[1].split()))[0]
    sentence = re.sub(r"``(\w+)``", lambda match: option_of(match[1]), sentence)
    return sentence if sentence[1:2].isupper() else sentence[0].lower() + sentence[1:]


_count = partial(_value, type=int)
_several = partial(_value, nargs="+", action="extend")
HELP_WIDTH = 120
"""Characters of a line of help: in narrower ones half of the options take three lines."""
_FILES = "of the predictions (default: in their folder or up to two levels above)"
_OPTIONS: dict[str, OptionSettings] = {
    "-d": _value("DATASET", "data set: its name or number"),
    "-c": _value("CONFIGURATION", "configuration: 2d, 3d_fullres, ..."),
    "-tr": _value("TRAINER", "trainer (default: %(default)s)", default="nnUNetTrainer"),
    "-p": _value("PLANS", "plans (default: %(default)s)", default="nnUNetPlans"),
    "-f": setting(NetworkSettings, "folds", "FOLD", action="extend"),
    "-m": _value(
        "FOLDER", "the model's folder, TRAINER__PLANS__CONFIGURATION, in place of -d and -c"
    ),
    "-chk": setting(NetworkSettings, "checkpoint", "NAME"),
    "-map": _value(
        "FILE", "calibration map of this model (default: calibration_map.json in its folder)"
    ),
    "-i": _value("FOLDER", "folder of predictions with their probabilities"),
    "-gt": _value("LABELS", "folder with the ground truth of -i"),
    "-djfile": _value("FILE", f"dataset.json {_FILES}", type=Path),
    "-pfile": _value("FILE", f"plans.json {_FILES}", type=Path),
    "-o": _value("FOLDER", "output folder"),
    "-groups": setting(ListSettings, "groups", "RULE"),
    "--allow-training-cases": _switch("also take cases that the networks were trained on"),
    "--any_age": _switch("also take predictions that are older than the checkpoint"),
    "-bad": setting(
        ListSettings,
        "bad",
        "DICE",
        nargs="+",
        action="extend",
        text="a scan is bad below this Dice of any structure; STRUCTURE=DICE for one structure",
    ),
    "-structures": setting(ListSettings, "structures", "NAME"),
    "-find": setting(ListSettings, "find", "SHARE"),
    "-miss": setting(ListSettings, "miss", "SHARE"),
    "-unlike": setting(ListSettings, "unlike", "P"),
    "-also": setting(ListSettings, "also", "N", default=None),
    "-pages": setting(ListSettings, "pages", "WHICH", choices=PAGES),
    "-maps": setting(
        ListSettings,
        "maps",
        "MAP",
        nargs="*",
        text="confidence, entropy, mutual_information (no name: these), probabilities, fractional",
    ),
    "-recall": setting(ListSettings, "recall", "SHARE"),
    "-findings": setting(ListSettings, "findings", "STRUCTURE", nargs="*"),
    "--slicer": setting(ListSettings, "slicer"),
    "--save_probabilities": setting(ListSettings, "save_probabilities"),
    "-device": setting(NetworkSettings, "device", "DEVICE", choices=DEVICES),
    "-step_size": setting(NetworkSettings, "step_size", "S"),
    "--disable_tta": _switch(
        "predict without mirroring: faster, but maps and biases were learned with it"
    ),
    "-np": _count(
        "N",
        "cases at the same time (default: nnUNet_def_n_proc, or the number of cores, at most 8)",
    ),
    "--trust_checkpoint": setting(NetworkSettings, "trust_checkpoint"),
    "--quiet": _switch("print errors and the last line only"),
    "--overwrite": setting(Output, "overwrite"),
}
COUNTED_FINDINGS = (
    "structures whose connected parts, such as lesions, are counted (no name: all; default: those"
    " that have several in the truth of some case and are absent from another)"
)
"""Help of -findings where there is a ground truth."""
MODEL = "-d -c -tr -p -f"
FLAGS = "-bad -structures -find -miss"
NETWORK = "-device -step_size --disable_tta"


def fill_paragraphs(text: str) -> str:
    """A help text whose paragraphs fill the lines of the help; indented lines, and those of
    examples, stay as they are."""
    filled = []
    for is_prose, lines in itertools.groupby(text.splitlines(), _is_prose):
        if is_prose:
            filled.append(textwrap.fill(" ".join(lines), HELP_WIDTH, break_on_hyphens=False))
        else:
            filled += lines
    return "\n".join(filled)


def _is_prose(line: str) -> bool:
    return bool(line) and not line.startswith((" ", "example"))


def add_options(
    parser: argparse.ArgumentParser,
    groups: Mapping[str, str],
    changes: Mapping[str, str | OptionSettings],
) -> None:
    """Adds groups of options to the parser of a subcommand.

    Args:
        parser: Of the subcommand.
        groups: Flags, with spaces between them, by the title of their group.
        changes: By flag a text, which replaces the help of the option that all commands share, or
            settings, which are laid over that option's, or are the whole of an option that only
            this command has.
    """
    for title, flags in groups.items():
        group = parser.add_argument_group(title)
        for flag in flags.split():
            settings = _OPTIONS.get(flag, OptionSettings()).copy()
            change = changes.get(flag, OptionSettings())
            if isinstance(change, str):
                settings["help"] = change
            else:
                settings.update(change)
            if title == argparse.SUPPRESS:
                settings["help"] = argparse.SUPPRESS
            group.add_argument(flag, **settings)


def model_of(args: argparse.Namespace) -> Path:
    """The folder of the model that ``-m``, or ``-d -tr -p -c``, name; UserError where there is none
    such.

    It imports no PyTorch: called first, it says in half a second what is missing.
    """
    if (args.m is None) == (args.d is None):
        once = "" if args.d is None else " once"
        raise UserError(f"name the model{once}: -d DATASET -c CONFIGURATION, or -m FOLDER.")
    if args.m is not None:
        if not Path(args.m).is_dir():
            raise UserError(f"-m {args.m}: no such folder; give TRAINER__PLANS__CONFIGURATION.")
        return Path(args.m)
    if args.c is None:
        raise UserError("-d needs -c CONFIGURATION, such as -c 3d_fullres.")
    from nnunet_nacl.nnunet.folders import model_folder

    return model_folder(args.d, args.tr, args.p, args.c)


def settings_from(kind: type[_Settings], args: argparse.Namespace, **others: object) -> _Settings:
    """The settings of a kind as the options give them.

    Args:
        kind: Of the settings.
        args: Of the subcommand; a setting that it has no option for keeps its default.
        **others: Settings that are not as their option gives them.
    """
    arguments: dict[str, object] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        name = option_of(field.name).lstrip("-").replace("-", "_")
        if hasattr(args, name):
            value = getattr(args, name)
            # a switch turns off what is on by default
            arguments[field.name] = not value if field.default is True else value
    return settings_of(kind, arguments | others)


def print_not_counted(
    args: argparse.Namespace, bad: Mapping[str, float] | None, names: Mapping[str, str]
) -> None:
    """Prints which structures do not count for ``-bad``.

    Args:
        args: Of the subcommand.
        bad: By nnU-Net's key of each structure that counts, the Dice below which it is bad; None:
            no scan is bad.
        names: Of all structures, by the same.
    """
    others = [name for key, name in names.items() if bad is not None and key not in bad]
    if bad is None or not others:
        return
    flag = "-structures" if args.structures else "-bad"
    verb = "does" if len(others) == 1 else "do"
    counted = some([names[key] for key in bad])
    print(one_line(f"note: {some(others)} {verb} not count: {flag} names {counted} alone."))


def number_of_processes(given: int | None) -> int:
    """The value of ``-np``, or the default: nnUNet_def_n_proc, or the cores that this process may
    use, at most 8."""
    number = whole_number(given, "-np", "nnUNet_def_n_proc", 1)
    if number is not None:
        return number
    from joblib import cpu_count  # which takes long to load

    return min(cpu_count(), 8)


def whole_number(given: int | None, flag: str, variable: str, least: int) -> int | None:
    """The value of a flag, else of one of nnU-Net's environment variables, at least ``least``; None
    without either."""
    source = flag
    text: str | None = str(given)
    if given is None:
        source = variable
        text = os.environ.get(variable)
    if text is None:
        return None
    try:
        number = int(text)
    except ValueError:  # as nnU-Net reads it
        raise UserError(
            f"{source} must be a whole number of at least {least}, got {text!r}."
        ) from None
    if number < least:
        raise UserError(f"{source} must be at least {least}, got {number}.")
    return number


def check_environment() -> None:
    """UserError where nnU-Net could not be imported: it takes these variables for numbers."""
    for variable, least in (("nnUNet_def_n_proc", 1), ("nnUNet_n_proc_DA", 0)):
        whole_number(None, "", variable, least)


@contextlib.contextmanager
def work_can_be_stopped(name: str) -> Iterator[None]:
    """Around work that goes on with the same command: a signal that ends it is Ctrl-C, and what is
    kept is told.

    ``name`` is what a case is called.
    """
    try:
        with termination_as_interrupt():
            yield
    except KeyboardInterrupt:
        logging.getLogger(__name__).error(
            "\nstopped: the finished %ss are kept; go on with the same command", name
        )
        raise


def exit_status(*problems: object) -> int:
    """1 where there is a problem, a text or a dictionary of such, 0 where all are empty or None."""
    return int(any(problems))


def report_problems(
    subcommand: str, problems: Mapping[str, str], what: str = "could not be done"
) -> None:
    """Lists the problems of cases on stderr under their number and ``what``; nothing if there are
    none."""
    if not problems:
        return
    listed = list_problems(problems)
    logging.getLogger(__name__).error(
        "\nnnunet_nacl %s: %d %s:%s", subcommand, len(problems), what, listed
    )
