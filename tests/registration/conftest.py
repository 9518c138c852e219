"""Built distributions and the environments that they are installed in, made once for all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.registration.environments import Environment, build_wheel, copy_sources, link_libraries


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed in the running Python, without this package."""
    return link_libraries(tmp_path_factory.mktemp("installed") / "libraries")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory, clean_environ: dict[str, str]) -> Path:
    """A wheel of this package."""
    folder = tmp_path_factory.mktemp("wheel")
    return build_wheel(copy_sources(folder / "source"), folder / "built", clean_environ)


@pytest.fixture
def new_environment(tmp_path: Path, clean_environ: dict[str, str]) -> Callable[[], Environment]:
    """Makes an empty virtual environment."""
    return lambda: Environment(tmp_path / "environment", clean_environ)


@pytest.fixture(scope="session")
def wheel_environment(
    tmp_path_factory: pytest.TempPathFactory, clean_environ: dict[str, str], wheel: Path
) -> Environment:
    """An environment that has the wheel and nothing else; tests must not change it."""
    environment = Environment(tmp_path_factory.mktemp("venv") / "environment", clean_environ)
    environment.pip("install", "--no-deps", str(wheel))
    return environment


@pytest.fixture(scope="session")
def editable_environment(
    tmp_path_factory: pytest.TempPathFactory, clean_environ: dict[str, str], libraries: Path
) -> Environment:
    """An environment with an editable install and nothing else; tests must not change it."""
    folder = tmp_path_factory.mktemp("editable")
    environment = Environment(folder / "environment", clean_environ)
    install_editable(environment, copy_sources(folder / "source"), libraries)
    return environment


def install_editable(environment: Environment, source: Path, libraries: Path, mode: str = "lenient") -> None:
    """`pip install --editable`; the build backend comes from the running Python."""
    arguments = ["install", "--no-deps", "--no-build-isolation", "--config-settings", f"editable_mode={mode}"]
    environment.pip(*arguments, "--editable", str(source), PYTHONPATH=str(libraries))
