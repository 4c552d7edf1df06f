"""The terms of the updates between two log points: their means, and the first that was not finite."""

from __future__ import annotations

import torch
from torch import Tensor

from progan.training.objective import Terms


class Interval:
    """Adds up terms on the device, which nobody waits for until they are read."""

    def __init__(self) -> None:
        self._sums: Terms = {}
        self._counts: dict[str, int] = {}
        self._first: dict[str, Tensor] = {}

    def add(self, clock: int, terms: Terms) -> None:
        """Take note of the terms of one update.

        Args:
            clock: Images seen before it.
            terms: 0-d tensors by name, one of which is `D/loss` or `G/loss`; none if float16 skipped it.
        """
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
            if name in ("D/loss", "G/loss"):
                before = self._first.get(name, torch.full_like(value, -1, dtype=torch.int64))
                self._first[name] = torch.where((before < 0) & ~torch.isfinite(value), clock, before)

    def means(self) -> dict[str, float]:
        """Return the mean of each term since the interval began; not finite if it ever was not."""
        if not self._sums:
            return {}
        values = torch.stack(list(self._sums.values())).tolist()  # at once: the device is waited for here
        return {name: value / self._counts[name] for name, value in zip(self._sums, values, strict=True)}

    def first_not_finite(self) -> int | None:
        """Return the clock of the first update whose loss was not finite, or None if all were."""
        clocks = [clock for clock in (int(value) for value in self._first.values()) if clock >= 0]
        return min(clocks, default=None)
