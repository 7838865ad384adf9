"""The datasets a study can name, and the one function that turns a name into Data.

A record here is what the CLI lists, what studies accept and what the tests try; a name with a colon is the user's own
function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nasact.errors import DataError, UnknownName
from nasact.registry import Registry
from nasact.tasks import bundled, image_folder, vision
from nasact.tasks.custom_dataset import load_custom_dataset
from nasact.tasks.import_path import is_import_path
from nasact.tasks.raw_dataset import Source
from nasact.tasks.signature_options import FactoryRecord, check_options, keyword_parameters
from nasact.tasks.split import Data


@dataclass(frozen=True, kw_only=True)
class DatasetRecord(FactoryRecord):
    """A dataset: how to load it, and what `nasact list datasets` shows of it."""

    supplied: ClassVar[tuple[str, ...]] = ("data_dir", "download")
    """The parameters of `load` that nasact supplies itself; all others are options of the user."""

    name: str
    load: Callable[..., Source]
    description: str
    source: str
    shape: str
    classes: str
    preparation: str
    needs_files: bool = True

    @property
    def factory(self) -> Callable[..., Source]:
        """The function whose signature declares the options."""
        return self.load


DATASETS: Registry[DatasetRecord] = Registry("dataset", "nasact list datasets")


def register_dataset(record: DatasetRecord) -> DatasetRecord:
    return DATASETS.register(record.name, record)


register_dataset(
    DatasetRecord(
        name="digits",
        load=bundled.digits,
        description="1,797 handwritten digits bundled with scikit-learn; a fixed fifth is the test set",
        source="UCI Optical Recognition of Handwritten Digits",
        shape="1 x 8 x 8",
        classes="10",
        preparation="value / 16",
        needs_files=False,
    )
)

_VISION_TEXTS = {
    "mnist": ("70,000 handwritten digits", "LeCun et al. 1998", "1 x 28 x 28"),
    "fashion_mnist": ("70,000 articles of clothing", "arXiv:1708.07747", "1 x 28 x 28"),
    "kmnist": ("70,000 cursive Japanese characters", "arXiv:1812.01718", "1 x 28 x 28"),
    "cifar10": ("60,000 photographs of animals and vehicles", "Krizhevsky 2009", "3 x 32 x 32"),
}
for _vision in vision.VISION_SETS:
    _description, _origin, _shape = _VISION_TEXTS[_vision.name]
    register_dataset(
        DatasetRecord(
            name=_vision.name,
            load=vision.loader(_vision),
            description=f"{_description}; torchvision's {_vision.torchvision_name} in --data-dir, or --download",
            source=_origin,
            shape=_shape,
            classes="10",
            preparation=_vision.normalisation,
        )
    )

register_dataset(
    DatasetRecord(
        name="image_folder",
        load=image_folder.image_folder,
        description="your own images, one folder a class, with or without train/ and test/ above them",
        source="yours",
        shape="channels x size x size",
        classes="one a folder",
        preparation="scaled, centre cut out, mean 0 and deviation 1 a channel over the training images",
    )
)


def load_data(
    name: str,
    options: Mapping[str, Any],
    *,
    validation: float,
    seed: int,
    data_dir: Path | None = None,
    download: bool = False,
    train_limit: int | None = None,
    test_limit: int | None = None,
) -> Data:
    """The dataset `name` (or `pkg.mod:function`), with `validation` of its training examples held out by `seed`."""
    return _load(name, options, seed=seed, data_dir=data_dir, download=download).assemble(
        name, validation=validation, seed=seed, train_limit=train_limit, test_limit=test_limit
    )


def _load(name: str, options: Mapping[str, Any], *, seed: int, data_dir: Path | None, download: bool) -> Source:
    data_dir = None if data_dir is None else Path(data_dir)
    if is_import_path(name):
        return load_custom_dataset(name, options, seed=seed, data_dir=data_dir)
    if name not in DATASETS and "." in name:
        raise UnknownName(f"{DATASETS.unknown(name)}; your own function is written 'package.module:function'")
    record = DATASETS.get(name)
    checked = check_options(record.load, options, supplied=record.supplied, place=f"dataset {name!r}", error=DataError)
    known = keyword_parameters(record.load)
    given = {"data_dir": data_dir, "download": download}
    return record.load(**checked, **{key: value for key, value in given.items() if key in known})
