"""What all tests share: small models, and fresh environments that have this package installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import context
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from nnunetv2.utilities import utils

from nnunet_nacl.nnunet import pipeline
from tests.environments import (
    Environment,
    build_wheel,
    copy_sources,
    install_editable,
    link_libraries,
)
from tests.processes import WARM
from tests.runs.folders import Model, make_model
from tests.runs.predictions import predictions_in

# How long an example takes says nothing on a shared machine.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Tensors of tests are small: where several processes share the cores, threads would mostly wait for
# each other.
torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))

pipeline.CONTEXT = WARM
utils.Pool = ThreadPool  # it forks the whole of pytest twelve times to find names of files

# Fixtures that take long to make: with several processes, all tests that use one run in the same.
SHARED = {
    "wheel": "installed",
    "wheel_environment": "installed",
    "editable_environment": "installed",
    "installed": "installed",
    "workspace": "workspace",
    "made_study": "study",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for `--dist loadgroup` by shared fixture, else by file; the longest first."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        shared_groups = [group for name, group in SHARED.items() if name in fixtures]
        group = shared_groups[0] if shared_groups else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: "integration" not in item.path.parts)


@pytest.fixture(scope="session")
def clean_environ() -> dict[str, str]:
    """This process's environment variables without what configures Python or nnU-Net."""
    configuring = ("PYTHON", "nnUNet_", "VIRTUAL_ENV", "__PYVENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(configuring)}


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


@pytest.fixture
def warm_nnunet(monkeypatch) -> None:
    """nnU-Net's own processes come from the server that has it loaded."""
    monkeypatch.setitem(context._concrete_contexts, "spawn", WARM)


@pytest.fixture
def make_validated(tmp_path, monkeypatch):
    """Function that writes a model folder and sets nnU-Net's variables."""

    def build(**arguments) -> Model:
        model = make_model(tmp_path / "nnunet", **arguments)
        for name, value in model.environment.items():
            monkeypatch.setenv(name, value)
        return model

    return build


@pytest.fixture
def predict(tmp_path) -> Callable[..., Path]:
    """Function that writes one folder of predictions without ground truth."""
    return predictions_in(tmp_path)


@pytest.fixture
def without_figures(monkeypatch) -> None:
    """`compare` draws none, which takes most of its time."""
    monkeypatch.setattr("nnunet_nacl.comparison.figures.write_figures", lambda *_, **__: [])


@pytest.fixture
def one_thread(monkeypatch) -> None:
    """nnU-Net's predictor leaves the number of threads as it is, and starts one process."""
    monkeypatch.setattr("nnunetv2.inference.predict_from_raw_data.default_num_processes", 1)
    monkeypatch.setattr("nnunetv2.configuration.default_num_processes", 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
