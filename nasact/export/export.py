"""Export: write a draft, reload it in a new process, compare; only then move it to its final path."""

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
class ExportResult:
    """A finished export.

    `max_difference`: largest difference between an output of the network and of the reloaded file. `accuracy`: that of
    both on the given labels; None without labels.
    """

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
def silence_exporters() -> Iterator[None]:
    """Hide the warnings and log lines of torch's exporters, which concern their internals."""
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


def export_network(
    network: nn.Module, x: Tensor, path: Path, format_name: str, *, labels: Tensor | None = None
) -> ExportResult:
    """Export `network` to `path` as "onnx", "pt2" or "safetensors" (which writes its plain code, FILE.py, next to it).

    The network is exported in eval mode on the CPU, with a dynamic batch size. Outputs of the reloaded file are
    compared on the real inputs `x` (N, ...), N >= 2, at several batch sizes; with `labels` (N,), the accuracy must be
    equal too. Raises ExportError, and leaves no file, if the file cannot be written or computes something else.
    """
    writer = FORMATS.get(format_name)
    path = Path(path)
    if format_name == "safetensors" and path.suffix != ".safetensors":
        raise ExportError(
            f"{path}: the name of a safetensors export must end in .safetensors, "
            "because its code is written to FILE.py next to it"
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
            files = _write(network, x, writer, draft, path, format_name)
            difference, accuracy = _compare(network, x, labels, draft, format_name)
            # The main file is moved last: when it exists, the export is complete.
            for file in reversed(files):
                file.replace(path.parent / file.name)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        network.train(was_training)
    written = tuple(path.parent / file.name for file in files)
    return ExportResult(format=format_name, path=path, files=written, max_difference=difference, accuracy=accuracy)


def _write(
    network: nn.Module, x: Tensor, writer: Writer, draft: Path, path: Path, format_name: str
) -> tuple[Path, ...]:
    try:
        with silence_exporters(), torch.no_grad():
            batch = torch.export.Dim("batch", min=1)
            program = torch.export.export(network, (x[: min(len(x), 3)],), dynamic_shapes=({0: batch},))
            return writer(program, draft)
    except (OSError, ExportError):
        raise
    except Exception as error:  # the exporters raise many types of exception; all mean that they cannot export it
        reason = str(error).strip().splitlines()
        raise ExportError(
            f"{path}: {format_name} cannot express this network: {reason[0] if reason else error!r}"
        ) from error


def _compare(
    network: nn.Module, x: Tensor, labels: Tensor | None, draft: Path, format_name: str
) -> tuple[float, float | None]:
    """The largest output difference and the accuracy; ExportError if the reloaded file computes something else."""
    batches = {"one": x[:1], "three": x[:3], "all": x}
    with tempfile.TemporaryDirectory(prefix="nasact-reload-") as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        arrays: dict[str, Any] = {name: batch.numpy() for name, batch in batches.items()}
        np.savez(inputs, **arrays)
        command = [sys.executable, "-I", str(_RELOAD), format_name, str(draft), str(inputs), str(outputs)]
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
