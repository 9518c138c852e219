"""Reads YAML as it is written: small, flat, without repetition, and ``027`` is the number 27."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from nnunet_nacl.errors import UserError

__all__ = ["INSTALL", "read_yaml"]

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
        with open(path, "rb") as file:
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
