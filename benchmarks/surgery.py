"""What surgery costs per site: derived networks against the same networks, written by hand with modules.

Usage: python benchmarks/surgery.py [--quick] [--json FILE]. Each network has ten blocks of three sites. Its author
wrote functional calls; `genotype.apply` puts softsign at each site, which the network written by hand holds as
nn.Softsign. The tensors are small (4 x 8), so that the time is that of Python and of nn.Module, not of the functions.
The process keeps freed memory, as processes that search do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from command_line import parse_arguments, publish
from machine import inspect_machine
from result_tables import Group, Results, Row
from timing import Case, Spread, Times, interleaved
from torch import Tensor, nn
from torch.nn import functional as F

from nasact.supernet import Genotype
from nasact.training.process import keep_freed_memory

BLOCKS, CALLS = 10, 3
SITES = BLOCKS * CALLS
FEATURES = 8


class Shift(nn.Module):
    """A cheap layer with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class Calls(Shift):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(F.relu(F.relu(x + self.shift)))


class CallsOfSoftsign(Shift):
    def forward(self, x: Tensor) -> Tensor:
        return F.softsign(F.softsign(F.softsign(x + self.shift)))


class CallsByHand(Shift):
    def __init__(self, act: type[nn.Module] = nn.Softsign) -> None:
        super().__init__()
        self.one, self.two, self.three = act(), act(), act()

    def forward(self, x: Tensor) -> Tensor:
        return self.three(self.two(self.one(x + self.shift)))


class Loop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Shift() for _ in range(CALLS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class LoopByHand(Loop):
    def __init__(self) -> None:
        super().__init__()
        self.acts = nn.ModuleList(nn.Softsign() for _ in range(CALLS))

    def forward(self, x: Tensor) -> Tensor:
        for layer, act in zip(self.layers, self.acts, strict=True):
            x = act(layer(x))
        return x


class Method(Shift):
    """One method, called at three places."""

    def activate(self, x: Tensor) -> Tensor:
        return F.relu(x + self.shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(self.activate(self.activate(x)))


class MethodByHand(Shift):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = nn.Softsign(), nn.Softsign(), nn.Softsign()

    def activate(self, x: Tensor, act: nn.Module) -> Tensor:
        return act(x + self.shift)

    def forward(self, x: Tensor) -> Tensor:
        return self.activate(self.activate(self.activate(x, self.one), self.two), self.three)


class InPlace(Shift):
    """Each call overwrites a tensor that is read by another name, so that the result is written back."""

    def forward(self, x: Tensor) -> Tensor:
        a = h = x + self.shift
        F.relu_(h)
        b = h = a + self.shift
        F.relu_(h)
        c = h = b + self.shift
        F.relu_(h)
        return c


class InPlaceByHand(CallsByHand):
    def forward(self, x: Tensor) -> Tensor:
        return self.three(self.two(self.one(x + self.shift) + self.shift) + self.shift)


class LargeInPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        seen = h = x + self.shift
        torch.tanh_(h)
        return seen


class LargeByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift, self.act = nn.Parameter(torch.zeros(())), nn.Softsign()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x + self.shift)


@dataclass(frozen=True)
class Pair:
    """A block as its author wrote it, the function that surgery puts there, and the same block written by hand."""

    written: Callable[[], nn.Module]
    by_hand: Callable[[], nn.Module]
    function: str = "softsign"

    def networks(self) -> tuple[nn.Module, nn.Module]:
        """The derived network and the network that is written by hand."""
        written, by_hand = (nn.Sequential(*(make() for _ in range(BLOCKS))) for make in (self.written, self.by_hand))
        return Genotype.uniform(written, self.function).apply(written), by_hand


PAIRS = {
    "functional calls in a forward": Pair(Calls, CallsByHand),
    "the same, with the model's own function": Pair(Calls, partial(CallsByHand, nn.ReLU), "original"),
    "a call in a loop over modules": Pair(Loop, LoopByHand),
    "a method that is called at three places": Pair(Method, MethodByHand),
    "in place, written back": Pair(InPlace, InPlaceByHand),
}


def forward(net: nn.Module, x: Tensor) -> Case:
    def call() -> None:
        with torch.no_grad():
            net(x)

    return call


def backward(net: nn.Module, x: Tensor) -> Case:
    parameters = list(net.parameters())
    return lambda: torch.autograd.grad(net(x).sum(), parameters)


def per_site(times: Times, above: str, below: str) -> Spread:
    """The difference of two networks in microseconds per site and call, round by round."""
    return Spread.of([1e6 * (a - b) / SITES for a, b in zip(times[above], times[below], strict=True)])


def measure(step: Callable[[nn.Module, Tensor], Case], rounds: int, least: float, *targets: float) -> tuple[Row, ...]:
    """One row for each pair, and a row that compares modules with functional calls, both written by hand."""
    x = torch.randn(4, FEATURES)
    cases: dict[str, Case] = {}
    for what, pair in PAIRS.items():
        net, by_hand = pair.networks()
        assert torch.equal(net(x), by_hand(x)), what
        cases |= {what: step(net, x), f"{what}, by hand": step(by_hand, x)}
    calls = nn.Sequential(*(CallsOfSoftsign() for _ in range(BLOCKS)))
    times = interleaved({**cases, "calls": step(calls, x)}, rounds=rounds, least=least)
    at_most, stretch = targets or (None, None)
    rows = [
        Row.of(what, per_site(times, what, f"{what}, by hand"), unit="us", at_most=at_most, stretch=stretch)
        for what in PAIRS
    ]
    module = per_site(times, "functional calls in a forward, by hand", "calls")
    return (*rows, Row.of("for comparison: modules over calls, both by hand", module, unit="us"))


def large(rounds: int, least: float, side: int) -> Row:
    x = torch.randn(side, side)
    by_hand, net = LargeByHand(), Genotype.uniform(LargeInPlace(), "softsign").apply(LargeInPlace())
    assert torch.equal(net(x), by_hand(x))
    times = interleaved({"written back": forward(net, x), "by hand": forward(by_hand, x)}, rounds=rounds, least=least)
    return Row.ratio(f"in place, written back / by hand, {side} x {side} elements", times, "written back", "by hand")


def main() -> None:
    args = parse_arguments(__doc__)
    machine = inspect_machine()
    keep_freed_memory()
    torch.manual_seed(0)
    # short and many, so that most rounds are not interrupted by other processes
    rounds, least, side = (2, 0.0, 64) if args.quick else (200, 0.004, 1800)
    title = "us per site and call, over the same network written by hand with modules"
    groups = (
        Group(f"Forward pass without gradients: {title}", measure(forward, rounds, least, 5.0, 1.0)),
        Group(f"Forward and backward pass: {title}", measure(backward, rounds, least)),
        Group("A large tensor, forward pass without gradients", (large(rounds, least, side),)),
    )
    publish(Results("surgery", machine, groups, args.quick), args.json)


if __name__ == "__main__":
    main()
