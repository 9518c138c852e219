"""Kinds of tables of earlier studies, whose first word names networks; goes with the pages that have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import map_tables
import study_shares
from study_tables import GROUPS, Study, beside

STUDY = Path(__file__).resolve().parent / "study"
TABLES = ("forms", "means", "differences", "decisions", "summary", "beside", "share_means", "share_differences", "near")


def make_table(kind: str, names: Sequence[str]) -> str:
    """The table of documents DATASET/DOCUMENT in study/, without .csv, behind the name of the networks.

    Raises:
        ValueError: There is no such document, or they are of several data sets.
    """
    networks, *documents = names
    of_dataset: dict[str, list[Path]] = {}
    for name in documents:
        path = STUDY / f"{name}.csv"
        if not path.is_file():
            raise ValueError(f"there is no study/{name}.csv")
        of_dataset.setdefault(path.relative_to(STUDY).parts[0], []).append(path)
    if kind == "beside":
        return beside([Study(paths, GROUPS.get(name)) for name, paths in of_dataset.items()], networks)
    if len(of_dataset) > 1:
        raise ValueError("documents of several data sets stand together in 'beside' alone")
    ((dataset, paths),) = of_dataset.items()
    if kind in ("forms", "near"):
        return getattr(map_tables, kind)(paths[0], networks)
    groups = GROUPS.get(dataset)
    if kind.startswith("share_"):
        return getattr(study_shares, kind.removeprefix("share_"))(study_shares.by_share(paths, groups), networks)
    study = Study(paths, groups)
    return getattr(study, kind)(study.networks(networks))
