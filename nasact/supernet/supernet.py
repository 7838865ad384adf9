"""The supernet: a model whose activation sites hold mixtures, with its two kinds of parameters told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nasact import activations
from nasact.errors import MixtureError, SurgeryError, did_you_mean
from nasact.mixture import Bank, Kernel, Layout, Mixture
from nasact.supernet.sites import Place, Plan, Site, find_plan
from nasact.supernet.surgery import install


class Supernet(nn.Module):
    """A model whose sites hold mixtures. Calls, state and mode are the model's; made by `relax`."""

    def __init__(self, model: nn.Module, mixtures: Mapping[str, Mixture], sites: Sequence[Site]) -> None:
        super().__init__()
        self.model = model
        self.sites = tuple(sites)
        self._paths = {
            name: path for path, module in model.named_modules() for name, m in mixtures.items() if module is m
        }
        if len(self._paths) != len(mixtures):
            raise SurgeryError("every site must be part of the model")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)

    def mixtures(self) -> dict[str, Mixture]:
        """Site name to its mixture, in the order in which the model applies them."""
        found = {site.name: self.model.get_submodule(self._paths[site.name]) for site in self.sites}
        return {name: module for name, module in found.items() if isinstance(module, Mixture)}

    def arch_parameters(self) -> list[nn.Parameter]:
        """The alphas, one a site: (K,), (C, K) or (*units, K)."""
        return [mixture.alpha for mixture in self.mixtures().values()]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Every trainable parameter that is no alpha: the model's own, and the betas of candidates."""
        alphas = {id(alpha) for alpha in self.arch_parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in alphas]

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature (> 0) of every mixture."""
        for mixture in self.mixtures().values():
            mixture.set_temperature(temperature)

    def project_(self) -> None:
        """Pull alphas back to their normaliser's feasible set, betas into their bounds. Call after each step."""
        for mixture in self.mixtures().values():
            mixture.project_()

    def weights(self) -> dict[str, Tensor]:
        """Mixture weights of each site as evaluation sees them, detached: (K,), (C, K) or (*units, K)."""
        return {name: mixture.weights() for name, mixture in self.mixtures().items()}

    def entropy(self) -> dict[str, float]:
        """Mean entropy, in nats, of |p| / sum |p| at each site: log K undecided, 0 decided."""
        return {name: _entropy(p) for name, p in self.weights().items()}


def _entropy(p: Tensor) -> float:
    share = p.abs().double()
    share = share / share.sum(-1, keepdim=True).clamp_min(1e-30)
    return float(torch.special.entr(share).sum(-1).mean())


def bank_names(space: str | Sequence[str]) -> tuple[str, ...]:
    """Canonical function names of a named search space, or of a sequence of names."""
    names = activations.load_space(space) if isinstance(space, str) else tuple(space)
    return tuple(activations.get(name).name for name in names)


def example_args(example: Tensor | tuple[Any, ...]) -> tuple[Any, ...]:
    return example if isinstance(example, tuple) else (example,)


class _Probe(nn.Module):
    """Computes the original activation and remembers the shapes of its inputs."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shapes.append(tuple(x.shape))
        result: Tensor = self.original(x)
        return result


def site_shapes(
    model: nn.Module, example: Tensor | tuple[Any, ...], names: Sequence[str] | None = None
) -> dict[str, list[tuple[int, ...]]]:
    """Shapes of the inputs that each site gets when the model runs on `example` (one a call; none: not reached).

    The model is copied, run once in eval mode without gradients, and left as it was.
    """
    plan = find_plan(deepcopy(model), partial=True)
    chosen = [name for name in plan.sites if names is None or name in names]
    probes = {name: _Probe(plan.sites[name][1].original) for name in chosen}
    probed = install(plan, probes).eval()
    with torch.no_grad():
        probed(*example_args(example))
    return {name: probe.shapes for name, probe in probes.items()}


def relax(
    model: nn.Module,
    space: str | Sequence[str] = "basic",
    *,
    level: str = "layer",
    normaliser: str = "softmax",
    init: Literal["uniform", "original"] | Mapping[str, float] = "uniform",
    temperature: float = 1.0,
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    partial: bool = False,
    example_input: Tensor | tuple[Any, ...] | None = None,
    kernel: str | Kernel = "auto",
    inplace: bool = False,
) -> Supernet:
    """Make a supernet: each activation site of `model` becomes a trainable mixture of candidates.

    `space`: name of a search space or candidate names. `level`: what shares one vector of weights, "layer", "channel"
    or "neuron". `init`: "uniform" (paper 001), "original" (the model's own function joins the bank, and the supernet
    starts as the model: exactly with affine, free, abs, ratio and convex weights and the reference kernel, within the
    table's tolerance with the automatic one, up to the normaliser's `vertex_slack` with other weights), or starting
    weights by function name. `kernel`: what computes the mixtures, a name or a record such as `Table(knots=2049)`.
    `include` / `exclude`: shell patterns over site names. `partial`: accept that some activations are out of reach.
    `example_input`: one input of the model, needed at neuron level, and at channel level where the layers before a site
    do not tell its channels. Without `inplace` the model is copied.

    Raises SurgeryError (no site, sites out of reach), MixtureError (a bank, level or init that cannot be), UnknownName.
    """
    names = bank_names(space)
    if isinstance(init, str) and init not in ("uniform", "original"):
        choices = ("uniform", "original")
        raise MixtureError(
            f"unknown init {init!r}: expected uniform, original or a mapping.{did_you_mean(init, choices)}"
        )
    plan = find_plan(model if inplace else deepcopy(model), include=include, exclude=exclude, partial=partial)
    layouts = _layouts(plan, level, example_input)
    mixtures: dict[str, Mixture] = {}
    for name, (site, place) in plan.sites.items():
        own = (site.function,) if init == "original" and site.function not in names else ()
        reference = reference_tensor(plan.model, place)
        bank = Bank(
            (*names, *own),
            layouts[name],
            original=bare(place.original),
            where=f"site {name!r}",
            kernel=kernel,
            device=reference.device,
            dtype=reference.dtype,
        )
        mixtures[name] = Mixture(
            bank,
            normaliser=normaliser,
            init=site.function if init == "original" else init,
            temperature=temperature,
            device=reference.device,
            dtype=reference.dtype,
        )
    training = plan.model.training
    supernet = Supernet(install(plan, mixtures), mixtures, [site for site, _ in plan.sites.values()])
    supernet.training = training
    return supernet


def reference_tensor(model: nn.Module, place: Place) -> Tensor:
    """A parameter that tells device and dtype: the site's own module's before the model's."""
    for module in (place.parent, model):
        for parameter in module.parameters() if module is not None else ():
            if parameter.is_floating_point():
                return parameter
    return torch.empty(0)


def bare(original: nn.Module) -> nn.Module:
    """The original activation without its hooks, which move to the module that takes its place."""
    twin = copy(original)
    for kind, hooks in vars(original).items():
        if kind.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")) and not kind.startswith("_state"):
            twin.__dict__[kind] = type(hooks)()
    return twin


def _layouts(plan: Plan, level: str, example: Tensor | tuple[Any, ...] | None) -> dict[str, Layout]:
    """The layout of each site's weights at `level`."""
    Layout(level=level, shape=(1,))  # an unknown level is told before anything is run
    unknown = [name for name, (site, _) in plan.sites.items() if level == "neuron" or not site.channels]
    shapes: dict[str, list[tuple[int, ...]]] = {}
    if level != "layer" and unknown:
        if example is None:
            what = "units" if level == "neuron" else "channels"
            raise MixtureError(
                f"site {unknown[0]!r}: level {level!r} needs to know its {what}, which the model's layers do not tell: "
                "pass example_input=one input of the model"
            )
        shapes = site_shapes(plan.model, example, unknown)
    return {name: _layout(site, level, shapes.get(name)) for name, (site, _) in plan.sites.items()}


def _layout(site: Site, level: str, shapes: list[tuple[int, ...]] | None) -> Layout:
    dim = site.channels.dim if site.channels else 1
    if level == "layer":
        return Layout(level=level, channel_dim=dim)
    if shapes is None:
        assert site.channels is not None
        return Layout(level=level, shape=(site.channels.count,), channel_dim=dim)
    if not shapes:
        raise MixtureError(f"site {site.name!r}: the example input does not reach it")
    shape = shapes[0]
    if len(shape) < 2:
        raise MixtureError(
            f"site {site.name!r}: level {level!r} needs an input of at least 2 dimensions, but got shape {shape}"
        )
    if level == "neuron":
        if any(other[1:] != shape[1:] for other in shapes):
            raise MixtureError(
                f"site {site.name!r}: level 'neuron' needs one input shape, but got {sorted(set(shapes))}"
            )
        return Layout(level=level, shape=shape[1:], channel_dim=dim)
    # Unknown layers before it: sequences (N, length, features) keep their channels last, the rest in dimension 1.
    dim = site.channels.dim if site.channels else (-1 if len(shape) == 3 else 1)
    return Layout(level=level, shape=(shape[dim],), channel_dim=dim)
