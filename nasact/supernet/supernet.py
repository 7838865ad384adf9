"""The supernet: a model whose activation sites hold mixtures; its weights and alphas are separate parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nasact.errors import GenotypeError, MixtureError, SurgeryError, did_you_mean
from nasact.mixture import Bank, Kernel, Layout, Mixture
from nasact.reserved_names import ORIGINAL
from nasact.supernet.genotype import Genotype
from nasact.supernet.preparation import (
    OwnActivation,
    as_candidate,
    function_names,
    plan_all,
    plan_copy,
    reference_tensor,
)
from nasact.surgery.audited_plan import Example
from nasact.surgery.copying import copy_model
from nasact.surgery.install import copy_hooks, install, without_hooks
from nasact.surgery.plan import SiteLocation, SurgeryPlan
from nasact.surgery.site_records import Site
from nasact.surgery.write_back import Copied, WriteBack


class Supernet(nn.Module):
    """A model whose sites hold mixtures, made by `relax`. It is called like the model.

    `own`: site name to the model's own activation, with which `derive` fills sites that a genotype leaves to the model.
    """

    def __init__(
        self,
        model: nn.Module,
        mixtures: Mapping[str, Mixture],
        sites: Sequence[Site],
        own: Mapping[str, OwnActivation],
    ) -> None:
        super().__init__()
        self.model = model
        self.sites = tuple(sites)
        self._own = dict(own)
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

    def derive(self, genotype: Genotype, *, kernel: str | Kernel = "auto") -> nn.Module:
        """The network of `genotype` with this supernet's trained weights: an ordinary module, ready for fine-tuning.

        Equals `genotype.apply` of the model that the supernet was made of, with the trained parameters and buffers
        loaded by name. Betas and mixture weights are those of the genotype; hooks, device, dtype and mode those of the
        supernet, which does not change. A site that the genotype does not name gets the model's own activation. An
        activation with parameters that the model calls at several places has one name in the state for each of them.
        `kernel`: what computes the sites with a mixture.

        Raises GenotypeError if the genotype has a site that the supernet does not have, or a number of channels or
        units that differs from the supernet's. SurgeryError if the model cannot be copied.
        """
        self._require_fit(genotype)
        copied = copy_model(self)
        assert isinstance(copied, Supernet)
        mixtures, own = copied.mixtures(), copied._own
        originals: dict[str, nn.Module] = {}
        for name, mixture in mixtures.items():  # first, so that no alpha is taken for a parameter of a site's parent
            trained = mixture.bank.original
            originals[name] = copied._replace(name, own[name].module if trained is None else trained)
        for name, original in originals.items():
            mixture, module = mixtures[name], original
            reference = reference_tensor(copied._owner(name), copied.model)
            if mixture.bank.original is None:
                original.to(reference)  # it was no candidate, and did not move with the supernet
            if name in genotype.sites:
                module = genotype.site_module(name, own[name].function, original, reference, kernel)
            if isinstance(copied._parent(name), WriteBack | Copied):
                module = without_hooks(module)  # the wrapper has them
            copy_hooks(mixture, module)
            copied._replace(name, module.train(mixture.training))
        return copied.model

    def _require_fit(self, genotype: Genotype) -> None:
        mixtures = self.mixtures()
        genotype.require_sites(mixtures, "the supernet")
        for name, gene in genotype.sites.items():
            layout, shape = mixtures[name].bank.layout, tuple(gene.weights_tensor().shape[:-1])
            if layout.level == genotype.level and layout.shape != shape:
                raise GenotypeError(
                    f"site {name!r}: the genotype has weights for {genotype.level}s of shape {shape}, but the "
                    f"supernet's {genotype.level}s have shape {layout.shape}"
                )

    def _parent(self, name: str) -> nn.Module | None:
        """The module of which a site is an attribute; None if the model itself is the site."""
        path = self._paths[name]
        return self.model.get_submodule(path.rpartition(".")[0]) if path else None

    def _owner(self, name: str) -> nn.Module | None:
        """The module of the model that applies a site: not the wrapper of an activation that works in place."""
        parent, path = self._parent(name), self._paths[name].rpartition(".")[0]
        return (
            self.model.get_submodule(path.rpartition(".")[0])
            if isinstance(parent, WriteBack | Copied) and path
            else parent
        )

    def _replace(self, name: str, module: nn.Module) -> nn.Module:
        """Put `module` at a site, and return it."""
        parent = self._parent(name)
        if parent is None:
            self.model = module
        else:
            setattr(parent, self._paths[name].rpartition(".")[2], module)
        return module


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
    model: nn.Module, example: Example, names: Sequence[str] | None = None
) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of each site's inputs when the model runs on `example`.

    One shape per call of the site; an empty list for a site that is not reached. A copy of the model runs once, in eval
    mode without gradients. `names`: the sites; None: all.
    """
    plan = plan_all(model, names or ())
    chosen = [name for name in plan.sites if names is None or name in names]
    recorders = {name: _InputShapeRecorder(plan.sites[name][1].original) for name in chosen}
    recording = install(plan, recorders).eval()
    with torch.no_grad():
        if isinstance(example, Mapping):
            recording(**example)
        else:
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
    example_input: Example | None = None,
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
    `include`, `exclude`: shell patterns for site names; `include` with the full name of a gate makes it a site.
    `partial`: accept that some activations cannot be replaced.
    `example_input`: one input of the model; a tuple holds positional arguments, a mapping keyword arguments. Needed at
    neuron level, and at channel level for a site whose channels the layers before it do not determine. A copy of the
    model runs on it, which shows sites that are not reached, and activations that no code names (not with `inplace`).
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
    if isinstance(model, nn.Module) and any(isinstance(module, Mixture) for module in model.modules()):
        raise SurgeryError("the model is a supernet already: pass the model that it was made of")
    plan = plan_copy(
        model, inplace=inplace, include=include, exclude=exclude, partial=partial, example_input=example_input
    )
    layouts = _layouts(plan, level, example_input)
    mixtures: dict[str, Mixture] = {}
    for name, (site, location) in plan.sites.items():
        bank = _bank(names, site, location, layouts[name], plan.model, is_original=init == ORIGINAL, kernel=kernel)
        reference = reference_tensor(location.parent, plan.model)
        mixtures[name] = Mixture(
            bank,
            normaliser=normaliser,
            init=site.function if init == ORIGINAL else init,
            temperature=temperature,
            device=reference.device,
            dtype=reference.dtype,
        )
    training, own = plan.model.training, OwnActivation.all_of(plan)
    model = install(plan, mixtures)
    for name, (site, location) in plan.sites.items():
        candidate = mixtures[name].bank.original
        if candidate is not None and site.kind == "module":
            candidate.train(location.original.training)
    supernet = Supernet(model, mixtures, [site for site, _ in plan.sites.values()], own)
    supernet.training = training
    return supernet


def _bank(
    names: Sequence[str],
    site: Site,
    location: SiteLocation,
    layout: Layout,
    model: nn.Module,
    *,
    is_original: bool,
    kernel: str | Kernel,
) -> Bank:
    """The candidates of one site. `is_original`: with the model's own function, which the mixture starts as."""
    added = (site.function,) if is_original and site.function not in names else ()
    reference = reference_tensor(location.parent, model)
    return Bank(
        (*names, *added),
        layout,
        original=as_candidate(location.original),
        own=site.function,
        own_is_exact=location.exact or not is_original,
        where=f"site {site.name!r}",
        kernel=kernel,
        device=reference.device,
        dtype=reference.dtype,
    )


def _layouts(plan: SurgeryPlan, level: str, example: Example | None) -> dict[str, Layout]:
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
