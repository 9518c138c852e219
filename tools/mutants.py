"""Mutants: small faults put into the package one at a time, and whether the tests notice.

    python tools/mutants.py draw -n 150 -o mutants.json nnunet_nacl/losses nnunet_nacl/numbers
    python tools/mutants.py run mutants.json -o found.json -tests tests/losses tests/numbers

`draw` takes them at random from cosmic-ray's operators. `run` first finds out which test executes which line, then runs
for every mutant the quickest tests that execute its line. A mutant is found by its text, in whatever file the line
stands now, so that the same faults can be tried before and after a change of the layout. Needs `cosmic-ray` and
`coverage`, and Linux (it forks).
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 60  # of CPU time; a mutant that takes longer is noticed
WAIT_S = 600  # a mutant that waits this long, too
LIBRARIES = """
    hypothesis matplotlib.figure nibabel pandas pytest scipy.ndimage scipy.optimize scipy.stats SimpleITK torch
    nnunetv2.inference.predict_from_raw_data nnunetv2.training.nnUNetTrainer.nnUNetTrainer
""".split()
TEST_TIME_S = 12.0  # of the tests that are run for one mutant, by their time without it
SAME_FUNCTION = 30  # parametrisations of one test function that are run for one mutant
OPERATORS = r"""
    ReplaceBinaryOperator_(Add_Sub|Sub_Add|Mul_Div|Div_Mul|FloorDiv_Mul|Pow_Mul|Mod_Add|BitAnd_BitOr|BitOr_BitAnd)
    ReplaceComparisonOperator_(Lt_LtE|Lt_GtE|LtE_Lt|LtE_Gt|Gt_GtE|Gt_LtE|GtE_Gt|GtE_Lt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is)
    ReplaceUnaryOperator_(Delete_USub|Delete_Not|Delete_Invert) AddNot ReplaceTrueWithFalse ReplaceFalseWithTrue
    ReplaceAndWithOr ReplaceOrWithAnd ReplaceBreakWithContinue ReplaceContinueWithBreak ExceptionReplacer NumberReplacer
    ZeroIterationForLoop
""".split()


def meaning(source: str) -> str | None:
    """The code without its documentation, its annotations and the text of errors; None if it is no Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # the tool takes `{*a, **b}` for products
        return None
    for node in ast.walk(tree):
        for name in ("annotation", "returns"):
            if getattr(node, name, None) is not None:
                setattr(node, name, None)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(0)
        if isinstance(node, ast.Raise):  # the text of a message
            node.exc = None
    return ast.dump(tree)


def function_at(source: str, line: int) -> str:
    """Name of the innermost function or class that has a line, counted from 1."""
    around = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.lineno <= line <= node.end_lineno
    ]
    return max(around, key=lambda node: node.lineno).name if around else ""


def mutants_of(path: Path, rng: random.Random) -> Iterator[dict]:
    """All mutants of a file in random order, the kinds of operators taking turns."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator, operator_names

    source = path.read_text(encoding="utf-8")
    unchanged, nodes = meaning(source), list(ast_nodes(get_ast(source)))
    kinds: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name in operator_names():
        short = name.removeprefix("core/")
        if any(re.fullmatch(operator, short) for operator in OPERATORS):
            number = sum(len(list(get_operator(name)().mutation_positions(node))) for node in nodes)
            kinds[short.split("_")[0]] += [(name, occurrence) for occurrence in range(number)]
    for places in kinds.values():
        rng.shuffle(places)
    while kinds:
        for kind in rng.sample(sorted(kinds), len(kinds)):
            if not kinds[kind]:
                del kinds[kind]
                continue
            name, occurrence = kinds[kind].pop()
            try:
                mutated = mutate_code(source, get_operator(name)(), occurrence)
            except AttributeError:  # the tool cannot replace `module.Exception`
                continue
            if meaning(mutated) in (None, unchanged):
                continue
            old, new = source.splitlines(), mutated.splitlines()
            if any(a != b and a.startswith("@dataclass") for a, b in zip(old, new)):
                continue  # whether a record is frozen is no behaviour
            changed = [code for code in SequenceMatcher(None, old, new, False).get_opcodes() if code[0] != "equal"]
            first, last, new_first, new_last = changed[0][1], changed[-1][2], changed[0][3], changed[-1][4]
            yield {
                "file": str(path.relative_to(PROJECT)),
                "line": first + 1,
                "function": function_at(source, first + 1),
                "operator": name.removeprefix("core/"),
                "before": old[first:last],
                "after": new[new_first:new_last],
            }


def draw(files: list[str], number: int, seed: int) -> list[dict]:
    """Mutants of these files, about as many of each."""
    rng = random.Random(seed)
    paths = [
        p for f in files for p in (sorted((PROJECT / f).rglob("*.py")) if (PROJECT / f).is_dir() else [PROJECT / f])
    ]
    queues = [mutants_of(path, rng) for path in paths]
    drawn: list[dict] = []
    while len(drawn) < number and queues:
        for queue in rng.sample(queues, len(queues)):
            mutant = next(queue, None)
            if mutant is None:
                queues.remove(queue)
            elif len(drawn) < number:
                drawn.append(mutant)
    return drawn


def locate(mutant: dict, tree: Path) -> tuple[Path, int] | None:
    """File and line, counted from 0, where a mutant's text stands now: in its own function and file, or anywhere."""
    wanted = [line.strip() for line in mutant["before"]]
    found = []
    for path in sorted((tree / "nnunet_nacl").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        lines = [line.strip() for line in source.splitlines()]
        for i in range(len(lines)):
            if lines[i : i + len(wanted)] == wanted:
                same_function = function_at(source, i + 1) == mutant["function"]
                same_file = path.name == Path(mutant["file"]).name
                distance = abs(i + 1 - mutant["line"])
                found.append((not same_function, not same_file, distance, path, i))
    if not found or (found[0][0] and len("".join(wanted)) < 25 and min(found)[0]):
        return None  # a short line of another function is another line
    return min(found)[3:]


def mutated(mutant: dict, path: Path, line: int) -> str:
    """The source with the fault in it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    old = lines[line]
    indent = len(old) - len(old.lstrip()) - (len(mutant["before"][0]) - len(mutant["before"][0].lstrip()))
    shift = lambda text: " " * indent + text if indent >= 0 else text[-indent:]  # noqa: E731
    lines[line : line + len(mutant["before"])] = [shift(text) for text in mutant["after"]]
    return "\n".join(lines) + "\n"


def in_child(work: Callable[[], int], limited: bool = False) -> int | None:
    """Calls a function in a fork of this process, which has all libraries loaded; its exit status, or None if late."""
    child = os.fork()
    if child == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2) if limited else (0,):
            os.dup2(null, stream)
        if limited:
            resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT_S, TIMEOUT_S + 5))
        status = 99
        try:
            status = int(work())
        finally:
            os._exit(status)
    end = time.monotonic() + (WAIT_S if limited else float("inf"))
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return None if status == signal.SIGXCPU else os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def pytest_options() -> list[str]:
    return ["-q", "-p", "no:cacheprovider", "--hypothesis-seed=0", "-m", "not integration", "-W", "ignore"]


def run_pytest(list_file: Path) -> int:
    return importlib.import_module("pytest").main([*pytest_options(), "-x", f"@{list_file}"])


def record_coverage(tree: Path, tests: list[str], target: Path) -> int:
    """Runs the tests once; writes how long each took and which lines of the package it executed."""
    import coverage
    import pytest

    cover = coverage.Coverage(data_file=None, source=[str(tree / "nnunet_nacl")], config_file=False)
    seconds: dict[str, float] = defaultdict(float)
    failed = set()

    class Plugin:
        @pytest.hookimpl(hookwrapper=True)
        def pytest_runtest_protocol(self, item):
            cover.switch_context(item.nodeid)
            yield
            cover.switch_context("")

        def pytest_runtest_logreport(self, report):
            seconds[report.nodeid] += report.duration
            if report.failed:
                failed.add(report.nodeid)

    cover.start()
    pytest.main([*pytest_options(), *tests], plugins=[Plugin()])
    cover.stop()
    data = cover.get_data()
    names = sorted(seconds)
    index = {name: i for i, name in enumerate(names)}
    lines = {
        str(Path(file).relative_to(tree)): {
            line: [index[c] for c in contexts if c in index and c not in failed]
            for line, contexts in data.contexts_by_lineno(file).items()
        }
        for file in data.measured_files()
    }
    target.write_text(json.dumps({"tests": names, "seconds": [seconds[n] for n in names], "lines": lines}))
    print(f"{len(names)} tests, {len(failed)} fail without a mutant and are left out: {sorted(failed)[:5]}")
    return 0


def choose_tests(cover: dict, file: str, lines: range) -> list[str]:
    """The quickest tests that execute one of these lines, or else the file."""
    of_file = cover["lines"].get(file, {})
    chosen = {test for line in lines for test in of_file.get(str(line), [])}
    chosen = chosen or {test for tests in of_file.values() for test in tests}
    taken, time_s, per_function = [], 0.0, defaultdict(int)
    for test in sorted(chosen, key=lambda i: (cover["seconds"][i], i)):
        function = cover["tests"][test].split("[")[0]
        per_function[function] += 1
        if per_function[function] <= SAME_FUNCTION:
            time_s += cover["seconds"][test]
            if taken and time_s > TEST_TIME_S:
                break
            taken.append(cover["tests"][test])
    return taken


def run(mutants: list[dict], tree: Path, tests: list[str], coverage_file: Path, output: Path) -> None:
    """Tries every mutant in a copy of the project; what is done already is not done again."""
    for module in LIBRARIES:
        importlib.import_module(module)
    os.chdir(tree)
    if not coverage_file.is_file():
        in_child(lambda: record_coverage(tree, tests, coverage_file))
    cover = json.loads(coverage_file.read_text())
    done = json.loads(output.read_text()) if output.is_file() else []
    for number, mutant in enumerate(mutants[len(done) :], len(done)):
        place = locate(mutant, tree)
        found = {**mutant, "result": "not found", "now": None}
        if place:
            path, line = place
            name = str(path.relative_to(tree))
            chosen = choose_tests(cover, name, range(line + 1, line + 1 + len(mutant["before"])))
            found["now"], found["tests"], found["result"] = name, len(chosen), "survived: no test"
            original, list_file = path.read_text(encoding="utf-8"), tree / "chosen_tests.txt"
            list_file.write_text("\n".join(chosen) + "\n", encoding="utf-8")
            shutil.rmtree(tree / ".hypothesis", ignore_errors=True)
            if chosen:
                path.write_text(mutated(mutant, path, line), encoding="utf-8")
                start = time.monotonic()
                try:
                    status = in_child(partial(run_pytest, list_file), limited=True)
                finally:
                    path.write_text(original, encoding="utf-8")
                found["seconds"] = round(time.monotonic() - start, 1)
                found["result"] = "survived" if status == 0 else "killed" if status is not None else "killed: too slow"
                found["status"] = status
        done.append(found)
        print(number, found["result"], found["now"], found["line"], found["operator"], found.get("seconds"), flush=True)
        output.write_text(json.dumps(done, indent=1))
    counts = defaultdict(int)
    for found in done:
        counts[found["result"]] += 1
    print(dict(counts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("draw")
    drawing.add_argument("files", nargs="+")
    drawing.add_argument("-n", type=int, default=150)
    drawing.add_argument("-seed", type=int, default=0)
    drawing.add_argument("-o", type=Path, required=True)
    running = commands.add_parser("run")
    running.add_argument("mutants", type=Path)
    running.add_argument("-tests", nargs="+", required=True)
    running.add_argument("-coverage", type=Path, help="kept here, to be used again")
    running.add_argument("-o", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.command == "draw":
        drawn = draw(arguments.files, arguments.n, arguments.seed)
        arguments.o.write_text(json.dumps(drawn, indent=1))
        return
    if "MUTANTS_TREE" not in os.environ:  # again, with a copy of the project first on the path of every Python
        with tempfile.TemporaryDirectory(prefix="mutants_") as folder:
            tree = Path(folder) / "project"
            shutil.copytree(PROJECT, tree, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__"))
            (tree / "nnunet_nacl_trainers").symlink_to("trainers")
            compiled = ["-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "nnunet_nacl", "trainers"]
            subprocess.run([sys.executable, *compiled], cwd=tree, check=True)
            environment = {"MUTANTS_TREE": str(tree), "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
            command = [sys.executable, __file__, *sys.argv[1:]]
            raise SystemExit(
                subprocess.run(command, env={**os.environ, **environment, "OMP_NUM_THREADS": "1"}).returncode
            )
    mutants = json.loads(arguments.mutants.read_text())
    coverage_file = (arguments.coverage or arguments.o.with_suffix(".coverage.json")).resolve()
    run(mutants, Path(os.environ["MUTANTS_TREE"]), arguments.tests, coverage_file, arguments.o.resolve())


if __name__ == "__main__":
    main()
