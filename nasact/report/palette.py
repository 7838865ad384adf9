"""One look per function, the same in every plot of every study. Colours from Okabe and Ito, safe for colour-blind eyes.

Eight colours do not tell a bank of thirteen apart, so the line style and the hatch of bars carry the rest.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

INK = "#333333"
FAINT = "#BBBBBB"

# Okabe and Ito 2008, "Color Universal Design"; the yellow darkened to be seen as a thin line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#A89F00")
LINES = ("-", "--", ":", "-.")
HATCHES = ("", "///", "...", "xxx")


@dataclass(frozen=True)
class Look:
    colour: str
    line: str
    hatch: str


LOOKS = tuple(Look(colour, line, hatch) for line, hatch in zip(LINES, HATCHES, strict=True) for colour in COLOURS)

# The functions of the published search spaces never share a look; any other name takes a place by its checksum.
_KNOWN = (
    *("relu", "tanh", "sigmoid", "identity", "silu", "gelu", "original", "elu"),
    *("leaky_relu", "hard_sigmoid", "softsign", "softplus", "selu", "sin", "softmax", "cos"),
)
_FIXED = dict(zip(_KNOWN, LOOKS, strict=False))


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Name to look: fixed for the well-known, by checksum for the others, moved on where two would coincide."""
    wanted = list(dict.fromkeys(names))
    chosen = {name: _FIXED[name] for name in wanted if name in _FIXED}
    for name in sorted(set(wanted) - set(chosen)):
        start = zlib.crc32(name.encode()) % len(LOOKS)
        order = LOOKS[start:] + LOOKS[:start]
        free = [look for look in order if look not in chosen.values()]
        # Well-known looks are left for the functions they belong to, which may turn up in the next plot.
        chosen[name] = next((look for look in free if look not in _FIXED.values()), (free or order)[0])
    return {name: chosen[name] for name in wanted}
