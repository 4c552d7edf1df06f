"""The loop: schedule, batches, step, log, snapshot, checkpoint."""

from __future__ import annotations

import math
import time

import torch

from progan.data.batches import Batches
from progan.data.packed import PackedSet
from progan.errors import CheckpointError, DivergenceError, Interrupted
from progan.files import remove_leftovers
from progan.models import weights
from progan.training import checkpoint
from progan.training.logs import Logs, Stats
from progan.training.optimizer import update_average
from progan.training.plan import Plan
from progan.training.reporting import Reporter
from progan.training.run_folder import RunFolder
from progan.training.samples import SampleGrid, grid_shape, real_grid, write_grid
from progan.training.schedule import Point
from progan.training.signals import StopRequest
from progan.training.state import TrainState
from progan.training.step import Growth, Terms, discriminator_step, generator_step
from progan.version import __version__


class Trainer:
    """Trains one run from its present state to its end.

    Args:
        plan: What to do.
        packed: The pictures.
        folder: Where everything is written.
        device: Where to compute.
        reporter: Who watches.

    Attributes:
        state: Everything that training changes.
    """

    def __init__(
        self, plan: Plan, packed: PackedSet, folder: RunFolder, device: torch.device, reporter: Reporter
    ) -> None:
        config = plan.config
        self.plan, self.packed, self.folder, self.reporter = plan, packed, folder, reporter
        self.config, self.schedule, self.device = config, plan.schedule, device
        self.state = TrainState.create(config, plan.spec, device)
        self.batches = Batches(
            packed,
            packed.indices("train"),
            seed=config.run.seed,
            latent_size=self.state.G.latent_size,
            mirror=config.data.mirror,
            device=device,
            channels_last=device.type != "mps",
        )
        self._rows, columns = grid_shape(*config.run.grid, plan.spec.resolution(plan.spec.max_level))
        self.grid = SampleGrid(
            self._rows,
            columns,
            seed=config.run.seed,
            latent_size=self.state.G.latent_size,
            label_size=self.state.G.label_size,
        )
        self._sums: Terms = {}
        self._iterations = 0

    def resume(self) -> None:
        """Go back to the newest readable checkpoint of the run, if there is one.

        Raises:
            CheckpointError: if there are checkpoints but none fits or can be read.
        """
        for place in (self.folder.path, self.folder.checkpoints, self.folder.samples):
            remove_leftovers(place)
        found, passed_over = checkpoint.newest(self.folder.checkpoints)
        for message in passed_over:
            self.reporter.say(f"{message}; using the one before")
        if found is None:
            return
        record, tensors = found
        try:
            self.state.load_tensors(tensors)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"{self.folder.path}: the checkpoint does not fit ({error})") from None
        self.state.images_seen, self.state.phase = record.images_seen, record.phase
        self.state.set_growth(record.level, record.alpha)
        # A kill may have come between the checkpoint and its generator.
        weights.save(self.state.G_ema, self.folder.generator_file)
        self.reporter.say(f"going on from {record.images_seen:,} images")

    def run(self, stop: StopRequest) -> None:
        """Train to the end of the schedule.

        Args:
            stop: Polled after every iteration.

        Raises:
            Interrupted: if asked to stop; a checkpoint was written.
            DivergenceError: if a loss is not finite; the last checkpoint is whole.
            StorageError: if something cannot be written; the last checkpoint is whole.
        """
        state = self.state
        if state.images_seen >= self.schedule.total:
            self.reporter.say(f"{self.folder.path} is complete at {state.images_seen:,} images")
            return
        self.reporter.begin(self.plan, state.images_seen)
        with Logs(self.folder, state.images_seen) as logs:
            if state.images_seen == 0:
                self._write_reals()
            saved_at = started = time.monotonic()
            seen_at_start = state.images_seen
            while state.images_seen < self.schedule.total:
                before = state.images_seen
                point = self._iterate()
                done = state.images_seen >= self.schedule.total
                # Asked once: a signal that comes from here on is for the next iteration.
                stopped_by = stop.signal_number
                ending = done or stopped_by is not None
                if ending or self.schedule.is_tick(before, state.images_seen):
                    elapsed = time.monotonic() - started
                    rate = (state.images_seen - seen_at_start) / max(elapsed, 1e-9)
                    self._tick(logs, point, rate)
                    started, seen_at_start = time.monotonic(), state.images_seen
                self.reporter.advance(point, state.images_seen)
                due = time.monotonic() - saved_at >= 60 * self.config.run.checkpoint_minutes
                if ending or due or self.schedule.phase_ends(before, state.images_seen):
                    self._save()
                    saved_at = time.monotonic()
                if stopped_by is not None and not done:
                    raise Interrupted(
                        f"stopped at {state.images_seen:,} images, checkpoint written; to go on: "
                        f"progan train --resume {self.folder.path}",
                        stopped_by,
                    )

    def _iterate(self) -> Point:
        """Update D `d_steps` times, the average after each, then G once. Returns where that was."""
        state, config = self.state, self.config
        clock = state.images_seen
        point = self.schedule.at(clock)
        self._enter(point)
        alpha = torch.tensor(point.alpha, device=self.device) if point.fading else None
        growth = Growth(point.level, alpha)
        networks = (state.G, state.D)
        n = point.batch_size
        means: Terms = {}
        for _ in range(config.loss.d_steps):
            batch = self.batches.discriminator(state.images_seen, n, point.level, alpha)
            d_terms = discriminator_step(networks, state.d_adam, batch, growth, config, point.d_lr)
            for name, value in d_terms.items():
                means[f"D/{name}"] = means.get(f"D/{name}", 0) + value / config.loss.d_steps
            update_average(state.G_ema, state.G, config.optimizer.ema_decay)
            state.images_seen += n
        g_batch = self.batches.generator(clock, n)
        g_terms = generator_step(networks, state.g_adam, g_batch, growth, config, point.g_lr)
        self._note(means | {f"G/{name}": value for name, value in g_terms.items()})
        return point

    def _enter(self, point: Point) -> None:
        """Take note of where the networks stand; reset Adam where the schedule asks for it."""
        state = self.state
        grew = point.level > state.G.level
        state.set_growth(point.level, point.alpha)
        if point.phase.name == state.phase:
            return
        reset = self.config.optimizer.reset
        if state.phase and (reset == "phase" or (reset == "level" and grew)):
            state.g_adam.reset()
            state.d_adam.reset()
        state.phase = point.phase.name

    def _note(self, terms: Terms) -> None:
        """Add to the sums of the log interval; they stay on the device until a log point reads them."""
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._iterations += 1
        if self.device.type == "cpu":
            self._check_finite(terms)

    def _check_finite(self, terms: Terms) -> None:
        """Stop at a loss that is not finite, before anything is saved."""
        wrong = [name for name, value in terms.items() if not math.isfinite(float(value))]
        if wrong:
            raise DivergenceError(
                f"{', '.join(wrong)} became NaN or infinite before {self.state.images_seen:,} images "
                f"({self.state.phase}). Nothing of it was saved: the last checkpoint in "
                f"{self.folder.checkpoints} is whole. Try lower learning rates from there: "
                f"progan train --resume {self.folder.path} --optimizer.g-lr ... --optimizer.d-lr ...; "
                f"if it diverges at once again, delete the newest file there to go further back"
            )

    def _tick(self, logs: Logs, point: Point, rate: float) -> None:
        """Write a log point and a sample grid."""
        means = {name: value / self._iterations for name, value in self._sums.items()}
        self._check_finite(means)
        stats: Stats = {
            "images_seen": self.state.images_seen,
            "level": point.level,
            "resolution": "x".join(map(str, self.state.G.resolution(point.level))),
            "phase": point.phase.kind,
            "alpha": round(point.alpha, 6),
            "batch_size": point.batch_size,
            "g_lr": point.g_lr,
            "d_lr": point.d_lr,
            "images_per_second": round(rate, 3),
            **{name: float(value) for name, value in means.items()},
        }
        self._sums, self._iterations = {}, 0
        logs.write(stats)
        self._write_samples()
        self.reporter.tick(stats)

    def _write_samples(self) -> None:
        height, width = self.state.G_ema.resolution()
        name = f"{self.state.images_seen:09d}_{height}x{width}.png"
        write_grid(self.grid.draw(self.state.G_ema), self.grid.columns, self.folder.samples / name)

    def _write_reals(self) -> None:
        pictures = real_grid(self.packed, self.batches.indices, self._rows, self.grid.columns)
        write_grid(pictures, self.grid.columns, self.folder.samples / "reals.png")

    def _save(self) -> None:
        """Write a checkpoint and the averaged generator."""
        state = self.state
        record = checkpoint.Record(
            images_seen=state.images_seen,
            phase=state.phase,
            level=state.G.level,
            alpha=state.G.alpha,
            config=self.config.model_dump(mode="json"),
            fingerprint=self.packed.fingerprint,
            versions={"progan": __version__, "torch": str(torch.__version__)},
        )
        checkpoint.save(self.folder.checkpoints, record, state.tensors(), self.config.run.keep_checkpoints)
        weights.save(state.G_ema, self.folder.generator_file)
