"""Artifacts that wait for the store: the files of each event in a separate folder, until the store has confirmed it.

Knows files, no store.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path

from nasact.errors import error_line
from nasact.tracking.sanitise import clean_name
from nasact.tracking.tracker import RenderFigures

logger = logging.getLogger("nasact.tracking")


class StagingArea:
    """Folders of staged files. Events name a folder without its parent, so that a study's directory may be moved."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, folder: str) -> Path:
        return self._directory / folder

    def new_folder(self, name: str) -> Path:
        """Create an empty folder whose name starts with `name`."""
        self._directory.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._directory))

    def write(self, name: str, texts: Mapping[str, str], figures: RenderFigures | None) -> str | None:
        """Write texts and figures into a new folder and return its name; None if there is nothing to store.

        Files that cannot be rendered or written are omitted, with a warning.
        """
        contents = {clean_name(file): text.encode() for file, text in texts.items()}
        try:
            rendered = figures() if figures is not None else {}
            contents |= {_with_png_suffix(clean_name(file)): image for file, image in rendered.items()}
        except Exception as error:
            logger.warning("tracking: the figures of %s are omitted (%s)", name, error_line(error, 200))
        if not contents:
            return None
        try:
            folder = self.new_folder(name)
            for file, content in contents.items():
                path = folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except OSError as error:
            logger.warning("tracking: the files of %s are omitted (%s)", name, error_line(error, 200))
            return None
        return folder.name

    def remove(self, folder: str) -> None:
        shutil.rmtree(self.path(folder), ignore_errors=True)

    def remove_orphans(self, referenced: Collection[str | None]) -> None:
        """Remove all folders but the `referenced` ones: a process was killed before it wrote their event."""
        for folder in self._directory.glob("*"):
            if folder.name not in referenced:
                self.remove(folder.name)


def _with_png_suffix(file: str) -> str:
    return file if "." in file.rsplit("/", 1)[-1] else f"{file}.png"
