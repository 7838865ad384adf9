"""Bad input as a table: the text of a study, and the exact lines of its error."""

from __future__ import annotations

import pytest

from nasact.errors import NasactError, StudyError
from nasact.mixture import NORMALISERS
from nasact.study import Study

TASK = "task: {dataset: digits, model: mlp}\n"
GOOD = TASK + "search_space: basic\n"  # the text of a case begins in line 3

# case -> (text added after GOOD, lines of the error)
AFTER_GOOD = {
    "unknown key": ("serach: {epochs: 3}", "m.yaml:3: serach: unknown key 'serach'. Did you mean 'search'?"),
    "unknown key in a section": (
        "search:\n  epochs: 3\n  levle: layer",
        "m.yaml:5: search.levle: unknown key 'levle'. Did you mean 'level'?",
    ),
    "key of another section": ("top_k: 1", "m.yaml:3: top_k: unknown key 'top_k'. It belongs at 'derive.top_k'."),
    "key without a near name": (
        "derive: {zzz: 1}",
        "m.yaml:3: derive.zzz: unknown key 'zzz'. The keys here are top_k, method.",
    ),
    "strategy": (
        "search:\n  epochs: 3\n  strategy:\n    name: dart",
        "m.yaml:6: search.strategy.name: unknown strategy 'dart'. Did you mean 'darts'? (nasact list strategies)",
    ),
    "strategy in short form": (
        "search: {strategy: dart}",
        "m.yaml:3: search.strategy: unknown strategy 'dart'. Did you mean 'darts'? (nasact list strategies)",
    ),
    "strategy's option value": (
        "search: {strategy: {name: darts, lr: 0}}",
        "m.yaml:3: search.strategy.lr: must be a positive number, but got 0.0",
    ),
    "level": (
        "search: {level: layers}",
        "m.yaml:3: search.level: unknown level 'layers'. Did you mean 'layer'? (one of layer, channel, neuron)",
    ),
    "init": (
        "search: {init: orginal}",
        "m.yaml:3: search.init: unknown init 'orginal'. Did you mean 'original'? (one of uniform, original)",
    ),
    "optimiser": (
        "search: {optimiser: adm}",
        "m.yaml:3: search.optimiser: unknown optimiser 'adm'. Did you mean 'adam' or 'adamw'? "
        "(one of adam, adamw, sgd)",
    ),
    "sampler": (
        "outer: {sampler: tpee}",
        "m.yaml:3: outer.sampler: unknown sampler 'tpee'. Did you mean 'tpe'? (one of tpe, random, grid)",
    ),
    "pruner": (
        "outer: {pruner: hyperbnd}",
        "m.yaml:3: outer.pruner: unknown pruner 'hyperbnd'. Did you mean 'hyperband'? (one of hyperband, median, none)",
    ),
    "engine": (
        "outer: {engine: optuma}",
        "m.yaml:3: outer.engine: unknown engine 'optuma'. Did you mean 'optuna'? (one of optuna)",
    ),
    "schedule": (
        "search: {temperature: {end: 0.1, schedule: exponentail}}",
        "m.yaml:3: search.temperature.schedule: unknown schedule 'exponentail'. Did you mean 'exponential'? "
        "(one of constant, exponential, linear)",
    ),
    "baseline": (
        "compare: {baselines: [orignal]}",
        "m.yaml:3: compare.baselines.0: unknown baseline 'orignal'. Did you mean 'original'? "
        "(original, best_single, random_mixture, or a function)",
    ),
    "baseline twice": ("compare: {baselines: [swish, silu]}", "m.yaml:3: compare.baselines: 'silu' is given twice"),
    "float for a whole number": (
        "search: {epochs: 2.5}",
        "m.yaml:3: search.epochs: expected a whole number, but got 2.5",
    ),
    "boolean for a whole number": (
        "search: {epochs: true}",
        "m.yaml:3: search.epochs: expected a whole number, but got true",
    ),
    "text for a number": (
        "search: {optimiser: {lr: fast}}",
        "m.yaml:3: search.optimiser.lr: expected a number, but got 'fast'",
    ),
    "yes for true": ("sites: {partial: yes}", "m.yaml:3: sites.partial: expected true or false, but got 'yes'"),
    "text for a list": ("sites: {include: conv}", "m.yaml:3: sites.include: expected a list, but got 'conv'"),
    "octal": ("search: {epochs: 010}", "m.yaml:3: search.epochs: expected a whole number, but got '010'"),
    "not finite": (
        "search: {temperature: .inf}",
        "m.yaml:3: search.temperature: expected a finite number, but got inf",
    ),
    "empty section": ("retrain:", "m.yaml:3: retrain: expected a mapping, but got nothing"),
    "section that is a word": ("search: darts", "m.yaml:3: search: expected a mapping, but got 'darts'"),
    "all warmup": (
        "search:\n  epochs: 5\n  warmup: 5",
        "m.yaml:5: search.warmup: must be smaller than search.epochs, but got (warmup=5, epochs=5)",
    ),
    "annealed in one epoch": (
        "search:\n  epochs: 3\n  warmup: 2\n  temperature: {end: 0.1}",
        "m.yaml:6: search.temperature: an annealed temperature starts in one epoch and ends in another: that takes 2 "
        "epochs after the warm-up, but got (epochs=3, warmup=2)",
    ),
    "more stages than epochs": (
        "search:\n  epochs: 3\n  strategy:\n    name: shrink\n    stages: 5",
        "m.yaml:7: search.strategy.stages: each of the 5 stages must last an epoch at least: that takes 5 epochs, "
        "but got (epochs=3)",
    ),
    "more stages than epochs, in short form": (
        "search: {epochs: 3, strategy: shrink}",
        "m.yaml:3: search.strategy.stages: each of the 4 stages must last an epoch at least: that takes 4 epochs, "
        "but got (epochs=3)",
    ),
    "more counts than epochs after the warm-up": (
        "search: {epochs: 5, warmup: 3, strategy: {name: shrink, counts: '3, 1'}}",
        "m.yaml:3: search.strategy.counts: each of the 3 stages must last an epoch at least: that takes 3 epochs "
        "after the warm-up, but got (epochs=5, warmup=3)",
    ),
    "a cycle of less than an epoch": (
        "search: {epochs: 10, strategy: {name: cycles, begin: 0.5, end: 0.55}}",
        "m.yaml:3: search.strategy.end: the cycle of alpha must last an epoch at least: that takes 20 epochs, "
        "but got (epochs=10)",
    ),
    "a regulariser that starts too late": (
        "search: {epochs: 10, regularisers: [{name: entropy, start: 0.95}]}",
        "m.yaml:3: search.regularisers.0.start: the rise of its coefficient must last an epoch at least: that takes 20 "
        "epochs, but got (epochs=10)",
    ),
    "stages that do not fit into the fewest epochs": (
        "search:\n  epochs: {low: 4, high: 9}\n  warmup: {low: 0, high: 2}\n"
        "  strategy: {name: shrink, stages: {low: 2, high: 3}}",
        "m.yaml:6: search.strategy.stages: each of the 3 stages must last an epoch at least: that takes 3 epochs after "
        "the warm-up, but got (epochs=4, warmup=2) (with search.epochs: 4 and search.warmup: 2 and "
        "search.strategy.stages: 3)",
    ),
    "a strategy with a normaliser that it does not support": (
        "search: {strategy: gaea, normaliser: affine}",
        "m.yaml:3: search.normaliser: strategy 'gaea' does not support normaliser 'affine': its steps move the mixture "
        "weights themselves on a simplex; use convex",
    ),
    "a perturbation of weights that are drawn": (
        "search: {strategy: gdas, regularisers: [sdarts]}",
        "m.yaml:3: search.regularisers.0: regulariser 'sdarts' cannot be applied: it moves mixture weights by eps and "
        "back onto the simplex, but the weights of normaliser 'gumbel_hard' are not on the simplex, or are drawn at "
        f"each pass; use {' or '.join(name for name, record in NORMALISERS.items() if record.on_simplex)}",
    ),
    "top_k larger than the number of remaining candidates": (
        "search: {strategy: shrink}\nderive: {top_k: 2}",
        "m.yaml:4: derive.top_k: strategy 'shrink' leaves 1 of 4 candidates at each site, but got 2",
    ),
    "top_k larger than the last count": (
        "search: {strategy: {name: shrink, counts: '3, 2'}}\nderive: {top_k: 3}",
        "m.yaml:4: derive.top_k: strategy 'shrink' leaves 2 of 4 candidates at each site, but got 3",
    ),
    "perturbation of a derivation that keeps every function": (
        "derive: {top_k: all, method: perturbation}",
        "m.yaml:3: derive.top_k: derivation 'perturbation' cannot be applied: it searches for functions that a site "
        "can do without, and top_k 'all' keeps all; use magnitude",
    ),
    "no epochs": ("search: {epochs: 0}", "m.yaml:3: search.epochs: must be at least 1, but got 0"),
    "no batch": ("search: {batch_size: 0}", "m.yaml:3: search.batch_size: must be at least 1, but got 0"),
    "negative seed": ("seed: -1", "m.yaml:3: seed: must be at least 0, but got -1"),
    "name with a slash": (
        "name: a/b",
        "m.yaml:3: name: must be letters, digits, '.', '_' or '-', and begin with a letter or digit, but got 'a/b'",
    ),
    "top_k": (
        "derive: {top_k: 5}",
        "m.yaml:3: derive.top_k: must not be larger than the candidate set, but got (top_k=5, candidates=4)",
    ),
    "derivation": (
        "derive: {method: validatd}",
        "m.yaml:3: derive.method: unknown derivation 'validatd'. Did you mean 'validated'? (nasact list derivations)",
    ),
    "option of a derivation": (
        "derive: {method: {name: validated, network: 3}}",
        "m.yaml:3: derive.method.network: unknown option 'network' of derivation 'validated'. "
        "Did you mean 'networks'? It has: networks, epochs, margin, seeds, uniform",
    ),
    "option of a derivation out of range": (
        "derive: {method: {name: refit, epochs: 0}}",
        "m.yaml:3: derive.method.epochs: must be at least 1, but got 0",
    ),
    "level of a derivation": (
        "search: {level: neuron}\nderive: {method: perturbation}",
        "m.yaml:4: derive.method: derivation 'perturbation' needs level layer or channel, but search.level is 'neuron'",
    ),
    "top_k, a word": (
        "derive: {top_k: al}",
        "m.yaml:3: derive.top_k: must be a whole number of at least 1, or 'all', but got 'al'",
    ),
    "constant temperature with an end": (
        "search: {temperature: {end: 0.1, schedule: constant}}",
        "m.yaml:3: search.temperature.end: a constant temperature has no `end` "
        "(schedule: exponential anneals towards it)",
    ),
    "exponential temperature without an end": (
        "search: {temperature: {schedule: exponential}}",
        "m.yaml:3: search.temperature.schedule: schedule 'exponential' needs an `end` greater than 0",
    ),
    "linear temperature without an end": (
        "search: {temperature: {schedule: linear}}",
        "m.yaml:3: search.temperature.schedule: schedule 'linear' needs an `end` greater than 0",
    ),
    "temperature ends at zero": (
        "search: {temperature: {end: 0}}",
        "m.yaml:3: search.temperature.end: must be greater than 0, but got 0",
    ),
    "temperature of a normaliser without one": (
        "search: {normaliser: affine, temperature: 2}",
        "m.yaml:3: search.temperature: the normaliser 'affine' has no temperature",
    ),
    "momentum of adam": (
        "search: {optimiser: {name: adam, momentum: 0.5}}",
        "m.yaml:3: search.optimiser.momentum: optimiser 'adam' has no momentum: use sgd",
    ),
    "low > high": (
        "search:\n  temperature: {low: 3, high: 1}",
        "m.yaml:4: search.temperature: `low <= high` must hold, but got (low=3, high=1).",
    ),
    "logarithm of zero": (
        "search: {optimiser: {lr: {low: 0, high: 1, log: true}}}",
        "m.yaml:3: search.optimiser.lr: `low > 0` must hold on a logarithmic scale, but got (low=0, high=1).",
    ),
    "misspelt key of a domain": (
        "search: {epochs: {low: 1, hihg: 2}}",
        "m.yaml:3: search.epochs: unknown key 'hihg' in a domain. Did you mean 'high'?",
    ),
    "only key of a domain misspelt": (
        "search: {epochs: {chioce: [1, 2]}}",
        "m.yaml:3: search.epochs: expected a whole number, but got {chioce: [1, 2]}. Did you mean 'choice'?",
    ),
    "half a range": (
        "search: {epochs: {low: 1}}",
        "m.yaml:3: search.epochs: a range needs `low` and `high`, but `high` is missing",
    ),
    "end that is a word": (
        "search: {epochs: {low: 1, high: many}}",
        "m.yaml:3: search.epochs: `high` must be a number, but got 'many'",
    ),
    "step over the end": (
        "search: {epochs: {low: 1, high: 10, step: 4}}",
        "m.yaml:3: search.epochs: `step` must lead from low to high, but got (low=1, high=10, step=4).",
    ),
    "step of a float": (
        "search: {optimiser: {lr: {low: 1, high: 9, step: 2}}}",
        "m.yaml:3: search.optimiser.lr: `step` is for whole numbers: give `points: n` for n values of a float",
    ),
    "empty choice": (
        "search: {epochs: {choice: []}}",
        "m.yaml:3: search.epochs: `choice` is empty: give at least one value",
    ),
    "choice twice": ("search: {epochs: {choice: [5, 5]}}", "m.yaml:3: search.epochs: `choice` holds 5 twice"),
    "choice of lists": (
        "search: {epochs: {choice: [[1], [2]]}}",
        "m.yaml:3: search.epochs: `choice` holds scalars (text, number, true or false), but got [1]",
    ),
    "one wrong choice": (
        "search: {level: {choice: [layer, chanel]}}",
        "m.yaml:3: search.level: unknown level 'chanel'. Did you mean 'channel'? (one of layer, channel, neuron)",
    ),
    "end outside the field": (
        "task2: 1\nsearch: {epochs: {low: -10, high: 5}}",
        "m.yaml:3: task2: unknown key 'task2'. Did you mean 'task'?\n"
        "m.yaml:4: search.epochs: must be at least 1, but got -10",
    ),
    "domain in a section that all trials share": (
        "outer: {trials: {low: 1, high: 9}}",
        "m.yaml:3: outer.trials: `outer` is the same for every trial: a domain is not allowed here",
    ),
    "endless grid": (
        "search: {temperature: {low: 1, high: 2}}\nouter: {sampler: grid}",
        "m.yaml:3: search.temperature: the grid sampler needs finitely many values: "
        "add `points: n`, or give a `choice`",
    ),
    "an option that one of two strategies lacks": (
        "search: {strategy: {name: {choice: [darts, joint]}, order: 2}}",
        "m.yaml:3: search.strategy.order: unknown option 'order' of strategy 'joint'. It has: lr "
        "(with search.strategy.name: 'joint')",
    ),
    "given twice": ("search: {epochs: 1}\nsearch: {epochs: 2}", "m.yaml:4: search: given twice (first in line 3)"),
    "a number as key": ("7: 7", "m.yaml:3: a key is a word, but got '7'"),
    "a tag": (
        "name: !!python/name:os.system x",
        "m.yaml:3: YAML tags are not used here, but got 'tag:yaml.org,2002:python/name:os.system'",
    ),
    "alias that contains itself": (
        "sites: &s {include: *s}",
        "m.yaml:3: not a study: too large, nested too deeply, or containing itself",
    ),
    "a number of ten thousand digits": (
        "seed: " + "9" * 10_000,
        f"m.yaml:3: not a number that can be used: '{'9' * 40}'",
    ),
    "a number beyond 64 bits": (
        "seed: " + "9" * 30,
        "m.yaml:3: seed: expected a number of at most 64 bits, but got one of 100",
    ),
    "unclosed": ("search: {epochs: 1", "m.yaml:3: not valid YAML: expected ',' or '}', but got '<stream end>'"),
    "a tab": ("search:\n\tepochs: 1", "m.yaml:4: not valid YAML: found character '\\t' that cannot start any token"),
}

WHOLE_TEXTS = {
    "empty": ("", "m.yaml: the file is empty: a study needs at least `task` and `search_space`"),
    "only a comment": ("# later", "m.yaml: the file is empty: a study needs at least `task` and `search_space`"),
    "a list": ("- a\n- b", "m.yaml:1: a study is a mapping of keys to values, but this is a list"),
    "a word": ("digits", "m.yaml:1: a study is a mapping of keys to values, but this is the single value 'digits'"),
    "control characters": (
        "a\x00b",
        "m.yaml: expected a study in YAML, but this is not text: special characters are not allowed",
    ),
    "deep": ("[" * 1200, "m.yaml: not a study: nested too deeply"),
    "nothing that is required": (
        "name: x",
        "m.yaml:1: task: is required, but missing\nm.yaml:1: search_space: is required, but missing",
    ),
    "no model": ("search_space: basic\ntask: {dataset: digits}", "m.yaml:2: task.model: is required, but missing"),
    "no name": (
        "search_space: basic\ntask:\n  dataset: digits\n  model:\n    hidden: [64]",
        "m.yaml:4: task.model.name: is required, but missing",
    ),
    "dataset": (
        "search_space: basic\ntask: {dataset: digit, model: mlp}",
        "m.yaml:2: task.dataset: unknown dataset 'digit'. Did you mean 'digits'? (nasact list datasets)",
    ),
    "model": (
        "search_space: basic\ntask: {dataset: digits, model: {name: mlpp}}",
        "m.yaml:2: task.model.name: unknown model 'mlpp'. Did you mean 'mlp'? (nasact list models)",
    ),
    "model's option": (
        "search_space: basic\ntask: {dataset: digits, model: {name: mlp, hiden: [64]}}",
        "m.yaml:2: task.model.hiden: unknown option 'hiden'. Did you mean 'hidden'? (options: hidden, dropout)",
    ),
    "dataset that is a number": (
        "search_space: basic\ntask: {dataset: 7, model: mlp}",
        "m.yaml:2: task.dataset: expected a text, but got 7",
    ),
    "import path with a dot": (
        "search_space: basic\ntask: {dataset: digits, model: my_pkg.nets.make_net}",
        "m.yaml:2: task.model: unknown model 'my_pkg.nets.make_net'. "
        "An import path is written with a colon: 'my_pkg.nets:make_net'",
    ),
    "import path of a file": (
        "search_space: basic\ntask: {dataset: digits, model: ./nets.py:make_net}",
        "m.yaml:2: task.model: an import path looks like 'package.module:function', but got './nets.py:make_net'",
    ),
    "validation of one": (
        "search_space: basic\ntask: {dataset: digits, model: mlp, validation: 1}",
        "m.yaml:2: task.validation: must be less than 1, but got 1: the network's weights are trained on the "
        "remaining examples",
    ),
    "validation of none": (
        "search_space: basic\ntask: {dataset: digits, model: mlp, validation: 0}",
        "m.yaml:2: task.validation: must be greater than 0, but got 0: the mixture weights are trained on the "
        "validation examples, and trials are judged by them",
    ),
    "empty candidate set": (
        TASK + "search_space: []",
        "m.yaml:2: search_space: the candidate set is empty: name at least one function (nasact list functions)",
    ),
    "empty subset": (
        TASK + "search_space: {subset: []}",
        "m.yaml:2: search_space: `subset` is empty: give at least one value",
    ),
    "unknown space": (
        TASK + "search_space: basics",
        "m.yaml:2: search_space: unknown search space 'basics'. Did you mean 'basic'? (nasact list spaces)",
    ),
    "unknown function": (
        TASK + "search_space:\n  - relu\n  - tahn",
        "m.yaml:4: search_space.1: unknown function 'tahn'. Did you mean 'tanh'? (nasact list functions)",
    ),
    "a function by two names": (TASK + "search_space: [silu, swish]", "m.yaml:2: search_space: 'silu' is given twice"),
    "unknown function in a subset": (
        TASK + "search_space: {subset: [relu, tahn]}",
        "m.yaml:2: search_space: unknown function 'tahn'. Did you mean 'tanh'? (nasact list functions)",
    ),
    "subset smaller than its min": (
        TASK + "search_space: {subset: [relu, tanh], min: 3}",
        "m.yaml:2: search_space: `min` must not be larger than the subset, but got (min=3, size=2).",
    ),
    "top_k too large for the smallest subset": (
        TASK + "search_space: {subset: [relu, tanh, sin], min: 2}\nderive: {top_k: {low: 1, high: 3}}",
        "m.yaml:3: derive.top_k: must not be larger than the candidate set, but got (top_k=3, candidates=2) "
        "(with search_space: ['relu', 'tanh'] and derive.top_k: 3)",
    ),
}

CASES = {**{name: (GOOD + text, line) for name, (text, line) in AFTER_GOOD.items()}, **WHOLE_TEXTS}


@pytest.mark.parametrize("name", CASES)
def test_bad_study_is_refused_with_exactly_these_lines(name: str) -> None:
    text, lines = CASES[name]
    with pytest.raises(StudyError) as caught:
        Study.from_yaml(text, "m.yaml")
    assert str(caught.value) == lines


def test_table_has_all_cases() -> None:
    assert len(CASES) >= 92


def test_text_that_the_cases_extend_is_a_valid_study() -> None:
    assert Study.from_yaml(GOOD).spec.search_space == ("relu", "tanh", "sigmoid", "identity")


def test_at_most_ten_mistakes_are_listed_and_the_others_counted() -> None:
    wrong = "".join(f"wrong_{index}: 1\n" for index in range(14))
    with pytest.raises(StudyError) as caught:
        Study.from_yaml(GOOD + wrong, "m.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    assert lines[0].startswith("m.yaml:3: wrong_0: ")
    assert lines[-1] == "... and 4 more"


def test_without_a_file_the_place_is_only_the_path_of_the_key() -> None:
    with pytest.raises(StudyError, match=r"^search\.epochs: must be at least 1, but got 0$"):
        Study.from_tree(
            {"task": {"dataset": "digits", "model": "mlp"}, "search_space": "basic", "search": {"epochs": 0}}
        )


def test_values_that_are_not_plain_are_refused() -> None:
    tree = {"task": {"dataset": "digits", "model": "mlp"}, "search_space": {"relu", "tanh"}}
    with pytest.raises(StudyError, match="search_space: expected a plain value, but got a set"):
        Study.from_tree(tree)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "there is no such file"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\xff"), "this is not a text file"),
        (lambda path: path.write_bytes(b""), "the file is empty"),
    ],
)
def test_file_that_is_not_a_study_is_refused_in_one_line(tmp_path, make, message) -> None:
    path = tmp_path / "mine.yaml"
    make(path)
    with pytest.raises(StudyError) as caught:
        Study.load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_shipped_study_is_refused_with_near_names() -> None:
    with pytest.raises(NasactError, match=r"unknown study 'digit'\. Did you mean 'digits'\? \(nasact list studies\)"):
        Study.load("digit")
