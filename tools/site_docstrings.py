"""What the site shows of docstrings: a role of Sphinx's with `~package.module.name` becomes just
`name`, as code."""

from __future__ import annotations

import re

import griffe

_ROLE = re.compile(r":(?:mod|func|class|meth|data|attr):`(~(?:\w+\.)+)?([^`]+)`")


class SiteDocstrings(griffe.Extension):
    """Called by griffe for everything that it reads."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(r"`\2`", obj.docstring.value)
