"""The channels of a site's input, from the layers before it: their number and their dimension."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.supernet import find_sites, relax
from nasact.surgery.channels import Channels

# layers before a relu -> its channels
SEQUENCES: dict[str, tuple[list[nn.Module], Channels | None]] = {
    "images": ([nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm([4, 8, 5])], Channels(4, 1)),
    "images_with_dropout": ([nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm([4, 8, 5]), nn.Dropout2d()], Channels(4, 1)),
    "images_alone": ([nn.LayerNorm([4, 8, 5])], Channels(4, 1)),
    "volumes_alone": ([nn.Identity(), nn.LayerNorm([4, 3, 8, 5])], Channels(4, 1)),
    "volumes_by_images": ([nn.Conv3d(2, 6, 1), nn.LayerNorm([3, 8, 5])], Channels(6, 1)),
    "planes_after_convolution": ([nn.Conv2d(3, 4, 3), nn.LayerNorm([8, 5])], Channels(4, 1)),
    "planes_after_linear": ([nn.Linear(3, 7), nn.LayerNorm([8, 7])], Channels(7, -1)),
    "planes_alone": ([nn.LayerNorm([8, 5])], None),
    "features": ([nn.Linear(3, 7), nn.LayerNorm(7)], Channels(7, -1)),
    "root_mean_square": ([nn.Conv2d(3, 4, 3), nn.RMSNorm([4, 8, 5])], Channels(4, 1)),
    "root_mean_square_features": ([nn.RMSNorm(7)], Channels(7, -1)),
    "nested": ([nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm([4, 8, 5]), nn.MaxPool2d(2))], Channels(4, 1)),
    "nothing": ([], None),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_channels_of_a_site_are_those_of_the_layers_before_it(name: str) -> None:
    layers, expected = SEQUENCES[name]
    (site,) = find_sites(nn.Sequential(*layers, nn.ReLU())).sites
    assert site.channels == expected


def test_there_are_many_sequences() -> None:
    assert len(SEQUENCES) >= 12


class Functional(nn.Module):
    """A functional activation after a normalisation over several dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.LayerNorm([4, 8, 5])

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


@pytest.mark.parametrize("example", [None, torch.randn(2, 3, 8, 5)], ids=["without_example", "with_example"])
def test_at_channel_level_each_channel_of_a_normalised_image_has_weights(example: Tensor | None) -> None:
    x = torch.randn(2, 3, 8, 5)
    for model in (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm([4, 8, 5]), nn.ReLU()), Functional()):
        supernet = relax(model, ["relu", "tanh"], level="channel", example_input=example)
        assert [tuple(alpha.shape) for alpha in supernet.arch_parameters()] == [(4, 2)]
        assert supernet(x).shape == (2, 4, 8, 5)
