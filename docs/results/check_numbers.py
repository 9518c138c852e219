"""Whether the numbers in the prose of a page are those of their sources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from number_sources import value_of
from page_numbers import NUMBER, like, line_of, numerals

Claim = Sequence[str]
"""A text of a page, with `{}` where numbers stand, and the source of each of these (number_sources.py)."""


def _pattern(text: str) -> re.Pattern[str]:
    """A claim may stand on two lines."""
    parts = (re.sub(r"(?:\\?\s)+", r"\\s+", re.escape(part)) for part in text.split("{}"))
    return re.compile(rf"([+-]?(?:{NUMBER}))".join(parts))


def claimed(page: str, claims: Sequence[Claim]) -> Iterator[tuple[re.Match[str], int, str]]:
    """For each claimed number its place (match and group), and as what it should be written.

    Raises:
        LookupError, OSError, ValueError: A claim does not stand in the page once, or a source gives no number.
    """
    for text, *sources in claims:
        matches = list(_pattern(text).finditer(page))
        if len(matches) != 1 or text.count("{}") != len(sources):
            raise LookupError(f"'{text}' with {len(sources)} sources stands {len(matches)} times in the page, not once")
        for group, source in enumerate(sources, 1):
            try:
                value = value_of(source)
            except Exception as error:  # whatever an expression raises
                raise LookupError(f"'{text}', {source}: {error}") from error
            number = like(matches[0][group], value)
            if 0 < abs(value) < 1 and (not re.search("[.e]", number) or float(number) == 0):
                raise LookupError(f"'{text}': {matches[0][group]} has too few digits for {value:.3g}")
            yield matches[0], group, number


def renew(page: str, claims: Sequence[Claim]) -> tuple[str, list[tuple[int, str]]]:
    """The page with its claimed numbers made anew; and of each that changes, or cannot be, its line and what it is."""
    problems, new = [], []
    for claim in claims:
        try:
            for match, group, text in claimed(page, [claim]):
                if match[group] != text:
                    problems.append((line_of(page, match.start(group)), f"{match[group]} is {text} ('{claim[0]}')"))
                new.append((match.span(group), text))
        except LookupError as error:
            problems.append((0, f"claim {error}"))
    for (start, end), text in sorted(new, reverse=True):
        page = page[:start] + text + page[end:]
    return page, problems


def without_source(
    page: str, claims: Sequence[Claim], exceptions: Sequence[str], used: set[str]
) -> list[tuple[int, str]]:
    """Line and text of each numeral in prose that no claim covers and no exception names.

    Args:
        page: Its text.
        claims: Those of the page.
        exceptions: Regular expressions, in which a blank stands for any white space.
        used: Gets the exceptions that cover a numeral which no claim does.
    """
    spans = [
        match.span(group)
        for text, *_ in claims
        for match in _pattern(text).finditer(page)
        for group in range(1, text.count("{}") + 1)
    ]
    rest = [n for n in numerals(page) if not any(start <= n.start() < end for start, end in spans)]
    excepted = set()
    for pattern in exceptions:
        for match in re.finditer(pattern.replace(" ", r"\s+"), page, re.MULTILINE):
            inside = {n.start() for n in rest if match.start() <= n.start() < match.end()}
            if inside:
                used.add(pattern)
            excepted |= inside
    return [
        (
            line_of(page, n.start()),
            f"{n[0]} has no source: '{page.split(chr(10))[line_of(page, n.start()) - 1].strip()}'",
        )
        for n in rest
        if n.start() not in excepted
    ]
