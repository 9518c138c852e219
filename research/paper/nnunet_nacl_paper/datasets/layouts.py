"""Finds the cases in a challenge's folder by templates of their files' paths."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_nacl_paper.files import InputError

_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Layout:
    """Where the files of a case lie below one of the roots, as templates without the ending .nii.gz
    or .nii.

    Attributes:
        fields: What stands in the templates in braces: pattern, and an example for errors.
            ``patient`` must be one.
        images: One template a file, in the order of the channels; all volumes of a 4D file lie in
            one.
        labels: Template of the segmentation.
        roots: Folders in which the templates may begin, the first that holds a case counts:
            challenges are unpacked into folders of their own, and users give either.
    """

    fields: Mapping[str, tuple[str, str]]
    images: Sequence[str]
    labels: str
    roots: Sequence[str] = field(default=("",))

    @property
    def templates(self) -> tuple[str, ...]:
        """All templates, the segmentation's last."""
        return (*dict.fromkeys(self.images), self.labels)

    @property
    def example(self) -> str:
        """The files of one case, for errors."""
        examples = {name: example for name, (_, example) in self.fields.items()}
        return ", ".join(template.format(**examples) + _ENDINGS[0] for template in self.templates)

    def pattern(self, template: str) -> re.Pattern[str]:
        """A regular expression that matches a template's paths and captures its fields."""
        text, seen = "", set()
        for part in re.split(r"(\{\w+\})", template):
            name = part[1:-1]
            if not part.startswith("{"):
                text += re.escape(part)
            elif name in seen:
                text += f"(?P={name})"
            else:
                seen.add(name)
                text += f"(?P<{name}>{self.fields[name][0]})"
        return re.compile(text)


@dataclass(frozen=True)
class SourceCase:
    """Files of a case, all of them there.

    Attributes:
        name: The case's name in the data set.
        patient: Who must not be on both sides of a split.
        images: One file a channel; the same one for the channels of a 4D file.
        labels: The segmentation.
    """

    name: str
    patient: str
    images: tuple[Path, ...]
    labels: Path


def find_cases(folder: Path, title: str, layouts: Sequence[Layout], case: str) -> list[SourceCase]:
    """All cases of a folder, in alphabetic order.

    Args:
        folder: As the user gives it.
        title: The challenge's name, for errors.
        layouts: In which the challenge may lie there.
        case: Template of the cases' names.

    Raises:
        InputError: There is no case, or one lacks a file.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such folder; give the folder of {title} as the challenge distributes it."
        )
    for layout in layouts:
        for root in filter(lambda name: (folder / name).is_dir(), layout.roots):
            found, empty = _match(folder / root, layout)
            if found:
                cases = [
                    _complete(folder / root, layout, title, case, *item)
                    for item in sorted(found.items())
                ]
                if empty:
                    raise InputError(
                        f"{empty[0]}: holds no case; {title} has {layout.example} there."
                    )
                return cases
    expected = " or ".join(layout.example for layout in layouts)
    roots = ", ".join(root for layout in layouts for root in layout.roots if root)
    inside = f" (or inside {roots})" if roots else ""
    raise InputError(
        f"{folder}: holds no case of {title}; expected files such as {expected} there{inside}."
    )


Key = tuple[tuple[str, str], ...]


def _match(root: Path, layout: Layout) -> tuple[dict[Key, dict[str, Path]], list[Path]]:
    """The files by case and template, and the folders that are named as a case's and hold none."""
    patterns = {template: layout.pattern(template) for template in layout.templates}
    folders = [
        layout.pattern(place)
        for t in layout.templates
        if (place := t.rpartition("/")[0]) and "{" in place
    ]
    depth = max(template.count("/") for template in patterns)
    found: dict[Key, dict[str, Path]] = {}
    named: list[tuple[Path, set[tuple[str, str]]]] = []
    for place, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
        relative = Path(place).relative_to(root)
        if len(relative.parts) >= depth:
            subfolders.clear()
        for pattern in folders:
            if match := pattern.fullmatch(relative.as_posix()):
                named.append((Path(place), set(match.groupdict().items())))
        for name in sorted(files, reverse=True):  # of the same file twice, the compressed one
            ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
            stem = (relative / name).as_posix()[: -len(ending)] if ending else ""
            for template, pattern in patterns.items():
                if match := pattern.fullmatch(stem):
                    key = tuple(match.groupdict().items())
                    found.setdefault(key, {}).setdefault(template, Path(place) / name)
    return found, [place for place, fields in named if not any(fields <= set(key) for key in found)]


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: {error.strerror}; change its permissions.")


def _complete(
    root: Path, layout: Layout, title: str, case: str, key: Key, files: dict[str, Path]
) -> SourceCase:
    fields = dict(key)
    for template in layout.templates:
        if template not in files:
            wanted = f"{root / template.format(**fields)}{_ENDINGS[0]}"
            raise InputError(f"{wanted}: missing; a case of {title} has {layout.example}.")
    images = tuple(files[template] for template in layout.images)
    return SourceCase(case.format(**fields), fields["patient"], images, files[layout.labels])
