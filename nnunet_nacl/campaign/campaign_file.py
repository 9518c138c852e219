"""Reads a campaign file: everything that can be wrong with it is found before anything runs."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_nacl.campaign.campaign_schema import DEFAULTS, schema_problems
from nnunet_nacl.datasets.challenges import CHALLENGES
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import read_dict
from nnunet_nacl.methods import STOCK
from nnunet_nacl.registration.grammar import PREFIX, format_name, parse
from nnunet_nacl.registration.known_trainers import check_known, nearest_name

__all__ = ["INSTALL", "read_campaign"]

INSTALL = "pip install 'nnunet_nacl[campaign]'"
NNUNET_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

_SOURCES = ("dataset", "challenge", "decathlon")
_CHALLENGE_KEYS = ("folder", "native", "split_seed", "number")
_CASCADE, _BEFORE = "3d_cascade_fullres", "3d_lowres"


def read_campaign(path: Path) -> dict[str, Any]:
    """The campaign that a file describes, with all defaults, as the workflow takes it.

    Names of data sets are full, paths absolute, and ``replicates`` holds by seed what becomes of each trainer's name.

    Args:
        path: The YAML file.

    Raises:
        UserError: It cannot be read, or something in it is wrong; each problem is a line of the message.
    """
    content = _read_yaml(path)
    if isinstance(content, dict) and isinstance(content.get("datasets"), list):
        content["datasets"] = [{"dataset": d} if isinstance(d, (int, str)) else d for d in content["datasets"]]
    problems = schema_problems(content)
    if not problems:
        content = DEFAULTS | content
        problems = [*_trainer_problems(content), *_cascade_problems(content)]
        datasets = [_dataset(entry, i, content["folds"], problems) for i, entry in enumerate(content["datasets"])]
        names = [dataset["name"] for dataset in datasets]
        twice = sorted({name for name in names if name and names.count(name) > 1})
        problems += [f"datasets: {name} is there twice; name each once" for name in twice]
        problems += [line for dataset in datasets if dataset["name"] for line in _plan_problems(content, dataset)]
        content["datasets"] = datasets
    if problems:
        raise UserError("\n  ".join([f"{path}: {len(problems)} to correct, nothing was run:", *problems]))
    content.setdefault("comparisons", {"all": content["trainers"]} if _compares(content) else {})
    seeds = {str(seed): seed for seed in content["seeds"]} or {"": None}
    content["here"] = str(path.parent.absolute())
    content["replicates"] = {key: {t: seeded(t, seed) for t in content["trainers"]} for key, seed in seeds.items()}
    return content


def _compares(content: dict[str, Any]) -> bool:
    """Whether there is anything to compare: trainers, or one as it is and as it is treated."""
    return len(content["trainers"]) > 1 or bool(content["treatments"])


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


def _read_yaml(path: Path) -> Any:
    try:
        import jsonschema  # noqa: F401
        import yaml
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is not installed, which campaigns need: {INSTALL}") from None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())}).") from None


def _trainer_problems(content: dict[str, Any]) -> list[str]:
    problems = []
    for trainer in content["trainers"]:
        try:
            check_known(trainer)
            for seed in content["seeds"]:
                seeded(trainer, seed)
        except UserError as error:
            problems.append(f"trainers: {error}")
        except ValueError as error:
            hint, line = nearest_name(trainer), str(error).splitlines()[0].rstrip(".")
            problems.append(f"trainers: {line}" + (f"; did you mean {hint}?" if hint else ""))
    for name, members in content.get("comparisons", {}).items():
        for trainer in members:
            if trainer not in content["trainers"]:
                close = difflib.get_close_matches(trainer, content["trainers"], n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                problems.append(f"comparisons.{name}: {trainer} is none of the trainers{hint}")
    return problems


def _cascade_problems(content: dict[str, Any]) -> list[str]:
    if _CASCADE in content["configurations"] and _BEFORE not in content["configurations"]:
        return [f"configurations: {_CASCADE} needs {_BEFORE} before it; add that"]
    return []


def _dataset(entry: dict[str, Any], index: int, folds: list[int], problems: list[str]) -> dict[str, Any]:
    """A data set with its full name, how it is made, and its folds; what is wrong with it is added to ``problems``."""
    place = f"datasets[{index}]"
    given = [key for key in _SOURCES if key in entry]
    if len(given) != 1:
        problems.append(f"{place}: give one of {', '.join(_SOURCES)}, got {', '.join(given) or 'none'}")
        return {"name": ""}
    (source,) = given
    result: dict[str, Any] = {"name": "", "source": source, "folds": entry.get("folds", folds)}
    if source != "challenge" and (others := [key for key in _CHALLENGE_KEYS if key in entry]):
        problems.append(f"{place}: {', '.join(others)} belong to a challenge, not to {source}")
    if source == "dataset":
        result["name"] = _name_in_raw(entry["dataset"], place, problems)
        return result
    if source == "challenge" and (entry["challenge"] not in CHALLENGES or "folder" not in entry):
        close = difflib.get_close_matches(entry["challenge"], CHALLENGES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(CHALLENGES)}"
        unknown = entry["challenge"] not in CHALLENGES
        problems.append(f"{place}: unknown challenge {entry['challenge']!r}; {hint}" if unknown else f"{place}: a "
                        "challenge needs its folder")  # fmt: skip
        return result
    text = os.path.expandvars(os.path.expanduser(entry["folder" if source == "challenge" else "decathlon"]))
    folder = Path(text).absolute()
    if not folder.is_dir():
        unset = "; set the variable" if "$" in text else ""
        problems.append(f"{place}: {text}: no such folder{unset}")
    result |= {"folder": str(folder)}
    if source == "decathlon":
        number, _, name = folder.name.removeprefix("Task").partition("_")
        if not (folder.name.startswith("Task") and number.isdecimal() and name):
            problems.append(f"{place}: {folder.name} is not named like a Decathlon task, TaskNN_Name")
            return result
        return result | {"name": f"Dataset{int(number):03d}_{name}"}
    challenge, native = CHALLENGES[entry["challenge"]], entry.get("native", False)
    arguments = [entry["challenge"], str(folder), *(["--native"] if native else [])]
    arguments += [text for flag, key in (("-seed", "split_seed"), ("-d", "number")) if key in entry
                  for text in (flag, str(entry[key]))]  # fmt: skip
    return result | {"name": challenge.dataset_name(native, entry.get("number")), "prepare": arguments}


def _plan_problems(content: dict[str, Any], dataset: dict[str, Any]) -> list[str]:
    """Configurations that the plans lack and folds that the split lacks, where there are plans and a split already."""
    folder = Path(os.environ.get("nnUNet_preprocessed") or os.devnull) / dataset["name"]
    problems = []
    plans, splits = folder / f"{content['plans']}.json", folder / "splits_final.json"
    if plans.is_file() and not content.get("after_planning"):  # which may add configurations
        known = list(read_dict(plans).get("configurations", {}))
        for name in content["configurations"]:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
                problems.append(f"configurations: {plans} has no {name}; {hint}")
    if splits.is_file():
        try:
            count = len(json.loads(splits.read_text(encoding="utf-8")))
        except ValueError:
            return [*problems, f"{splits}: not JSON; remove it, and nnU-Net makes another"]
        missing = [fold for fold in dataset["folds"] if fold >= count]
        problems += [f"folds: {splits} has {count} folds, from 0 on; there is no {fold}" for fold in missing]
    return problems


def _name_in_raw(given: int | str, place: str, problems: list[str]) -> str:
    if not os.environ.get("nnUNet_raw"):
        problems.append(f"{place}: nnUNet_raw is not set, where data set {given} is looked for")
        return ""
    raw = Path(os.environ["nnUNet_raw"])
    present = sorted(path.name for path in raw.glob("Dataset???_*"))
    wanted = f"Dataset{int(given):03d}_" if str(given).isdecimal() else str(given)
    found = [name for name in present if name == wanted or (wanted.endswith("_") and name.startswith(wanted))]
    if len(found) == 1:
        return found[0]
    close = [] if wanted.endswith("_") else difflib.get_close_matches(wanted, present, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(present) or 'none'} in nnUNet_raw"
    problems.append(
        f"{place}: no data set {given}; {hint}" if not found else f"{place}: {given} is {' and '.join(found)}"
    )
    return ""
