"""What the benchmarks share: the machine in words, and their sections of one Markdown page."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from pathlib import Path

import torch

_PAGE = """# Results of the benchmarks

The last run of the scripts in `research/benchmarks/`. Each rewrites its own section of this page:

    python research/benchmarks/training_iteration.py DATASET CONFIGURATION FOLD --output \
research/benchmarks/new.md
    python research/benchmarks/metrics.py --output research/benchmarks/new.md
    python research/benchmarks/evaluation.py VALIDATION_FOLDER --output research/benchmarks/new.md
    python research/benchmarks/validation.py DATASET CONFIGURATION FOLD -tr TRAINER --output \
research/benchmarks/new.md
    python research/benchmarks/export.py --output research/benchmarks/new.md
    python research/benchmarks/export_size.py --output research/benchmarks/new.md
    python research/benchmarks/structures.py --output research/benchmarks/new.md
    python research/benchmarks/prediction.py SCANS -d DATASET -c CONFIGURATION --output \
research/benchmarks/new.md
    python research/benchmarks/workflow.py DATASET CONFIGURATION --output research/benchmarks/new.md

"""


def describe_machine() -> str:
    """Processor, versions and threads in one line."""
    n_allowed_cores = len(os.sched_getaffinity(0))
    instructions = torch.backends.cpu.get_cpu_capability()
    facts = [
        _find_processor(),
        f"pinned to {n_allowed_cores} of {os.cpu_count()} cores",
        f"{torch.get_num_threads()} thread(s)",
        f"torch {torch.__version__} ({instructions})",
        f"Python {platform.python_version()}",
        f"load average {os.getloadavg()[0]:.1f} at the end",
    ]
    return ", ".join(facts)


def pin_to_one_core(core: int | None) -> None:
    """Keep this process, and torch's threads, on one core (the first that it may use)."""
    allowed = sorted(os.sched_getaffinity(0))
    if core is not None and core not in allowed:
        raise SystemExit(f"core {core} may not be used by this process; it may use {allowed}.")
    if core is None:
        core = allowed[0]
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)


def join_section(*paragraphs: str) -> str:
    """Markdown of a section: its paragraphs, and the machine."""
    return "\n\n".join([*paragraphs, f"Machine: {describe_machine()}."])


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table whose first column holds words and whose others hold numbers."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_section(page: Path, name: str, text: str) -> None:
    """Replace the text between a section's two marks; a page that does not exist yet is made.

    Args:
        page: Markdown file.
        name: Of the section, in its marks. A section that does not exist yet is added at the end.
        text: Markdown.
    """
    old = _PAGE
    if page.exists():
        old = page.read_text(encoding="utf-8")
    begin = f"<!-- begin {name} -->"
    end = f"<!-- end {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if pattern.search(old):
        new = pattern.sub(lambda match: section, old)
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=page.parent, prefix=f".{page.name}.", delete=False, encoding="utf-8"
    ) as file:
        file.write(new)
    os.chmod(file.name, 0o644)
    os.replace(file.name, page)


def _find_processor() -> str:
    """Its name; that of its kind where the system does not say it."""
    try:
        description = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        description = ""
    name = re.search(r"^model name\s*:\s*(.+)$", description, re.MULTILINE)
    if name is not None:
        return name[1]
    return platform.processor() or platform.machine()
