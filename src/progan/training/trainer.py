"""The loop: schedule, batches, step, log, snapshot, checkpoint."""

from __future__ import annotations

import math
import time

import torch

from progan.config import Config
from progan.data.packed import PackedSet
from progan.errors import CheckpointError, DivergenceError, Interrupted, ProganError
from progan.evaluation.choice import ExtractorFile
from progan.evaluation.monitor import Monitor
from progan.files import remove_leftovers
from progan.models import weights
from progan.training import checkpoint
from progan.training.logs import Logs, Stats
from progan.training.objective import Terms
from progan.training.plan import Plan
from progan.training.precision import needs_loss_scaling
from progan.training.reporting import Reporter
from progan.training.run_folder import RunFolder
from progan.training.samples import SampleGrid, grid_shape, real_grid, write_grid
from progan.training.schedule import Point
from progan.training.signals import StopRequest
from progan.training.updates import Updates
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
        self.monitor = make_monitor(config, packed, device)
        self.updates = Updates(plan, packed, device, reporter.say)
        self.state = self.updates.state
        self._rows, columns = grid_shape(*config.run.grid, plan.spec.resolution(plan.spec.max_level))
        self.grid = SampleGrid(self._rows, columns, seed=config.run.seed, G=self.state.G)
        self._sums: Terms = {}
        self._counts: dict[str, int] = {}
        self._saved_at = self._logged_at = 0.0
        self._logged = 0

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
            self._saved_at = self._logged_at = time.monotonic()
            self._logged = state.images_seen
            while state.images_seen < self.schedule.total:
                before = state.images_seen
                point = self.schedule.at(before)
                for terms in self.updates.iterate(point):
                    self._note(terms)
                after = state.images_seen
                done = after >= self.schedule.total
                halt = self.schedule.stops(before, after)
                # Asked once: a signal that comes from here on is for the next iteration.
                stopped_by = stop.signal_number
                hurried = stopped_by is not None
                self._write_what_is_due(logs, before, ending=done or halt or hurried, hurried=hurried)
                self.reporter.advance(point, after)
                if stopped_by is not None and not done:
                    raise Interrupted(
                        f"stopped at {after:,} images, checkpoint written; to go on: "
                        f"progan train --resume {self.folder.path}",
                        stopped_by,
                    )
                if halt:
                    self.reporter.say(
                        f"{point.phase.name} is done (run.stop_after {self.config.run.stop_after}); the same "
                        f"command, or progan train --resume {self.folder.path}, goes on with the next"
                    )
                    return

    def _write_what_is_due(self, logs: Logs, before: int, *, ending: bool, hurried: bool) -> None:
        """Write log point, sample grid and checkpoint after an iteration, each where it is due.

        Args:
            logs: Where log points go.
            before: The clock before the iteration.
            ending: It was the last one for now, so everything is due.
            hurried: A signal asked to stop.
        """
        schedule, after = self.schedule, self.state.images_seen
        # Not because of a signal: who sent it waits a few seconds for the checkpoint, not for metrics.
        measured = self.monitor is not None and schedule.is_measured(before, after) and not hurried
        if ending or measured or schedule.is_log(before, after):
            rate = (after - self._logged) / max(time.monotonic() - self._logged_at, 1e-9)
            self._log(logs, schedule.at(before), rate, measured=measured)
            self._logged, self._logged_at = after, time.monotonic()
        if ending or schedule.is_snapshot(before, after):
            self._write_samples()
        due = schedule.is_checkpoint(before, after) or schedule.phase_ends(before, after)
        overdue = time.monotonic() - self._saved_at >= 60 * self.config.run.checkpoint_minutes
        if ending or due or overdue:
            self._save()
            self._saved_at = time.monotonic()

    def _note(self, terms: Terms) -> None:
        """Add to the sums of the log interval; they stay on the device until a log point reads them."""
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        if self.device.type == "cpu":
            self._check_finite(terms)

    def _check_finite(self, terms: Terms) -> None:
        """Stop at a loss that is not finite, before anything is saved."""
        wrong = [name for name, value in terms.items() if not math.isfinite(float(value))]
        if wrong:
            what = f"{', '.join(wrong)} became NaN or infinite before {self.state.images_seen:,} images"
            if not checkpoint.paths(self.folder.checkpoints):
                raise DivergenceError(
                    f"{what} ({self.state.phase}). Nothing had been saved yet: begin again in a new run "
                    f"folder, first of all with lower rates: --optimizer.g-lr ... --optimizer.d-lr ..."
                )
            raise DivergenceError(
                f"{what} ({self.state.phase}). Nothing of it was saved: the last checkpoint in "
                f"{self.folder.checkpoints} is whole. Try lower learning rates from there: "
                f"progan train --resume {self.folder.path} --optimizer.g-lr ... --optimizer.d-lr ...; "
                f"if it diverges at once again, delete the newest file there to go further back"
            )

    def _log(self, logs: Logs, point: Point, rate: float, *, measured: bool) -> None:
        """Write a log point: means over the updates since the last one, and metrics if they are due."""
        means = {name: value / self._counts[name] for name, value in self._sums.items()}
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
            **self._gauges(),
            **{name: float(value) for name, value in means.items()},
        }
        if measured:
            stats |= self._measure()
        self._sums, self._counts = {}, {}
        logs.write(stats)
        self.reporter.tick(stats)

    def _measure(self) -> Stats:
        """Return the metrics; if they cannot be had that is said, and does not end the training."""
        assert self.monitor is not None
        try:
            return dict(self.monitor.measure(self.state.G_ema))
        except ProganError as error:
            self.reporter.say(f"not measured at {self.state.images_seen:,} images: {error}")
            return {}

    def _gauges(self) -> Stats:
        """Return what adjusts itself during training, where it does."""
        gauges: Stats = {}
        if self.state.augmenter.probability is not None:
            gauges["augment_probability"] = float(self.state.augmenter.probability)
        if needs_loss_scaling(self.config.run.precision):
            gauges["g_loss_scale"] = float(self.state.g_optimizer.scale)
            gauges["d_loss_scale"] = float(self.state.d_optimizer.scale)
        return gauges

    def _write_samples(self) -> None:
        height, width = self.state.G_ema.resolution()
        name = f"{self.state.images_seen:09d}_{height}x{width}.png"
        write_grid(self.grid.draw(self.state.G_ema), self.grid.columns, self.folder.samples / name)

    def _write_reals(self) -> None:
        pictures = real_grid(self.packed, self.updates.batches.indices, self._rows, self.grid.columns)
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


def make_monitor(config: Config, packed: PackedSet, device: torch.device) -> Monitor | None:
    """Return what measures the generator during a run, or None if no metrics are asked for.

    Raises:
        ProganError: if an extractor is missing, or there are too few pictures.
    """
    options = config.monitor
    if not options.metrics:
        return None
    return Monitor(
        packed,
        options.metrics,
        n=options.num_images,
        part=config.data.part,
        mirror=config.data.mirror,
        seed=config.run.seed,
        device=device,
        extractor=ExtractorFile(options.extractor, options.resize, options.normalise),
    )
