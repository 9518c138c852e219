"""Errors for the user in one line, safe text for terminals, and signals that end a command."""

from __future__ import annotations

import contextlib
import errno
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

_MOST_LETTERS = 300  # of a path in a message

_FIXES = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or give another"
    ),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "free some space"),
    **dict.fromkeys((errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.EISDIR), "correct the path"),
    **dict.fromkeys((errno.ELOOP, errno.ESPIPE), "give a file"),
    errno.ENAMETOOLONG: "give a shorter name",
}


_MARK = re.compile(r"\[\[([a-z_]+)(?::([a-z]+))?(?:=([^\[\]]*))?\]\]")


class UserError(ValueError):
    """Something that the user gave cannot be used; the message names what was received and what to
    do instead.

    Arguments that it speaks of are marked: ``[[bad]]``, with a value ``[[find=0.9]]``, a switch
    ``[[overwrite=True]]``, and one of two kinds that an argument takes ``[[methods:folders]]``.
    As text they are those of the functions; the command line names its options in their place.
    """

    @property
    def marked(self) -> str:
        """The text with its marks, for another message that holds it."""
        return str(self.args[0])

    @property
    def message(self) -> Message:
        """The text as a value that knows its marks, such as why there is no result of a case."""
        return Message(self.marked)

    def __str__(self) -> str:
        return self.message


class Message(str):
    """A text that names arguments as in Python.

    Attributes:
        marked: The same with its marks, see :class:`UserError`.
    """

    marked: str

    def __new__(cls, marked: str) -> Message:
        message = super().__new__(cls, name_arguments(marked))
        message.marked = marked
        return message

    def __reduce__(self) -> tuple[type[Message], tuple[str]]:
        return Message, (self.marked,)


def name_arguments(text: str, spelling: Callable[[str, str, str | None], str] | None = None) -> str:
    """A text with its marked arguments spelled out.

    Args:
        text: With marks, see :class:`UserError`.
        spelling: Of an argument, by its name, its kind (may be empty) and its value (None for
            none); None: as in Python, ``bad`` and ``find=0.9``.
    """
    spell = spelling or _spell_in_python
    return _MARK.sub(lambda mark: spell(mark[1], mark[2] or "", mark[3]), text)


def _spell_in_python(name: str, kind: str, value: str | None) -> str:
    return name if value is None else f"{name}={value}"


@dataclass(frozen=True)
class Failed:
    """A case of which there is no result.

    Attributes:
        case: Its name.
        reason: What went wrong in one line, with the file and what to do.
    """

    case: str
    reason: str


def describe(error: OSError, path: object = None, what: str = "") -> str:
    """What the system refused, in one line: the path, the reason and what to do.

    Args:
        error: Its file name is the path that is named, unless ``what`` is given.
        path: What is named where the error names no file, or with ``what``.
        what: What could not be done with ``path``, such as "cannot be written".
    """
    named = path if what or error.filename is None else error.filename
    prefix = shorten(f"{one_line(str(named))}: ", _MOST_LETTERS) if named is not None else ""
    reason = error.strerror or str(error)
    fix = _FIXES.get(error.errno or 0, "check the path and the disk")
    if what:
        fix = fix.removesuffix(", or give another")
        return f"{prefix}{what} ({reason}); {fix}, or choose another [[output]]."
    return f"{prefix}{reason}; {fix}."


def shorten(text: str, most: int) -> str:
    """Leaves out the middle of a text of more than ``most`` letters, which would fill a screen."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]}...{text[-half:]}"


def list_problems(problems: Mapping[str, str]) -> str:
    """Indented lines, each with a break before it, of what is wrong with cases, as a message of
    them ends."""
    return "".join(f"\n  {line}" for line in named_together(problems))


def named_together(reasons: Mapping[str, str]) -> list[str]:
    """``liver, spleen and 3 more: why`` for each reason, given by name.

    Reasons that differ in the name alone, as in that of a file, are one; ``CASE`` stands for the
    name in it. Arguments stay marked, see :class:`UserError`.
    """
    names_by_reason: dict[str, list[str]] = {}
    marked = {name: getattr(reason, "marked", reason) for name, reason in reasons.items()}
    for name, reason in marked.items():
        names_by_reason.setdefault(reason.replace(name, "CASE"), []).append(name)
    lines = []
    for reason, names in names_by_reason.items():
        if len(names) == 1:
            reason = marked[names[0]]  # with the name in it
        lines.append(one_line(f"{some(names, 10)}: {reason}"))
    return lines


def some(names: Sequence[str], most: int = 8, separator: str = ", ") -> str:
    """The first few names, and how many more there are."""
    text = separator.join(names[:most])
    if len(names) > most:
        text += f" and {len(names) - most} more"
    return text


def printable(text: str, kept: str = "\n\t") -> str:
    """Text with escapes for what moves a terminal's cursor or turns text around, but for the
    characters ``kept``."""
    if text.isprintable():
        return text
    return "".join(_escape(character, kept) for character in text)


def _escape(character: str, kept: str) -> str:
    if character.isprintable() or character in kept:
        return character
    return character.encode("unicode_escape").decode()


def one_line(text: str) -> str:
    """The text with line breaks and whatever else cannot be printed escaped: file names may hold
    anything."""
    return printable(text, "")


def first_line(error: BaseException) -> str:
    """The first line of an error that says something; SimpleITK's begin with a place in its own
    source."""
    for line in str(error).strip().splitlines():
        if not line.startswith("Exception thrown in SimpleITK"):
            return line.removeprefix("sitk::ERROR: ")
    return type(error).__name__


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP raise KeyboardInterrupt within, with their number, so that what tidies up
    is run.

    A scheduler sends the one, a closed terminal the other. One that is ignored, as by ``nohup``,
    stays so.
    """

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    numbers = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):  # Windows has none
        numbers.append(signal.SIGHUP)
    previous = {}
    try:
        for number in numbers:
            # Outside the main thread Python refuses to set a handler: signals are then not ours to
            # handle.
            with contextlib.suppress(ValueError):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    previous[number] = signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
