"""Fresh virtual environments, made offline: pip of the running Python installs into them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SOURCES = (
    "nnunet_nacl",
    "trainers",
    "setup.py",
    "pyproject.toml",
    "MANIFEST.in",
    "LICENSE",
    "README.md",
)


def copy_sources(target: Path) -> Path:
    """Copies what a build needs, so that no build leaves anything in the project's own folder."""
    target.mkdir(parents=True)
    for name in SOURCES:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copy(source, target / name)
    return target


def link_libraries(target: Path) -> Path:
    """Link all that is installed in the running Python, but for this package and startup files."""
    target.mkdir()
    # .pth files have added folders to sys.path
    search_path = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]
    site_packages = [Path(path) for path in search_path if Path(path).name == "site-packages"]
    for folder in dict.fromkeys(site_packages):
        for entry in folder.iterdir():
            is_ours = "nnunet_nacl" in entry.name
            is_startup_file = entry.suffix in (".pth", ".start")
            link = target / entry.name
            if is_ours or is_startup_file or link.is_symlink():  # the first counts, as in an import
                continue
            link.symlink_to(entry)
    return target


class Environment:
    """One virtual environment without pip."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(folder)
        self.folder = folder
        self.environ = environ
        if os.name == "nt":
            self.scripts = folder / "Scripts"
            self.python = self.scripts / "python.exe"
        else:
            self.scripts = folder / "bin"
            self.python = self.scripts / "python"
        printed = self.run("import sysconfig; print(sysconfig.get_path('purelib'))")
        self.site_packages = Path(printed.strip())

    def add_to_path(self, folder: Path) -> None:
        """Makes a folder's packages importable, without processing the startup files there."""
        (self.site_packages / f"added_{folder.name}.pth").write_text(f"{folder}\n")

    def pip(self, *arguments: str, **variables: str) -> None:
        """Runs the pip of the running Python on this environment."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), *arguments]
        offline = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        _run(command, self.environ | offline | variables)

    def run(self, code: str, *flags: str, **variables: str) -> str:
        """Runs a piece of Python and returns what it printed."""
        return _run([str(self.python), *flags, "-c", code], {**self.environ, **variables}).stdout

    def command(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs our command line, whatever its exit status."""
        command = [str(self.scripts / "nnunet_nacl"), *arguments]
        environ = {**self.environ, **variables}
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)

    def files(self) -> set[str]:
        """All files in it, for comparison."""
        paths = [path for path in self.folder.rglob("*") if not path.is_dir()]
        return {str(path.relative_to(self.folder)) for path in paths}

    def recorded_files(self) -> set[str]:
        """What pip has recorded of this package, and would remove again."""
        (record,) = self.site_packages.glob("nnunet_nacl-*.dist-info/RECORD")
        return {re.sub(r",[^,]*,[^,]*$", "", line) for line in record.read_text().splitlines()}


def build_wheel(source: Path, target: Path, environ: dict[str, str]) -> Path:
    """Builds a wheel with the running Python's setuptools."""
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(target)]
    _run([sys.executable, "-m", "pip", "wheel", *options, str(source)], environ)
    (wheel,) = target.glob("nnunet_nacl-*.whl")
    return wheel


def install_editable(environment: Environment, source: Path, libraries: Path) -> None:
    """`pip install --editable`; the build backend comes from the running Python."""
    options = "--no-deps --no-build-isolation --config-settings editable_mode=lenient".split()
    environment.pip("install", *options, "--editable", str(source), PYTHONPATH=str(libraries))


def _run(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=600, cwd=Path(sys.prefix)
    )
    if result.returncode != 0:
        raise AssertionError(
            f"{command} exited with {result.returncode}:\n{result.stdout}\n{result.stderr}"
        )
    return result
