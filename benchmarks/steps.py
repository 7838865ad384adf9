"""The cost of searching: training steps with mixtures, and steps of DARTS, compared with training steps with relu.

Usage: python benchmarks/steps.py [--quick] [--json FILE]. The network is the small CNN of paper 001 (docs/papers.md),
with batches of 64 random images of 3 x 32 x 32, SGD with momentum 0.9, and layer-level mixtures with the automatic
kernel. The process keeps freed memory, as processes that search do; the step with relu does not need it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from command_line import parse_arguments, publish
from machine import inspect_machine
from mixture_cases import ALL, BASIC
from result_tables import Group, Results, Row
from timing import Case, interleaved
from torch import nn
from torch.nn.functional import cross_entropy

from nasact.bilevel import Batch, Strategy
from nasact.bilevel.strategies.darts import DARTS
from nasact.bilevel.strategies.joint import Joint
from nasact.supernet import relax
from nasact.tasks import build_model
from nasact.training.process import keep_freed_memory

SPACES = {"basic": BASIC, "all": ALL}


def cnn(activation: str = "relu") -> nn.Module:
    """The network of paper 001 with one function at all sites."""
    network = build_model("small_cnn", {}, input_shape=(3, 32, 32), classes=10, seed=0)
    if activation != "relu":
        for name, part in list(network.named_children()):
            if isinstance(part, nn.ReLU):
                setattr(network, name, {"tanh": nn.Tanh, "silu": nn.SiLU}[activation]())
    return network


def sgd(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    # fused, as in studies; a small learning rate, so that the weights stay close to their initial values
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, fused=True)


def training(model: nn.Module, batch: Batch) -> Case:
    """A training step of all parameters, those of mixtures included."""
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
    args = parse_arguments(__doc__)
    machine = inspect_machine()
    keep_freed_memory()
    torch.manual_seed(0)
    images = 8 if args.quick else 64
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
    times = interleaved(cases, rounds=2 if args.quick else 15, least=0 if args.quick else 0.02)

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
    if not args.quick:
        groups.append(by_reference(train, val))
    publish(Results("steps", machine, tuple(groups), args.quick), args.json)


def by_reference(train: Batch, val: Batch) -> Group:
    """The same steps in plain torch. They are timed apart: they take long, and they empty the processor's caches."""
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
