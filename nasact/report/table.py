"""A table as plain data, with two renderings of the same rows: rich for terminals, markdown for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nasact.errors import one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_GAP = 2  # characters between two columns: one of padding, one of the box


@dataclass(frozen=True, kw_only=True)
class Column:
    header: str
    right: bool = False
    long: Literal["keep", "wrap", "cut"] = "keep"
    """If the terminal is too narrow: keep the cell on one line, wrap it over lines, or cut it with an ellipsis."""
    hidden_below: int = 0
    """Omitted in terminals narrower than this many characters; the same information must be elsewhere."""
    styles: Mapping[str, str] = field(default_factory=dict)
    """Text of a cell -> its rich style."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Headers, rows of text and notes. `str` gives markdown; a rich console prints it as a table."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return markdown(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        yield Text(self.title, style="bold")
        yield _grid(self, options.max_width)
        for note in self.notes:
            yield Text(note, style="dim")


def _grid(table: Table, width: int) -> Any:
    """The table as a rich table for a terminal of `width` characters."""
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    shown = [i for i, column in enumerate(table.columns) if width >= column.hidden_below]
    rows = [[one_line(row[i]) for i in shown] for row in table.rows]
    columns = [table.columns[i] for i in shown]
    widest = [max(len(cell) for cell in cells) for cells in zip([c.header for c in columns], *rows, strict=True)]
    grid = Grid(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for i, column in enumerate(columns):
        # rich shrinks all columns by the same rule: without limits, one long cell makes the short ones unreadable.
        remaining = width - sum(widest) + widest[i] - _GAP * (len(columns) - 1)
        grid.add_column(
            Text(column.header),
            justify="right" if column.right else "left",
            no_wrap=column.long != "wrap",
            overflow="ellipsis" if column.long == "cut" else "fold",
            min_width=widest[i] if column.long == "keep" else None,
            max_width=max(len(column.header), remaining) if column.long == "cut" else None,
        )
    for row in rows:
        grid.add_row(*(Text(cell, style=c.styles.get(cell, "")) for cell, c in zip(row, columns, strict=True)))
    return grid


def markdown(table: Table) -> str:
    """The table in markdown, its title above and its notes below."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"

    rule = ["---:" if column.right else "---" for column in table.columns]
    lines = [line([column.header for column in table.columns]), line(rule), *(line(row) for row in table.rows)]
    notes = [text for note in table.notes for text in ("", note)]
    return "\n".join([f"**{table.title}**", "", *lines, *notes]) + "\n"
