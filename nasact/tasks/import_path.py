"""The user's own code by import path, `pkg.mod:name`: found, called, and its failures told in one line.

The working directory is importable while a path is resolved and called, as it is for `python -m`. Must not know what
the code is for.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nasact.errors import NasactError, did_you_mean, error_line
from nasact.tasks.options import check_names, parameters


def is_import_path(name: str) -> bool:
    return ":" in name


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """The current directory first on sys.path, and off it again afterwards."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # user code may have edited the path meanwhile: take out our entry only
        if here in sys.path:
            sys.path.remove(here)


def resolve(path: str, *, place: str, error: type[NasactError]) -> Callable[..., Any]:
    """The callable that `pkg.mod:name` stands for."""
    module_name, _, attribute = path.partition(":")
    names = [*module_name.split("."), *attribute.split(".")]
    if not all(name.isidentifier() for name in names):
        raise error(f"{place}: an import path is written 'package.module:function'")
    with working_directory_importable():
        found: Any = _module(module_name, place, error)
    holder = module_name
    for name in attribute.split("."):
        if not hasattr(found, name):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise error(f"{place}: {holder!r} has no attribute {name!r}.{did_you_mean(name, public)}")
        found, holder = getattr(found, name), f"{holder}.{name}"
    if not callable(found):
        raise error(f"{place}: must be something to call, but is {type(found).__name__}")
    function: Callable[..., Any] = found
    return function


def _module(name: str, place: str, error: type[NasactError]) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and (name == missing.name or name.startswith(f"{missing.name}.")):
            raise error(f"{place}: no module named {missing.name!r}.{_near_modules(missing.name)}") from missing
        raise error(f"{place}: importing {name!r} failed: {error_line(missing)}") from missing
    except (Exception, SystemExit) as failure:
        raise error(f"{place}: importing {name!r} failed: {error_line(failure)}") from failure


def _near_modules(name: str) -> str:
    parent = name.rpartition(".")[0]
    if parent:
        folders = list(getattr(sys.modules.get(parent), "__path__", []))
        prefix = f"{parent}."
    else:
        folders, prefix = [str(Path.cwd())], ""
    return did_you_mean(name, [f"{prefix}{module.name}" for module in pkgutil.iter_modules(folders)])


def call(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    offered: Mapping[str, Any],
    *,
    place: str,
    error: type[NasactError],
) -> Any:
    """`function(**options)`, plus what is `offered` under a name its signature has; `error` where it raises."""
    known = parameters(function) or {}
    extra = {name: value for name, value in offered.items() if name in known and name not in options}
    check_names(function, {**extra, **options}, given=(), place=place, error=error)
    try:
        with working_directory_importable():
            return function(**{**extra, **options})
    except NasactError as failure:
        raise type(failure)(f"{place}: {failure}") from failure
    except (Exception, SystemExit) as failure:
        raise error(f"{place}: raised {error_line(failure)}") from failure
