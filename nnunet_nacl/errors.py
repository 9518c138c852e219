"""The exceptions that the package raises on purpose."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user gave cannot be used; the message names what was received and what to do instead.

    The command line prints it as one line and exits with status 2. Every other exception keeps its traceback.
    """
