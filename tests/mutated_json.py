"""JSON documents with one value of another kind, or without it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

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
]
VALUES += ['{"a": "b"}', "1e999", "9" * 400, "[" * 3000 + "]" * 3000, "[" * 200 + "]" * 200]
REMOVED = "(removed)"


def mutations(document: str, number: int) -> Iterator[tuple[tuple, str, str]]:
    """Where, what stands there, and the text of the document; what is changed is drawn, half of it
    from the top."""
    content, rng = json.loads(document), np.random.default_rng(0)
    values, places = [*VALUES, REMOVED], list(_places(content))
    top = [path for path in places if len(path) == 1]
    chosen = [top[i % len(top)] for i in range(number // 2)]  # each as often as the others
    chosen += [places[i] for i in rng.integers(len(places), size=number - len(chosen))]
    for path in chosen:
        value = values[rng.integers(len(values))]
        changed = copy.deepcopy(content)
        parent = changed
        for key in path[:-1]:
            parent = parent[key]
        if value == REMOVED:
            del parent[path[-1]]
        else:
            parent[path[-1]] = "(here)"
        yield path, value[:20], json.dumps(changed).replace('"(here)"', value)


def _places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Where something stands in a JSON value; of long lists the first and the last entry."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*path, key))
    elif isinstance(value, list) and value:
        for i in {0, len(value) - 1}:
            yield from _places(value[i], (*path, i))
