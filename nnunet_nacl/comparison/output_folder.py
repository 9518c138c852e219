"""The folder of a comparison: what may be written there, and which files an earlier one wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_nacl.cases.ownership import Digests, OwnedFiles, check_no_others, read_pending
from nnunet_nacl.cases.record_key import FileKey, file_key
from nnunet_nacl.comparison.comparison_report import ComparisonReport, WrittenFile
from nnunet_nacl.comparison.file_names import (
    FIGURES,
    TABLES,
    file_of_table,
    files_of_figure,
    files_of_figures,
    files_of_tables,
)
from nnunet_nacl.comparison.located import LocatedComparison
from nnunet_nacl.utilities.errors import UserError
from nnunet_nacl.utilities.files import (
    check_ours,
    check_writable,
    is_file_name,
    lies_inside,
    to_json_text,
    write_atomically,
)
from nnunet_nacl.utilities.json_files import decode, encode, read_dict

COMPARISON_FILE = "comparison.json"
PAGE_NAME = "report.html"
PENDING_FILE = "comparison.pending.json"
"""Names files until comparison.json does."""


def check_output_folder(folder: Path, comparisons: Sequence[LocatedComparison]) -> None:
    """Check, before any work, that a comparison can be written, and replaces only what one wrote.

    Args:
        folder: Where it is to be written.
        comparisons: Of which only names and methods are known yet.

    Raises:
        UserError: It cannot be written, or files of others would be lost.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"[[output]] {folder} is a file; give a folder.")
    check_ours((folder / COMPARISON_FILE, folder / PAGE_NAME))
    files = files_of_comparison(folder)
    file_names = {*files_of_tables(comparisons), *files_of_figures(comparisons), *files.known_names}
    check_no_others(files.in_the_way(sorted(file_names)))
    examples = (COMPARISON_FILE, file_of_table("table"), files_of_figure("figure")[0])
    for example in examples:  # one for each folder
        check_writable(folder / example)


def files_of_comparison(folder: Path) -> OwnedFiles:
    """The tables and figures of a folder that comparisons wrote.

    They are known by their digests in comparison.json and in a pending file. Earlier versions wrote
    no digests: then what comparison.json lists counts as ours.
    """
    pending = folder / PENDING_FILE
    known = _read_written_files(folder)
    for file_name, keys in read_pending(pending).items():
        known.setdefault(file_name, []).extend(keys)
    known = {file_name: keys for file_name, keys in known.items() if _is_named_as_ours(file_name)}
    return OwnedFiles(folder, pending, known)


def _is_named_as_ours(file_name: str) -> bool:
    """Whether this package puts files there: comparison.json may have been edited by hand."""
    folder, _, name = file_name.partition("/")
    return folder in (TABLES, FIGURES) and is_file_name(name)


def _read_written_files(folder: Path) -> Digests:
    """Files that a comparison.json names.

    Where it is missing, damaged or something else nothing is known: then tables and figures that
    lie there count as somebody else's, and whoever would replace them is told.
    """
    try:
        document = read_dict(folder / COMPARISON_FILE)
        if "files" in document:
            written = decode(dict[str, WrittenFile], document["files"], folder)
            return {file_name: [_key_of(file)] for file_name, file in written.items()}
        file_names = set[str]()
        for entry in (*document["tables"], *document["figures"]):
            file_names |= {str(file_name) for file_name in entry["files"]}
        inside = [file_name for file_name in file_names if lies_inside(folder / file_name, folder)]
        return {file_name: [file_key(folder / file_name)] for file_name in inside}
    except (UserError, OSError, KeyError, TypeError):
        return {}


def _key_of(file: WrittenFile) -> FileKey:
    return FileKey(path="", size=file["size"], mtime_ns=0, digest=file["digest"])


def write_comparison(document: ComparisonReport, files: OwnedFiles) -> Path:
    """Write comparison.json, last of all.

    Tables and figures of the comparison before, which it does not list, are removed.
    """
    path = files.folder / COMPARISON_FILE
    (files.folder / PAGE_NAME).unlink(missing_ok=True)  # which shows the one before
    write_atomically(path, to_json_text(encode(document)))
    files.settle(document["files"])
    return path
