"""The command line of the benchmarks: their common options, and where results go. Knows no benchmark."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from result_tables import Results


def parse_arguments(description: str | None, **defaults: Any) -> argparse.Namespace:
    """Parse `--quick`, `--json FILE`, `--threads N` and one option for each of `defaults`; set torch's threads."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke test: small inputs, few rounds, no torch.compile")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default: 2)")
    for name, default in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    return args


def publish(results: Results, path: Path | None) -> None:
    """Print the results; write them to `path`, if there is one."""
    sys.stdout.write(results.text() + "\n\n")
    if path is not None:
        results.write(path)
