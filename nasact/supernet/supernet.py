"""The supernet: a model whose activation sites hold mixtures; its weights and alphas are separate parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nasact.errors import MixtureError, SurgeryError, did_you_mean
from nasact.mixture import Bank, Kernel, Layout, Mixture
from nasact.reserved_names import ORIGINAL
from nasact.supernet.preparation import function_names, plan_copy, reference_tensor
from nasact.surgery.install import install, without_hooks
from nasact.surgery.sites import Site, SurgeryPlan


class Supernet(nn.Module):
    """A model whose sites hold mixtures, made by `relax`. It is called like the model."""

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
        modules = {site.name: self.model.get_submodule(self._paths[site.name]) for site in self.sites}
        return {name: module for name, module in modules.items() if isinstance(module, Mixture)}

    def arch_parameters(self) -> list[nn.Parameter]:
        """The alpha of each site: (K,), (C, K) or (*units, K)."""
        return [mixture.alpha for mixture in self.mixtures().values()]

    def weight_parameters(self) -> list[nn.Parameter]:
        """Every trainable parameter except the alphas: the model's own, and the betas of candidates."""
        alphas = {id(alpha) for alpha in self.arch_parameters()}
        return [p for p in self.parameters() if p.requires_grad and id(p) not in alphas]

    def set_temperature(self, temperature: float) -> None:
        """Set the temperature (> 0) of every mixture."""
        for mixture in self.mixtures().values():
            mixture.set_temperature(temperature)

    def project_(self) -> None:
        """Project alphas to their normaliser's feasible set and clamp betas to their bounds. Call after each step."""
        for mixture in self.mixtures().values():
            mixture.project_()

    def weights(self) -> dict[str, Tensor]:
        """The mixture weights of each site in evaluation, detached: (K,), (C, K) or (*units, K)."""
        return {name: mixture.weights() for name, mixture in self.mixtures().items()}

    def entropy(self) -> dict[str, float]:
        """The mean entropy, in nats, of |p| / sum |p| at each site: log K for equal weights, 0 for one function."""
        return {name: _entropy(p) for name, p in self.weights().items()}


def _entropy(p: Tensor) -> float:
    share = p.abs().double()
    share = share / share.sum(-1, keepdim=True).clamp_min(1e-30)
    return float(torch.special.entr(share).sum(-1).mean())


class _InputShapeRecorder(nn.Module):
    """Computes the original activation and records the shapes of its inputs."""

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
    """The shapes of each site's inputs when the model runs on `example`.

    One shape per call of the site; an empty list for a site that is not reached. A copy of the model runs once, in eval
    mode without gradients. `names`: the sites; None: all.
    """
    plan = plan_copy(model, partial=True)
    chosen = [name for name in plan.sites if names is None or name in names]
    recorders = {name: _InputShapeRecorder(plan.sites[name][1].original) for name in chosen}
    recording = install(plan, recorders).eval()
    with torch.no_grad():
        recording(*(example if isinstance(example, tuple) else (example,)))
    return {name: recorder.shapes for name, recorder in recorders.items()}


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

    `space`: the name of a search space, or candidate names.
    `level`: what has its own weights: each "layer", "channel" or "neuron".
    `init`: "uniform" (paper 001), "original", or initial weights by function name. With "original" the model's own
    function is added to the bank and the supernet starts as the model: exactly with affine, free, abs, ratio and convex
    weights and the reference kernel, within the table's tolerance with the automatic kernel, and up to the normaliser's
    `vertex_slack` with other weights.
    `include`, `exclude`: shell patterns for site names. `partial`: accept that some activations cannot be replaced.
    `example_input`: one input of the model. Needed at neuron level, and at channel level for a site whose channels the
    layers before it do not determine.
    `kernel`: what computes the mixtures: a name, or a record such as `Table(knots=2049)`.
    `inplace`: change `model` itself; otherwise it is copied.

    Raises SurgeryError (no site, sites that cannot be replaced, a model that cannot be copied), MixtureError (an
    impossible bank, level or init) and UnknownName.
    """
    names = function_names(space)
    if isinstance(init, str) and init not in ("uniform", ORIGINAL):
        choices = ("uniform", ORIGINAL)
        raise MixtureError(
            f"unknown init {init!r}: expected uniform, original or a mapping.{did_you_mean(init, choices)}"
        )
    plan = plan_copy(model, inplace=inplace, include=include, exclude=exclude, partial=partial)
    layouts = _layouts(plan, level, example_input)
    mixtures: dict[str, Mixture] = {}
    for name, (site, location) in plan.sites.items():
        added = (site.function,) if init == ORIGINAL and site.function not in names else ()
        reference = reference_tensor(plan.model, location)
        bank = Bank(
            (*names, *added),
            layouts[name],
            original=without_hooks(location.original),
            where=f"site {name!r}",
            kernel=kernel,
            device=reference.device,
            dtype=reference.dtype,
        )
        mixtures[name] = Mixture(
            bank,
            normaliser=normaliser,
            init=site.function if init == ORIGINAL else init,
            temperature=temperature,
            device=reference.device,
            dtype=reference.dtype,
        )
    training = plan.model.training
    supernet = Supernet(install(plan, mixtures), mixtures, [site for site, _ in plan.sites.values()])
    supernet.training = training
    return supernet


def _layouts(plan: SurgeryPlan, level: str, example: Tensor | tuple[Any, ...] | None) -> dict[str, Layout]:
    """The layout of each site's weights at `level`."""
    Layout(level=level, shape=(1,))  # raises for an unknown level before the model runs
    unknown = [name for name, (site, _) in plan.sites.items() if level == "neuron" or not site.channels]
    shapes: dict[str, list[tuple[int, ...]]] = {}
    if level != "layer" and unknown:
        if example is None:
            missing = "units" if level == "neuron" else "channels"
            raise MixtureError(
                f"site {unknown[0]!r}: level {level!r} needs the number of {missing}, which the model's layers do not "
                "determine: pass example_input=one input of the model"
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
    # Unknown layers before the site: channels are last in sequences (N, length, features), else in dimension 1.
    dim = site.channels.dim if site.channels else (-1 if len(shape) == 3 else 1)
    return Layout(level=level, shape=(shape[dim],), channel_dim=dim)
