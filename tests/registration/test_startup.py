"""What an installation puts into an environment, and that an uninstallation takes all of it
away."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import Environment, copy_sources, install_editable

STARTUP_FILES = {"nnunet_nacl.pth", "nnunet_nacl.start"}
FOLDERS = "import os; print(os.environ.get('nnUNet_extTrainer', ''))"


@pytest.fixture(params=("wheel_environment", "editable_environment"))
def installed(request: pytest.FixtureRequest) -> Environment:
    return request.getfixturevalue(request.param)


def folders(environment: Environment, *flags: str, **variables: str) -> list[str]:
    return environment.run(FOLDERS, *flags, **variables).strip().split(":")


@pytest.mark.parametrize("flags", [(), ("-I",)])
def test_python_registers_the_bridge_folder_when_it_starts(
    installed: Environment, flags: tuple[str, ...]
) -> None:
    (folder,) = folders(installed, *flags)
    assert [path.name for path in Path(folder).glob("*.py")] == ["nnunet_nacl_bridge.py"]
    assert installed.command("doctor", "--path").stdout.strip() == folder


def test_the_users_own_folders_come_first(installed: Environment) -> None:
    (ours,) = folders(installed)
    assert folders(installed, nnUNet_extTrainer="/a:/b") == ["/a", "/b", ours]
    assert folders(installed, nnUNet_extTrainer=f"{ours}:/a") == ["/a", ours]
    assert folders(installed, nnUNet_extTrainer="") == [ours]


def test_the_folder_is_entered_only_once(installed: Environment) -> None:
    """Child processes inherit it; Python 3.15 imports and calls, some of its releases twice."""
    for code in (
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {FOLDERS!r}], check=True)",
        f"import nnunet_nacl.registration._startup as s; s.register(); s.register(); {FOLDERS}",
    ):
        assert installed.run(code).strip().split(":") == folders(installed)


def test_startup_imports_nothing_but_the_package_itself(
    new_environment: Callable, wheel: Path
) -> None:
    environment = new_environment()
    code = "import sys; print(*sys.modules)"
    before = set(environment.run(code, "-I").split())
    environment.pip("install", "--no-deps", str(wheel))
    after = set(environment.run(code, "-I").split())
    # Python 3.13 reads any .pth file with one
    after = {name for name in after if not name.startswith("encodings.")}
    assert after - before == {
        "nnunet_nacl",
        "nnunet_nacl.registration",
        "nnunet_nacl.registration._startup",
    }


def test_startup_survives_an_environment_that_it_cannot_change(
    wheel_environment: Environment,
) -> None:
    code = (
        "import os, nnunet_nacl.registration._startup as s\n"
        "class Closed(dict):\n"
        "    def __setitem__(self, key, value): raise OSError('closed')\n"
        "os.environ = Closed()\n"
        "s.register()\n"
        "print('alive')"
    )
    assert wheel_environment.run(code).strip() == "alive"


@pytest.mark.skipif(
    sys.version_info >= (3, 15), reason="Python reads the .start file, which cannot hold a guard"
)
def test_python_starts_in_silence_where_the_package_is_gone(
    new_environment: Callable, tmp_path: Path, libraries: Path
) -> None:
    environment = new_environment()
    source = copy_sources(tmp_path / "source")
    install_editable(environment, source, libraries)
    assert folders(environment) != [""]
    source.rename(tmp_path / "moved")
    started = subprocess.run(
        [environment.python, "-c", FOLDERS], env=environment.environ, capture_output=True, text=True
    )
    assert started.returncode == 0 and started.stdout.strip() == ""
    assert "nnunet_nacl" not in started.stderr


def test_wheel_puts_no_common_name_into_site_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        top = {name.split("/")[0] for name in archive.namelist() if ".dist-info" not in name}
    assert top == {"nnunet_nacl", "nnunet_nacl_trainers", *STARTUP_FILES}


@pytest.mark.parametrize("mode", ["wheel", "lenient"])
def test_uninstalling_leaves_nothing(
    new_environment: Callable, wheel: Path, tmp_path: Path, libraries: Path, mode: str
) -> None:
    environment = new_environment()
    before = environment.files()
    if mode == "wheel":
        environment.pip("install", "--no-deps", str(wheel))
    else:
        install_editable(environment, copy_sources(tmp_path / "source"), libraries)
    assert STARTUP_FILES <= environment.recorded_files()
    assert folders(environment, "-I") != [""]
    environment.pip("uninstall", "--yes", "nnunet_nacl")
    assert environment.files() == before
    assert folders(environment) == [""]
