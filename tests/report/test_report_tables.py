"""The tables: rows from plain mappings, rendered for terminals of 80 and 120 columns and as markdown."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console

from nasact.report.comparison_table import comparison_table
from nasact.report.genotype_table import genotype_table
from nasact.report.genotype_text import genotype_text, site_means, site_text
from nasact.report.legend import comparison_legend
from nasact.report.number_text import clock_text, duration_text, interval_text
from nasact.report.result import Provenance, result_document
from nasact.report.table import Column, Table, markdown
from nasact.report.trials_table import best_trial_number, collapse_text, parameter_texts, trials_table


def gene(*functions, weights=None, betas=None):
    return {"functions": list(functions), "weights": weights or [1.0 / len(functions)] * len(functions), "betas": betas}


def genotype(**sites):
    return {"level": "layer", "normaliser": "softmax", "top_k": 1, "sites": sites}


def variant(name, label, accuracies, *functions):
    sites = {f"net.{i}": gene(function) for i, function in enumerate(functions)}
    return {"name": name, "label": label, "genotype": genotype(**sites), "test_accuracies": accuracies}


def comparison(seeds=5):
    up = [0.970 + 0.001 * i for i in range(seeds)]
    return {
        "variants": {
            "original": variant("original", "original (relu)", [a - 0.03 for a in up], "relu", "relu"),
            "derived": variant("derived", "derived", up, "relu", "tanh"),
            "best_single": variant("best_single", "best single (tanh)", up[::-1], "tanh", "tanh"),
            "random_mixture": variant("random_mixture", "random mixture", [a + 0.01 for a in up], "sin", "elu"),
        },
        "best_single": "tanh",
    }


def trial(number, status="complete", derived=None, **more):
    metrics = {"search_val_accuracy": 0.95, "seconds": 12.0}
    if derived is not None:
        metrics |= {"derived_val_accuracy": derived, "gap": 0.95 - derived}
    return {"number": number, "status": status, "params": {"search.strategy.lr": 0.01}, "metrics": metrics, **more}


def printed(table, width):
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return stream.getvalue()


def test_comparison_names_no_winner_with_too_few_seeds():
    table = comparison_table(comparison(seeds=5))
    verdicts = [row[-1] for row in table.rows]
    assert verdicts == ["", "too few seeds", "too few seeds", "too few seeds"]
    assert table.notes == (
        "Too few seeds: smallest possible p = 0.06; 3 comparisons need compare.seeds of 7 or more before any "
        "difference can be significant.",
    )


def test_comparison_with_enough_seeds_is_better_worse_or_undecided():
    table = comparison_table(comparison(seeds=8))
    assert [row[0] for row in table.rows] == ["derived", "original", "best single (tanh)", "random mixture"]
    assert [row[-1] for row in table.rows] == ["", "derived better", "no significant difference", "derived worse"]
    assert [row[5] for row in table.rows] == ["", "+3.00", "+0.00", "-1.00"]
    assert table.rows[0][2] == "97.35 ± 0.24"
    assert table.notes == ()


def test_one_seed_has_no_interval():
    table = comparison_table(comparison(seeds=1))
    assert table.title.startswith("Test accuracy over 1 seed,")
    assert [row[3] for row in table.rows] == ["–"] * 4
    assert {row[-1] for row in table.rows[1:]} == {"too few seeds", "the same in every seed"}


def test_comparison_names_diverged_runs_and_genotypes_that_differ_by_seed():
    plain = comparison(seeds=8)
    plain["variants"]["random_mixture"] |= {"diverged": [3], "genotypes": [genotype(a=gene("sin"))] * 8}
    table = comparison_table(plain)
    assert table.rows[-1][:2] == ("random mixture", "drawn anew for each seed")
    assert table.notes == ("random mixture: 1 of 8 runs diverged; each counts as accuracy 0.",)


def test_intervals_are_cut_off_at_0_and_100_percent():
    assert interval_text((0.4349, 1.0451)) == "43.49–100.00"
    assert interval_text((-0.1, 0.25)) == "0.00–25.00"
    assert interval_text(None) == "–"


def test_variant_without_runs_and_comparison_without_derived_have_no_verdict():
    table = comparison_table({"variants": {"relu": {"test_accuracies": []}}})
    assert table.rows == (("relu", "–", "–", "–", "0", "", "", ""),)


def test_genotype_text_is_one_function_a_list_or_counts():
    assert genotype_text(None) == "–"
    assert genotype_text(genotype(a=gene("relu"), b=gene("relu"))) == "relu"
    assert genotype_text(genotype(a=gene("relu"), b=gene("tanh"))) == "relu, tanh"
    many = {f"s{i}": gene("relu" if i % 3 else "sin") for i in range(6)}
    assert genotype_text(genotype(**many)) == "4x relu, 2x sin"
    assert genotype_text(genotype(a=gene("relu", "sin"), b=gene("tanh"))) == "mixtures of relu, sin, tanh"
    assert site_text(gene("relu", "tanh", weights=[1.2, -0.2])) == "1.20 relu - 0.20 tanh"
    assert site_text(gene("relu", weights=[0.7])) == "0.70 relu"
    channels = gene("relu", "tanh", weights=[[0, 1], [1, 0], [0, 1], [0, 1]])
    assert site_text(channels) == "75 % tanh, 25 % relu"
    assert genotype_text(genotype(a=channels, b=gene("relu"))) == "channelwise relu, tanh"
    assert genotype_text(genotype(a=gene("original"))) == "the model's own"
    assert site_means([[[1.0, 0.0]], [[0.0, 1.0]]]) == [0.5, 0.5]


def test_genotype_table_shows_spread_over_channels_and_parameters():
    per_channel = gene("relu", "prelu", weights=[[0.2, 0.8], [0.4, 0.6]], betas={"prelu.slope": [0.25, 0.35]})
    table = genotype_table(genotype(first=per_channel, second=gene("sin")))
    assert table.title == "Genotype (level layer, normaliser softmax, top_k 1)"
    assert table.rows == (
        ("first", "prelu, relu", "0.700 ± 0.141, 0.300 ± 0.141", "prelu.slope 0.300 ± 0.071"),
        ("second", "sin", "1.000", ""),
    )


def test_notes_of_the_trials_table_name_collapsed_searches_and_what_followed():
    collapse = {
        "monitor": "weights",
        "epoch": 7,
        "last_healthy_epoch": 6,
        "reason": "too much identity",
        "rolled_back_to": 4,
    }
    text = collapse_text({**collapse, "action": "rolled back"})
    assert text == "collapsed at epoch 7 (weights: too much identity): rolled back to epoch 4"
    assert collapse_text({**collapse, "action": "stopped", "rolled_back_to": None}).endswith("identity): stopped")
    trials = [{"number": 0, "status": "complete"}, {"number": 1, "status": "complete", "collapse": text}]
    document = result_document(study={"name": "s"}, trials=trials, provenance=Provenance(seed=0))
    for records in (trials, document["trials"]["records"]):
        assert trials_table(records).notes[1:] == (f"trial 1 {text}",)


def test_trials_table_marks_the_best_complete_trial_and_shows_the_reason_of_a_failure():
    trials = [
        trial(0, derived=0.94),
        trial(1, "failed", reason="loss became nan\nin epoch 3"),
        trial(2, derived=0.96),
        trial(3, "pruned", derived=0.99),
        trial(4, "running"),
    ]
    table = trials_table(trials)
    assert best_trial_number(trials) == 2
    assert [row[0] for row in table.rows] == ["0", "1", "* 2", "3", "4"]
    assert [row[1] for row in table.rows] == ["complete", "failed", "complete", "pruned", "running"]
    assert table.rows[2][2:] == ("96.00", "95.00", "-1.00", "0:12", "lr 0.01")
    assert table.rows[1][-1].startswith("loss became nan")
    assert "loss became nan in epoch 3" in printed(table, 120)


def test_a_trial_that_shares_a_result_names_the_other_trial():
    record = {"number": 4, "status": "complete", "params": {"lr": 0.1}, "value": 0.93, "reused_from": 2}
    table = trials_table([record])
    assert table.rows == (("* 4", "as 2", "93.00", "–", "–", "–", "lr 0.1"),)


def test_without_trials_the_table_is_empty():
    assert trials_table([]).rows == ()
    assert best_trial_number([trial(0)]) is None
    assert printed(trials_table([]), 80).startswith("Trials")


def test_parameters_have_the_shortest_unambiguous_names():
    params = {
        "search.strategy.lr": 0.031234,
        "search.optimiser.lr": 1e-3,
        "search.temperature": 0.5,
        "search_space.relu": True,
        "search_space.tanh": False,
        "search_space.sin": True,
        "derive.top_k": "all",
    }
    (text,) = parameter_texts([params])
    assert text == "strategy.lr 0.0312, optimiser.lr 0.001, temperature 0.5, top_k all, search_space {relu, sin}"


@pytest.mark.parametrize("width", [80, 120])
def test_five_variants_and_twenty_trials_fit_the_terminal(width):
    wide = comparison(seeds=8)
    wide["variants"]["gelu"] = variant("gelu", "gelu", [0.97] * 8, "gelu", "gelu")
    trials = [
        trial(i, derived=0.9, reason=None) | {"params": {f"search.a{j}": 0.1 for j in range(12)}} for i in range(20)
    ]
    tables = [comparison_table(wide), trials_table(trials), genotype_table(wide["variants"]["derived"]["genotype"])]
    assert len(tables) == 3
    for table in tables:
        lines = printed(table, width).splitlines()
        assert max(map(len, lines)) <= width
        assert table.columns[0].header in lines[1]
        for column in table.columns:
            assert column.header in lines[1] or column.hidden_below > width
    assert len(printed(tables[1], width).splitlines()) == 20 + 4, "one line per trial"


def test_markdown_has_the_same_rows_and_escapes_pipes():
    table = Table(
        title="T", columns=(Column(header="a"), Column(header="b", right=True)), rows=(("x|y", "1"),), notes=("n",)
    )
    assert markdown(table) == "**T**\n\n| a | b |\n| --- | ---: |\n| x\\|y | 1 |\n\nn\n"
    rich_text, md = printed(comparison_table(comparison()), 120), str(comparison_table(comparison()))
    for row in comparison_table(comparison()).rows:
        assert all(cell in rich_text and cell in md for cell in row)


def test_text_with_brackets_is_not_interpreted_as_markup():
    table = Table(title="[red]T", columns=(Column(header="[b]h"),), rows=(("[bold]x[/bold]",),))
    assert "[bold]x[/bold]" in printed(table, 80)


def test_durations_as_clock_and_with_units():
    assert [clock_text(x) for x in (8.4, 185, 7800, None, float("nan"))] == ["0:08", "3:05", "2:10:00", "–", "–"]
    assert [duration_text(x) for x in (8.24, 59.97, 185, 7800, None)] == [
        "8.2 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 10 min",
        "–",
    ]


def test_the_legend_explains_every_column_that_needs_it():
    assert 4 <= len(comparison_legend().splitlines()) <= 6
    for word in ("test acc.", "95 % interval", "diff.", "Holm p", "no significant difference", "too few seeds"):
        assert word in comparison_legend()
    assert len(comparison_legend(short=True)) < 250


def test_tables_print_without_heavy_imports():
    code = (
        "import sys, nasact.report, nasact.report.comparison_table, nasact.report.genotype_table, "
        "nasact.report.trials_table, nasact.report.legend, nasact.report.progress, nasact.report.statistics, "
        "nasact.report.result\n"
        "heavy = {'torch', 'scipy', 'matplotlib', 'numpy', 'optuna', 'mlflow', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
