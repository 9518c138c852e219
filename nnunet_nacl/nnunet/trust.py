"""Loads checkpoints without running code in them, and checks what plans name before nnU-Net calls
it.

A checkpoint is read as weights and numbers alone. A name is looked up as nnU-Net does; what is
found must be of the kind that is meant, and come from where such things come from.
"""

from __future__ import annotations

import contextlib
import pickle
import pydoc
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from typing_extensions import NotRequired, TypedDict

from nnunet_nacl.errors import UserError, describe, first_line
from nnunet_nacl.files import is_file_name, regular_only
from nnunet_nacl.images import quiet
from nnunet_nacl.json_files import decode
from nnunet_nacl.registration import TRAINERS_PACKAGE
from nnunet_nacl.registration.lookup import registered_trainers

TRUSTED: ContextVar[bool] = ContextVar("TRUSTED", default=False)
"""Whether checkpoints may hold and plans may name anything, as the user said with
--trust_checkpoint."""


@contextlib.contextmanager
def trusting(is_trusted: bool) -> Iterator[None]:
    """Within it, checkpoints may hold and plans may name anything, if that is said here or was said
    before."""
    token = TRUSTED.set(is_trusted or TRUSTED.get())
    try:
        yield
    finally:
        TRUSTED.reset(token)


_IF_TRUSTED = (
    "it can run code. If you know who made it, pass --trust_checkpoint; else do not use it."
)


class _InitArgs(TypedDict):
    configuration: str


class _Checkpoint(TypedDict):
    network_weights: dict[str, Any]
    trainer_name: str
    init_args: _InitArgs
    inference_allowed_mirroring_axes: NotRequired[tuple[int, ...] | None]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint of nnU-Net, on the CPU; its weights stay on the disk until they
    are used.

    UserError if it is damaged, none of nnU-Net's, or, unless trusted, more than tensors, plain
    values and numbers.
    """
    import torch

    try:
        open(path, "rb", opener=regular_only).close()
        # PyTorch's form before 1.6 is none, and is read as a whole
        in_zip = zipfile.is_zipfile(path)
        with torch.serialization.safe_globals(
            [(made, name) for name, made in _NUMBERS_OF_NUMPY.items()]
        ):
            content = torch.load(
                path, map_location="cpu", weights_only=not TRUSTED.get(), mmap=in_zip
            )
    except OSError as error:
        raise UserError(describe(error, path)) from None
    except Exception as error:  # torch raises anything on broken bytes
        if in_zip and "Weights only load failed" in str(error):
            found = re.search("(?:Unsupported|GLOBAL).*|$", str(error))
            more = found and found[0] or "it holds more"
            raise UserError(
                f"{path}: cannot be read as weights and numbers alone ({more}): {_IF_TRUSTED}"
            ) from None
        raise UserError(
            f"{path}: cannot be read as a checkpoint ({first_line(error)}); restore it."
        ) from None
    decode(
        _Checkpoint,
        content,
        f"{path}: not a checkpoint of nnU-Net",
        fix="give one that nnUNetv2_train wrote",
    )
    return content


class _Number:
    """Stands for numpy.dtype, which believes all flags in a pickle, and takes bytes of the file for
    addresses."""

    def __init__(self, kind: str, *options: bool) -> None:
        self.kind = kind

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state != (3, state[1], None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("Unsupported state of numpy.dtype")
        self.kind = f"{state[1]}{self.kind}"


def _scalar(number: _Number, data: bytes) -> Any:
    """Stands for NumPy's ``scalar``: a bool, a whole or a floating-point number."""
    if not re.fullmatch("[<>|=](b1|[iu][1248]|f[248])", number.kind):
        raise pickle.UnpicklingError(f"Unsupported numpy.dtype {number.kind!r}")
    return np.frombuffer(data, number.kind, 1)[0]


_NUMBERS_OF_NUMPY: dict[str, Any] = {
    f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")
}
# what stands for the names by which NumPy 1 and 2 pickle numbers
_NUMBERS_OF_NUMPY["numpy.dtype"] = _Number


def _is_layer(name: str) -> bool:
    """Whether it is a network or layer of torch.nn, nnU-Net, this package, or one that registers
    trainers."""
    from torch import nn

    packages = [
        "torch.nn.",
        "dynamic_network_architectures.",
        "nnunet_nacl.",
        f"{TRAINERS_PACKAGE}.",
    ]
    packages += [re.split("[.:]", trainer.value)[0] + "." for trainer in registered_trainers()]
    if not f"{name}.".startswith(trusted := tuple(packages)):  # before anything is imported
        return False
    found: Any = pydoc.locate(name)
    if found is None:  # as nnU-Net's get_network_from_plans
        found = _search("dynamic_network_architectures.architectures", name.rpartition(".")[2])
    is_layer = (
        isinstance(found, type)
        and issubclass(found, nn.Module)
        and f"{found.__module__}.".startswith(trusted)
    )
    return found is None or is_layer


def _is_trainer(name: str) -> bool:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    # nnU-Net asserts it too, but assertions can be left out
    with contextlib.suppress(AssertionError, TypeError):
        # nnU-Net prints that it searches the folders of others, as if something were wrong
        with quiet():
            trainer = recursive_find_trainer_class_by_name(name)
        return issubclass(trainer, nnUNetTrainer)
    return False


def _is_of_nnunet(package: str, name: str) -> bool:
    """Whether it is a class, or for resampling a function, that a package of nnU-Net defines."""
    found, kind = (
        _search(f"nnunetv2.{package}", name),
        FunctionType if package.endswith("resampling") else type,
    )
    return found is None or (
        isinstance(found, kind) and found.__module__.startswith(f"nnunetv2.{package}.")
    )


def _search(package: str, name: str) -> Any:
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    return recursive_find_python_class(import_module(package).__path__[0], name, package)


_PACKAGES = {
    "label_manager": "utilities.label_handling",
    "image_reader_writer": "imageio",
    "overwrite_image_reader_writer": "imageio",
    "preprocessor_name": "preprocessing",
    "normalization_schemes": "preprocessing.normalization",
    **{
        f"resampling_fn_{of}": "preprocessing.resampling" for of in ("data", "seg", "probabilities")
    },
}
_JUDGES: dict[str, Callable[[str], bool]] = {
    "trainer_name": _is_trainer,
    # folders hold pickles
    **dict.fromkeys(("dataset_name", "data_identifier", "file_ending"), is_file_name),
    **{key: partial(_is_of_nnunet, package) for key, package in _PACKAGES.items()},
}


def check_names(
    content: Mapping[str, Any], file: str, judges: Mapping[str, Callable[[str], bool]] = _JUDGES
) -> None:
    """UserError where a file that is not trusted names what does not belong there, as ``judges``
    say by key."""
    for key, belongs in judges.items():
        names = content.get(key)
        for name in names if isinstance(names, list) else [names]:
            if isinstance(name, str) and not TRUSTED.get() and not belongs(name):
                raise UserError(
                    f"{file}: {key} is {name!r:.200}, which does not belong there: {_IF_TRUSTED}"
                )


def label_manager_of(plans: dict[str, Any], dataset_json: dict[str, Any], source: Path) -> Any:
    """nnU-Net's label manager; UserError if it does not take the files, which are of the folder
    ``source``."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    check_names(plans, f"plans.json of {source}")
    try:
        with quiet():
            return PlansManager(plans).get_label_manager(dataset_json)
    except Exception as error:  # nnU-Net raises anything from KeyError to AssertionError here
        raise UserError(
            f"dataset.json or plans.json of {source} is not nnU-Net's: {first_line(error)}"
        ) from error


def find_reader(plans: dict[str, Any], dataset_json: dict[str, Any], source: Path) -> Any:
    """nnU-Net's reader: that of the plans, as in its validation, else by the file ending; UserError
    without any."""
    from nnunetv2.imageio.reader_writer_registry import (
        determine_reader_writer_from_dataset_json,
        recursive_find_reader_writer_by_name,
    )

    with quiet():
        check_names(plans, f"plans.json of {source}")
        check_names(dataset_json, f"dataset.json of {source}")
        with contextlib.suppress(KeyError, RuntimeError):
            return recursive_find_reader_writer_by_name(plans["image_reader_writer"])()
        try:
            return determine_reader_writer_from_dataset_json(dataset_json, verbose=False)()
        except RuntimeError as error:
            ending = dataset_json["file_ending"]
            raise UserError(
                f"No reader of nnU-Net takes {ending!r} files: {first_line(error)}"
            ) from None


def configuration_of(plans_manager: Any, name: str, folder: Path) -> Any:
    """A configuration of nnU-Net's plans manager with all that it inherits, judged; UserError."""
    configuration, file = plans_manager.get_configuration(name), f"plans.json of {folder}"
    check_names(configuration.configuration, file)
    network = configuration.configuration["architecture"]
    check_names(network, file, {"network_class_name": _is_layer})
    # which nnUNetTrainerBN imports in any case
    imported = (*network.get("_kw_requires_import", ()), "conv_op")
    check_names(network.get("arch_kwargs", {}), file, dict.fromkeys(imported, _is_layer))
    if configuration.preprocessor_class is None:
        named = configuration.preprocessor_name
        raise UserError(f"{file}: nnU-Net has no preprocessor_name {named!r}; plan again.")
    return configuration
