"""The loop: schedule, batches, step, log, snapshot, checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor

from progan.data.packed import PackedSet
from progan.distributed.ranks import ALONE, Ranks
from progan.errors import CheckpointError, ConfigError, DataError, DivergenceError, Interrupted
from progan.generation.grids import write_grid
from progan.models import weights
from progan.runs import checkpoint, divergence
from progan.runs.checkpointing import Saver
from progan.runs.divergence import Alarm, Circumstances
from progan.runs.logs import Interval, Logs, NoLogs, Stats
from progan.runs.monitors import make_gap_watch, make_monitor, measure_all
from progan.runs.reporter import Reporter
from progan.runs.run_folder import RunFolder
from progan.runs.sample_grid import SampleGrid, grid_shape, real_grid
from progan.system.files import remove_leftovers
from progan.system.signals import StopRequest
from progan.training.iteration import Iteration
from progan.training.precision import needs_loss_scaling
from progan.training.schedule import Point
from progan.training.spec import Spec


class Trainer:
    """Trains one run from its present state to its end.

    Args:
        plan: What to do.
        packed: The pictures.
        folder: Where everything is written.
        device: Where to compute.
        reporter: Who watches.
        ranks: The processes of the run, which all train; the first writes and measures.

    Attributes:
        state: Everything that training changes.
    """

    def __init__(
        self,
        spec: Spec,
        packed: PackedSet,
        folder: RunFolder,
        device: torch.device,
        reporter: Reporter,
        ranks: Ranks = ALONE,
    ) -> None:
        config = spec.config
        self._ranks = ranks
        self.spec, self.packed, self.folder, self.reporter = spec, packed, folder, reporter
        self.config, self.schedule, self.device = config, spec.schedule, device
        measure = make_monitor(config, packed, device, ranks)
        self.gap = make_gap_watch(config, packed, device, ranks, reporter)
        self.updates = Iteration(spec, packed, device, reporter.say, ranks)
        self.state = self.updates.state
        self._rows, columns = grid_shape(*config.run.grid, spec.image.resolution(spec.image.max_level))
        self.grid = SampleGrid(self._rows, columns, seed=config.run.seed, G=self.state.G)
        self._stop = StopRequest()
        self._watches: list[Callable[[], dict[str, float]]] = []
        if measure is not None:
            self._watches.append(lambda: measure(self.state.G_ema, self._is_measuring_over))
        if (gap := self.gap) is not None:
            self._watches.append(lambda: gap.measure(self.state, self._is_measuring_over))
        self._is_measured = bool(config.monitor.metrics) or config.monitor.duality_gap
        self._saver = Saver(folder, config, packed.fingerprint, ranks)
        self._interval, self._alarm = Interval(), Alarm()
        self._went_back_to: int | None = None
        self._logged_at, self._logged = 0.0, 0

    def resume(self) -> None:
        """Go back to the newest readable checkpoint of the run, if there is one.

        Raises:
            CheckpointError: if there are checkpoints but none fits or can be read.
        """
        if self._ranks.first:
            for place in (self.folder.path, self.folder.checkpoints, self.folder.samples):
                remove_leftovers(place)
        record, passed_over = self._saver.restore(self.state)
        for message in passed_over:
            self.reporter.say(f"{message}; using the one before")
        self._saver.compare(self.state)
        if record is None:
            if self._ranks.first:
                self._require_nothing_trained()
            return
        self.updates.batches.attempt = record.attempt
        if self._ranks.first:  # a kill may have come between the checkpoint and its generator
            weights.save(self.state.G_ema, self.folder.generator_file)
        self.reporter.say(f"going on from {record.images_seen:,} images")

    def _require_nothing_trained(self) -> None:
        """Refuse to begin where a generator, which is only written with a checkpoint, would be replaced.

        Raises:
            CheckpointError: if there is one.
        """
        if self.folder.generator_file.exists():
            raise CheckpointError(
                f"{self.folder.checkpoints} holds no checkpoint any more, and {self.folder.generator_file} "
                f"is of a training that cannot go on without; put one back, or begin anew with another --out"
            )

    def run(self, stop: StopRequest) -> None:
        """Train to the end of the schedule.

        Args:
            stop: Polled after every iteration.

        Raises:
            Interrupted: if asked to stop; a checkpoint was written.
            DivergenceError: if something is not finite, or an alarm stops the run, and going back is not
                asked for or was of no use; the last checkpoint is whole.
            StorageError: if something cannot be written; the last checkpoint is whole.
            DataError, ConfigError: if pictures cannot be read any more, or memory does not suffice; a
                checkpoint was written.
        """
        state, self._stop = self.state, stop
        if state.images_seen >= self.schedule.total:
            self.reporter.say(f"{self.folder.path} is complete at {state.images_seen:,} images")
            return
        self.reporter.begin(self.spec, state.images_seen)
        with self._saver.writer, ExitStack() as ending:
            ending.callback(self.updates.batches.rest)
            while True:
                try:
                    self._train(stop)
                    return
                except DivergenceError as error:
                    self._go_back(error)

    def _train(self, stop: StopRequest) -> None:
        """Train from the present state to the end; see `run`."""
        state = self.state
        with Logs(self.folder, state.images_seen) if self._ranks.first else NoLogs() as logs:
            self._interval, self._alarm = Interval(), Alarm(logs.kept)
            if state.images_seen == 0:
                self._begin()
            self._saver.pace.restart()
            self._logged_at, self._logged = time.monotonic(), state.images_seen
            while state.images_seen < self.schedule.total:
                before = state.images_seen
                point = self._point(before)
                self._iterate_or_save(point)
                after = state.images_seen
                done = after >= self.schedule.total
                halt = self.schedule.stops(before, after)
                # Asked once: a signal that comes from here on is for the next iteration.
                stopped_by, overdue = self._agree(stop)
                hurried = stopped_by is not None
                ending = done or halt or hurried
                self._write_what_is_due(logs, before, ending=ending, hurried=hurried, overdue=overdue)
                self.reporter.advance(point, after)
                if done or halt or hurried:
                    self._finish(point, halt=halt, stopped_by=None if done else stopped_by)
                    return

    def _begin(self) -> None:
        """Write what there is before the first update; the state too, if training may go back to it."""
        if self._ranks.first:
            pictures = real_grid(self.packed, self.updates.batches.indices, self._rows, self.grid.columns)
            write_grid(pictures, self.grid.columns, self.folder.samples / "reals.png")
        if self.config.run.on_divergence == "rollback":
            self._saver.save(self.state, self.updates.batches.attempt)

    def _iterate_or_save(self, point: Point) -> None:
        """Make one iteration; where its pictures or memory are missing, save what has been trained.

        An iteration that has updated D is not saved amid itself: a run that goes on begins with a whole one.
        The first process saves by itself, as the others may be waiting for its share of the update.
        """
        before = self.state.images_seen
        try:
            self._iterate(point)
        except (DataError, ConfigError) as error:
            self._ranks.let_first_tell()
            if before == 0 or self.state.images_seen != before or not self._ranks.first:
                raise
            self._saver.writer.wait()
            if not self._is_saved(before):
                try:
                    self._save(before, together=False)
                except DivergenceError:
                    if self._ranks.size == 1:
                        raise
                    raise error from None  # the others do not know of it, so going back is not possible
                self._saver.writer.wait()
            raise type(error)(
                f"{error}\nstopped at {before:,} images, checkpoint written; to go on once that is mended: "
                f"progan train --resume {self.folder.path}"
            ) from error

    def _iterate(self, point: Point) -> None:
        """Make one iteration and take note of its terms."""
        self._saver.keep_up()
        begun = clock = self.state.images_seen
        for terms in self.updates(point):
            if "G/loss" in terms:
                clock = begun  # G's batch is that of the iteration's first update
            self._interval.add(clock, terms)
            if self.device.type == "cpu":
                self._require_finite(terms, point, clock)
            clock += point.batch_size

    def _is_measuring_over(self) -> bool:
        """Whether to give up a measurement, which asks now and then, and by that shows that it moves."""
        self._ranks.at("a measurement", self.state.images_seen)
        return bool(self._stop)

    def _finish(self, point: Point, *, halt: bool, stopped_by: int | None) -> None:
        """Wait until everything is written, and say why training ends."""
        if self.gap is not None:
            self.reporter.say(self.gap.summary())
        self._saver.writer.wait()
        self._ranks.meet("the end")
        if stopped_by is not None:
            self._ranks.leave(lambda: bool(self._stop))
            raise Interrupted(
                f"stopped at {self.state.images_seen:,} images, checkpoint written; to go on: "
                f"progan train --resume {self.folder.path}",
                stopped_by,
            )
        if halt:
            self.reporter.say(
                f"{point.phase.name} is done (run.stop_after {self.config.run.stop_after}); the same "
                f"command, or progan train --resume {self.folder.path}, goes on with the next"
            )

    def _go_back(self, error: DivergenceError) -> None:
        """Go back to the last checkpoint, from where other batches are drawn.

        If no checkpoint has been written since the last time, that one was too late, and the one before is
        taken, as far as there is one.

        Raises:
            DivergenceError: the one given, if going back is not asked for, or has been done too often.
        """
        options, batches = self.config.run, self.updates.batches
        self._saver.writer.wait()
        self._ranks.meet("going back")
        if options.on_divergence == "stop":
            raise error
        attempt = batches.attempt + 1
        if attempt > options.max_rollbacks:
            raise DivergenceError(
                f"{error}. It has gone back {batches.attempt} times (run.max_rollbacks)"
            ) from error
        record = None
        if self._went_back_to is not None:
            record, _ = self._saver.restore(self.state, self._went_back_to)
        if record is None:
            record, _ = self._saver.restore(self.state)
        if record is None:
            raise error
        batches.attempt, self._went_back_to = attempt, record.images_seen
        factor = options.rollback_lr**attempt
        self.reporter.say(
            f"{error}\nback at {record.images_seen:,} images with other batches and learning rates times "
            f"{factor:g} (rollback {attempt} of {options.max_rollbacks})"
        )

    def _point(self, clock: int) -> Point:
        """Return what the schedule says, with the learning rates that are left after going back."""
        point = self.schedule.at(clock)
        factor = self.config.run.rollback_lr**self.updates.batches.attempt
        return replace(point, g_lr=point.g_lr * factor, d_lr=point.d_lr * factor)

    def _agree(self, stop: StopRequest) -> tuple[int | None, bool]:
        """Return which signal asked any process to stop, and whether a checkpoint is due by the time."""
        overdue = self._ranks.first and self._saver.pace.is_due()
        signal_number, due = self._ranks.vote(stop.signal_number or 0, overdue)
        return signal_number or None, bool(due)

    def _write_what_is_due(
        self, logs: Logs | NoLogs, before: int, *, ending: bool, hurried: bool, overdue: bool
    ) -> None:
        """Write log point, sample grid and checkpoint after an iteration, each where it is due.

        Args:
            logs: Where log points go.
            before: The clock before the iteration.
            ending: It was the last one for now, so everything is due.
            hurried: A signal asked to stop.
            overdue: The last checkpoint is too long ago.
        """
        schedule, after = self.schedule, self.state.images_seen
        # Not because of a signal: who sent it waits a few seconds for the checkpoint, not for metrics.
        measured = self._is_measured and schedule.is_measured(before, after) and not hurried
        if ending or measured or schedule.is_log(before, after):
            rate = (after - self._logged) / max(time.monotonic() - self._logged_at, 1e-9)
            self._log(logs, self._point(before), rate, measured=measured)
            self._logged, self._logged_at = after, time.monotonic()
        due = schedule.is_checkpoint(before, after) or schedule.phase_ends(before, after)
        if hurried:
            self._save(before)  # it is written while the pictures are drawn
        if self._ranks.first and (ending or schedule.is_snapshot(before, after)):
            self._write_samples()
        if not hurried and (ending or due or overdue):
            self._save(before)

    def _require_finite(self, terms: Mapping[str, Tensor | float], point: Point, clock: int) -> None:
        """Stop at a number that is not finite, before anything is saved.

        Args:
            terms: What must be finite.
            point: What the schedule said.
            clock: Images seen before the update that they come from.
        """
        wrong = [name for name, value in terms.items() if not math.isfinite(float(value))]
        if wrong:
            raise self._diverged(wrong, point, clock)

    def _diverged(self, wrong: list[str], point: Point, clock: int) -> DivergenceError:
        """Return the error for numbers that are not finite, with everything that the update was made of."""
        if not self._ranks.first:
            return DivergenceError(f"{', '.join(wrong)} not finite")  # the first tells it in full
        self._saver.writer.wait()
        batches = self.updates.batches
        at = Circumstances(
            images_seen=clock,
            phase=point.phase.name,
            alpha=point.alpha,
            batch_size=point.batch_size,
            g_lr=point.g_lr,
            d_lr=point.d_lr,
            seed=self.config.run.seed,
            attempt=batches.attempt,
            pictures=tuple(batches.chosen(clock, point.batch_size).tolist()),
        )
        return divergence.not_finite(wrong, at, self.folder.path, saved=self._has_saved())

    def _means(self, before: int) -> dict[str, float]:
        """Return the means of the terms since the last log point, all of which were finite.

        Args:
            before: The clock before the last update.
        """
        means, first = self._interval.means(), self._interval.first_not_finite()
        at = before if first is None else first
        self._require_finite(means, self._point(at), at)
        return means

    def _has_saved(self) -> bool:
        """Whether there is a checkpoint."""
        return bool(checkpoint.paths(self.folder.checkpoints))

    def _is_saved(self, clock: int) -> bool:
        """Whether the newest checkpoint is of this clock."""
        present = checkpoint.paths(self.folder.checkpoints)
        return bool(present) and int(present[-1].stem) == clock

    def _heed(self, stats: Stats) -> None:
        """Say what the alarm makes of a log point, or stop.

        Raises:
            DivergenceError: if it has gone off and `run.on_alarm` is stop.
        """
        told = self._ranks.from_first(self._alarm.observe(stats))
        if told and self.config.run.on_alarm == "stop":
            self._saver.writer.wait()
            raise DivergenceError(
                f"at {self.state.images_seen:,} images {'; '.join(told)}. "
                f"{divergence.advice(self.folder.path, self._has_saved())}"
            )
        for message in told:
            self.reporter.say(f"warning: at {self.state.images_seen:,} images {message}")

    def _log(self, logs: Logs | NoLogs, point: Point, rate: float, *, measured: bool) -> None:
        """Write a log point: means over the updates since the last one, and metrics if they are due."""
        seen = self.state.images_seen
        self._ranks.at("a log point", seen, point.phase.name)
        norms = {
            "D/gradient_norm": float(self.state.d_optimizer.gradient_norm()),
            "G/gradient_norm": float(self.state.g_optimizer.gradient_norm()),
        }
        means = self._means(seen - point.batch_size)
        self._require_finite(norms, point, seen - point.batch_size)
        stats: Stats = {
            "images_seen": seen,
            "level": point.level,
            "resolution": "x".join(map(str, self.state.G.resolution(point.level))),
            "phase": point.phase.kind,
            "alpha": round(point.alpha, 6),
            "batch_size": point.batch_size,
            "g_lr": point.g_lr,
            "d_lr": point.d_lr,
            "images_per_second": round(rate, 3),
            **self._gauges(),
            **means,
            **norms,
            "G/variation": float(self.grid.variation(self.state.G)),
        }
        self._heed(stats)
        if measured:
            stats |= measure_all(self._watches, self._ranks, seen, self.reporter.say)
        self._interval = Interval()
        logs.write(stats)
        self.reporter.tick(stats)

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
        self._ranks.at("a sample grid", self.state.images_seen)
        height, width = self.state.G_ema.resolution()
        name = f"{self.state.images_seen:09d}_{height}x{width}.png"
        write_grid(self.grid.draw(self.state.G_ema), self.grid.columns, self.folder.samples / name)

    def _save(self, before: int, *, together: bool = True) -> None:
        """Begin to write a checkpoint and the averaged generator.

        Args:
            before: The clock before the iteration.
            together: All processes do so; else the first alone, whatever the others do.

        Raises:
            DivergenceError: if the state is not finite; nothing of it is written then.
        """
        if together:
            self._ranks.at("a checkpoint", self.state.images_seen)
        self._means(before)
        wrong = checkpoint.not_finite(self.state.tensors())
        if wrong:
            raise self._diverged(wrong, self._point(before), before)
        self._saver.save(self.state, self.updates.batches.attempt, together=together)
        self._went_back_to = None
