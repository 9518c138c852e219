"""JSON documents with one value of another kind, or without it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator

import numpy as np

Place = tuple[str | int, ...]
"""Keys and numbers that lead to a value in a JSON document."""

VALUES = [
    "null",
    "5",
    "-5.5",
    "true",
    '""',
    '"x"',
    r'"\u0000"',
    r'"\ud800"',
    '"../x"',
    "[]",
    "{}",
    "[null]",
    '{"a": "b"}',
    "1e999",
    "9" * 400,
    "[" * 3000 + "]" * 3000,
    "[" * 200 + "]" * 200,
]
REMOVED = "(removed)"


def mutations(document: str, number: int) -> Iterator[tuple[Place, str, str]]:
    """Copies of a JSON document in which one value is another, or missing.

    Half of the changed values stand at the top of the document, each as often as the others; the
    other half is drawn from all places.

    Yields:
        The place, the first characters of what stands there now, and the text of the document.
    """
    content = json.loads(document)
    rng = np.random.default_rng(0)
    values = [*VALUES, REMOVED]
    places = list(_find_places(content))
    top_places = [place for place in places if len(place) == 1]
    chosen = [top_places[i % len(top_places)] for i in range(number // 2)]
    chosen += [places[i] for i in rng.integers(len(places), size=number - len(chosen))]
    for place in chosen:
        value = values[rng.integers(len(values))]
        yield place, value[:20], _change_value(content, place, value)


def _change_value(content: dict, place: Place, value: str) -> str:
    """Text of the document with ``value``, which need not be JSON, at a place."""
    changed = copy.deepcopy(content)
    parent = changed
    for key in place[:-1]:
        parent = parent[key]
    if value == REMOVED:
        del parent[place[-1]]
    else:
        parent[place[-1]] = "(here)"
    return json.dumps(changed).replace('"(here)"', value)


def _find_places(value: object, place: Place = ()) -> Iterator[Place]:
    """The places of all values in a JSON value; of long lists the first and the last entry."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _find_places(item, (*place, key))
    elif isinstance(value, list) and value:
        for i in {0, len(value) - 1}:
            yield from _find_places(value[i], (*place, i))
