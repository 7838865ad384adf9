"""A user's model, data and images, named in a YAML file in the current directory, from search to export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

NETS = """\
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self, inputs, width, classes):
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.second = nn.Linear(width, width)
        self.out = nn.Linear(width, classes)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.out(torch.tanh(self.second(self.act(self.first(x)))))


def make_net(input_shape, classes, width=6):
    return Net(input_shape[0], width, classes)
"""

DATA = """\
import numpy as np


def make_splits(seed, noise=0.1):
    random = np.random.default_rng(seed)

    def part(n):
        x = random.normal(size=(n, 5)).astype("float32")
        return x, (x[:, 0] * x[:, 1] + noise * random.normal(size=n) > 0).astype("int64")

    return part(120), part(60)
"""

STUDY = """\
name: mine
task:
  dataset: {name: 'cli_own_pkg.data:make_splits', noise: 0.05}
  model: {name: 'cli_own_pkg.nets:make_net', width: 8}
search_space: [relu, sin]
search: {epochs: 2, optimiser: {lr: 0.01}}
retrain: {epochs: 2}
compare: {seeds: 2, baselines: [original]}
outer: {trials: 1}
"""


def test_own_model_and_data_by_import_path(command, here, write, tmp_path: Path) -> None:
    write("cli_own_pkg/nets.py", NETS)
    write("cli_own_pkg/data.py", DATA)
    write("mine.yaml", STUDY)
    ran = command("search", "mine.yaml", "--json", "--no-tracking", "--workers", 2, cwd=tmp_path)
    assert ran.code == 0, ran.err
    document = ran.document
    assert list(document["genotype"]["sites"]) == ["act", "tanh"]
    assert document["study"]["tree"]["task"]["model"] == {"name": "cli_own_pkg.nets:make_net", "width": 8}
    exported = here("export", "mine", "--format", "safetensors", "-o", "mine.safetensors")
    assert exported.code == 0, exported.err
    assert "cli_own_pkg" not in (tmp_path / "mine.py").read_text()


def test_image_folder(here, write, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label, kind in enumerate(("dark", "light")):
        for part, count in (("train", 30), ("test", 8)):
            folder = tmp_path / "pictures" / part / kind
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(100 * label, 100 * label + 120, size=(14, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    write(
        "images.yaml",
        "name: images\ntask: {dataset: {image_folder: pictures, size: 10}, model: {name: mlp, hidden: [8]}}\n"
        "search_space: [relu, tanh]\nsearch: {epochs: 4, optimiser: {lr: 0.01}}\nretrain: {epochs: 6}\n"
        "compare: {seeds: 2, baselines: [original]}\n",
    )
    checked = here("check", "images.yaml")
    assert checked.code == 0, checked.err
    ran = here("search", "images.yaml", "--json", "--no-tracking", "--workers", 1)
    assert ran.code == 0, ran.err
    assert ran.document["accuracy"]["test"]["mean"] > 0.8
    assert ran.document["trials"]["counts"]["complete"] == 1
