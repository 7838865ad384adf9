"""The plots of a study as matplotlib figures. The only file that imports matplotlib; knows no torch and no pyplot.

Takes plain mappings and arrays, and the functions to draw as a callable. One panel per site.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from nasact.report import statistics
from nasact.report.comparison import DERIVED, derived_contrasts, derived_first, variant_labels
from nasact.report.genotype_text import site_text, weight_rows
from nasact.report.palette import COLOURS, FAINT, INK, PlotStyle, plot_styles
from nasact.reserved_names import ORIGINAL

Array: TypeAlias = NDArray[np.float64]
Names: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]]
"""Names of the functions in the bank: one list for all sites, or one list per site."""
Evaluate: TypeAlias = Callable[[str, Array], Array]
"""`(site, x) -> y` with x (n,), and y (n,) or (channels, n) if the functions differ by channel."""

MAX_SITES = 16
MAX_CHANNELS = 64
RANGES = ((-3.0, 3.0), (-10.0, 10.0), (-100.0, 100.0))
POINTS = 801
DPI = 110
FONT_SIZE = 8
_CHARACTER_WIDTH = 0.067  # inches per character at FONT_SIZE: an upper bound of the average


def weights_over_time(weights: Mapping[str, Sequence[Sequence[float]]], names: Names) -> Figure:
    """Mixture weights of each site by epoch (row 0: before the first epoch), as means over channels or neurons."""
    sites = list(weights)[:MAX_SITES]
    rows = {site: np.asarray(weights[site], dtype=float).reshape(len(weights[site]), -1) for site in sites}
    banks = {site: _bank(names, site, rows[site].shape[1]) for site in sites}
    styles = plot_styles(name for bank in banks.values() for name in bank)
    limits = _shared_limits(value for values in rows.values() for value in values.ravel())
    panel = (2.7, 1.6) if len(sites) > 1 else (5.0, 2.4)
    grid = _Grid(count=len(sites), panel=panel, left=0.65, legend=styles)
    for place, site in enumerate(sites):
        axis = grid.axis(place, site, y="mixture weight", x="epoch")
        for k, name in enumerate(banks[site]):
            style = styles[name]
            axis.plot(rows[site][:, k], color=style.colour, linestyle=style.line, linewidth=1.5)
        axis.set_ylim(limits)
        axis.set_xlim(0, max(1, len(rows[site]) - 1))
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return grid.finish("Mixture weights over time", len(weights))


def final_weights(weights: Mapping[str, Any], names: Names) -> Figure:
    """Bars of the final mixture weights, nested (..., K); whiskers: one standard deviation over channels or neurons."""
    sites = list(weights)[:MAX_SITES]
    rows = {site: np.asarray(weight_rows(weights[site]), dtype=float) for site in sites}
    banks = {site: _bank(names, site, rows[site].shape[1]) for site in sites}
    styles = plot_styles(name for bank in banks.values() for name in bank)
    largest_bank = max((len(bank) for bank in banks.values()), default=1)
    name_width = 0.25 + _CHARACTER_WIDTH * max(map(len, styles), default=1)
    same_bank = len({tuple(bank) for bank in banks.values()}) == 1
    limits = _shared_limits(value for r in rows.values() for s in (-1, 1) for value in r.mean(0) + s * r.std(0))
    gap = 0.25 if same_bank else name_width
    panel = (2.0 if len(sites) > 1 else 4.0, 0.2 + 0.16 * largest_bank)
    grid = _Grid(count=len(sites), panel=panel, left=name_width, gap=gap)
    for place, site in enumerate(sites):
        axis = grid.axis(place, site, x="mixture weight", lines="x", own_y=not same_bank)
        mean, spread, places = rows[site].mean(0), rows[site].std(0), np.arange(len(banks[site]))
        colours = [styles[name].colour for name in banks[site]]
        bars = axis.barh(places, mean, color=colours, edgecolor="white", linewidth=0)
        for bar, name in zip(bars, banks[site], strict=True):
            bar.set_hatch(styles[name].hatch)
        if len(rows[site]) > 1:
            axis.errorbar(mean, places, xerr=spread, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_yticks(places, banks[site])
        axis.set_ylim(len(places) - 0.4, -0.6)
        axis.set_xlim(limits)
        axis.xaxis.set_major_locator(MaxNLocator(4))
    return grid.finish("Final mixture weights", len(weights))


def learned_shapes(
    genotype: Mapping[str, Any],
    evaluate: Evaluate,
    ranges: Sequence[tuple[float, float]] = RANGES,
    *,
    reference: Evaluate | None = None,
) -> Figure:
    """The function that each site of a genotype computes, over each of `ranges`; `reference`: dashed behind it."""
    genes: Mapping[str, Mapping[str, Any]] = genotype["sites"]
    sites = list(genes)[:MAX_SITES]
    styles = plot_styles(name for gene in genes.values() for name in gene["functions"])
    legend = {"learned": PlotStyle(INK, "-", ""), "the model's own": PlotStyle(FAINT, "--", "")} if reference else {}
    sites_per_line = 2 if len(sites) > 6 else 1
    columns = sites_per_line * len(ranges)
    grid = _Grid(
        count=len(sites) * len(ranges), panel=(1.75, 1.25), left=0.75, gap=0.55, columns=columns, legend=legend
    )
    for place, site in enumerate(sites):
        functions = genes[site]["functions"]
        colour = styles[functions[0]].colour if len(functions) == 1 else INK
        title = _shorten(f"{site}: {site_text(genes[site])}", 27 * len(ranges))
        for column, (low, high) in enumerate(ranges):
            # With two sites per line, each has all of its ranges next to each other.
            axis = grid.axis(place * len(ranges) + column, "" if column else title, y="output", x="input", own_y=True)
            x = np.linspace(low, high, POINTS)
            if reference is not None:
                _draw_curves(axis, x, reference(site, x), FAINT, "--")
            _draw_curves(axis, x, evaluate(site, x), colour, "-")
            axis.set_xlim(low, high)
            axis.set_xticks([low, 0, high], [f"{low:g}", "0", f"{high:g}"])
            axis.yaxis.set_major_locator(MaxNLocator(4))
    return grid.finish("Learned activation functions", len(genes))


def accuracies(comparison: Mapping[str, Any]) -> Figure:
    """Test accuracy of each variant: mean and 95 % interval, the single seeds below, the verdict on the right."""
    labels = variant_labels(comparison)
    verdicts = {contrast.other: contrast.text for contrast in derived_contrasts(comparison)}
    names = derived_first(labels)
    left = 0.3 + 1.15 * _CHARACTER_WIDTH * max(map(len, labels.values()))
    grid = _Grid(count=1, panel=(4.6, 0.42 * len(names)), left=left, right=2.6)
    axis = grid.axis(0, "", x="test accuracy in %: mean, 95 % interval and single seeds", lines="x")
    for place, name in enumerate(names):
        values = [100 * accuracy for accuracy in comparison["variants"][name]["test_accuracies"]]
        colour = COLOURS[1] if name == DERIVED else COLOURS[0]
        seeds = np.full(len(values), place + 0.22)
        axis.plot(values, seeds, "o", color=colour, alpha=0.45, markersize=4, markeredgewidth=0)
        if values:
            axis.plot(
                statistics.ci95(values) or (), (place, place) if len(values) > 1 else (), color=colour, linewidth=2
            )
            axis.plot(statistics.mean(values), place, "o", color=colour, markersize=7, markeredgecolor="white")
        text = verdicts.get(name, "")
        text = f"derived {text}" if text in (statistics.BETTER, statistics.WORSE) else text.replace(" (", "\n(")
        position = (1.03, place)
        axis.annotate(text, position, xycoords=("axes fraction", "data"), va="center", fontsize=FONT_SIZE, color=INK)
    axis.set_yticks(range(len(names)), [labels[name] for name in names])
    axis.set_ylim(len(names) - 0.5, -0.5)
    return grid.finish("Test accuracy, retrained from scratch at equal budget", 1)


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as a PNG file; the folder must exist."""
    path.write_bytes(png(figure))
    return path


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file; equal figures give equal bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


@dataclass(kw_only=True)
class _Grid:
    """A figure of panels of equal size, placed line by line; all lengths in inches.

    matplotlib's layout engines draw everything several times, which is too slow for plots of every trial.
    """

    count: int
    panel: tuple[float, float]
    left: float
    right: float = 0.2
    gap: float = 0.25
    columns: int = 0
    legend: Mapping[str, PlotStyle] | None = None

    def __post_init__(self) -> None:
        self.columns = self.columns or max(1, min(4, math.ceil(math.sqrt(self.count))))
        self.lines = max(1, math.ceil(self.count / self.columns))
        width = self.left + self.columns * (self.panel[0] + self.gap) - self.gap + self.right
        self.width = max(width, 4.5)
        entry = 0.6 + _CHARACTER_WIDTH * max(map(len, self.legend or [""]))
        self.legend_columns = max(1, int(self.width / entry))
        self.footer = 0.5 + (0.1 + 0.18 * math.ceil(len(self.legend) / self.legend_columns) if self.legend else 0.0)
        self.height = 0.7 + self.lines * (self.panel[1] + 0.42) - 0.42 + self.footer
        self.figure = Figure(figsize=(self.width, self.height))
        FigureCanvasAgg(self.figure)

    def axis(
        self,
        place: int,
        title: str,
        *,
        x: str = "",
        y: str = "",
        lines: Literal["both", "x"] = "both",
        own_y: bool = False,
    ) -> Axes:
        """Axes of panel `place`. Labels are on the outer panels only; `own_y`: except the tick labels of y."""
        line, column = divmod(place, self.columns)
        corner = self.left + column * (self.panel[0] + self.gap), self._bottom(line)
        axis = self.figure.add_axes(
            (
                corner[0] / self.width,
                corner[1] / self.height,
                self.panel[0] / self.width,
                self.panel[1] / self.height,
            )
        )
        at_bottom = place + self.columns >= self.count
        axis.tick_params(labelsize=FONT_SIZE, labelbottom=at_bottom, labelleft=own_y or column == 0)
        if at_bottom:
            axis.set_xlabel(x, fontsize=FONT_SIZE)
        if column == 0:
            axis.set_ylabel(y, fontsize=FONT_SIZE)
            axis.yaxis.set_label_coords(-0.45 / self.panel[0], 0.5)
        max_length = 1000 if self.gap > 0.5 else int(self.panel[0] / _CHARACTER_WIDTH * 0.9)
        axis.set_title(_shorten(title, max_length), loc="left", fontsize=FONT_SIZE + 1)
        axis.grid(True, axis=lines, color="#E6E6E6", linewidth=0.7)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        return axis

    def _bottom(self, line: int) -> float:
        return self.footer + (self.lines - 1 - line) * (self.panel[1] + 0.42)

    def finish(self, title: str, sites: int) -> Figure:
        """Add the title and the legend. `sites`: number of sites of the network, of which the plot may show fewer."""
        if sites > MAX_SITES:
            title += f" (the first {MAX_SITES} of {sites} sites)"
        self.figure.text(0.1 / self.width, 1 - 0.1 / self.height, title, fontsize=FONT_SIZE + 3, va="top")
        if self.legend:
            handles = [
                Line2D([], [], color=style.colour, linestyle=style.line, label=name)
                for name, style in self.legend.items()
            ]
            self.figure.legend(
                handles=handles, loc="lower left", ncols=self.legend_columns, fontsize=FONT_SIZE, frameon=False
            )
        return self.figure


def _draw_curves(axis: Axes, x: Array, y: Array, colour: str, line: str) -> None:
    """Draw one curve, or thin curves of channels and their mean; a text if no value is finite."""
    values = np.atleast_2d(np.asarray(y, dtype=float))
    finite = np.where(np.isfinite(values), values, np.nan)
    if np.isnan(finite).all():
        axis.text(0.5, 0.5, "no scalar function", transform=axis.transAxes, ha="center", fontsize=FONT_SIZE, color=INK)
        axis.tick_params(labelleft=False)
        return
    if len(finite) > 1:
        for channel in finite[:: max(1, math.ceil(len(finite) / MAX_CHANNELS))]:
            axis.plot(x, channel, color=colour, linewidth=0.6, alpha=0.25)
    axis.plot(x, finite.mean(0), color=colour, linestyle=line, linewidth=1.6)


def _bank(names: Names, site: str, count: int) -> list[str]:
    """Names of the functions at a site. One weight more than names: the model's own function was added to the bank."""
    bank = list(names[site] if isinstance(names, Mapping) else names)
    if count == len(bank) + 1:
        bank.append(ORIGINAL)
    if count != len(bank):
        raise ValueError(f"site {site!r}: {count} weights, but {len(bank)} names")
    return bank


def _shorten(text: str, max_length: int) -> str:
    """Replace the middle of a long text by an ellipsis: both ends of a site's name distinguish it from others."""
    if len(text) <= max_length:
        return text
    head = max_length // 2
    return f"{text[:head]}…{text[len(text) - (max_length - head - 1) :]}"


def _shared_limits(values: Iterable[float]) -> tuple[float, float]:
    """Limits for all panels: the range of the finite values and zero, with a margin."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(0.0, *finite, 0.0), max(0.0, *finite, 0.0)
    margin = 0.05 * ((high - low) or 1.0)
    return low - (margin if low < 0 else margin / 3), high + margin
