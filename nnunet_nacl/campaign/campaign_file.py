"""Reads a campaign file: everything that can be wrong with it is found before anything runs."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_nacl.campaign.campaign_schema import CampaignFile, DatasetEntry, check_name, nearest, read_content
from nnunet_nacl.campaign.campaign_yaml import read_yaml
from nnunet_nacl.datasets.challenges import CHALLENGES
from nnunet_nacl.datasets.decathlon_task import read_task
from nnunet_nacl.errors import UserError
from nnunet_nacl.json_files import one_line, read_dict
from nnunet_nacl.methods import STOCK
from nnunet_nacl.registration.grammar import PREFIX, format_name, parse
from nnunet_nacl.registration.known_trainers import check_known, nearest_name

__all__ = ["NNUNET_FOLDERS", "read_campaign"]

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
    content, problems = read_content(read_yaml(path))
    datasets: list[dict[str, Any]] = []
    if content is not None:
        problems = [*_trainer_problems(content), *_command_problems(content)]
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
    seeds: dict[str, int | None] = {str(seed): seed for seed in content.seeds}
    seeds = seeds or {"": None}
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


def _trainer_problems(content: CampaignFile) -> list[str]:
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
    return problems


def _command_problems(content: CampaignFile) -> list[str]:
    problems = []
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
    if source != "challenge" and (others := [key for key in _CHALLENGE_KEYS if key in given]):
        raise UserError(f"{', '.join(others)} belong to a challenge, not to {source}")
    if source == "dataset":
        return {"name": check_name(_name_in_raw(str(entry.dataset))), "source": source}
    if source == "decathlon":
        task = read_task(_folder(str(entry.decathlon)))
        return {"name": task.dataset, "source": source, "folder": str(task.folder)}
    challenge = CHALLENGES.get(str(entry.challenge))
    if challenge is None:
        raise UserError(f"unknown challenge {entry.challenge!r}; {nearest(str(entry.challenge), CHALLENGES)}")
    if entry.folder is None:
        raise UserError("a challenge needs its folder")
    folder = str(_folder(entry.folder))
    arguments = [challenge.name, folder, *(["--native"] if entry.native else [])]
    for flag, value in (("-seed", entry.split_seed), ("-d", entry.number)):
        arguments += [] if value is None else [flag, str(value)]
    name = challenge.dataset_name(bool(entry.native), entry.number)
    return {"name": name, "source": source, "folder": folder, "prepare": arguments}


def _folder(text: str) -> Path:
    text = os.path.expandvars(os.path.expanduser(text))
    folder = Path(text).absolute()
    if not folder.is_dir():
        raise UserError(f"{text}: no such folder" + ("; set the variable" if "$" in text else ""))
    return folder


def _plan_problems(content: CampaignFile, dataset: dict[str, Any]) -> Iterable[str]:
    """Configurations that the plans lack and folds that the split lacks, where there are plans and a split already."""
    folder = Path(os.environ.get("nnUNet_preprocessed") or os.devnull) / dataset["name"]
    plans, splits = folder / f"{content.plans}.json", folder / "splits_final.json"
    if plans.is_file() and not content.after_planning:  # which may add configurations
        planned = read_dict(plans).get("configurations", {})
        for name in content.configurations:
            if name not in planned:
                yield f"configurations: {plans} has no {name}; {nearest(name, planned)}"
    if splits.is_file():
        try:
            count = len(json.loads(splits.read_text(encoding="utf-8")))
        except ValueError:
            yield f"{splits}: not JSON; remove it, and nnU-Net makes another"
            return
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
