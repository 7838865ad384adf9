"""Bad input as one table: a command, and the one line on stderr. Nothing is on stdout, and the exit code is 2."""

from __future__ import annotations

import re
import shutil
import sqlite3
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nasact.errors import GenotypeError, MixtureError
from nasact.supernet import Genotype

GOOD = "task: {dataset: digits, model: {name: mlp, hidden: [4]}}\nsearch_space: basic\n"
SEARCH = ("search", "m.yaml", "--no-tracking", "--json", "--workers", "1")

CODE = """\
import torch
from torch import nn

def no_site(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

def wrong_shape(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU())

def a_number():
    return 7

def labels_out_of_range():
    x, y = torch.zeros(20, 4), torch.arange(20) % 2
    y[7] = -3
    return (x, y), (x, y)

def a_test_label_out_of_range():
    x, y = torch.randn(40, 4), torch.arange(40) % 2
    return (x, y), (x, y + 1)

def broken():
    raise RuntimeError("out of\\ncheese")

def three_letters():
    return "abc"

not_a_function = 3
"""


@dataclass(frozen=True)
class Case:
    """A command in the test's folder, with `files` (text or bytes) there. `message`: its whole stderr as a pattern."""

    message: str
    yaml: str | None = None
    command: tuple[str, ...] = SEARCH
    files: dict[str, str | bytes] = field(default_factory=dict)
    prepare: Callable[[Path], object] = lambda folder: None
    code: int = 2


def task(dataset: str = "digits", model: str = "{name: mlp, hidden: [4]}") -> str:
    return f"task: {{dataset: '{dataset}', model: {model if '{' in model else repr(model)}}}\nsearch_space: basic\n"


def foreign_database(path: str) -> Callable[[Path], object]:
    def create(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with sqlite3.connect(folder / path) as database:
            database.execute("CREATE TABLE songs (name TEXT)")
        database.close()

    return create


def fashion(folder: Path, *, cut: int = 0) -> None:
    raw = folder / "data/FashionMNIST/raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, 10, 28, 28) + bytes(7840 - cut))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 10) + bytes(range(10)))


FASHION = "task: {dataset: fashion_mnist, model: small_cnn}\nsearch_space: basic\n"

CASES = {
    "unknown key": Case(
        yaml=GOOD + "serach: {epochs: 3}\n",
        message=r"m\.yaml:3: serach: unknown key 'serach'\. Did you mean 'search'\?",
    ),
    "unknown name": Case(
        yaml=GOOD + "search: {strategy: dart}\n",
        message=r"m\.yaml:3: search\.strategy: unknown strategy 'dart'\. "
        r"Did you mean 'darts'\? \(nasact list strategies\)",
    ),
    "unknown function": Case(
        yaml="task: {dataset: digits, model: mlp}\nsearch_space: [relu, tahn]\n",
        message=r"m\.yaml:2: search_space\.1: unknown function 'tahn'\. "
        r"Did you mean 'tanh'\? \(nasact list functions\)",
    ),
    "unknown model": Case(
        yaml=task(model="mlpp"),
        message=r"m\.yaml:1: task\.model: unknown model 'mlpp'\. Did you mean 'mlp'\? \(nasact list models\)",
    ),
    "unknown dataset": Case(
        yaml=task("digit"),
        message=r"m\.yaml:1: task\.dataset: unknown dataset 'digit'\. Did you mean 'digits'\? \(nasact list datasets\)",
    ),
    "wrong type": Case(
        yaml=GOOD + "search: {epochs: many}\n",
        message=r"m\.yaml:3: search\.epochs: expected a whole number, but got 'many'",
    ),
    "low > high": Case(
        yaml=GOOD + "search:\n  temperature: {low: 2, high: 0.2}\n",
        message=r"m\.yaml:4: search\.temperature: `low <= high` must hold, but got \(low=2, high=0\.2\)\.",
    ),
    "empty candidate set": Case(
        yaml="task: {dataset: digits, model: mlp}\nsearch_space: []\n",
        message=r"m\.yaml:2: search_space: the candidate set is empty: "
        r"name at least one function \(nasact list functions\)",
    ),
    "top_k larger than the set": Case(
        yaml=GOOD + "derive: {top_k: 9}\n",
        message=r"m\.yaml:3: derive\.top_k: must not be larger than the candidate set, "
        r"but got \(top_k=9, candidates=4\)",
    ),
    "not YAML": Case(yaml="task: {", message=r"m\.yaml:1: not valid YAML: .*"),
    "study that is not shipped": Case(
        command=("search", "digit"), message=r"unknown study 'digit'\. Did you mean 'digits'\? \(nasact list studies\)"
    ),
    "study file that is missing": Case(
        command=("search", "./other.yaml"), message=r".*other\.yaml: there is no such file"
    ),
    "check of a bad study": Case(
        command=("check", "m.yaml"),
        yaml=GOOD + "seed: x\n",
        message=r"m\.yaml:3: seed: expected a whole number, but got 'x'",
    ),
    "model without a site": Case(yaml=task(model="own:no_site"), message=r".*no activation site.*"),
    "model whose output does not fit": Case(yaml=task(model="own:wrong_shape"), message=r".*\(.*3\).*"),
    "model function that does not exist": Case(
        yaml=task(model="own:no_siet"),
        message=r"model 'own:no_siet': 'own' has no attribute 'no_siet'\. Did you mean 'no_site'\?",
    ),
    "model module that does not exist": Case(
        yaml=task(model="onw:no_site"), message=r"model 'onw:no_site': no module named 'onw'\. Did you mean 'own'\?"
    ),
    "model that is a number": Case(yaml=task(model="own:a_number"), message=r"model 'own:a_number': .* int.*"),
    "import path of something that cannot be called": Case(
        yaml=task(model="own:not_a_function"),
        message=r"model 'own:not_a_function': must be a function or a class, but is int",
    ),
    "labels out of range": Case(
        yaml=task("own:labels_out_of_range", "mlp"),
        message=r"dataset 'own:labels_out_of_range': train\.y\[7\]: labels must be in \[0, 2\), but got -3",
    ),
    "dataset that raises": Case(
        yaml=task("own:broken", "mlp"), message=r"dataset 'own:broken': raised RuntimeError: out of cheese"
    ),
    "dataset that returns a text": Case(
        yaml=task("own:three_letters", "mlp"),
        message=r"dataset 'own:three_letters': must return .*, but returned str 'abc'",
    ),
    "data directory that is missing": Case(
        yaml=FASHION,
        command=(*SEARCH, "--data-dir", "nowhere"),
        message=r"dataset 'fashion_mnist': not found: there is no folder /\S*/nowhere/FashionMNIST/raw\. "
        r"Set the data directory with --data-dir PATH, or download the files with --download",
    ),
    "data file that is missing": Case(
        yaml=FASHION,
        command=(*SEARCH, "--data-dir", "data"),
        prepare=lambda folder: (fashion(folder), (folder / "data/FashionMNIST/raw/t10k-labels-idx1-ubyte").unlink()),
        message=r"dataset 'fashion_mnist': the file /\S*/t10k-labels-idx1-ubyte is missing\. .*",
    ),
    "data file that was cut short": Case(
        yaml=FASHION,
        command=(*SEARCH, "--data-dir", "data"),
        prepare=lambda folder: fashion(folder, cut=100),
        message=r"dataset 'fashion_mnist': /\S*/train-images-idx3-ubyte is corrupt: its header declares 7856 bytes, "
        r"but it has 7756",
    ),
    "image folder that is missing": Case(
        yaml="task: {dataset: {image_folder: pictures}, model: small_cnn}\nsearch_space: basic\n",
        message=r"dataset 'image_folder': pictures: there is no folder /\S*/pictures",
    ),
    "image file that is no image": Case(
        yaml="task: {dataset: {image_folder: pictures}, model: small_cnn}\nsearch_space: basic\n",
        files={f"pictures/{kind}/{n}.png": b"no image" for kind in "ab" for n in range(9)},
        message=r"dataset 'image_folder': pictures: the image pictures/\S+\.png cannot be read: "
        r"UnidentifiedImageError: .*",
    ),
    "study.db of another program": Case(
        yaml="name: m\n" + GOOD,
        prepare=foreign_database("runs/m/study.db"),
        message=r"runs/m/study\.db: is a database of another program \(tables: songs\); nothing was changed\. "
        r"Move it away, give the study another name \(--name\), or rerun with --fresh",
    ),
    "study.db that is no database": Case(
        yaml="name: m\n" + GOOD,
        files={"runs/m/study.db": "not a database at all, but a text that is longer than a header\n" * 20},
        message=r"runs/m/study\.db: file is not a database; nothing was changed\. .*",
    ),
    "mlflow.db of another program": Case(
        yaml=GOOD,
        command=("search", "m.yaml", "--json"),
        prepare=foreign_database("mlflow.db"),
        message=r"/\S*/mlflow\.db: not a database of MLflow \(its tables: songs\); move it away, "
        r"or give another store with --tracking-uri",
    ),
    "mlflow.db that is no database": Case(
        yaml=GOOD,
        command=("search", "m.yaml", "--json"),
        files={"mlflow.db": "text"},
        message=r"/\S*/mlflow\.db: not an SQLite database; move it away, or give another store with --tracking-uri",
    ),
    "tracking address of no known kind": Case(
        yaml=GOOD,
        command=("search", "m.yaml", "--json", "--tracking-uri", "mlflow.db"),
        message=r"--tracking-uri: expected sqlite:///FILE or http\(s\)://HOST:PORT, but got 'mlflow\.db'\. "
        r"Did you mean 'sqlite:///mlflow\.db'\?",
    ),
    "export of a study that was never run": Case(
        command=("export", "digits"),
        message=r"study 'digits' has not been run here\. There are no studies in runs\.",
    ),
    "show of a study that was never run": Case(
        command=("show", "digits"),
        message=r"study 'digits' has not been run here\. There are no studies in runs\.",
    ),
    "ui without a database": Case(
        command=("ui",), message=r"/\S*/mlflow\.db: there is no tracking database yet; `nasact search` creates it"
    ),
    "runs that is a file": Case(
        yaml="name: m\n" + GOOD, files={"runs": ""}, message=r"runs/m: cannot be created \(Not a directory\)"
    ),
    "every trial diverges": Case(
        yaml="name: m\ntask: {dataset: digits, model: {name: mlp, hidden: [4]}, train_limit: 200}\n"
        "search_space: basic\n"
        "search: {epochs: 2, optimiser: {name: sgd, lr: {choice: [1.0e30, 2.0e30]}}}\nouter: {trials: 2}\n",
        message=r"study 'm': none of its 2 trials completed: .*(nan|inf|finite).*\. "
        r"Fix the cause, then rerun with --fresh",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line(name: str, here, tmp_path: Path) -> None:
    case = CASES[name]
    (tmp_path / "own.py").write_text(CODE)
    if case.yaml is not None:
        (tmp_path / "m.yaml").write_text(case.yaml)
    for path, content in case.files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content.encode() if isinstance(content, str) else content)
    case.prepare(tmp_path)
    ran = here(*case.command)
    assert ran.out == ""
    lines = [line for line in ran.err.splitlines() if not line.startswith(("trial ", "no search domains"))]
    assert len(lines) == 1, ran.err
    assert re.fullmatch(f"nasact: {case.message}", lines[0]), lines[0]
    assert ran.code == case.code


def test_the_table_has_all_its_cases() -> None:
    assert len(CASES) >= 37


def test_changed_study_with_the_name_of_an_earlier_one_is_refused_with_the_difference(
    finished, here, tiny: str, tmp_path: Path
) -> None:
    folder = finished.copy(tmp_path / "copy")
    (folder / "tiny.yaml").write_text(tiny.replace("epochs: 6", "epochs: 7").replace("trials: 2", "trials: 3"))
    ran = here("search", "tiny.yaml", "--no-tracking", "--json", cwd=folder)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[0] == "nasact: study 'tiny' in runs/tiny was made with other settings:"
    assert "  search.epochs: 6 -> 7" in ran.err.splitlines()
    assert ran.err.splitlines()[-1] == ("Give this study another name (`name:` or --name), or rerun with --fresh.")
    assert here("show", "tiny", "--json", cwd=folder).document == finished.document


def test_misspelt_study_gets_near_matches_among_the_studies_here(finished, here) -> None:
    for command in ("show", "export"):
        ran = here(command, "tinny", cwd=finished.folder)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == "nasact: study 'tinny' has not been run here. Did you mean 'tiny'? Studies here: tiny.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-o", "no/where/net.onnx"), "no/where/net.onnx: the directory no/where does not exist"),
        (
            ("--format", "safetensors", "-o", "net.pt"),
            "net.pt: the name of a safetensors export must end in .safetensors, because its code is written to FILE.py "
            "next to it",
        ),
    ],
)
def test_export_to_a_bad_path_is_refused(finished, here, arguments: tuple[str, ...], message: str) -> None:
    ran = here("export", "tiny", *arguments, cwd=finished.folder)
    assert (ran.code, ran.out, ran.err) == (2, "", f"nasact: {message}\n")


def test_export_of_an_unfinished_study_names_the_command_to_run(finished, here, tmp_path: Path) -> None:
    folder = finished.copy(tmp_path / "copy")
    (folder / "runs/tiny/model.pt").unlink()
    ran = here("export", "tiny", cwd=folder)
    assert ran.code == 2
    assert ran.err == "nasact: runs/tiny/model.pt: there is no network yet: run `nasact search tiny` to its end\n"


def test_reasons_of_failed_trials_are_shown(here, write) -> None:
    case = CASES["every trial diverges"]
    write("m.yaml", case.yaml)
    assert here(*case.command).code == 2
    ran = here("show", "m")
    assert ran.code == 0
    assert ran.out.count("failed") >= 2
    assert ran.out.count("search epoch 1, step") == 2
    records = here("show", "m", "--json").document["trials"]["records"]
    assert [record["status"] for record in records] == ["failed", "failed"]
    assert all("step" in record["reason"] or "epoch" in record["reason"] for record in records)


def test_one_diverged_trial_does_not_end_the_study(here, write) -> None:
    yaml = CASES["every trial diverges"].yaml
    assert yaml is not None
    study = yaml.replace("2.0e30", "1.0e-2") + "retrain: {epochs: 1}\ncompare: {seeds: 1, baselines: [original]}\n"
    write("m.yaml", study.replace("trials: 2", "sampler: grid, trials: 2, pruner: none"))
    ran = here(*SEARCH)
    assert ran.code == 0, ran.err
    assert ran.document["trials"]["counts"]["failed"] == 1
    assert ran.document["trials"]["counts"]["complete"] == 1


def test_weights_that_sum_to_zero_are_refused_with_their_site() -> None:
    text = Genotype.from_dict(
        {
            "schema": 1,
            "level": "layer",
            "normaliser": "affine",
            "top_k": 2,
            "sites": {"act": {"functions": ["relu", "tanh"], "weights": [0.5, 0.5], "betas": {}, "channel_dim": 1}},
        }
    ).to_json()
    with pytest.raises((GenotypeError, MixtureError), match=r"^[^\n]*act[^\n]*sum[^\n]*$"):
        Genotype.from_json(re.sub(r"0\.5,(\s*)0\.5", r"1.0,\1-1.0", text))


def test_download_without_network_is_refused_with_the_next_step(here, write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    # urllib keeps the opener of its first use, with its proxies: use no earlier one, and leave none behind
    monkeypatch.setattr("urllib.request._opener", None)
    write("m.yaml", FASHION)
    ran = here(*SEARCH, "--data-dir", "data", "--download")
    assert (ran.code, ran.out) == (2, "")
    assert re.search(
        r"nasact: dataset 'fashion_mnist': could not be downloaded into /\S*/data: .*\. "
        r"Download it on another machine, then set the data directory with --data-dir PATH\n$",
        ran.err,
    )
    assert "Traceback" not in ran.err


def test_bad_test_labels_do_not_discard_the_finished_trial(here, write, tmp_path: Path) -> None:
    write("own.py", CODE)
    write(
        "m.yaml",
        "name: m\n" + task("own:a_test_label_out_of_range", "{name: mlp, hidden: [4]}") + "search: {epochs: 1}\n",
    )
    ran = here(*SEARCH)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1] == (
        "nasact: dataset 'own:a_test_label_out_of_range': test.y[1]: labels must be in [0, 2), but got 2"
    )
    assert len(list((tmp_path / "runs/m/trials").glob("*/result.json"))) == 1
    shutil.rmtree(tmp_path / "runs")
