"""Reads a campaign file: everything that can be wrong with it is found before anything runs."""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from nnunet_nacl.cases.locate import SPLITS, read_splits
from nnunet_nacl.cases.prediction_folder import read_plans
from nnunet_nacl.demo.decathlon_task import read_task
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import regular_only
from nnunet_nacl.json_files import one_line
from nnunet_nacl.methods import STOCK
from nnunet_nacl.registration.grammar import PREFIX, format_name, parse
from nnunet_nacl.registration.health import check_known, nearest_name

NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

_SOURCES = ("dataset", "decathlon")
_CASCADE, _BEFORE = "3d_cascade_fullres", "3d_lowres"


def read_campaign(path: Path) -> dict[str, Any]:
    """The campaign that a file describes, with all defaults, as the workflow takes it.

    Names of data sets are full, paths absolute, and ``replicates`` holds by seed what becomes of each trainer's name.

    Args:
        path: The YAML file.

    Raises:
        UserError: It cannot be read, or something in it is wrong; each problem is a line of the message.
    """
    content, problems = read_content(read_yaml(path))
    datasets: list[dict[str, Any]] = []
    if content is not None:
        problems = _content_problems(content)
        for i, entry in enumerate(content.datasets):
            try:
                datasets.append(_dataset(entry) | {"folds": entry.folds or content.folds})
                problems += _plan_problems(content, datasets[-1])
            except (UserError, ValueError) as error:
                problems.append(f"datasets[{i}]: {error}")
        names = [dataset["name"] for dataset in datasets]
        twice = sorted({name for name in names if names.count(name) > 1})
        problems += [f"datasets: {name} is there twice; name each once" for name in twice]
    if content is None or problems:
        lines = "\n  ".join(map(one_line, problems))
        raise UserError(f"{path}: {len(problems)} to correct, nothing was run:\n  {lines}")
    campaign = content.model_dump() | {"datasets": datasets, "here": str(path.parent.absolute())}
    if content.comparisons is None:  # compare trainers, or one as it is and as it is treated, if there are any
        is_compared = len(content.trainers) > 1 or bool(content.treatments)
        campaign["comparisons"] = {"all": content.trainers} if is_compared else {}
    seeds: dict[str, int | None] = {str(seed): seed for seed in content.seeds} or {"": None}
    campaign["replicates"] = {key: {t: seeded(t, seed) for t in content.trainers} for key, seed in seeds.items()}
    return campaign


def seeded(trainer: str, seed: int | None) -> str:
    """The replicate of a trainer that its seed names; ValueError where its name can hold no seed."""
    if seed is None:
        return trainer
    variant = STOCK if trainer == PREFIX else parse(trainer)
    if variant is None:
        raise ValueError(f"{trainer} is no trainer of this package, and knows no seed")
    if variant.seed is not None:
        raise ValueError(f"{trainer} has a seed in its name; give seeds in one way")
    return format_name(replace(variant, seed=seed))


def _content_problems(content: CampaignFile) -> list[str]:
    problems = []
    for trainer in content.trainers:
        try:
            check_known(trainer)
            for seed in content.seeds:
                seeded(trainer, seed)
        except UserError as error:
            problems.append(f"trainers: {error}")
        except ValueError as error:
            hint, line = nearest_name(trainer), str(error).splitlines()[0].rstrip(".")
            problems.append(f"trainers: {line}" + (f"; did you mean {hint}?" if hint else ""))
    for name, members in (content.comparisons or {}).items():
        unknown = [trainer for trainer in members if trainer not in content.trainers]
        problems += [f"comparisons.{name}: no {trainer}; {nearest(trainer, content.trainers)}" for trainer in unknown]
    if _CASCADE in content.configurations and _BEFORE not in content.configurations:
        problems.append(f"configurations: {_CASCADE} needs {_BEFORE} before it; add that")
    try:
        shlex.split(content.after_planning or "")
    except ValueError as error:
        problems.append(f"after_planning: {content.after_planning!r} is no command ({error}); close the quotes")
    return problems


def _dataset(entry: DatasetEntry) -> dict[str, Any]:
    """The full name of a data set, and how it is made; UserError or ValueError if something is wrong with it."""
    given = entry.model_dump(exclude_none=True)
    sources = [key for key in _SOURCES if key in given]
    if len(sources) != 1:
        raise UserError(f"give one of {', '.join(_SOURCES)}, got {', '.join(sources) or 'none'}")
    (source,) = sources
    if source == "dataset":
        return {"name": check_name(_name_in_raw(str(entry.dataset))), "source": source}
    task = read_task(_folder(str(entry.decathlon)))
    return {"name": task.dataset, "source": source, "folder": str(task.folder)}


def _folder(text: str) -> Path:
    text = os.path.expandvars(os.path.expanduser(text))
    folder = Path(text).absolute()
    if not folder.is_dir():
        raise UserError(f"{text}: no such folder" + ("; set the variable" if "$" in text else ""))
    return folder


def _plan_problems(content: CampaignFile, dataset: dict[str, Any]) -> Iterable[str]:
    """Configurations that the plans lack and folds that the split lacks, where there are plans and a split already."""
    folder = Path(os.environ.get("nnUNet_preprocessed") or os.devnull) / dataset["name"]
    plans, splits = folder / f"{content.plans}.json", folder / SPLITS
    if plans.is_file() and not content.after_planning:  # which may add configurations
        planned = read_plans(plans).get("configurations", {})
        for name in content.configurations:
            if name not in planned:
                yield f"configurations: {plans} has no {name}; {nearest(name, planned)}"
    if splits.is_file():
        count = len(read_splits(splits))
        for fold in dataset["folds"]:
            if fold >= count:
                yield f"folds: {splits} has {count} folds, from 0 on; there is no {fold}"


def _name_in_raw(given: str) -> str:
    if not os.environ.get("nnUNet_raw"):
        raise UserError(f"nnUNet_raw is not set, where data set {given} is looked for")
    present = sorted(path.name for path in Path(os.environ["nnUNet_raw"]).glob("Dataset???_*"))
    if given.isdecimal():
        start = f"Dataset{int(given):03d}_"
        found = [name for name in present if name.startswith(start)]
        hint = f"there are {', '.join(present) or 'none'}"
    else:
        found, hint = [name for name in present if name == given], nearest(given, present)
    if not found:
        raise UserError(f"no data set {given} in nnUNet_raw; {hint}")
    if len(found) > 1:
        raise UserError(f"{given} is {' and '.join(found)}; give the full name of one")
    return found[0]


_MOST = 4096  # cores; seeds and numbers may be larger
_LONGEST_NAME, _LONGEST_VALUE = 100, 60


def check_name(name: str) -> str:
    """The name, if it can be that of a file and of a part of nnU-Net's folders; else ValueError says why not."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", name) and len(name) <= _LONGEST_NAME:
        return name
    raise ValueError(
        f"{_shown(name)} is no name; use letters, digits, '_', '-' and '.', at most {_LONGEST_NAME}, '-' and '.' not "
        "first"
    )


def _unique(values: list[Any]) -> list[Any]:
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise ValueError(f"{_shown(twice[0])} is there twice; give it once")
    return values


_Text = Annotated[str, Field(min_length=1)]
_Name = Annotated[str, AfterValidator(check_name)]
_Count = Annotated[int, Field(ge=1, le=_MOST)]
_Number = Annotated[int, Field(ge=1)]
_Folds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1), AfterValidator(_unique)]
_Trainers = Annotated[list[_Text], Field(min_length=1), AfterValidator(_unique)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class DatasetEntry(_Strict):
    """A data set: either ``dataset`` or ``decathlon``.

    Attributes:
        dataset: Name or number in nnUNet_raw.
        decathlon: Folder of a task, TaskNN_Name.
        folds: Of this data set, instead of the campaign's.
    """

    dataset: Annotated[_Text, BeforeValidator(lambda given: str(given) if type(given) is int else given)] | None = None
    decathlon: _Text | None = None
    folds: _Folds | None = None


class CampaignFile(_Strict):
    """A campaign file; docs/how-to/many-trainings.md says what each key means."""

    datasets: Annotated[list[DatasetEntry], Field(min_length=1)]
    configurations: Annotated[list[_Name], Field(min_length=1), AfterValidator(_unique)]
    trainers: _Trainers
    plans: _Name = "nnUNetPlans"
    after_planning: _Text | None = None
    folds: _Folds = [0, 1, 2, 3, 4]
    seeds: Annotated[list[_Number], AfterValidator(_unique)] = []
    treatments: Annotated[list[Literal["calibrated", "decided", "calibrated+decided"]], AfterValidator(_unique)] = []
    cases: Literal["validation", "test"] = "validation"
    comparisons: dict[_Name, Annotated[list[_Text], Field(min_length=2), AfterValidator(_unique)]] | None = None
    device: Literal["cuda", "cpu", "mps"] = "cuda"
    threads: _Count = 1
    processes: _Count = 1


def read_content(content: Any) -> tuple[CampaignFile | None, list[str]]:
    """A campaign file, checked: what it holds, or None and a line for each problem."""
    if isinstance(content, dict) and isinstance(content.get("datasets"), list):
        datasets = [entry if isinstance(entry, dict) else {"dataset": entry} for entry in content["datasets"]]
        content = content | {"datasets": datasets}
    try:
        return CampaignFile.model_validate(content), []
    except ValidationError as error:
        return None, [_line(found) for found in error.errors()]


def _line(found: Any) -> str:
    """Where, which value, and what would be right."""
    *outer, last = place = [part for part in found["loc"] if part != "[key]"] or [""]
    kind, context = found["type"], found.get("ctx", {})
    if kind in ("extra_forbidden", "invalid_key"):
        fields = DatasetEntry.model_fields if outer else CampaignFile.model_fields
        place, words = outer, f"unknown key {_shown(last)}; {nearest(str(last), fields)}"
    elif kind == "missing":
        place, words = outer, f"the key {last!r} is missing"
    elif kind == "value_error":
        words = str(context["error"])
    else:  # "Input should be ..."
        words = found["msg"].replace("Input", _shown(found["input"]), 1)
    at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    return f"{at}: {words}" if at else words


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def nearest(given: str, allowed: Iterable[str]) -> str:
    """Which of the allowed names was meant, or which there are."""
    close = difflib.get_close_matches(given, names := list(allowed), n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(names) or 'none'}"


INSTALL = "pip install 'nnunet_nacl[campaign]'"

_MOST_BYTES = 100_000
_DEEPEST = 20


def read_yaml(path: Path) -> Any:
    """The content of a YAML file: mappings, lists, text, true and false, and whole numbers of decimal digits.

    Whatever else YAML reads as a number or date (``1.0``, ``0x1B``, ``1_000``) is the text that is written there.

    Raises:
        UserError: It cannot be read, is no YAML, is too large or too deep, or has aliases, tags or a key twice.
    """
    try:
        import yaml
    except ModuleNotFoundError:
        raise UserError(f"yaml is not installed, which campaigns need: {INSTALL}") from None
    try:
        with open(path, "rb", opener=regular_only) as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if len(content) > _MOST_BYTES:
        raise UserError(f"{path}: larger than {_MOST_BYTES // 1000} kB, which is no campaign; give another file.")

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value]
            if twice := [key for key, _ in node.value if keys.count(key.value) > 1]:
                raise refused(twice[-1], f"the key {twice[-1].value!r} is there twice; keep one")
            return super().construct_mapping(node, deep)

    def refused(what: Any, why: str) -> UserError:
        return UserError(f"{path}, line {what.start_mark.line + 1}: {why}.")

    Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]{1,18}\Z"), list("-+0123456789"))
    for kind, pattern, first in (("bool", "true|false|yes|no", "tfyn"), ("null", "null|~|", ["n", "~", ""])):
        word = re.compile(rf"(?:{pattern})\Z", re.IGNORECASE)
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", word, [*first, *(c.upper() for c in first)])
    Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))
    depth = 0
    try:
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _DEEPEST:
                raise refused(event, f"nested deeper than {_DEEPEST} levels, which no campaign is; give another file")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise refused(event, f"anchors and aliases are not read ({event.anchor}); write the value out")
            if getattr(event, "tag", None):
                raise refused(event, f"tags are not read ({event.tag}); leave it out")
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())}).") from None
