"""In the site the losses' defaults are values: `DEFAULTS["sigma"]` becomes what the table of methods has for it."""

from __future__ import annotations

import re

import griffe

from nnunet_nacl.methods import METHODS

_OF_FUNCTION = {method.function: method.defaults for method in METHODS.values()}
_ENTRY = re.compile(r"""DEFAULTS\[['"](\w+)['"]\]""")


class TableDefaults(griffe.Extension):
    """Called by griffe for every function that it reads."""

    def on_function(self, *, func: griffe.Function, **_) -> None:
        for parameter in func.parameters:
            if (entry := _ENTRY.fullmatch(str(parameter.default))) and func.name in _OF_FUNCTION:
                parameter.default = repr(_OF_FUNCTION[func.name][entry[1]])
