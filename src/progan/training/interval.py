"""The sums of the terms of updates since the last log point, of which it tells the means."""

from __future__ import annotations

import torch
from torch import Tensor

from progan.training.losses import Terms

SUM, COUNT = "sum/", "count/"
"""What the names of tensors begin with, in a checkpoint."""


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

    def begin_anew(self) -> None:
        """Forget all of it: a log point has told it."""
        self._sums, self._counts, self._first = {}, {}, {}

    def tensors(self) -> dict[str, Tensor]:
        """Return sums and counts by name, all of them 0-d."""
        counts = {COUNT + name: torch.tensor(count) for name, count in self._counts.items()}
        return {**{SUM + name: value for name, value in self._sums.items()}, **counts}

    def load(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        """Take over what `tensors` returned, which was finite; nothing where a checkpoint has none.

        Args:
            tensors: By name.
            device: Where terms are computed.

        Raises:
            KeyError: if a sum is without its count.
        """
        self.begin_anew()
        # In the order in which terms come, so that a log point has the same order of names.
        names = [name.removeprefix(SUM) for name in tensors if name.startswith(SUM)]
        self._sums = {name: tensors[SUM + name].to(device) for name in names}
        self._counts = {name: int(tensors[COUNT + name]) for name in names}
