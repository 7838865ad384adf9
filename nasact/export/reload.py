"""A script that runs in a new process: load an exported file with the runtime of its format and compute its outputs.

    python -I reload.py FORMAT FILE INPUTS.npz OUTPUTS.npz

It is executed by its path and imports nothing of nasact, as production code would.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

Network = Callable[[Any], Any]


def _onnx(path: str) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def _pt2(path: str) -> Network:
    import torch

    network = torch.export.load(path).module()
    return lambda x: network(torch.from_numpy(x)).detach().numpy()


def _safetensors(path: str) -> Network:
    import importlib.util

    import torch

    spec = importlib.util.spec_from_file_location("network", path.removesuffix(".safetensors") + ".py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.load(path)
    return lambda x: network(torch.from_numpy(x)).detach().numpy()


def main() -> None:
    import numpy

    format_name, path, inputs, outputs = sys.argv[1:]
    network = {"onnx": _onnx, "pt2": _pt2, "safetensors": _safetensors}[format_name](path)
    with numpy.load(inputs) as batches:
        computed = {name: network(batches[name]) for name in batches.files}
    assert not any(name.split(".")[0] == "nasact" for name in sys.modules), "the exported file needed nasact"
    numpy.savez(outputs, **computed)


if __name__ == "__main__":
    main()
