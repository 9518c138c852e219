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
    """Where the files of a case lie below one of the roots, as templates without ending.

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
        expression = ""
        captured = set()
        for part in re.split(r"(\{\w+\})", template):
            name = part[1:-1]
            if not part.startswith("{"):
                expression += re.escape(part)
            elif name in captured:
                expression += f"(?P={name})"
            else:
                captured.add(name)
                pattern, _ = self.fields[name]
                expression += f"(?P<{name}>{pattern})"
        return re.compile(expression)


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
        for root in layout.roots:
            if not (folder / root).is_dir():
                continue
            files, empty_folders = _match(folder / root, layout)
            if not files:
                continue
            cases = []
            for key, files_of_case in sorted(files.items()):
                cases.append(_complete(folder / root, layout, title, case, key, files_of_case))
            if empty_folders:
                raise InputError(
                    f"{empty_folders[0]}: holds no case; {title} has {layout.example} there."
                )
            return cases
    raise InputError(f"{folder}: holds no case of {title}; {_expected_files(layouts)}.")


def _expected_files(layouts: Sequence[Layout]) -> str:
    """What should be in a folder in which there is no case, for errors."""
    expected = " or ".join(layout.example for layout in layouts)
    roots: list[str] = []
    for layout in layouts:
        roots += [root for root in layout.roots if root]
    inside = f" (or inside {', '.join(roots)})" if roots else ""
    return f"expected files such as {expected} there{inside}"


Key = tuple[tuple[str, str], ...]
"""The fields of a case's paths, name and text."""


def _match(root: Path, layout: Layout) -> tuple[dict[Key, dict[str, Path]], list[Path]]:
    """The files by case and template, and the folders that are named as a case's and hold none."""
    patterns = {template: layout.pattern(template) for template in layout.templates}
    folder_templates = [template.rpartition("/")[0] for template in layout.templates]
    folder_patterns = [layout.pattern(text) for text in folder_templates if "{" in text]
    depth = max(template.count("/") for template in patterns)
    files: dict[Key, dict[str, Path]] = {}
    fields_of_folder: dict[Path, set[tuple[str, str]]] = {}
    for place, subfolders, names in os.walk(root, onerror=_refuse, followlinks=True):
        folder = Path(place)
        relative = folder.relative_to(root)
        if len(relative.parts) >= depth:
            subfolders.clear()
        for pattern in folder_patterns:
            if match := pattern.fullmatch(relative.as_posix()):
                fields_of_folder[folder] = set(match.groupdict().items())
        for name in sorted(names, reverse=True):  # of the same file twice, the compressed one
            stem = _without_ending((relative / name).as_posix())
            for template, pattern in patterns.items():
                if match := pattern.fullmatch(stem):
                    key = tuple(match.groupdict().items())
                    files.setdefault(key, {}).setdefault(template, folder / name)
    empty_folders = []
    for folder, fields in fields_of_folder.items():
        if not any(fields <= set(key) for key in files):
            empty_folders.append(folder)
    return files, empty_folders


def _without_ending(path: str) -> str:
    """The path of an image without .nii.gz or .nii; nothing for any other file."""
    for ending in _ENDINGS:
        if path.endswith(ending):
            return path.removesuffix(ending)
    return ""


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
