"""The loop: schedule, iteration, log point, snapshot, checkpoint."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from progan.errors import ConfigError, DataError, DivergenceError, Interrupted, command
from progan.models import weights
from progan.performance.forecast import count, expect
from progan.runs import checkpoint
from progan.runs.checkpointing import Saver
from progan.runs.checks import Prepared
from progan.runs.divergence import Rollbacks
from progan.runs.log_points import LogPoints
from progan.runs.monitors import Monitors
from progan.runs.sample_grid import Snapshots
from progan.runs.trained.origin import begin_with
from progan.system.signals import StopRequest
from progan.training.iteration import Iteration
from progan.training.schedule import Point


class Trainer:
    """Trains one run from its present state, which is everything that training changes, to its end."""

    def __init__(self, run: Prepared) -> None:
        self.spec, self.schedule, self.folder = run.spec, run.spec.schedule, run.folder
        self._options, self._reporter, self._ranks = run.spec.config.run, run.reporter, run.ranks
        # A process of several has no iteration of its own to measure.
        alone = partial(expect, run.spec, run.packed, run.device)
        self._expected = alone if run.ranks.size == 1 else partial(count, run.spec)
        self._monitors, self._callbacks = Monitors(run), run.callbacks
        self.iteration = Iteration(run.spec, run.packed, run.device, run.reporter.say, run.ranks)
        self.state = self.iteration.state
        self._snapshots = Snapshots(run, self.state.G)
        self._saver = Saver(run)
        self._rollbacks = Rollbacks(run, self.iteration, self._saver)
        self._log_points = LogPoints(run, self.state, self._snapshots.grid, self._monitors, self._rollbacks)

    def resume(self) -> None:
        """Go back to the newest readable checkpoint of the run, if there is one.

        Raises:
            CheckpointError: if there are checkpoints but none fits or can be read.
        """
        self._ranks.first_only(self.folder.remove_leftovers)
        record, passed_over = self._saver.restore(self.state)
        for message in passed_over:
            self._reporter.say(f"{message}; using the one before")
        self._saver.compare(self.state)
        if record is None:
            self._ranks.first_only(self.folder.require_nothing_trained)
            self._begin_with_the_source()
            return
        self.iteration.batches.attempt = record.attempt
        # A kill may have come between the checkpoint and its generator.
        self._ranks.first_only(lambda: weights.save(self.state.G_ema, self.folder.generator_file))
        self._reporter.say(f"going on from {record.images_seen:,} images")

    def _begin_with_the_source(self) -> None:
        """Take the networks that the run is to begin with, if there are any."""
        if self.spec.config.init.source is not None:
            for line in begin_with(self.state, self.spec.config):
                self._reporter.say(line)
            self._saver.compare(self.state)

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
        seen = self.state.images_seen
        if seen >= self.schedule.total:
            self._reporter.say(f"{self.folder.path} is complete at {seen:,} images")
            return
        self._reporter.begin(self.spec, seen, self._expected)
        with self._saver.writer, ExitStack() as ending:
            ending.callback(self.iteration.batches.rest)
            while True:
                try:
                    self._train(stop)
                    return
                except DivergenceError as error:
                    self._rollbacks.go_back(error)

    def _train(self, stop: StopRequest) -> None:
        """Train from the present state to the end, or to where the run is to stop."""
        state, schedule = self.state, self.schedule
        if state.images_seen == 0:
            self._begin()
        with self._log_points.opened():
            self._saver.pace.restart()
            while state.images_seen < schedule.total:
                before = state.images_seen
                point = self._rollbacks.point(before)
                self._iterate_or_save(point)
                after = state.images_seen
                done, halt = after >= schedule.total, schedule.stops(before, after)
                # Asked once: a signal that comes from here on is for the next iteration.
                signal_number, overdue = self._ranks.vote(stop.signal_number or 0, self._saver.is_due())
                ending = done or halt or signal_number > 0
                # Who sent a signal waits a few seconds for the checkpoint, not for metrics.
                meant = bool(self._monitors) and schedule.is_measured(before, after)
                measured = meant and not signal_number  # who sent a signal waits for no metrics
                scheduled = done or meant or schedule.is_log(before, after)
                if ending or scheduled:
                    self._log_points.write(
                        point, measured=measured, scheduled=scheduled,
                        is_over=lambda: self._is_over(stop),
                    )  # fmt: skip
                due = schedule.is_checkpoint(before, after) or schedule.phase_ends(before, after)
                if signal_number:
                    self._save(before)  # it is written while the pictures are drawn
                if ending or schedule.is_snapshot(before, after):
                    self._snapshots.write(state.G_ema, after)
                if not signal_number and (ending or due or overdue):
                    self._save(before)
                if measured or schedule.is_generator(before, after):
                    self._saver.keep(state)
                self._reporter.advance(point, after)
                if ending:
                    self._finish(point, stop, halt=halt, stopped_by=0 if done else signal_number)
                    return

    def _begin(self) -> None:
        """Write what there is before the first update; the state too, if training may go back to it."""
        self._snapshots.write_reals(self.iteration.batches.indices)
        if self._options.on_divergence == "rollback":
            self._saver.save(self.state, self.iteration.batches.attempt)

    def _iterate_or_save(self, point: Point) -> None:
        """Make one iteration; where its pictures or memory are missing, save what has been trained.

        An iteration that has updated D is not saved amid itself: a run that goes on begins with a whole one.
        """
        before = self.state.images_seen
        try:
            self._iterate(point)
        except (DataError, ConfigError) as error:
            if before == 0:
                raise
            end = self._save_alone if self.state.images_seen == before else self._tell_last
            if (told := self._ranks.first_only(partial(end, error))) is None:
                raise
            kind = DataError if isinstance(error, DataError) else ConfigError
            raise kind(told) from error

    def _iterate(self, point: Point) -> None:
        """Make one iteration and take note of its terms."""
        self._saver.keep_up()
        self._saver.tell(self._callbacks)
        self._callbacks.at_level(point.level, self.state.images_seen)
        self._log_points.add(self.state.images_seen, point, self.iteration(point))

    def _save_alone(self, error: Exception) -> str:
        """Save what has been trained, as other processes may be waiting for a share of an update.

        `error` hinders the next iteration; what to tell is returned.
        """
        seen = self.state.images_seen
        if not self._saver.has_saved(seen):
            try:
                self._log_points.require_finite(seen)
            except DivergenceError:
                raise error from None  # there is nothing to save, and others do not know that
            self._saver.save_here(self.state, self.iteration.batches.attempt)
            self._saver.writer.wait()
        return (
            f"{error}\nstopped at {seen:,} images, checkpoint written; to go on once that is mended: "
            f"{command('train', '--resume', self.folder.path)}"
        )

    def _tell_last(self, error: Exception) -> str:
        """Return what to tell of an error amid an iteration, which cannot be saved: where the run goes on."""
        self._saver.writer.wait()
        record, _ = checkpoint.newest_record(self.folder.checkpoints)
        if record is None:
            return str(error)
        return (
            f"{error}\nstopped amid an iteration; to go on from the checkpoint after {record.images_seen:,} "
            f"images once that is mended: {command('train', '--resume', self.folder.path)}"
        )

    def _is_over(self, stop: StopRequest) -> bool:
        """Whether to give up a measurement, which asks now and then, and by that shows that it moves."""
        self._ranks.at("a measurement", self.state.images_seen)
        return bool(stop)

    def _finish(self, point: Point, stop: StopRequest, *, halt: bool, stopped_by: int) -> None:
        """Wait until everything is written, and say why training ends."""
        self._monitors.tell_costs()
        self._saver.finish()
        self._saver.tell(self._callbacks)
        self._ranks.barrier("the end")
        if stopped_by:
            self._ranks.leave(lambda: bool(stop))
            raise Interrupted(
                f"stopped at {self.state.images_seen:,} images, checkpoint written; to go on: "
                f"{command('train', '--resume', self.folder.path)}",
                stopped_by,
            )
        if halt:
            self._reporter.say(
                f"{point.phase.name} is done (run.stop_after {self._options.stop_after}); the same "
                f"command, or {command('train', '--resume', self.folder.path)}, goes on with the next"
            )

    def _save(self, before: int) -> None:
        """Begin to write a checkpoint and the averaged generator; `before` is the clock before the iteration.

        A DivergenceError tells of a state that is not finite; nothing of it is written then.
        """
        self._ranks.at("a checkpoint", self.state.images_seen)
        self._log_points.require_finite(before)
        self._saver.save(self.state, self.iteration.batches.attempt)
        self._rollbacks.forget()
