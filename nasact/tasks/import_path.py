"""Import and call the user's own code by import path, `pkg.mod:name`; report its failures in one line.

The working directory is importable during the import and the call, as it is for `python -m`. Must not know what the
code is for.
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
from nasact.tasks.signature_options import check_option_names, keyword_parameters


def is_import_path(name: str) -> bool:
    """Whether a name in a study is the import path of the user's own code; registered names have no colon."""
    return ":" in name


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """Put the current directory first on sys.path; remove it again at the end."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # user code may have edited sys.path meanwhile: remove only the entry added here
        if here in sys.path:
            sys.path.remove(here)


def import_callable(path: str, *, place: str, error: type[NasactError]) -> Callable[..., Any]:
    """Import the function or class that `pkg.mod:name` names; raise `error` if that fails."""
    module_name, _, attribute = path.partition(":")
    names = [*module_name.split("."), *attribute.split(".")]
    if not all(name.isidentifier() for name in names):
        raise error(f"{place}: an import path is written 'package.module:function'")
    with working_directory_importable():
        found: Any = _import_module(module_name, place, error)
    holder = module_name
    for name in attribute.split("."):
        if not hasattr(found, name):
            public = [known for known in dir(found) if not known.startswith("_")]
            raise error(f"{place}: {holder!r} has no attribute {name!r}.{did_you_mean(name, public)}")
        found, holder = getattr(found, name), f"{holder}.{name}"
    if not callable(found):
        raise error(f"{place}: must be a function or a class, but is {type(found).__name__}")
    function: Callable[..., Any] = found
    return function


def _import_module(name: str, place: str, error: type[NasactError]) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and (name == missing.name or name.startswith(f"{missing.name}.")):
            raise error(f"{place}: no module named {missing.name!r}.{_near_modules(missing.name)}") from missing
        raise error(f"{place}: importing {name!r} failed: {error_line(missing)}") from missing
    except (Exception, SystemExit) as failure:
        raise error(f"{place}: importing {name!r} failed: {error_line(failure)}") from failure


def _near_modules(name: str) -> str:
    """Near matches of a module's name in its parent package; in the working directory if it has no parent."""
    parent = name.rpartition(".")[0]
    if parent:
        folders = list(getattr(sys.modules.get(parent), "__path__", []))
        prefix = f"{parent}."
    else:
        folders, prefix = [str(Path.cwd())], ""
    return did_you_mean(name, [f"{prefix}{module.name}" for module in pkgutil.iter_modules(folders)])


def call_user_code(
    function: Callable[..., Any],
    options: Mapping[str, Any],
    supplied: Mapping[str, Any],
    *,
    place: str,
    error: type[NasactError],
) -> Any:
    """Return `function(**options)`, also passing each `supplied` value whose name is in the signature.

    An option of the same name takes precedence. Raise `error` if the options do not fit or the function raises.
    """
    accepted = keyword_parameters(function)
    extra = {name: value for name, value in supplied.items() if name in accepted and name not in options}
    check_option_names(function, {**extra, **options}, supplied=(), place=place, error=error)
    try:
        with working_directory_importable():
            return function(**{**extra, **options})
    except NasactError as failure:
        raise type(failure)(f"{place}: {failure}") from failure
    except (Exception, SystemExit) as failure:
        raise error(f"{place}: raised {error_line(failure)}") from failure
