"""The task of the genotype table: images made small, cut once and for all, and the network with four sites.

Knows nasact's data sets and models; neither genotypes nor training.
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
# every seed of the table trains on these images: what differs between seeds is the weights and the order
SPLIT_SEED = 0

FUNCTIONS = ("relu", "tanh", "sigmoid", "identity", "sin")
MODEL = "mlp"
MODEL_OPTIONS = {"hidden": [HIDDEN] * SITES}


def images(data_dir: Path | None = None) -> Data:
    """Training and validation images, and the whole test set behind its door; 1 x 7 x 7, means of 4 x 4 pixels.

    A study names it as `benchmarks.genotypes.task:images`.
    """
    pool = TRAIN + VALIDATION
    options = {"validation": VALIDATION / pool, "seed": SPLIT_SEED, "train_limit": pool}
    full = load_data(DATASET, {}, data_dir=data_dir, **options)
    _, height, width = full.input_shape
    shape = (1, height // POOL, width // POOL)
    test = TestSet(partial(_open, full.test))
    return Data(f"{DATASET}, small", _small(full.train), _small(full.val), full.classes, shape, test)


def _small(split: Split) -> Split:
    return Split(F.avg_pool2d(split.x, POOL), split.y)


def _open(test: TestSet) -> Split:
    return _small(test.open())
