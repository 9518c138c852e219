"""The commands of docs/tutorial.md, on 50 small blobs and with trainings of two iterations."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
from pathlib import Path

from nnunet_nacl import demo as steps
from tests.integration import tiny_data as tiny
from tests.integration.workspace import Workspace
from tests.pages import ROOT, blocks

TASK, SCHEDULE = "Task04_Hippocampus", "100epochs_50iters"


def commands() -> list[str]:
    """Lines of the page as its reader types them."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    return [line for language, code in blocks(text) if language == "bash" for line in code.splitlines()]


def demo(arguments: list[str]) -> int:
    """`nnunet_nacl demo` in this process, whose commands run in processes that have nnU-Net loaded."""
    from nnunet_nacl.cli.main import main

    here = Workspace(Path.cwd(), dict(os.environ))

    def run(started, environment) -> None:
        for (program, *words), log in started:
            printed = here.run_warm(program, *words, **environment)
            if log:
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(printed, encoding="utf-8")

    steps.run_together = run
    return main(arguments)


def mark(output: Path, path: Path) -> None:
    """What the reader does at the page: every scan is ok."""
    run = json.loads((output / "prediction.json").read_text(encoding="utf-8")).get("run", "")
    with open(output / "review.csv", newline="", encoding="utf-8") as rows, open(path, "w", newline="") as file:
        marks = [[run, row["case"], "ok", "", "2026-01-01T00:00:00Z"] for row in csv.DictReader(rows)]
        csv.writer(file).writerows([["run", "case", "mark", "note", "time"], *marks])


def test_the_commands_of_the_tutorial_lead_to_a_reviewed_list(tmp_path, clean_environ, monkeypatch) -> None:
    monkeypatch.setattr(tiny, "NUM_TRAINING", 50)  # two folds of 10: `-miss 0.05` takes 19 patients
    tiny.make_task(tmp_path / "data" / TASK, (16, 18, 20), (1.0, 1.0, 1.0), seed=3)
    monkeypatch.chdir(tmp_path)
    space = Workspace(tmp_path, clean_environ)
    environ, printed = {"PWD": str(tmp_path)}, {}
    for line in commands():
        line = line.replace(f"--data {TASK}", f"--data data/{TASK}").replace(SCHEDULE, "1epochs_2iters")
        for name, value in environ.items():
            line = re.sub(rf"\${name}\b", value, line)
        program, *words = shlex.split(line)
        if program == "tar":
            continue
        if program == "export":
            environ |= dict(word.split("=", 1) for word in words)
        elif words[0] == "demo":
            printed["demo"] = space.call_warm(demo, words, **environ)
        else:
            if "-marks" in words:
                mark(tmp_path / "out", tmp_path / "marks.csv")
            printed[words[0]] = space.run_warm(program, *words, **environ)
    assert list(printed) == ["demo", "calibrate", "predict", "review"]
    assert re.search(r"ECE predicted [\d.]+ -> [\d.]+, by maps that have not seen the case", printed["calibrate"])
    assert "Aim: of 100 scans at most 5 are bad and not flagged" in printed["predict"]
    assert (tmp_path / "out" / "index.html").is_file() and (tmp_path / "out" / "outcome.html").is_file()
