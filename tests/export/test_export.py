"""Exports: reloaded in a new process without nasact, they compute the same as the network; if not, no file remains."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.cli.export import export
from nasact.errors import ExportError, UnknownName
from nasact.export import FORMATS, export_network
from nasact.supernet import Genotype, derive, relax


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3))
        self.fc = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.conv(x)).flatten(1))


GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(50, 1, 8, 8, generator=GENERATOR)
LABELS = torch.randint(0, 3, (50,), generator=GENERATOR)


def derived(top_k: int, level: str = "layer") -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    model(X)  # change the running statistics from their initial values
    supernet = relax(model, ["relu", "golu", "snake", "softmax"], level=level)
    with torch.no_grad():
        for alpha in supernet.arch_parameters():
            alpha.uniform_()
    return derive(supernet, top_k).apply(model)


def test_the_documented_formats_are_registered() -> None:
    assert set(FORMATS.names()) >= {"onnx", "pt2", "safetensors"}


def test_the_command_offers_exactly_the_registered_formats() -> None:
    # The command has its own list, so that its help needs no torch.
    (option,) = [parameter for parameter in export.params if parameter.name == "format_name"]
    assert isinstance(option.type, click.Choice)
    assert tuple(option.type.choices) == FORMATS.names()


@pytest.mark.parametrize(
    ("format_name", "top_k", "level"),
    [*((name, 4, "layer") for name in FORMATS.names()), ("onnx", 2, "channel"), ("safetensors", 1, "layer")],
)
def test_an_export_computes_what_the_network_computes(format_name: str, top_k: int, level: str, tmp_path: Path) -> None:
    network = derived(top_k, level).train()
    result = export_network(network, X, tmp_path / f"net.{format_name}", format_name, labels=LABELS)
    assert result.max_difference < 1e-4
    assert network.training, "the network must be in its earlier mode again"
    with torch.no_grad():
        accuracy = (network.eval()(X).argmax(-1) == LABELS).float().mean().item()
    assert result.accuracy == accuracy
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in result.files)


def test_the_plain_code_runs_where_nasact_cannot_be_imported(tmp_path: Path) -> None:
    network = derived(4).eval()
    export_network(network, X, tmp_path / "net.safetensors", "safetensors")
    torch.save((X, network(X).detach()), tmp_path / "io.pt")
    script = (
        "import sys; sys.modules['nasact'] = None; sys.path.insert(0, '.')\n"
        "import torch, net\n"
        "x, y = torch.load('io.pt')\n"
        "network = net.load('net.safetensors')\n"
        "assert (network(x) - y).abs().max() < 1e-5\n"
        "assert sum(p.numel() for p in network.parameters()) > 100\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


class Counting(nn.Module):
    """Computes another output at each call, so that no export can agree with it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.fc(x.flatten(1)) + self.calls


def test_an_export_that_differs_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="differ by"):
        export_network(Counting(), X, tmp_path / "net.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_bad_network_path_or_format_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"net.onnx: onnx cannot express this network"):
        export_network(Branching(), X, tmp_path / "net.onnx", "onnx")
    with pytest.raises(ExportError, match=r"must end in \.safetensors"):
        export_network(Net(), X, tmp_path / "net.bin", "safetensors")
    with pytest.raises(ExportError, match=r"the directory .* does not exist"):
        export_network(Net(), X, tmp_path / "no" / "net.pt2", "pt2")
    with pytest.raises(UnknownName, match="Did you mean 'onnx'"):
        export_network(Net(), X, tmp_path / "net.onx", "onx")
    assert list(tmp_path.iterdir()) == []


def test_the_networks_own_functions_export_too(tmp_path: Path) -> None:
    network = Genotype.original(Net()).apply(Net())
    assert export_network(network, X, tmp_path / "net.onnx", "onnx").max_difference < 1e-4
