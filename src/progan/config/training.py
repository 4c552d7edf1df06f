"""Options of training: growth, losses, optimizer, and how a run is carried out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from progan.config.fields import (
    Branch,
    Count,
    NonNegative,
    OwnName,
    PerLevelCount,
    PerLevelLength,
    PerLevelRate,
    Positive,
    Share,
    as_rule,
    option,
)
from progan.config.parts.part import Part, PartOptions, Parts

Adversarial = Literal["wgan", "least_squares", "logistic", "hinge", "relativistic"]
Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LossFacts:
    """What the rest of a configuration has to know of an adversarial loss.

    Attributes:
        usual: What goes with it if nothing is said, among gp_lambda, r1_gamma, r2_gamma, drift and
            target_noise; the others are 0.
        middle: The score above which D takes an image for real; None if scores have no such zero.
        paired: Whether G's loss needs the scores of real images, too, as partners of the fakes.
        mirrored: Whether G's loss changes with the scores of fakes as D's does, with the other sign.
    """

    usual: Mapping[str, float] = field(default_factory=dict)
    middle: float | None = None
    paired: bool = False
    mirrored: bool = False


LOSSES: dict[str, LossFacts] = {
    "wgan": LossFacts({"gp_lambda": 10.0, "drift": 0.001}, mirrored=True),
    "least_squares": LossFacts({"target_noise": 0.3}, middle=0.5),
    "logistic": LossFacts({"r1_gamma": 10.0}, middle=0.0),
    "hinge": LossFacts({"gp_lambda": 10.0}, middle=0.0),
    "relativistic": LossFacts({"r1_gamma": 1.0, "r2_gamma": 1.0}, paired=True),
}
"""The adversarial losses that ship with progan."""
DECIDED = ("gp_lambda", "r1_gamma", "r2_gamma", "drift", "target_noise")
"""Options that the adversarial loss decides if nothing is said."""


class LossPart(Part):
    """What a configuration knows of an adversarial loss of one's own."""

    chosen_by = "loss.adversarial"
    facts: ClassVar[LossFacts] = LossFacts()


class ScheduleOptions(Branch):
    """Growth: lengths in kimg (1,000 real images shown to D); per-level lists may be shorter."""

    growth: Literal["fade", "morph", "none"] = option(
        "fade",
        "'fade' blends each new level in; 'morph' computes it from the trained ones, the function "
        "unchanged, and blends its activations in; 'none' trains at full size from the start.",
    )
    start_level: int = option(0, "Level that training begins with (0 = base shape).", ge=0)
    start_alpha: Share = option(
        1.0,
        "Below 1: training begins with that level coming in, from this alpha on, as networks that were "
        "trained below it need (--init).",
    )
    stabilise_kimg: PerLevelLength = option((600.0,), "Training at each level after its fade.")
    fade_kimg: PerLevelLength = option((600.0,), "Fading each level in; entry 0 is not used.")
    stabilise_epochs: PerLevelLength | None = option(
        None, "If given, instead of stabilise_kimg: how often all pictures are shown."
    )
    fade_epochs: PerLevelLength | None = option(
        None, "If given, instead of fade_kimg: how often all pictures are shown."
    )
    stage_kimg: PerLevelLength | None = option(
        None, "If given, instead of both: fade and training of each level together."
    )
    fade_fraction: Share = option(0.5, "Share of each stage_kimg in which alpha rises.")
    morph_kimg: PerLevelLength = option(
        (20.0,),
        "With growth morph: blending the activations and norms of each new level in; entry 0 is not used.",
    )
    fade_delay: int = option(
        0,
        "Iterations at the start of a fade or morph during which alpha stays 0; they lengthen it, but not a"
        " stage.",
        ge=0,
    )
    alpha: Literal["linear", "smooth"] = option(
        "linear", "How alpha rises: evenly, or slowly at both ends (3 a^2 - 2 a^3)."
    )
    total_kimg: NonNegative | None = option(
        None, "Whole length; default: all phases. Longer goes on at the last level."
    )
    batch_size: PerLevelCount = option((16,), "Images in a batch, from the fade of a level on.")

    @model_validator(mode="after")
    def _check(self) -> ScheduleOptions:
        if self.growth == "none" and self.start_level:
            raise ValueError(
                f"schedule.growth none trains at the last level from the start: leave out "
                f"schedule.start_level {self.start_level}"
            )
        epochs = [name for name in ("stabilise_epochs", "fade_epochs") if getattr(self, name) is not None]
        if self.stage_kimg is not None and epochs:
            raise ValueError(
                f"schedule.stage_kimg and schedule.{epochs[0]} say the same thing: leave one out"
            )
        return self


class LossOptions(Branch):
    """The adversarial loss, the penalties of D's gradients, and the weight of the labels."""

    parts: ClassVar[Parts] = Parts()

    adversarial: Adversarial = option(
        "wgan",
        "'wgan' (section 2), 'least_squares' with noisy targets, 'logistic' (non-saturating), 'hinge', or "
        "'relativistic' (pairs of real and fake, as R3GAN).",
    )
    gp_lambda: NonNegative | None = option(
        None, "Weight of the gradient penalty between reals and fakes; default: 10 with wgan and hinge."
    )
    gp_target: Positive = option(1.0, "Gradient norm that is not penalised (gamma).")
    gp_sides: Literal["two", "one"] = option(
        "two", "Penalise norms on both sides of the target, or larger ones only."
    )
    r1_gamma: NonNegative | None = option(
        None, "Weight of |grad D(real)|^2 / 2; default: 10 with logistic, 1 with relativistic."
    )
    r2_gamma: NonNegative | None = option(
        None, "Weight of |grad D(fake)|^2 / 2; default: 1 with relativistic."
    )
    penalties: tuple[OwnName, ...] = option((), "Penalties of your own, which --plugin defines, by name.")
    penalty_interval: int = option(
        1, "Compute the penalties at every k-th update of D only, k times as strong.", ge=1
    )
    drift: NonNegative | None = option(None, "Weight of D(real)^2, with wgan only; default there: 0.001.")
    target_noise: NonNegative | None = option(
        None, "Deviation of the noise on the targets 1 and 0 of least_squares; default there: 0.3."
    )
    target_noise_per: Literal["batch", "sample"] = option(
        "batch", "Draw that noise once for a batch, or for each sample."
    )
    label_weight: NonNegative = option(1.0, "Weight of the label loss (AC-GAN).")
    d_steps: int = option(1, "Updates of D for each update of G.", ge=1)
    updates: Literal["alternating", "simultaneous"] = option(
        "alternating",
        "'alternating': D, then G with new fakes; 'simultaneous': both at once, from fakes that are made and "
        "judged once.",
    )


class Loss(LossOptions):
    """The options of the loss with nothing left open: what the adversarial loss decides is filled in."""

    gp_lambda: NonNegative
    r1_gamma: NonNegative
    r2_gamma: NonNegative
    drift: NonNegative
    target_noise: NonNegative

    @property
    def facts(self) -> LossFacts:
        """What is to be known of the adversarial loss."""
        return loss_facts(self.adversarial, self.parts)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        if isinstance(given, LossOptions):
            given = given.model_dump()
        if not isinstance(given, dict):
            return given
        usual = dict.fromkeys(DECIDED, 0.0) | dict(
            loss_facts(given.get("adversarial", "wgan"), cls.parts).usual
        )
        return {**given, **{name: value for name, value in usual.items() if given.get(name) is None}}

    @model_validator(mode="after")
    def _check(self) -> Loss:
        own = self.adversarial in self.parts.of("loss.adversarial")
        if self.drift and not own and "drift" not in self.facts.usual:
            raise ValueError(
                f"loss.drift {self.drift:g} belongs to the wgan loss, whose scores have no bounds; "
                f"leave it out with loss.adversarial {self.adversarial}"
            )
        if self.target_noise and not own and "target_noise" not in self.facts.usual:
            raise ValueError(
                f"loss.target_noise {self.target_noise:g} belongs to the least_squares loss; leave it out "
                f"with loss.adversarial {self.adversarial}"
            )
        if self.updates == "simultaneous" and self.d_steps > 1:
            raise ValueError(
                f"loss.updates simultaneous has one update of D for each of G: leave out loss.d_steps "
                f"{self.d_steps}, or take loss.updates alternating"
            )
        computed = self.gp_lambda + self.r1_gamma + self.r2_gamma or self.penalties
        if self.penalty_interval > 1 and not computed:
            raise ValueError(
                f"loss.penalty_interval {self.penalty_interval} needs a penalty: set loss.gp_lambda, "
                f"loss.r1_gamma or loss.r2_gamma"
            )
        return self


class PenaltyOptions(PartOptions):
    """The options that every penalty of one's own has."""

    weight: NonNegative = option(1.0, "Weight in the loss.")


def loss_facts(name: object, parts: Parts) -> LossFacts:
    """Return what is to be known of an adversarial loss, shipped or of one's own; nothing of unknown ones."""
    own = parts.of("loss.adversarial").get(str(name))
    if own is not None and issubclass(own, LossPart):
        return own.facts
    return LOSSES.get(str(name), LossFacts())


class OptimizerOptions(Branch):
    """Adam in the original's form (epsilon outside the bias correction), and the averaged generator."""

    name: Literal["adam", "adamw"] = option("adam", "Adam, or with decoupled weight decay.")
    g_lr: PerLevelRate = option((0.001,), "Learning rate of G per level.")
    d_lr: PerLevelRate = option((0.001,), "Learning rate of D per level.")
    beta1: float = option(0.0, "Adam's decay of the first moment.", ge=0, lt=1)
    beta2: float = option(0.99, "Adam's decay of the second moment.", ge=0, lt=1)
    eps: Positive = option(1e-8, "Adam's epsilon.")
    weight_decay: NonNegative = option(0.0, "Weight decay of adamw, times the learning rate.")
    clip_norm: Positive | None = option(
        None, "Largest norm of all gradients of a network together; default: no limit."
    )
    reset: Literal["never", "level", "phase"] = option(
        "phase", "Forget Adam's moments never, at each new level, or also when a fade ends."
    )
    ema_decay: float = option(0.999, "Decay of the averaged generator per D step.", ge=0, lt=1)
    ema_half_life_kimg: Positive | None = option(
        None, "If given, instead of ema_decay: images after which a weight counts half, in kimg."
    )
    ema_warmup: Positive | None = option(
        None,
        "If given, the half-life is at most this share of the images seen, so that an early average follows"
        " quickly.",
    )

    @model_validator(mode="after")
    def _check(self) -> OptimizerOptions:
        if self.weight_decay and self.name != "adamw":
            raise ValueError(
                f"optimizer.weight_decay {self.weight_decay:g} has no effect with optimizer.name "
                f"{self.name}: use adamw, or leave it out"
            )
        return self


def _in_words(value: object) -> object:
    """Read true and false, which files may hold, as the words that stand for them."""
    return {True: "always", False: "never"}[value] if isinstance(value, bool) else value


class RunOptions(Branch):
    """How a run is carried out: seed, device, precision, memory, and what is written when."""

    seed: int = option(0, "Decides every random choice of the run.", ge=0, lt=2**63)
    device: str = option("auto", "'auto' (CUDA, then MPS, then CPU), 'cpu', 'cuda:1', ...")
    precision: Precision = option(
        "tf32",
        "'float32'; 'tf32' (float32, with TF32 products where CUDA has them); 'bfloat16' or 'float16' "
        "products with float32 weights; or 'auto': bfloat16 where the device is made for it, float16 on GPUs "
        "that are made for that alone (V100, T4), else tf32.",
    )
    compile: Annotated[Literal["auto", "always", "never"], BeforeValidator(_in_words)] = option(
        "auto",
        "Compile the updates with torch.compile; 'auto' does so on CUDA, in phases that are long enough to "
        "regain the time it takes.",
    )
    cuda_graphs: bool = option(
        True,
        "On CUDA, record each kind of update once and replay it, so that starting its operations costs "
        "nothing.",
    )
    fused_kernels: bool = option(
        True,
        "On CUDA with Triton, compute bias, leaky ReLU and pixel norm in one kernel, and their gradients in "
        "another.",
    )
    deterministic: bool = option(
        False, "Only operations that give the same bits each time, on CUDA too; slower there."
    )
    threads: int | None = option(None, "CPU threads; default: PyTorch's choice.", ge=1)
    micro_batch: PerLevelCount | None = option(
        None, "Largest part of a batch that is computed at once, per level (saves memory)."
    )
    memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = option(
        None, "Share of the GPU's memory to use at most; default: no limit."
    )
    timeout_minutes: Positive = option(
        60.0, "With several processes: end the run when none of them has moved for so long."
    )
    log_kimg: PerLevelRate = option((10.0,), "Interval of log points, per level.")
    log_minutes: NonNegative = option(
        1.0, "Longest time without a word on the terminal, between log points too; 0: log points alone."
    )
    snapshot_kimg: PerLevelRate | None = option(
        None, "Interval of sample grids, per level; default: at each log point."
    )
    checkpoint_kimg: PerLevelRate | None = option(
        None, "Interval of checkpoints, per level, besides checkpoint_minutes; default: none."
    )
    checkpoint_minutes: NonNegative = option(10.0, "Time between checkpoints.")
    keep_checkpoints: Annotated[int | str, BeforeValidator(as_rule)] = option(
        3,
        "Which checkpoints are kept: so many of the newest; 'all'; or, beside the newest 3, one 'every 500 "
        "kimg' or the 'best 3' by run.best.",
    )
    generator_kimg: NonNegative | None = option(
        None,
        "Interval at which generators alone are kept, in 16 bits, besides the ends of phases; 0: none; "
        "default: a fiftieth of the run.",
    )
    best: str = option(
        "swd/mean",
        "What `best` goes by: a number of a metric, such as swd/mean, fid or pr/recall.",
        min_length=1,
    )
    grid: tuple[Count, Count] = option((6, 10), "Rows and columns of the sample grids.")
    grid_channels: tuple[int, ...] | None = option(
        None,
        "Channels that grids show, counted from 0: one as gray, or three as RGB; default: all of up to 4, "
        "else the first three.",
    )
    stop_after: Literal["end", "level", "phase"] = option(
        "end",
        "Stop at the end of the schedule, of each level, or of each phase; the same command goes on with "
        "the next one.",
    )
    on_divergence: Literal["stop", "rollback"] = option(
        "stop",
        "At NaN, infinity or an alarm that stops: end the run, or go back to the last checkpoint and on "
        "with other batches.",
    )
    max_rollbacks: int = option(3, "How often a run may go back in all.", ge=0)
    rollback_lr: Annotated[float, Field(gt=0, le=1)] = option(
        1.0, "What both learning rates are multiplied by at each going back."
    )
    on_alarm: Literal["warn", "stop"] = option(
        "warn",
        "When gradients explode, scores run away or pictures lose their variation: say so, or treat it as a"
        " divergence.",
    )
