"""The spool: a file with the events that the store has not confirmed, so that a crash loses none.

Knows files and events, no store. Only one process writes the files of a study at a time (the study's lock).
"""

from __future__ import annotations

from pathlib import Path

from nasact.tracking.events import Event, from_record, to_record
from nasact.tracking.json_lines import append_line, read_lines


class Spool:
    """Events in the order they happened, each kept until it is confirmed.

    An event is written here before it is sent to the store. If the process is killed in between, the next one sends it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: dict[int, Event] = {}
        last_number = 0
        for record in read_lines(path):
            try:
                if "done" in record:
                    self._pending.pop(int(record["done"]), None)
                else:
                    last_number = max(last_number, int(record["id"]))
                    self._pending[int(record["id"])] = from_record(record["event"])
            except (KeyError, TypeError, ValueError):
                continue
        self._next_number = last_number + 1

    def __len__(self) -> int:
        return len(self._pending)

    def pending(self) -> list[tuple[int, Event]]:
        """The events that the store has not confirmed, each with its number, oldest first."""
        return list(self._pending.items())

    def append(self, event: Event) -> int:
        """Keep an event and return its number. If the disk refuses it (OSError), this process still holds it."""
        number, self._next_number = self._next_number, self._next_number + 1
        self._pending[number] = event
        append_line(self.path, {"id": number, "event": to_record(event)}, durable=True)
        return number

    def confirm(self, number: int) -> None:
        """Remove an event that the store has confirmed. The file is deleted once no event is pending."""
        self._pending.pop(number, None)
        if self._pending:
            append_line(self.path, {"done": number}, durable=False)
        else:
            self.path.unlink(missing_ok=True)
