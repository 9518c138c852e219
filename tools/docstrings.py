"""Docstrings in Google's style, read by griffe as the site reads them, and their text as
Markdown."""

from __future__ import annotations

import re

import griffe


def first_paragraph(docstring: str) -> str:
    """What a docstring says first, as Markdown in one line."""
    return as_markdown(docstring.split("\n\n")[0])


def text_before_sections(docstring: str) -> str:
    """What a docstring says before its first section, such as Attributes, as Markdown in one
    line."""
    for section in _sections(docstring):
        if section.kind is griffe.DocstringSectionKind.text:
            return as_markdown(section.value)
    return ""


def described_attributes(docstring: str) -> dict[str, str]:
    """What the section Attributes says, by name of the attribute, as Markdown in one line."""
    descriptions = {}
    for section in _sections(docstring):
        if section.kind is griffe.DocstringSectionKind.attributes:
            for attribute in section.value:
                for name in attribute.name.split(", "):
                    descriptions[name] = as_markdown(attribute.description)
    return descriptions


def _sections(docstring: str) -> list[griffe.DocstringSection]:
    return griffe.Docstring(docstring).parse("google")


def as_markdown(text: str) -> str:
    """The text of a docstring in one line: Sphinx's roles are code, and a number that is not
    defined is null, as in files."""
    role = r":\w+:`(?:~[\w.]*\.)?([\w.]+)`"
    with_code = re.sub(role, r"`\1`", text.replace("``", "`"))
    return re.sub(r"\bNaN\b", "null", " ".join(with_code.split()))
