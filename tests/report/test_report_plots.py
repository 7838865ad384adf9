"""The plots: they show the right numbers, in the same style everywhere, and no text overlaps another."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from nasact.report import plots
from nasact.report.palette import STYLES, plot_styles

BANK = ["relu", "tanh", "sigmoid", "identity"]
PUBLISHED = [*BANK, "silu", "softsign", "softplus", "selu", "hard_sigmoid", "gelu", "elu", "softmax", "sin", "cos"]


def weights(sites, names, epochs=5):
    generator = np.random.default_rng(0)
    return {f"features.{i}.act": generator.dirichlet(np.ones(len(names)), epochs).tolist() for i in range(sites)}


def gene(*functions, weights=None):
    return {"functions": list(functions), "weights": weights or [1.0 / len(functions)] * len(functions), "betas": {}}


def genotype(sites):
    genes = [gene("relu"), gene("tanh", "sin"), gene("relu", "tanh", weights=[[0.2, 0.8], [0.6, 0.4]])]
    return {"sites": {f"features.{i}.act": genes[i % 3] for i in range(sites)}}


def evaluate(site, x):
    return np.stack([np.maximum(x, 0), np.tanh(x)]) if site.endswith("2.act") else np.tanh(x)


def comparison(seeds):
    values = [0.95 + 0.002 * i for i in range(seeds)]
    names = ("original", "derived", "best_single", "random_mixture")
    return {"best_single": "tanh", "variants": {name: {"test_accuracies": values} for name in names}}


FIGURES = {
    "weights of 1 site": lambda: plots.weights_over_time(weights(1, BANK), BANK),
    "weights of 5 sites": lambda: plots.weights_over_time(weights(5, PUBLISHED), PUBLISHED),
    "bars of 3 sites": lambda: plots.final_weights({k: v[-1] for k, v in weights(3, PUBLISHED).items()}, PUBLISHED),
    "bars of channels": lambda: plots.final_weights(weights(2, BANK), BANK),
    "shapes of 3 sites": lambda: plots.learned_shapes(genotype(3), evaluate, reference=lambda _, x: np.maximum(x, 0)),
    "shapes of 7 sites": lambda: plots.learned_shapes(genotype(7), evaluate),
    "accuracies": lambda: plots.accuracies(comparison(5)),
    "accuracies of one seed": lambda: plots.accuracies(comparison(1)),
}


def visible_texts(figure):
    figure.canvas.draw()
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += [*axes.texts, axes.xaxis.label, axes.yaxis.label, axes._left_title]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [tick.label1 for tick in ticks if tick.label1.get_visible()]
    return [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text().strip()]


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_is_inside_the_figure_and_overlaps_no_other(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    texts = visible_texts(figure)
    assert len(texts) > 5
    width, height = figure.canvas.get_width_height()
    for text, box in texts:
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
    for (a, box_a), (b, box_b) in itertools.combinations(texts, 2):
        overlap = min(box_a.x1, box_b.x1) - max(box_a.x0, box_b.x0), min(box_a.y1, box_b.y1) - max(box_a.y0, box_b.y0)
        assert min(overlap) <= 1.0, f"{a!r} overlaps {b!r}"


def test_equal_figures_give_equal_png_files(tmp_path):
    path = plots.save(FIGURES["weights of 1 site"](), tmp_path / "weights.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.read_bytes() == plots.png(FIGURES["weights of 1 site"]())


def test_lines_begin_with_the_weights_before_the_first_epoch():
    data = weights(2, BANK)
    figure = plots.weights_over_time(data, BANK)
    assert len(figure.axes) == 2
    for axis, rows in zip(figure.axes, data.values(), strict=True):
        drawn = np.stack([line.get_ydata() for line in axis.lines], axis=1)
        np.testing.assert_allclose(drawn, rows)
        assert axis.lines[0].get_xdata()[0] == 0
        assert axis.get_title(loc="left").startswith("features.")


def test_bars_are_means_over_channels():
    figure = plots.final_weights({"act": [[1.0, 0.0], [0.5, 0.5]]}, ["relu", "tanh"])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.75, 0.25]


def test_of_more_than_sixteen_sites_the_first_are_shown_as_the_title_says():
    figure = plots.final_weights({k: v[-1] for k, v in weights(17, BANK).items()}, BANK)
    assert len(figure.axes) == 16
    assert figure.texts[0].get_text() == "Final mixture weights (the first 16 of 17 sites)"
    assert "16 of 18" in plots.learned_shapes(genotype(18), evaluate, ranges=[(-1, 1)]).texts[0].get_text()


def test_shapes_are_drawn_over_every_range_with_channels_behind_their_mean():
    figure = plots.learned_shapes(genotype(3), evaluate)
    assert len(figure.axes) == 9
    assert [axis.get_xlim() for axis in figure.axes[:3]] == [(-3, 3), (-10, 10), (-100, 100)]
    assert [len(axis.lines) for axis in figure.axes] == [1, 1, 1, 1, 1, 1, 3, 3, 3]
    assert figure.axes[3].get_title(loc="left") == "features.1.act: 0.50 tanh + 0.50 sin"


def test_a_site_without_a_scalar_function_shows_a_text():
    figure = plots.learned_shapes({"sites": {"head": gene("softmax")}}, lambda _, x: np.full_like(x, np.nan))
    assert {text.get_text() for axis in figure.axes for text in axis.texts} == {"no scalar function"}


def test_a_function_has_one_colour_in_every_plot():
    over_time = plots.weights_over_time(weights(1, BANK), BANK)
    bars = plots.final_weights({"act": [0.5, 0.5]}, ["tanh", "relu"])
    shapes = plots.learned_shapes({"sites": {"act": gene("relu")}}, evaluate)
    relu = plot_styles(["relu"])["relu"].colour.lower()
    assert to_hex(over_time.axes[0].lines[0].get_color()) == relu
    assert to_hex(bars.axes[0].patches[1].get_facecolor()) == relu
    assert to_hex(shapes.axes[0].lines[0].get_color()) == relu


def test_published_functions_have_different_styles_and_others_avoid_them():
    alone = {name: plot_styles([name])[name] for name in PUBLISHED}
    assert len(set(alone.values())) == len(PUBLISHED)
    assert plot_styles(PUBLISHED) == alone
    mine = plot_styles(["my_function", "another", *PUBLISHED])
    assert len(set(mine.values())) == len(mine)
    assert mine["my_function"] == plot_styles(["my_function"])["my_function"]
    assert set(plot_styles(f"f{i}" for i in range(100)).values()) == set(STYLES), (
        "more names than styles: reused, not refused"
    )


def test_the_models_own_function_in_the_bank_is_named_original():
    figure = plots.final_weights({"act": [0.2, 0.3, 0.5]}, ["relu", "tanh"])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["relu", "tanh", "original"]
    with pytest.raises(ValueError, match="3 weights, but 1 names"):
        plots.final_weights({"act": [0.2, 0.3, 0.5]}, ["relu"])


def test_plotting_imports_neither_torch_nor_pyplot():
    code = (
        "import sys, nasact.report.plots\n"
        "heavy = {'torch', 'matplotlib.pyplot'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
