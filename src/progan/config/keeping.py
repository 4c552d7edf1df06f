"""How many checkpoints are kept, as people write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Keeping:
    """Which checkpoints are kept.

    Attributes:
        kind: `newest` of them, `all`, the first of `every` so many kimg, or the `best`.
        number: How many; of `every`, kimg.
    """

    kind: Literal["newest", "all", "every", "best"]
    number: float

    @staticmethod
    def parse(rule: str) -> Keeping:
        """Read `3`, `all`, `every 500 kimg` or `best 3`.

        Raises:
            ValueError: if it is none of these.
        """
        if rule == "all":
            return Keeping("all", 0)
        count = re.fullmatch(r"(?:(best)\s+)?(\d{1,6})", rule)
        if count is not None and int(count[2]) >= 1:
            return Keeping("best" if count[1] else "newest", int(count[2]))
        every = re.fullmatch(r"every\s+(\d{1,9}(?:\.\d{1,6})?)(?:\s*kimg)?", rule)
        if every is not None and float(every[1]) >= 0.001:
            return Keeping("every", float(every[1]))
        raise ValueError(f"expected a number such as 3, all, every 500 kimg, or best 3, not {rule!r}")


def as_rule(given: object) -> int | str:
    """Bring a number, a text or a list of words into one form, and check it."""
    words = given if isinstance(given, list | tuple) else [given]
    rule = " ".join(str(word) for word in words).strip().lower()
    keeping = Keeping.parse(rule)
    return int(keeping.number) if keeping.kind == "newest" else rule
