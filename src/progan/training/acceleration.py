"""How the gradients of a phase are computed: operation by operation, recorded, compiled, or both.

Compiling takes minutes and pays where many images are left to compute; recording costs one iteration and pays
wherever there is a GPU. On a CPU, compiled updates were slower than plain ones (docs/performance.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum

import torch

from progan.config import Config
from progan.errors import ConfigError
from progan.models.fused.check import missing
from progan.training.compiled_gradients import CheckedGradients, CompiledGradients
from progan.training.cuda_graphs import Capture, CudaCapture, RecordedGradients, Shelf
from progan.training.precision import check_compiler
from progan.training.schedule import Phase, Point
from progan.training.step import EagerGradients, GradientFunction, Networks, Update, updates_of


class Moment(IntEnum):
    """What happens at which iteration of a phase, if it is to be found out whether compiling pays."""

    BEGIN = 20
    DECIDE = 60
    COMPILED = 61
    BEGIN_COMPILED = 80
    COMPARE = 120


SAVED = 0.2
"""Share of the time that compiling is expected to save, until it has been measured."""

COMPILE_SECONDS = 120.0
"""What compiling the updates of a phase is expected to take, until it has been measured."""


FASTER = 1.01
"""Times as fast as before compiled updates must be to be kept: less is noise."""

Functions = dict[Update, GradientFunction]
"""What finds the gradients of each update of an iteration."""


def use_kernels(networks: Networks, device: torch.device, say: Callable[[str], None]) -> None:
    """Let biases be added by what follows them, if the device computes that right; else say why not."""
    reason = missing(device)
    if reason is not None:
        say(f"going on without fused kernels: {reason} (run.fused_kernels false leaves the attempt out)")
    for network in networks:
        network.use_kernels(reason is None)


def pays(images_left: int, images_per_second: float, compile_seconds: float, saved: float = SAVED) -> bool:
    """Return whether compiling is expected to save more time than it takes.

    Args:
        images_left: Images that the phase still shows.
        images_per_second: How fast it is as it is, above 0.
        compile_seconds: What compiling takes.
        saved: Share of the time that it saves.
    """
    return images_left / images_per_second * saved > compile_seconds


class Acceleration:
    """Chooses, as a run goes on, among what the branch run of the configuration allows.

    `say` is told what is chosen, and why not. What captures records functions; None for CUDA's way, on CUDA.
    """

    def __init__(
        self,
        networks: Networks,
        config: Config,
        device: torch.device,
        say: Callable[[str], None],
        capture: Capture | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._networks, self._config, self._device, self._say = networks, config, device, say
        self._clock = clock
        self._seconds, self._saved = COMPILE_SECONDS, SAVED
        on_cuda = device.type == "cuda"
        if capture is None and on_cuda and config.run.cuda_graphs:
            capture = CudaCapture(device)
        self._capture, self._shelf = capture, Shelf()
        if on_cuda and config.run.fused_kernels:
            use_kernels(networks, device, say)
        self._may_compile = config.run.compile == "auto" and on_cuda and not config.run.deterministic
        self._compiled: Functions | None = None
        self._plain = self._make(compiled=False)
        self._phase: Phase | None = None
        self._iterations, self._begun, self._plain_rate = 0, 0.0, 0.0
        self._chosen = self._plain
        if config.run.compile == "always":
            self._chosen = self._compiled = self._make(compiled=True)

    def functions(self, point: Point, images_seen: int) -> Functions:
        """Return how to compute the gradients of the iteration at `images_seen`; called once for each."""
        if not self._may_compile:
            return self._chosen
        if point.phase != self._phase:
            self._phase, self._iterations, self._chosen = point.phase, 0, self._plain
        self._iterations += 1
        is_compiled = self._chosen is not self._plain
        match self._iterations:
            case Moment.BEGIN:
                self._begun = self._now()
            case Moment.DECIDE:
                self._plain_rate = self._rate(Moment.DECIDE - Moment.BEGIN, point)
                left = point.phase.end - images_seen
                if pays(left, self._plain_rate, self._seconds, self._saved):
                    self._compile(point)
            case Moment.COMPILED if is_compiled:
                self._seconds = self._now() - self._begun
                self._say(f"{point.phase.name}: compiled in {self._seconds:.0f} s")
            case Moment.BEGIN_COMPILED if is_compiled:
                self._begun = self._now()
            case Moment.COMPARE if is_compiled:
                self._keep_the_faster(point)
        return self._chosen

    def _keep_the_faster(self, point: Point) -> None:
        """Compare the speed of compiled updates with that of the others, which this phase has measured."""
        rate = self._rate(Moment.COMPARE - Moment.BEGIN_COMPILED, point)
        self._saved = max(0.0, 1 - self._plain_rate / rate)
        speeds = f"{rate:,.0f} images/s compiled and {self._plain_rate:,.0f} before"
        if rate > FASTER * self._plain_rate:
            self._say(f"{point.phase.name}: {speeds}")
            return
        self._say(f"{point.phase.name}: {speeds}, so its updates are not compiled any more")
        self._shelf.recordings.clear()
        self._chosen = self._plain

    def _rate(self, iterations: int, point: Point) -> float:
        """Return the images a second since the clock was started."""
        images = iterations * point.batch_size * self._config.loss.d_steps
        return images / max(self._now() - self._begun, 1e-9)

    def _compile(self, point: Point) -> None:
        """Go over to compiled updates, unless there is no compiler."""
        self._begun = self._now()
        try:
            check_compiler(self._device)
        except ConfigError as error:
            self._may_compile = False
            self._say(f"going on without compiling: {error}")
            return
        self._say(
            f"{point.phase.name}: compiling the updates, which now show {self._plain_rate:,.0f} images/s; "
            f"the next iteration takes a minute or more (run.compile never leaves it out)"
        )
        if self._compiled is None:
            self._compiled = self._make(compiled=True)
        self._shelf.recordings.clear()  # their memory is of more use to those of the compiled functions
        self._chosen = self._compiled

    def _make(self, *, compiled: bool) -> Functions:
        """Return functions, recorded where that is possible."""
        return {update: self._make_one(update, compiled) for update in updates_of(self._config)}

    def _make_one(self, update: Update, compiled: bool) -> GradientFunction:
        function: GradientFunction = EagerGradients(self._networks, update, self._config)
        if compiled:
            made = CompiledGradients(self._networks, update, self._config)
            function = CheckedGradients(made, function, self._config, self._say)
        if self._capture is None:
            return function
        return RecordedGradients(function, self._capture, self._say, self._shelf)

    def _now(self) -> float:
        """Return the time when everything begun so far is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return self._clock()
