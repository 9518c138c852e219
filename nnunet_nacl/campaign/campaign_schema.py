"""What a campaign file may hold, and what is wrong with one, a line each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

__all__ = ["CampaignFile", "DatasetEntry", "check_name", "nearest", "read_content"]

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
    """A data set: one of ``dataset``, ``challenge`` and ``decathlon``.

    Attributes:
        dataset: Name or number in nnUNet_raw.
        challenge: As ``nnunet_nacl prepare`` names it.
        folder: The challenge's.
        native, split_seed, number: Options of ``nnunet_nacl prepare``.
        decathlon: Folder of a task, TaskNN_Name.
        folds: Of this data set, instead of the campaign's.
    """

    dataset: Annotated[_Text, BeforeValidator(lambda given: str(given) if type(given) is int else given)] | None = None
    challenge: _Text | None = None
    folder: _Text | None = None
    native: bool | None = None
    split_seed: Annotated[int, Field(ge=0)] | None = None
    number: Annotated[int, Field(ge=1, le=999)] | None = None
    decathlon: _Text | None = None
    folds: _Folds | None = None


class CampaignFile(_Strict):
    """A campaign file; docs/how-to/run-a-campaign.md says what each key means."""

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
