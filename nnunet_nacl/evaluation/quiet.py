"""nnU-Net's readers print; a table or a progress bar should not be torn by that."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

__all__ = ["quiet"]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallow what Python code prints and warns inside the block; exceptions pass."""
    sink = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        warnings.simplefilter("ignore")
        logging.raiseExceptions, before = False, logging.raiseExceptions
        try:
            yield
        finally:
            logging.raiseExceptions = before
