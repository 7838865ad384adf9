"""The wheel holds studies, search spaces and native sources, and finds them without the checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from nasact.resources import shipped_names

ROOT = Path(__file__).resolve().parents[2]
NATIVE = Path("nasact/mixture/table/native")


def test_the_wheel_holds_every_study_and_search_space_and_finds_them(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    unpacked = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import nasact, nasact.resources as r\n"
        "assert nasact.__file__.startswith(sys.argv[1]), nasact.__file__\n"
        "print(*r.shipped_names('studies'), '|', *r.shipped_names('search_spaces'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(unpacked)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    studies, spaces = (part.split() for part in done.stdout.split("|"))
    assert tuple(studies) == shipped_names("studies")
    assert tuple(spaces) == shipped_names("search_spaces")
    assert len(studies) >= 4
    assert len(spaces) >= 14
    sources = {path.name for path in (ROOT / NATIVE).iterdir() if path.suffix in (".h", ".cpp")}
    assert len(sources) >= 4
    assert sources <= {path.name for path in (unpacked / NATIVE).iterdir()}, "native sources"
