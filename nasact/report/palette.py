"""The plot style of each function, the same in all plots of all studies. Colours from Okabe and Ito: colour-blind safe.

Eight colours are too few for a bank of thirteen functions, so line styles and hatches of bars distinguish the rest.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from nasact.reserved_names import ORIGINAL

INK = "#333333"
FAINT = "#BBBBBB"

# Okabe and Ito 2008, "Color Universal Design"; the yellow is darkened to be visible as a thin line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#A89F00")
LINES = ("-", "--", ":", "-.")
HATCHES = ("", "///", "...", "xxx")


@dataclass(frozen=True)
class PlotStyle:
    colour: str
    line: str
    hatch: str


STYLES = tuple(PlotStyle(colour, line, hatch) for line, hatch in zip(LINES, HATCHES, strict=True) for colour in COLOURS)

# The functions of the published search spaces have fixed styles of which no two are equal; other names get one by their
# checksum.
_FIXED_NAMES = (
    *("relu", "tanh", "sigmoid", "identity", "silu", "gelu", ORIGINAL, "elu"),
    *("leaky_relu", "hard_sigmoid", "softsign", "softplus", "selu", "sin", "softmax", "cos"),
)
_FIXED_STYLES = dict(zip(_FIXED_NAMES, STYLES, strict=False))


def plot_styles(names: Iterable[str]) -> dict[str, PlotStyle]:
    """Style of each name: fixed for published functions, by checksum for others, the next free one if taken."""
    unique = list(dict.fromkeys(names))
    chosen = {name: _FIXED_STYLES[name] for name in unique if name in _FIXED_STYLES}
    for name in sorted(set(unique) - set(chosen)):
        start = zlib.crc32(name.encode()) % len(STYLES)
        order = STYLES[start:] + STYLES[:start]
        free = [style for style in order if style not in chosen.values()]
        # Fixed styles stay free for the functions they belong to, which may be in the next plot.
        chosen[name] = next((style for style in free if style not in _FIXED_STYLES.values()), (free or order)[0])
    return {name: chosen[name] for name in unique}
