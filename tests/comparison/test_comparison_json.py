"""comparison.json read back: whatever its nodes hold, the page is made or one line says what is wrong."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from nnunet_nacl.comparison.comparison_json import comparison_to_json, read_comparison
from nnunet_nacl.errors import UserError
from nnunet_nacl.files import to_json_text
from nnunet_nacl.show.page import make_page
from nnunet_nacl.show.result_tables import make_tables
from tests.comparison.synthetic import make_comparison

_VALUES = (None, [], {}, "", "x", 5, -1.5, True, [None], {"x": 1}, "\ud800\u202e", 10**400, float("inf"))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    comparison = make_comparison({"nnUNetTrainer": 1.0, "nnUNetTrainerNACL": 2.0}, cases=7, notes=["A note."])
    figures = [{"id": "a", "dataset": None, "title": "T", "caption": "C.", "alt": "A.", "files": ["figures/a.png"]}]
    tables, allowed = make_tables(comparison), {"allow_missing": True}
    written = comparison_to_json(comparison, tables, figures, command="nnunet_nacl compare", allowed=allowed)
    return json.loads(to_json_text(written))


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every node: of lists the first and the last, of columns those that the page speaks of, and one more."""
    if path:
        yield path
    if isinstance(value, dict):
        spoken_of = {"Dice", "ECE:foreground", "NLL:dilated", "Brier:all"}
        for key, item in value.items():
            if not spoken_of & set(value) or key in spoken_of:
                yield from places(item, (*path, key))
    elif isinstance(value, list):
        for i in {0, len(value) - 1} if value else ():
            yield from places(value[i], (*path, i))


def test_what_was_written_is_read(document, tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps(document))
    assert read_comparison(tmp_path) == document


def test_no_node_breaks_the_page(document, tmp_path):
    rng, path = random.Random(0), tmp_path / "comparison.json"
    nodes = list(places(document))
    assert len(nodes) > 300
    outcomes = {True: 0, False: 0}
    for place in nodes:
        for value in (rng.choice(_VALUES), "delete"):
            mutant = copy.deepcopy(document)
            parent = mutant
            for key in place[:-1]:
                parent = parent[key]
            if value == "delete":
                del parent[place[-1]]
            else:
                parent[place[-1]] = value
            path.write_text(json.dumps(mutant))
            try:
                make_page(tmp_path)
                outcomes[True] += 1
            except UserError as error:
                outcomes[False] += 1
                assert "\n" not in str(error), (place, value)
            except Exception as error:
                raise AssertionError(f"{place} = {value!r}") from error
    assert min(outcomes.values()) > 100, outcomes
