"""What the site shows of docstrings and signatures: values for the losses' defaults, code for Sphinx's roles.

`DEFAULTS["sigma"]` becomes what the table of methods has for it, and a role with `~package.module.name` just `name`.
"""

from __future__ import annotations

import re

import griffe

from nnunet_nacl.methods import METHODS

_OF_FUNCTION = {method.function: method.defaults for method in METHODS.values()}
_ROLE = re.compile(r":(?:mod|func|class|meth|data|attr):`(~(?:\w+\.)+)?([^`]+)`")
_ENTRY = re.compile(r"""DEFAULTS\[['"](\w+)['"]\]""")


class SiteDocstrings(griffe.Extension):
    """Called by griffe for everything that it reads, and for every function."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(r"`\2`", obj.docstring.value)

    def on_function(self, *, func: griffe.Function, **_) -> None:
        for parameter in func.parameters:
            if (entry := _ENTRY.fullmatch(str(parameter.default))) and func.name in _OF_FUNCTION:
                parameter.default = repr(_OF_FUNCTION[func.name][entry[1]])
