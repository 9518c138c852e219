"""The README and docs/: links, commands, imports, and length."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from nnunet_nacl.cli.main import SUBCOMMANDS, build_parser
from nnunet_nacl.registration.class_files import find_nnunets_class_file
from nnunet_nacl.registration.grammar import parse
from tests.pages import PAGES, ROOT, blocks, name

pages = pytest.mark.parametrize("page", PAGES, ids=name)


def test_links_of_what_is_no_page_of_the_site_lead_somewhere() -> None:
    """mkdocs checks those of docs/ and, to docs/, of the README."""
    texts = [ROOT / "CONTRIBUTING.md", ROOT / "README.md", *(ROOT / "research").rglob("*.md")]
    links = []
    for path in texts:
        text = path.read_text(encoding="utf-8")
        targets = re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", text)
        links += [(path.parent / target).resolve() for target in targets]
    assert links and not [path for path in links if not path.exists()]


def test_each_guarantee_is_linked_to_its_test() -> None:
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"`(tests/guarantees/\w+\.py)`", page))
    tests = (ROOT / "tests" / "guarantees").glob("test_*.py")
    assert linked == {path.relative_to(ROOT).as_posix() for path in tests}


@pages
def test_commands_and_their_flags_exist(page: Path) -> None:
    unknown = []
    for language, code in blocks(page.read_text(encoding="utf-8")):
        if language not in ("", "bash"):
            continue
        for line in code.replace("\\\n", " ").split("\n"):
            for command in re.split(r"&&|;|\|", line.partition("  # ")[0]):
                words = command.split()
                if words and not known(words):
                    unknown.append(command.strip())
    assert not unknown


def known(words: list[str]) -> bool:
    """Whether a command of ours, or of nnU-Net, exists and has all flags that it is given."""
    program, *arguments = words
    if program.startswith("nnUNetv2_"):
        return program in {one.name for one in metadata.entry_points(group="console_scripts")}
    if program != "nnunet_nacl":
        return True
    subcommand = next((word for word in arguments if not word.startswith("-")), "")
    if subcommand not in SUBCOMMANDS:
        return arguments in (["--version"], ["-h"])
    outside_quotes = re.sub(r"(['\"]).*?\1", "", " ".join(arguments))
    flags = {word for word in outside_quotes.split() if re.fullmatch(r"--?[A-Za-z][\w-]*", word)}
    # argparse has no public way
    parser = build_parser([subcommand])._subparsers._group_actions[0].choices[subcommand]
    return flags <= set(parser._option_string_actions)


@pages
def test_trainers_of_this_package_have_their_names(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"nnUNetTrainer\w*\b(?!<)", text))
    users_own = set(re.findall(r"^class (\w+)\(", text, re.MULTILINE))
    for trainer in names - users_own:
        assert find_nnunets_class_file(trainer) or parse(trainer), trainer


@pages
def test_python_examples_import_what_there_is(page: Path) -> None:
    for language, code in blocks(page.read_text(encoding="utf-8")):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("nnunet_nacl"):
                module = importlib.import_module(node.module)
                assert not [
                    alias.name for alias in node.names if not hasattr(module, alias.name)
                ], node.module


def test_pages_that_code_names_exist() -> None:
    folders = ("nnunet_nacl", "trainers", "workflow", "tools", "research", "docs")
    pattern = r"\bdocs/[\w/.-]+\.(?:md|py)\b"
    named = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml"):
                named.update(re.findall(pattern, path.read_text(encoding="utf-8")))
    assert named and not [path for path in named if not (ROOT / path).exists()]


def test_the_site_builds_and_fetches_nothing(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="pip install '.[docs]'")
    pytest.importorskip("mkdocstrings", reason="pip install '.[docs]'")
    for page in ("predictions/model/index.html", "comparison/data_set/report.html"):
        (tmp_path / "demo" / page).parent.mkdir(parents=True)
        (tmp_path / "demo" / page).write_text("<p>made by a demo</p>", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "-q",
        "-d",
        str(tmp_path / "site"),
    ]
    environment = {**os.environ, "NNUNET_NACL_DEMO": str(tmp_path / "demo")}
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert found.returncode == 0, found.stderr
    fetched = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"?https?:|<link[^>]*\shref=\"?https?:")
    assert not any(
        fetched.search(path.read_text(encoding="utf-8"))
        for path in (tmp_path / "site").rglob("*.html")
    )
    reference = (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
    assert 'id="nnunet_nacl.metrics.count_masks"' in reference
    assert not re.search(r":(mod|func|class|meth|data|attr):", reference)
    assert 'id="nnunet_nacl.losses.NACLLoss"' in reference
    # examples are code
    assert '<span class="gp">&gt;&gt;&gt; </span>' in reference and "<blockquote>" not in reference
    assert '"schema_version"' in (tmp_path / "site/schemas/calibration_map.schema.json").read_text()
    files = (tmp_path / "site" / "files.html").read_text(encoding="utf-8")
    assert '<code class="short">predicted_dice_low</code>' in files  # stays in one line
    assert '<code class="short">' not in "".join(re.findall(r"<pre>.*?</pre>", files, re.DOTALL))
    for example in ("review", "comparison"):
        assert "made by a demo" in (tmp_path / "site" / "examples" / f"{example}.html").read_text(
            encoding="utf-8"
        )
