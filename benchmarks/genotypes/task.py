"""The task of the genotype table: MNIST in 7 x 7 pixels with a fixed split, and a network with four sites.

Knows nasact's data sets and models; knows neither genotypes nor training.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch.nn.functional as F

from nasact.tasks import Data, Split, TestSet, load_data

DATASET = "mnist"
TRAIN, VALIDATION = 8000, 10000
POOL = 4
HIDDEN = 16
SITES = 4
# every seed of the table trains on the same images: seeds differ in the weights and in the order of the images
SPLIT_SEED = 0

FUNCTIONS = ("relu", "tanh", "sigmoid", "identity", "sin")
MODEL = "mlp"
MODEL_OPTIONS = {"hidden": [HIDDEN] * SITES}


def images(data_dir: Path | None = None) -> Data:
    """Return training and validation images and the whole test set (not opened), 1 x 7 x 7: means of 4 x 4 pixels.

    Its name in a study is `benchmarks.genotypes.task:images`.
    """
    count = TRAIN + VALIDATION
    options = {"validation": VALIDATION / count, "seed": SPLIT_SEED, "train_limit": count}
    full = load_data(DATASET, {}, data_dir=data_dir, **options)
    _, height, width = full.input_shape
    shape = (1, height // POOL, width // POOL)
    test = TestSet(partial(_open_small, full.test))
    return Data(f"{DATASET}, small", _small(full.train), _small(full.val), full.classes, shape, test)


def _small(split: Split) -> Split:
    return Split(F.avg_pool2d(split.x, POOL), split.y)


def _open_small(test: TestSet) -> Split:
    return _small(test.open())
