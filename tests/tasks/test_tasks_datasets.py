"""Every shipped dataset loads from its files; an error names the file that is missing or corrupt."""

from __future__ import annotations

import hashlib
import pickle
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from nasact.errors import DataError, UnknownName
from nasact.tasks import DATASETS, Data, load_data

IDX_SETS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
SHIPPED = ("digits", "mnist", "fashion_mnist", "kmnist", "cifar10", "image_folder")


def load(name: str, *, data_dir: Path | None = None, seed: int = 0, **options: object) -> Data:
    return load_data(name, options, validation=0.2, seed=seed, data_dir=data_dir)


def test_the_registry_has_the_shipped_datasets_with_complete_records():
    assert set(SHIPPED) <= set(DATASETS.names())
    for name, record in DATASETS.items():
        assert record.name == name
        assert all((record.description, record.source, record.shape, record.classes, record.preparation))
        assert not set(record.supplied) & set(record.options)
    assert DATASETS.get("image_folder").options["size"] == 32
    assert DATASETS.get("digits").options == {}


def test_digits_load_without_a_file_and_without_the_test_set():
    data = load("digits")
    assert (data.name, data.classes, data.input_shape) == ("digits", 10, (1, 8, 8))
    assert (len(data.train), len(data.val)) == (1150, 288)
    assert data.test.openings == 0
    assert len(data.test.open()) == 359
    assert float(data.train.x.min()) == 0.0
    assert float(data.train.x.max()) == 1.0


def test_the_test_digits_are_the_same_for_every_seed_and_in_no_other_split():
    first, second = load("digits", seed=0), load("digits", seed=1)
    assert torch.equal(first.test.open().x, second.test.open().x)
    assert not torch.equal(first.val.x, second.val.x)
    pool = sorted(row.tolist() for row in first.train_and_val().x.flatten(1))
    assert pool == sorted(row.tolist() for row in second.train_and_val().x.flatten(1))
    everything = torch.cat([first.train_and_val().x, first.test.open().x])
    assert len(everything) == 1797
    counts = torch.bincount(first.test.open().y, minlength=10)
    assert int(counts.min()) >= 34


@pytest.mark.usefixtures("global_random_state_unchanged")
def test_loading_is_deterministic_and_leaves_the_global_random_state_unchanged():
    first, second = load("digits", seed=5), load("digits", seed=5)
    assert torch.equal(first.train.x, second.train.x)
    assert torch.equal(first.val.y, second.val.y)


@pytest.mark.parametrize("name", IDX_SETS)
def test_idx_datasets_load_from_the_torchvision_layout(name, idx_folder):
    data = load(name, data_dir=idx_folder(IDX_SETS[name]))
    assert (data.classes, data.input_shape) == (10, (1, 28, 28))
    assert (len(data.train), len(data.val), len(data.test.open())) == (48, 12, 30)


def test_a_corrupt_test_file_is_refused_before_the_test_set_is_opened(idx_folder):
    root = idx_folder("MNIST")
    path = root / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is corrupt"):
        load("mnist", data_dir=root)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-100], r"its header declares 47056 bytes, but it has 46956"),
        (lambda content: content + b"x", r"its header declares 47056 bytes, but it has 47057"),
        (lambda content: b"\x1f\x8b" + content, r"has no header of an idx file"),
        (lambda content: b"", r"has no header of an idx file"),
    ],
    ids=["cut", "longer", "still compressed", "empty"],
)
def test_a_corrupt_idx_file_is_named(damage, message, idx_folder):
    root = idx_folder("FashionMNIST")
    path = root / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        load("fashion_mnist", data_dir=root)
    assert str(path) in str(caught.value)


def test_labels_out_of_range_in_a_file_are_refused(idx_folder):
    root = idx_folder("KMNIST")
    path = root / "KMNIST" / "raw" / "train-labels-idx1-ubyte"
    content = bytearray(path.read_bytes())
    content[8 + 3] = 10
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"dataset 'kmnist': train\.y\[3\]: labels must be in \[0, 10\), but got 10"):
        load("kmnist", data_dir=root)


def test_a_missing_file_is_named(idx_folder):
    root = idx_folder("MNIST")
    (root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte is missing.*--data-dir PATH.*--download"):
        load("mnist", data_dir=root)


@pytest.mark.parametrize("name", [*IDX_SETS, "cifar10"])
def test_a_missing_directory_is_named_with_both_options_that_help(name, tmp_path):
    with pytest.raises(DataError, match=r"--data-dir PATH.*--download") as caught:
        load(name, data_dir=tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in str(caught.value)


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_a_download_without_network_is_refused_in_one_line(name, tmp_path, monkeypatch, capfd):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    # urllib caches an opener with the proxies of its first use
    monkeypatch.setattr(urllib.request, "_opener", None)
    with pytest.raises(DataError, match=r"could not be downloaded into .*--data-dir PATH") as caught:
        load_data(name, {}, validation=0.2, seed=0, data_dir=tmp_path, download=True)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write CIFAR10's pickles with few images, and make torchvision expect their checksums."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    real = torchvision.datasets.CIFAR10

    def write(name: str, content: object) -> list[str]:
        raw = pickle.dumps(content)
        (folder / name).write_bytes(raw)
        return [name, hashlib.md5(raw).hexdigest()]

    def batch(name: str) -> list[str]:
        data = numbers.integers(0, 256, (20, 3072), dtype=np.uint8)
        return write(name, {"data": data, "labels": [index % 10 for index in range(20)]})

    monkeypatch.setattr(real, "train_list", [batch(name) for name, _ in real.train_list])
    monkeypatch.setattr(real, "test_list", [batch(name) for name, _ in real.test_list])
    name, md5 = write("batches.meta", {"label_names": [str(label) for label in range(10)]})
    monkeypatch.setattr(real, "meta", {"filename": name, "key": "label_names", "md5": md5})


def test_cifar10_loads_from_the_torchvision_layout(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    data = load("cifar10", data_dir=tmp_path)
    assert (data.classes, data.input_shape) == (10, (3, 32, 32))
    assert (len(data.train), len(data.val), len(data.test.open())) == (80, 20, 20)
    assert data.train.x.is_contiguous()


def test_a_corrupt_cifar10_is_refused_with_its_folder(tmp_path, monkeypatch):
    write_cifar(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(b"broken")
    with pytest.raises(DataError, match="cannot be read: RuntimeError: Dataset not found or corrupted") as caught:
        load("cifar10", data_dir=tmp_path)
    assert str(tmp_path / "cifar-10-batches-py") in str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_real_images_load_fast_and_normalised(name, real_data):
    if not (real_data / IDX_SETS[name]).is_dir():
        pytest.skip(f"{IDX_SETS[name]} is not in {real_data}")
    started = time.process_time()
    data = load(name, data_dir=real_data)
    assert time.process_time() - started < 2.0
    assert (len(data.train), len(data.val), data.test.openings) == (48_000, 12_000, 0)
    assert abs(float(data.train.x.mean())) < 0.01
    assert abs(float(data.train.x.std()) - 1.0) < 0.01
    assert torch.equal(torch.bincount(data.val.y, minlength=10).sum(), torch.tensor(12_000))
    assert len(data.test.open()) == 10_000


def test_an_unknown_dataset_is_refused_with_near_names():
    with pytest.raises(UnknownName, match=r"unknown dataset 'fashon_mnist'\. Did you mean 'fashion_mnist'"):
        load("fashon_mnist")


def test_a_dotted_name_without_a_colon_is_refused_with_the_form_of_an_import_path():
    with pytest.raises(UnknownName, match=r"'package\.module:function'"):
        load("my_pkg.data.make_splits")


def make_images(root: Path, counts: dict[str, int], size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
    numbers = np.random.default_rng(len(counts))
    for label, count in counts.items():
        (root / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            pixels = numbers.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / label / f"{index}.png")
    return root


def test_an_image_folder_holds_out_a_fixed_fraction_of_each_class(tmp_path):
    make_images(tmp_path, {"cat": 20, "dog": 10})
    data, other = (load("image_folder", path=str(tmp_path), size=8, seed=seed) for seed in (0, 1))
    assert (data.classes, data.input_shape) == (2, (3, 8, 8))
    assert (len(data.train), len(data.val), len(data.test.open())) == (19, 5, 6)
    assert torch.equal(data.test.open().x, other.test.open().x)
    assert torch.bincount(data.test.open().y).tolist() == [4, 2]


def test_images_are_normalised_by_the_training_images_only(tmp_path):
    make_images(tmp_path / "train", {"a": 12, "b": 12})
    make_images(tmp_path / "test", {"a": 3, "b": 3})
    before = load("image_folder", path=tmp_path, size=8)
    tested = before.test.open().x
    pool = before.train_and_val().x
    assert torch.allclose(pool.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(pool.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-2)
    for path in (tmp_path / "test").rglob("*.png"):
        Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    after = load("image_folder", path=tmp_path, size=8)
    assert torch.equal(after.train.x, before.train.x)
    assert not torch.equal(after.test.open().x, tested)


def test_test_images_of_another_path_are_labelled_by_folder_name(tmp_path):
    train = make_images(tmp_path / "images", {"a": 6, "b": 6, "c": 6})
    test = make_images(tmp_path / "later", {"b": 2, "c": 1})
    data = load("image_folder", path=train, test=str(test), size=8)
    assert data.test.open().y.tolist() == [1, 1, 2]


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_mode_are_converted_to_the_requested_channels(tmp_path, mode, channels):
    make_images(tmp_path, {"a": 4, "b": 4}, mode=mode)
    data = load("image_folder", path=tmp_path, size=9, channels=channels, test=0.25)
    assert data.input_shape == (channels, 9, 9)


def test_a_corrupt_training_image_is_named(tmp_path):
    make_images(tmp_path, {"a": 4, "b": 4})
    for path in (tmp_path / "a").iterdir():
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"the image .*a/\d\.png cannot be read"):
        load("image_folder", path=tmp_path)


def test_a_corrupt_test_image_is_named_when_the_test_set_is_opened(tmp_path):
    make_images(tmp_path / "train", {"a": 4, "b": 4})
    make_images(tmp_path / "test", {"a": 1, "b": 1})
    broken = tmp_path / "test" / "b" / "0.png"
    broken.write_bytes(b"not an image")
    data = load("image_folder", path=tmp_path)
    with pytest.raises(DataError, match="cannot be read") as caught:
        data.test.open()
    assert str(broken) in str(caught.value)


def missing_folder(root: Path) -> dict[str, object]:
    return {"path": root / "nowhere"}


def no_classes(root: Path) -> dict[str, object]:
    (root / "images").mkdir()
    return {"path": root / "images"}


def empty_class(root: Path) -> dict[str, object]:
    make_images(root, {"a": 3})
    (root / "b").mkdir()
    return {"path": root}


def one_class(root: Path) -> dict[str, object]:
    return {"path": make_images(root, {"a": 9})}


def unknown_test_class(root: Path) -> dict[str, object]:
    make_images(root / "train", {"cat": 3, "dog": 3})
    make_images(root / "test", {"cats": 1})
    return {"path": root}


def named_twice(root: Path) -> dict[str, object]:
    make_images(root / "train", {"a": 3, "b": 3})
    make_images(root / "test", {"a": 3, "b": 3})
    return {"path": root, "test": 0.5}


def too_large(root: Path) -> dict[str, object]:
    return {"path": make_images(root, {"a": 5, "b": 5}), "size": 1000, "memory_limit": 0.1}


def images_with(**options: object):
    return lambda root: {"path": make_images(root, {"a": 5, "b": 5}), **options}


BAD_FOLDERS = {
    "missing": (missing_folder, r"there is no folder .*nowhere"),
    "no classes": (no_classes, r"expected one folder of images for each class in .*images"),
    "empty class": (empty_class, r"expected one folder of images for each class.*\bb\b"),
    "one class": (one_class, r"at least 2 classes are needed, but got 1"),
    "unknown test class": (unknown_test_class, r"has a class 'cats' without training images\. Did you mean 'cat'"),
    "test named twice": (
        named_twice,
        r"has the folders train/ and test/, so the option 'test' must not be set, but got 0\.5",
    ),
    "too large": (
        too_large,
        r"10 images of 3 x 1000 x 1000 need about 0\.216 GB in memory, but memory_limit is 0\.1 GB",
    ),
    "test fraction": (images_with(test=1.5), r"`0 < test < 1` must hold, but got test=1\.5"),
    "size": (images_with(size=0), r"option 'size' must be greater than or equal to 1, but got 0"),
    "size type": (images_with(size="32"), r"option 'size' must be an integer, but got '32'"),
    "channels": (images_with(channels=2), r"option 'channels' must be 1 or 3, but got 2"),
    "unknown option": (images_with(sise=8), r"unknown option 'sise'\. Did you mean 'size'"),
    "no path": (lambda root: {}, r"option 'path' is missing"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_an_unusable_image_folder_is_refused_in_one_line(case, tmp_path):
    make, message = BAD_FOLDERS[case]
    with pytest.raises(DataError, match=message) as caught:
        load("image_folder", **make(tmp_path))
    assert "\n" not in str(caught.value)
    assert "image_folder" in str(caught.value)


def test_real_photographs_load_from_train_and_test_folders(real_images):
    data = load("image_folder", path=real_images)
    assert (data.classes, data.input_shape) == (3, (3, 32, 32))
    assert (len(data.train), len(data.val), len(data.test.open())) == (48, 12, 60)
