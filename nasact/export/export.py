"""Write, reload in a fresh process, compare; only then is an export done and moved to its place."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from nasact.errors import ExportError
from nasact.export.plain_code import plain_source
from nasact.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.export import ExportedProgram

TOLERANCE = 1e-4
"""Largest difference between an output of the network and of its reloaded export."""

_RELOAD = Path(__file__).with_name("reload.py")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A finished export: the files written, the largest output difference found, the accuracy (None without labels)."""

    format: str
    path: Path
    files: tuple[Path, ...]
    max_difference: float
    accuracy: float | None


Writer = Callable[["ExportedProgram", Path], tuple[Path, ...]]
FORMATS: Registry[Writer] = Registry("export format")


def _write_pt2(program: ExportedProgram, path: Path) -> tuple[Path, ...]:
    torch.export.save(program, path)
    return (path,)


def _write_onnx(program: ExportedProgram, path: Path) -> tuple[Path, ...]:
    onnx_program = torch.onnx.export(program, (), dynamo=True, verbose=False)
    assert onnx_program is not None
    onnx_program.save(path, external_data=False)
    return (path,)


def _write_safetensors(program: ExportedProgram, path: Path) -> tuple[Path, ...]:
    from safetensors.torch import save_file

    code = path.with_suffix(".py")
    title = "A network derived and exported by nasact."
    source, tensors = plain_source(program, title=title, module=path.stem, weights=path.name)
    save_file(tensors, path)
    code.write_text(source)
    return (path, code)


FORMATS.register("onnx", _write_onnx)
FORMATS.register("pt2", _write_pt2)
FORMATS.register("safetensors", _write_safetensors)


@contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporters warn and log about their own internals; what matters is compared below."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def export_network(network: nn.Module, x: Tensor, path: Path, kind: str, *, labels: Tensor | None = None) -> Exported:
    """Export `network` to `path` as "onnx", "pt2" or "safetensors" (which writes its plain code, FILE.py, beside it).

    `x` (N, ...) are real inputs, N >= 2: outputs of the reloaded file are compared on them, at several batch sizes;
    with `labels` (N,) the accuracy must be equal too. Exported in eval mode on the CPU, with a dynamic batch.
    Raises ExportError, and leaves no file, where it cannot be written or does not compute the same.
    """
    writer = FORMATS.get(kind)
    path = Path(path)
    if kind == "safetensors" and path.suffix != ".safetensors":
        raise ExportError(
            f"{path}: a safetensors export must end in .safetensors: its code is written to FILE.py beside it"
        )
    if not path.parent.is_dir():
        raise ExportError(f"{path}: the directory {path.parent} does not exist")
    if len(x) < 2:
        raise ExportError(f"{path}: an export is compared on at least 2 inputs, but got {len(x)}")
    was_training = network.training
    network = network.eval().cpu()
    x = x.detach().cpu()
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
            draft = Path(folder) / path.name
            files = _write(network, x, writer, draft, path, kind)
            difference, accuracy = _compare(network, x, labels, draft, kind)
            # the file that tells the export is there comes last
            for file in reversed(files):
                file.replace(path.parent / file.name)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        network.train(was_training)
    written = tuple(path.parent / file.name for file in files)
    return Exported(format=kind, path=path, files=written, max_difference=difference, accuracy=accuracy)


def _write(network: nn.Module, x: Tensor, writer: Writer, draft: Path, path: Path, kind: str) -> tuple[Path, ...]:
    try:
        with _quiet(), torch.no_grad():
            batch = torch.export.Dim("batch", min=1)
            program = torch.export.export(network, (x[: min(len(x), 3)],), dynamic_shapes=({0: batch},))
            return writer(program, draft)
    except (OSError, ExportError):
        raise
    except Exception as error:  # the exporters raise dozens of types; all mean: this network cannot be exported
        reason = str(error).strip().splitlines()
        raise ExportError(f"{path}: {kind} cannot express this network: {reason[0] if reason else error!r}") from error


def _compare(
    network: nn.Module, x: Tensor, labels: Tensor | None, draft: Path, kind: str
) -> tuple[float, float | None]:
    """Largest difference and the equal accuracy; ExportError where the reloaded file computes something else."""
    batches = {"one": x[:1], "three": x[:3], "all": x}
    with tempfile.TemporaryDirectory(prefix="nasact-reload-") as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        arrays: dict[str, Any] = {name: batch.numpy() for name, batch in batches.items()}
        np.savez(inputs, **arrays)
        command = [sys.executable, "-I", str(_RELOAD), kind, str(draft), str(inputs), str(outputs)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()
            raise ExportError(
                f"{draft.name}: the export cannot be reloaded: {reason[-1] if reason else done.returncode}"
            )
        with np.load(outputs) as file:
            reloaded = {name: torch.from_numpy(file[name]) for name in batches}
    difference = 0.0
    with torch.no_grad():
        expected = {name: network(batch) for name, batch in batches.items()}
    for name in batches:
        if reloaded[name].shape != expected[name].shape:
            shapes = f"{tuple(reloaded[name].shape)} instead of {tuple(expected[name].shape)}"
            raise ExportError(f"{draft.name}: the reloaded export gives outputs of shape {shapes}")
        difference = max(difference, (reloaded[name] - expected[name]).abs().max().item())
    if not difference < TOLERANCE:
        raise ExportError(
            f"{draft.name}: outputs of the reloaded export differ by {difference:.2g}, more than {TOLERANCE:.0e}"
        )
    if labels is None:
        return difference, None
    before = (expected["all"].argmax(-1) == labels).float().mean().item()
    after = (reloaded["all"].argmax(-1) == labels).float().mean().item()
    if before != after:
        raise ExportError(f"{draft.name}: the reloaded export reaches accuracy {after:.4f}, the network {before:.4f}")
    return difference, after
