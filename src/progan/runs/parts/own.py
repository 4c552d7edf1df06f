"""The parts of one's own that Python calls take, by what they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from progan.config import Parts, read_plugins
from progan.config.parts.given import gathered
from progan.training.terms.adversarial import AdversarialLoss
from progan.training.terms.penalties import Penalty

SEVERAL = (Penalty.place,)
"""Options that choose several parts."""


class OwnParts(TypedDict, total=False):
    """Parts of one's own: classes, or instances that were told their options.

    Each is chosen by being given; options of the call that say otherwise win. `plugins` are Python files
    whose parts may be chosen by options.
    """

    loss: AdversarialLoss | type[AdversarialLoss]
    penalties: Sequence[Penalty | type[Penalty]]
    plugins: Sequence[str | Path]


def own_parts(own: OwnParts) -> tuple[Parts, dict[str, object]]:
    """Return the parts of a call, and the options that choose them.

    Raises:
        ConfigError: if one is no part or lacks something, or a file cannot be read.
    """
    single = [own[name] for name in ("loss",) if name in own]
    given = [*single, *own.get("penalties", ())]
    parts, chosen = gathered(given, SEVERAL)
    return read_plugins(own.get("plugins", ())) + parts, chosen
