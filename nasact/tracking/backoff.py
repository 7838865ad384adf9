"""Exponential backoff: when a store that did not answer is contacted again."""

from __future__ import annotations

from collections.abc import Callable

LONGEST_DELAY = 600.0
"""Seconds; the delay doubles with each failure up to this."""


class Backoff:
    """The first delay is `first_delay` seconds of `clock`; each further failure doubles it, up to ten minutes."""

    def __init__(self, first_delay: float, clock: Callable[[], float]) -> None:
        self._first_delay = first_delay
        self._clock = clock
        self._delay = 0.0
        self._retry_at = float("-inf")

    @property
    def failing(self) -> bool:
        """Whether the last attempt failed."""
        return self._delay > 0.0

    @property
    def is_due(self) -> bool:
        """Whether the store may be contacted now."""
        return self._clock() >= self._retry_at

    def record_failure(self) -> None:
        self._delay = min(max(2 * self._delay, self._first_delay), LONGEST_DELAY)
        self._retry_at = self._clock() + self._delay

    def record_success(self) -> None:
        self._delay = 0.0
        self._retry_at = float("-inf")
