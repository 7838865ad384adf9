"""The cost of the mixture op, forward and backward, compared with one activation, a naive stack and torch.compile.

Usage: python benchmarks/mixture.py [--quick] [--json FILE] [--only GROUP]. K = 13 is the search space `all` without
softmax, K = 4 the search space `basic`. The input is standard normal.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from command_line import parse_arguments, publish
from machine import inspect_machine
from mixture_cases import (
    ALL,
    BASIC,
    SHAPE,
    SMALL_SHAPE,
    Mix,
    compiled,
    forward_and_backward,
    forward_only,
    layout,
    loop,
    mixing,
    naive,
    table,
    weights_for,
)
from result_tables import Group, Results, Row
from timing import Case, Times, interleaved
from torch import Tensor
from torch.nn import functional as F

from nasact.mixture import Bank, FrozenMixture


@dataclass(frozen=True)
class Settings:
    quick: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return SMALL_SHAPE if self.quick else SHAPE

    def time(self, cases: dict[str, Case], rounds: int) -> Times:
        return interleaved(cases, rounds=2, warm_up=1, least=0) if self.quick else interleaved(cases, rounds=rounds)


# ---- groups of rows ---------------------------------------------------------------------------------------------


def layer(settings: Settings) -> Group:
    x = torch.randn(settings.shape)
    p13, p4 = weights_for(ALL), weights_for(BASIC)
    cases = {
        "tanh": forward_and_backward(torch.tanh, x),
        "table 13": forward_and_backward(table(ALL, settings.shape), x, p13),
        "table 4": forward_and_backward(table(BASIC, settings.shape), x, p4),
        "naive 13": forward_and_backward(naive(ALL), x, p13),
        "naive 4": forward_and_backward(naive(BASIC), x, p4),
        "loop 13": forward_and_backward(loop(ALL), x, p13),
        "fused 13": forward_and_backward(table(ALL, settings.shape, kernel="fused"), x, p13),
        "gelu": forward_and_backward(F.gelu, x),
        "relu": forward_and_backward(F.relu, x),
    }
    if not settings.quick:
        cases["compiled 13"] = forward_and_backward(compiled(ALL), x, p13)
        cases["compiled 4"] = forward_and_backward(compiled(BASIC), x, p4)
    times = settings.time(cases, 25)
    rows = [
        Row.ratio("table K=13 / one tanh", times, "table 13", "tanh", 1.3, 1.0),
        Row.ratio("table K=13 / naive stack", times, "table 13", "naive 13", 1 / 30, 1 / 45),
    ]
    if not settings.quick:
        rows += [
            Row.ratio("table K=13 / compiled loop", times, "table 13", "compiled 13", 1 / 3.5, 1 / 5),
            Row.ratio("table K=4 / compiled loop", times, "table 4", "compiled 4", 1 / 1.5, 1 / 2),
        ]
    rows += [
        Row.ratio("table K=13 / table K=4", times, "table 13", "table 4", 1.1, 1.02),
        Row.ratio("table K=4 / naive stack", times, "table 4", "naive 4"),
        Row.ratio("table K=13 / eager loop", times, "table 13", "loop 13"),
        Row.ratio("table K=13 / fused", times, "table 13", "fused 13"),
        Row.ratio("table K=13 / one gelu", times, "table 13", "gelu"),
        Row.ratio("table K=13 / one relu", times, "table 13", "relu"),
    ]
    return Group("One row of weights (layer level), forward and backward", tuple(rows))


def levels(settings: Settings) -> Group:
    x = torch.randn(settings.shape)
    shapes = {"layer": (), "channel": settings.shape[1:2], "neuron": settings.shape[1:]}
    p = {level: weights_for(ALL, *shape) for level, shape in shapes.items()}
    cases = {level: forward_and_backward(table(ALL, settings.shape, level), x, p[level]) for level in shapes}
    cases["tanh"] = forward_and_backward(torch.tanh, x)
    if not settings.quick:
        cases["compiled"] = forward_and_backward(compiled(ALL), x, p["neuron"])
    times = settings.time(cases, 25)
    rows = [Row.ratio("channel level / layer level", times, "channel", "layer", 1.5, 1.15)]
    if not settings.quick:
        rows.append(Row.ratio("neuron level / compiled loop", times, "neuron", "compiled", 1.0, 0.7))
    rows += [
        Row.ratio("neuron level / layer level", times, "neuron", "layer"),
        Row.ratio("neuron level / one tanh", times, "neuron", "tanh"),
    ]
    return Group("Levels: table K=13, forward and backward", tuple(rows))


def memory(settings: Settings) -> Group:
    x = torch.randn(settings.shape)
    p = weights_for(ALL)
    mix = table(ALL, settings.shape)

    def kept(what: str, function: Mix, x: Tensor, *targets: float) -> Row:
        inputs = saved(function, x.requires_grad_(), p) / (4 * x.numel())
        at_most, stretch = targets or (None, None)
        return Row(what=what, value=inputs, low=inputs, high=inputs, at_most=at_most, stretch=stretch)

    rows = (
        kept("kept for backward, float32", mix, x, 1.0, 1.0),
        kept("kept for backward, bfloat16", mix, x.detach().bfloat16(), 1.0, 0.5),
        kept("kept by fused, float32", table(ALL, settings.shape, kernel="fused"), x),
        kept("kept by the naive stack, float32", naive(ALL), x),
    )
    return Group("Bytes kept for the backward pass, in units of the float32 input (K=13)", rows)


def saved(function: Mix, x: Tensor, weights: Tensor) -> int:
    """Bytes that autograd keeps in tensors of the size of x, not of the weights; a storage counts once."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() >= x.numel():
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = function(x, weights)  # keeps the storages alive while they are counted: no address is used twice
    del kept
    return sum(storages.values())


def inference(settings: Settings) -> Group:
    x = torch.randn(settings.shape)
    cases = {
        "relu": forward_only(F.relu, x),
        "gelu": forward_only(F.gelu, x),
        "tanh": forward_only(torch.tanh, x),
        "k = 2": forward_only(frozen(("relu", "tanh"), settings.shape), x),
        "k = 13": forward_only(frozen(ALL, settings.shape), x),
    }
    times = settings.time(cases, 25)
    rows = [
        Row.ratio(f"frozen {kind} / one {single}", times, kind, single)
        for kind in ("k = 2", "k = 13")
        for single in ("relu", "gelu", "tanh")
    ]
    return Group("Inference: a derived network's frozen mixture, forward alone", tuple(rows))


def frozen(names: tuple[str, ...], shape: tuple[int, ...]) -> FrozenMixture:
    return FrozenMixture(Bank(names, layout("layer", shape)), torch.full((len(names),), 1 / len(names)))


def formats(settings: Settings) -> Group:
    x = torch.randn(settings.shape)
    half, last = x.bfloat16(), x.to(memory_format=torch.channels_last)
    p13 = torch.randn(settings.shape[1], len(ALL)).requires_grad_()
    channels = table(ALL, settings.shape, "channel")
    cases = {
        "table": mixing(ALL, x),
        "tanh, bf16": forward_and_backward(torch.tanh, half),
        "table, bf16": mixing(ALL, half),
        "tanh, last": forward_and_backward(torch.tanh, last),
        "table, last": mixing(ALL, last),
        "channel": forward_and_backward(channels, x, p13),
        "channel, last": forward_and_backward(channels, last, p13),
    }
    times = settings.time(cases, 15)
    rows = (
        Row.ratio("bfloat16: table K=13 / one tanh", times, "table, bf16", "tanh, bf16"),
        Row.ratio("table K=13: bfloat16 / float32", times, "table, bf16", "table"),
        Row.ratio("channels_last: table / one tanh", times, "table, last", "tanh, last"),
        Row.ratio("table: channels_last / contiguous", times, "table, last", "table"),
        Row.ratio("channel level: c. last / contig.", times, "channel, last", "channel"),
    )
    return Group("Formats: K=13, forward and backward", rows)


def one_thread(settings: Settings) -> Group:
    x = torch.randn(settings.shape)
    threads = torch.get_num_threads()
    mix, tanh = mixing(ALL, x), forward_and_backward(torch.tanh, x)

    def with_threads(count: int, case: Case) -> Case:
        def run() -> object:
            torch.set_num_threads(count)
            return case()

        return run

    cases = {"table, 1": with_threads(1, mix), "tanh, 1": with_threads(1, tanh), "table": with_threads(threads, mix)}
    times = settings.time(cases, 15)
    torch.set_num_threads(threads)
    rows = (
        Row.ratio("one thread: table K=13 / one tanh", times, "table, 1", "tanh, 1"),
        Row.ratio(f"table: one thread / {threads} threads", times, "table, 1", "table"),
    )
    return Group("One thread: forward and backward", rows)


def small_inputs(settings: Settings) -> Group:
    rows = []
    for shape in ((64, 64), (8, 10)):
        x = torch.randn(shape)
        cases = {kernel: mixing(ALL, x, kernel) for kernel in ("table", "fused", "reference")}
        cases["tanh"] = forward_and_backward(torch.tanh, x)
        times = settings.time(cases, 15)
        name = " x ".join(map(str, shape))
        rows += [Row.ratio(f"{name}: table / {other}", times, "table", other) for other in ("reference", "tanh")]
    return Group("Small inputs: K=13, forward and backward", tuple(rows))


def outside(settings: Settings) -> Group:
    """The knots end at 32; elements beyond them are computed by the functions themselves."""
    x = torch.randn(settings.shape)
    cases = {"0": mixing(ALL, x), "reference": mixing(ALL, x, "reference")}
    shares = {"one element": 1 / x.numel(), "1 %": 0.01, "50 %": 0.5}
    for name, share in shares.items():
        far = x.clone().view(-1)
        far[torch.randperm(x.numel())[: max(1, round(share * x.numel()))]] += 40
        cases[name] = mixing(ALL, far.view(settings.shape))
    times = settings.time(cases, 9)
    rows = [Row.ratio(f"{name} outside / none", times, name, "0") for name in shares]
    rows.append(Row.ratio("50 % outside / eager loop", times, "50 %", "reference"))
    return Group("Elements outside the knots: table K=13, forward and backward", tuple(rows))


def without_native_code(settings: Settings) -> Group:
    """Measure in a separate process that finds neither a compiler nor code that was built before."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--only", "plain", "--json", f"{folder}/plain.json"]
        command += ["--threads", str(torch.get_num_threads()), *(["--quick"] if settings.quick else [])]
        environment = {**os.environ, "CXX": "", "NASACT_CACHE_DIR": f"{folder}/cache"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        (group,) = Results.read(Path(folder) / "plain.json").groups
    return group


def plain(settings: Settings) -> Group:
    warnings.simplefilter("ignore", RuntimeWarning)  # the warning that there is no compiler
    x = torch.randn(settings.shape)
    cases = {"table 13": mixing(ALL, x), "loop 13": mixing(ALL, x, "reference"), "fused 13": mixing(ALL, x, "fused")}
    cases |= {kernel: mixing(BASIC, x, kernel) for kernel in ("table", "auto", "reference")}
    times = settings.time(cases, 5)
    rows = (
        Row.ratio("plain K=13 / eager loop", times, "table 13", "loop 13"),
        Row.ratio("plain K=13 / fused", times, "table 13", "fused 13"),
        Row.ratio("plain K=4 / eager loop", times, "table", "reference"),
        Row.ratio("K=4, what auto takes / eager loop", times, "auto", "reference"),
    )
    return Group("Without a compiler: the table in plain torch, forward and backward", rows)


GROUPS: dict[str, Callable[[Settings], Group]] = {
    "layer": layer,
    "levels": levels,
    "memory": memory,
    "inference": inference,
    "formats": formats,
    "one_thread": one_thread,
    "small_inputs": small_inputs,
    "outside": outside,
    "without_native_code": without_native_code,
}


def main() -> None:
    args = parse_arguments(__doc__, only="")
    chosen = {"plain": plain} if args.only == "plain" else GROUPS
    if args.only and args.only not in chosen:
        raise SystemExit(f"--only: expected one of {', '.join(GROUPS)}, but got {args.only!r}")
    machine = inspect_machine()
    groups = []
    for name, measure in chosen.items():
        if args.only in ("", name):
            torch.manual_seed(0)
            groups.append(measure(Settings(args.quick)))
    publish(Results("mixture", machine, tuple(groups), args.quick), args.json)


if __name__ == "__main__":
    main()
