"""What searching costs: steps of paper 001's small CNN with mixtures, and of DARTS, against training it with relu.

Run it where nasact is installed: python benchmarks/steps.py [--quick] [--json FILE]. Batches of 64 random images of
3 x 32 x 32, SGD with momentum 0.9, layer-level mixtures with the automatic kernel. The process keeps freed memory, as
those that search do; the step with relu needs none of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from cases import ALL, BASIC
from report import Group, Results, Row, arguments, machine, publish
from timing import Case, interleaved
from torch import nn
from torch.nn.functional import cross_entropy

from nasact.bilevel import DARTS, Batch, Joint, Strategy
from nasact.supernet import relax
from nasact.tasks import build_model
from nasact.training.process import keep_freed_memory

SPACES = {"basic": BASIC, "all": ALL}


def cnn(activation: str = "relu") -> nn.Module:
    """The network of paper 001, with one function everywhere."""
    network = build_model("small_cnn", {}, input_shape=(3, 32, 32), classes=10, seed=0)
    if activation != "relu":
        for name, part in list(network.named_children()):
            if isinstance(part, nn.ReLU):
                setattr(network, name, {"tanh": nn.Tanh, "silu": nn.SiLU}[activation]())
    return network


def sgd(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    # fused, as studies take it; slow enough that the numbers stay those of a young network
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, fused=True)


def training(model: nn.Module, batch: Batch) -> Case:
    """A step of every parameter, those of the mixtures included."""
    optimiser = sgd(list(model.parameters()))

    def step() -> None:
        optimiser.zero_grad()
        cross_entropy(model(batch.x), batch.y).backward()
        optimiser.step()

    return step


def searching(strategy: Strategy, space: Sequence[str], batches: tuple[Batch, Batch], kernel: str = "auto") -> Case:
    supernet = relax(cnn(), space, kernel=kernel)
    state = strategy.init(supernet, sgd(supernet.weight_parameters()), cross_entropy)
    return lambda: strategy.step(state, *batches)


def main() -> None:
    given = arguments(__doc__)
    found = machine()
    keep_freed_memory()
    torch.manual_seed(0)
    images = 8 if given.quick else 64
    train, val = (Batch(torch.randn(images, 3, 32, 32), torch.randint(10, (images,))) for _ in range(2))
    cases = {"relu": training(cnn(), train)}
    for name in ("tanh", "silu"):
        cases[f"plain {name}"] = training(cnn(name), train)
    for name, space in SPACES.items():
        cases[f"train {name}"] = training(relax(cnn(), space), train)
        cases[f"joint {name}"] = searching(Joint(), space, (train, val))
        cases[f"first {name}"] = searching(DARTS(order=1), space, (train, val))
        cases[f"second {name}"] = searching(DARTS(order=2), space, (train, val))
        cases[f"at once {name}"] = searching(DARTS(order=2, update="simultaneous"), space, (train, val))
    times = interleaved(cases, rounds=2 if given.quick else 15, least=0 if given.quick else 0.02)

    targets = {"train": (1.15, 1.05), "second": (4.5, 3.5), "at once": (4.5, 3.5)}
    what = {
        "train": "training step",
        "second": "second-order DARTS step",
        "at once": "the same, simultaneous updates",
        "first": "first-order DARTS step",
        "joint": "joint step",
    }
    rows = [
        Row.ratio(f"{step}, {name} / relu", times, f"{kind} {name}", "relu", *targets.get(kind, ()))
        for kind, step in what.items()
        for name in SPACES
    ]
    rows += [
        Row.ratio(f"training step, {name} at every site / relu", times, f"plain {name}", "relu")
        for name in ("tanh", "silu")
    ]
    title = "Steps of the small CNN against a plain training step with relu (all: K=13, basic: K=4)"
    groups = [Group(title, tuple(rows))]
    if not given.quick:
        groups.append(by_reference(train, val))
    publish(Results("steps", found, tuple(groups), given.quick), given.json)


def by_reference(train: Batch, val: Batch) -> Group:
    """The same steps in plain torch; apart, because they take long and leave nothing in the caches."""
    cases = {
        "relu": training(cnn(), train),
        "train": training(relax(cnn(), ALL, kernel="reference"), train),
        "second": searching(DARTS(order=2), ALL, (train, val), "reference"),
    }
    times = interleaved(cases, rounds=5, warm_up=1)
    rows = (
        Row.ratio("training step, all / relu", times, "train", "relu"),
        Row.ratio("second-order DARTS step, all / relu", times, "second", "relu"),
    )
    return Group("The same with the reference kernel", rows)


if __name__ == "__main__":
    main()
