"""What the crash matrix kills: recipes made tiny, kinds of growth, precisions, one and two processes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from progan.config import merge
from tiny import options, words

INTERVAL = 32
"""Images between checkpoints."""
BATCH = 16
"""The largest batch of these runs."""
FADING = {"stabilise_kimg": [0.032], "fade_kimg": [0.048], "total_kimg": 0.192}
MORPHING = {"growth": "morph", "stabilise_kimg": [0.032], "morph_kimg": [0.048], "total_kimg": 0.192}
AT_ONCE = {"growth": "none", "stabilise_kimg": [0.16], "total_kimg": 0.16}
STAGES = {"stage_kimg": [0.08], "total_kimg": 0.208}


@dataclass(frozen=True)
class Variant:
    """A kind of run.

    Attributes:
        schedule: Its lengths.
        options: Branches of options besides.
        recipe: What all this is laid over; '' for the defaults.
        processes: How many train together.
    """

    schedule: dict[str, Any] = field(default_factory=lambda: FADING)
    options: dict[str, Any] = field(default_factory=dict)
    recipe: str = ""
    processes: int = 1

    @property
    def name(self) -> str:
        """What a message calls it."""
        kind = self.recipe or f"growth {self.schedule.get('growth', 'fade')}"
        return f"{kind}, {self.processes} process{'es' * (self.processes > 1)}, {self.options}"

    @property
    def longest(self) -> int:
        """Most images between two checkpoints that are begun."""
        return INTERVAL * 3 // 2 + BATCH * int(self.options.get("loss", {}).get("d_steps", 1))

    @property
    def kept(self) -> int:
        """How many checkpoints stay."""
        return int(self.options.get("run", {}).get("keep_checkpoints", 3))

    def words(self, packed: Path, run: Path) -> list[str]:
        """Return the arguments of a run on a packed set."""
        tree = options(
            run={
                "checkpoint_kimg": [INTERVAL / 1000],
                "log_kimg": [0.016],
                "grid": [1, 2],
                "precision": "tf32",
            }
        )
        tree["schedule"] = {"batch_size": [BATCH, 8], **self.schedule}
        recipe = ["--recipe", self.recipe] if self.recipe else []
        return ["train", str(packed), *recipe, "--out", str(run), *words(merge(tree, self.options))]


def branches(**branches: dict[str, Any]) -> dict[str, Any]:
    """Return branches of options."""
    return branches


VARIANTS: tuple[Variant, ...] = (
    Variant(),
    Variant(processes=2),
    Variant(options=branches(loss={"d_steps": 2}, data={"mirror": True},
                             optimizer={"reset": "never", "beta1": 0.5})),
    Variant(MORPHING),
    Variant(options=branches(run={"micro_batch": 4, "keep_checkpoints": 1}, optimizer={"reset": "level"})),
    Variant(FADING, {}, "small-data-256"),
    Variant(options=branches(run={"precision": "bfloat16"})),
    Variant(MORPHING, branches(loss={"penalty_interval": 2}), processes=2),
    Variant(AT_ONCE, branches(loss={"adversarial": "hinge"})),
    Variant(STAGES, {}, "celebahq-256-stages"),
    Variant(FADING, {}, "celeba-256-lsgan"),
    Variant(FADING, branches(run={"precision": "bfloat16"}), "small-data-256", processes=2),
    Variant(MORPHING, {}, "celeba-128-morph"),
    Variant({**STAGES, "fade_delay": 1}, branches(run={"precision": "bfloat16"}), "celeba-128-bf16"),
    Variant(options=branches(run={"precision": "float32"}, loss={"adversarial": "relativistic"},
                             optimizer={"name": "adamw", "weight_decay": 0.1})),
    Variant(FADING, {}, "quickstart"),
    Variant(FADING, {}, "paper-cifar10"),
    Variant(FADING, {}, "paper-celebahq-1024-v2"),
    Variant({**FADING, "start_level": 1}, branches(augment={"policy": ["color"], "adaptive": True},
                                                   loss={"adversarial": "logistic"})),
)  # fmt: skip
