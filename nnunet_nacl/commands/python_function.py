"""What the functions of all commands share when they are called from Python."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from nnunet_nacl.nnunet.trust import trusting

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def python_function(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Decorator of a command's function: ``trust_checkpoint`` holds while it runs."""

    @functools.wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with trusting(bool(kwargs.get("trust_checkpoint"))):
            return function(*args, **kwargs)

    return call
