"""From a source of pictures to a packed set: list, scan, decide, then decode, fit and store.

Work that was interrupted, even by a power cut, continues where it was when the same call is made again, and
ends in the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, TypeVar

import numpy as np
from pydantic import BaseModel

from progan.config import NEWER, DataOptions, LabelForm, PictureOptions, asked_for, level_resolution
from progan.data.packed import PackedSet, format_version, is_packed, read_manifest
from progan.errors import DataError, StorageError
from progan.preparation.decisions import spelled, what_to_look_at
from progan.preparation.decoding import Header, Looking, look_at
from progan.preparation.fitting import ENLARGED, FitTask, Fitted, Last, digest, fit_picture
from progan.preparation.labels.labelling import drop_empty, label_digest, missing_from_parts
from progan.preparation.pack_plan import Plan, boxes_data, make_plan, no_pictures
from progan.preparation.packed_writer import (
    Writer,
    check_destination,
    check_space,
    clear_partial,
    partial_folder,
    parts_of,
)
from progan.preparation.picture.cropping import parse_crop
from progan.preparation.picture.duplicates import Twins
from progan.preparation.pictures import Listing, Pictures
from progan.system.files import parse_json, storage_errors, why, write_text
from progan.system.progress import Progress, unheard
from progan.system.worker_pool import run_chunks, usable_cores

C = TypeVar("C")
R = TypeVar("R")
CHUNK = 64
CHUNK_BYTES = 8 << 20
DUPLICATE = "the same picture as"
CRASHED = "decoding it ends the process: the file is damaged"


class _State(BaseModel):
    """How far the work has come.

    Attributes:
        done: Pictures of the plan that are done.
        failed: Those without pixels, by their place.
        upscaled: Those that were enlarged.
        counts: In how many something else was done, by its name.
        examples: The first picture in which it was.
        low, high: The smallest and largest value that was stored.
    """

    done: int = 0
    failed: dict[int, str] = {}
    upscaled: int = 0
    counts: dict[str, int] = {}
    examples: dict[str, str] = {}
    low: int | None = None
    high: int | None = None


class Request(NamedTuple):
    """What is asked of a preparation.

    Attributes:
        options: Resolution, channels, fit, labels, limit and split.
        base_shape: (height, width) of level 0; None: from the resolution, or 4x4.
        workers: Processes; None: all cores. With 1, everything happens in this process.
        progress: Told how many pictures are done; 0 are while headers are read.
        stop: Asked after each chunk; if it returns True, KeyboardInterrupt is raised.
        say: Called with what a person should know and no report tells.
    """

    options: PictureOptions
    base_shape: tuple[int, int] | None = None
    workers: int | None = None
    progress: Progress = unheard
    stop: Callable[[], bool] | None = None
    say: Callable[[str], None] | None = None

    @property
    def cache(self) -> Path | None:
        """Where packed sets go, if that was said."""
        return self.options.cache if isinstance(self.options, DataOptions) else None

    @property
    def training(self) -> bool:
        """Whether a run asks, whose options of pictures begin with `data.`."""
        return isinstance(self.options, DataOptions)

    def note(self, sentences: Sequence[str]) -> None:
        """Pass on what a person should know."""
        for sentence in sentences:
            if self.say is not None:
                self.say(spelled(sentence, training=self.training))

    def tell(self, done: int, total: int) -> None:
        """Pass on how far the work is."""
        self.progress("preparing pictures", done, total)

    def run(
        self,
        function: Callable[[C, str], R | str],
        context: C,
        names: Sequence[str],
        size: int,
        first: int = 0,
    ) -> Generator[list[R | str], None, None]:
        """Yield results chunk by chunk, from a first name on, asking between the chunks whether to stop."""
        chunks = (names[i : i + size] for i in range(first, len(names), size))
        # A process for less than one full chunk would take longer to start than to work.
        automatic = min(usable_cores(), max(1, (len(names) - first) // CHUNK))
        workers = self.workers or automatic
        with closing(run_chunks(function, context, chunks, workers, CRASHED)) as results:
            for result in results:
                yield result
                if self.stop is not None and self.stop():
                    raise KeyboardInterrupt


class _Request(NamedTuple):
    """Pictures, what they are, and what is asked to be made of them."""

    pictures: Pictures
    listing: Listing
    asked: Request
    key: str


def find_or_pack(
    pictures: Pictures, asked: Request, places: Callable[[str], list[Path]]
) -> tuple[PackedSet, bool]:
    """Return the packed set of some pictures, and whether this call made it (or went on making it).

    Args:
        pictures: What to pack.
        asked: How.
        places: From the key of pictures and options: where the set may be, the preferred place first. A set
            is made in the first that can be written.

    Raises:
        DataError: if the pictures, a label file or the place cannot be used.
        ConfigError: if the resolution does not belong to the base shape.
        StorageError: if writing failed; what is done is kept.
        KeyboardInterrupt: as asked; what is done is kept.
    """
    listing = pictures.listing()
    if not listing.candidates:
        raise no_pictures(pictures.path, listing, listing.skipped)
    key = _key(pictures, listing, asked)
    if any(is_packed(place) and read_manifest(place).outdated for place in places(key)):
        key = hashlib.sha256(f"{key} anew".encode()).hexdigest()[: len(key)]
    possible = places(key)
    for place in possible:
        if is_packed(place):
            asked.note(listing.notes)
            return _require_key(PackedSet.open(place), key), False
    return _make(_Request(pictures, listing, asked, key), first_writable(possible, asked))


def first_writable(possible: Sequence[Path], asked: Request) -> Path:
    """Return the first of some places whose folder can be written, and make that folder if need be.

    Raises:
        StorageError: if there is none; it says why, and which option names another.
    """
    reasons = []
    for place in possible:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            writable = os.access(place.parent, os.W_OK | os.X_OK)
            reason = None if writable else why(errno.EACCES)
        except OSError as error:
            reason = why(error.errno)
        if reason is None:
            return place
        reasons.append(f"in {place.parent} ({reason})")
    option = "give a folder with --data.cache" if asked.training else "give another destination"
    raise StorageError(f"no packed set can be kept {' or '.join(reasons)}; {option}")


def _key(pictures: Pictures, listing: Listing, asked: Request) -> str:
    """Return a hash over the files of a source and the options that decide what is made of them."""
    options = asked.options
    matters: dict[str, Any] = options.model_dump(mode="json", include=set(PictureOptions.model_fields))
    if options.resolution is not None:
        del matters["max_resolution"]
    # So that sets are found again that were made before there were these options.
    for name in set(NEWER) - set(asked_for(options)):
        del matters[name]
    form: LabelForm = "class" if options.labels == "none" else options.label_form
    if form == "class":
        del matters["label_form"]  # so that sets are found again that were made before there were others
    digest = label_digest(pictures, listing, options)
    if digest is not None:
        matters["labels"] = digest
    boxes = None if options.crop is None else parse_crop(options.crop)[2]
    if boxes is not None:
        matters["crop"] = hashlib.sha256(boxes_data(pictures, boxes)).hexdigest()
    matters |= {"version": format_version(form), "base_shape": asked.base_shape, "files": listing.digest()}
    return hashlib.sha256(json.dumps(matters, sort_keys=True).encode()).hexdigest()[:16]


def _make(request: _Request, destination: Path) -> tuple[PackedSet, bool]:
    """Make the set at `destination`, or go on with it; tell whether it was not made meanwhile by another."""
    check_destination(destination)
    with partial_folder(destination, request.asked.say, request.asked.stop) as folder:
        if not is_packed(destination):
            return _continue(request, destination, folder), True
    return _require_key(PackedSet.open(destination), request.key), False


def _require_key(packed: PackedSet, key: str) -> PackedSet:
    """Return the set if it is of the pictures and options that `key` stands for."""
    if packed.manifest.outdated:
        raise DataError(
            f"{packed.path}: was packed by an earlier version, which left colours beneath transparency as "
            f"they were (mostly black, which shows along edges); delete it or choose another destination"
        )
    if packed.manifest.key != key:
        raise DataError(
            f"{packed.path}: holds a packed set of other pictures or other options; "
            "delete it or choose another destination"
        )
    return packed


def _continue(request: _Request, destination: Path, folder: Path) -> PackedSet:
    """Go on from what an earlier call left in the partial folder, or start afresh."""
    plan, state = _resume(folder, request.key)
    with storage_errors(folder):
        if plan is None:
            clear_partial(folder)
            plan = _plan(request)
            plan.save(folder)
        check_space(folder, plan.layout, len(plan.names) - state.done)
    return _pack(request, plan, state, destination)


def _resume(folder: Path, key: str) -> tuple[Plan | None, _State]:
    """Read what an interrupted call left, if it was for the same pictures and options."""
    plan = Plan.load(folder)
    if plan is None or plan.key != key:
        return None, _State()
    try:
        return plan, _State.model_validate(parse_json((folder / "progress.json").read_bytes()))
    except (OSError, ValueError):
        return plan, _State()


def _plan(request: _Request) -> Plan:
    """Read the headers of all candidates and decide."""
    names = request.listing.candidates.names
    look = what_to_look_at(request.asked.options)
    known = request.listing.header
    if known is not None and known.kind not in look.kinds:
        return _planned(request, [known] * len(names))
    headers: list[Header | str] = []
    equal: dict[Header | str, Header | str] = {}  # most are like others, and kept once
    request.asked.tell(0, len(names))
    with closing(request.asked.run(look_at, Looking(request.pictures, look), names, CHUNK)) as chunks:
        for chunk in chunks:
            headers.extend(equal.setdefault(one, one) for one in chunk)
            request.asked.tell(0, len(names))
    return _planned(request, headers)


def _planned(request: _Request, headers: Sequence[Header | str]) -> Plan:
    return make_plan(
        request.pictures,
        request.listing,
        headers,
        request.asked.options,
        request.asked.base_shape,
        request.key,
    )


def _pack(request: _Request, plan: Plan, state: _State, destination: Path) -> PackedSet:
    """Decode, fit and store what is not yet done, then finish the set."""
    layout, total = plan.layout, len(plan.names)
    rules = plan.rules(request.asked.options)
    options = request.asked.options
    task = FitTask(
        request.pictures, layout.base_shape, layout.max_level, rules, plan.fit, plan.cropping,
        options.upscale == "always", Last(),
    )  # fmt: skip
    height, width = level_resolution(layout.base_shape, layout.max_level)
    size = max(1, min(CHUNK, CHUNK_BYTES // (layout.channels * height * width * rules.depth // 8)))
    if request.listing.slow:
        size = 1
    try:
        keep = state.done - len(state.failed)
        with (
            storage_errors(destination),
            closing(Writer(destination, layout, keep)) as writer,
            tempfile.TemporaryFile(dir=writer.folder) as thumbnails,
        ):
            twins = None
            if options.dedupe != "never":
                twins = _met(Twins(options.dedupe, thumbnails), plan, state, writer)
            request.asked.tell(state.done, total)
            try:
                with closing(request.asked.run(fit_picture, task, plan.names, size, state.done)) as chunks:
                    for results in chunks:
                        names = plan.names[state.done : state.done + len(results)]
                        state = _store(writer, _without_twins(twins, results, names), names, state)
                        if writer.sync_due():
                            _save(writer, state)
                        request.asked.tell(state.done, total)
            finally:
                # On a full disk this fails as well, and then what was saved last counts.
                with suppress(OSError, StorageError):
                    _save(writer, state)
            return _finish(request, plan, state, writer)
    except (StorageError, OSError) as error:
        raise StorageError(
            f"stopped when {state.done} of {total} pictures are done; "
            f"the same command continues there: {error}"
        ) from None


def _met(twins: Twins, plan: Plan, state: _State, writer: Writer) -> Twins:
    """Add the pictures that are stored already, among which twins of others are looked for."""
    done = islice(plan.names, state.done)
    stored = (name for i, name in enumerate(done) if i not in state.failed)
    for name, top in zip(stored, writer.stored(), strict=True):
        twins.find(name, digest(top), top)
    return twins


def _without_twins(
    twins: Twins | None, results: Sequence[Fitted | str], names: Sequence[str]
) -> Sequence[Fitted | str]:
    """Put a reason in the place of each picture that is in the set already."""
    if twins is None:
        return results
    made: list[Fitted | str] = []
    for name, result in zip(names, results, strict=True):
        twin = twins.find(name, result.digest, result.levels[-1]) if isinstance(result, Fitted) else None
        made.append(result if twin is None else f"{DUPLICATE} {twin}")
    return made


def _store(writer: Writer, results: Sequence[Fitted | str], names: Sequence[str], state: _State) -> _State:
    """Append the pictures of one chunk, and return the new state (a new object: Ctrl-C may come anywhere)."""
    good = [result for result in results if isinstance(result, Fitted)]
    if good:
        levels = [np.stack(pictures) for pictures in zip(*(one.levels for one in good), strict=True)]
        writer.append(levels, [one.digest for one in good])
    failed = {state.done + i: one for i, one in enumerate(results) if isinstance(one, str)}
    counts, examples = Counter(state.counts), dict(state.examples)
    for name, result in zip(names, results, strict=True):
        if isinstance(result, Fitted):
            counts.update(result.notes)
            examples = dict.fromkeys(result.notes, name) | examples
    upscaled = counts.pop(ENLARGED, 0)
    lows = [one.low for one in good] + [state.low] * (state.low is not None)
    highs = [one.high for one in good] + [state.high] * (state.high is not None)
    return _State(
        done=state.done + len(results),
        failed=state.failed | failed,
        upscaled=state.upscaled + upscaled,
        counts=counts,
        examples=examples,
        low=min(filter(_is_there, lows), default=None),
        high=max(filter(_is_there, highs), default=None),
    )


def _is_there(value: int | None) -> TypeGuard[int]:
    return value is not None


def _say_duplicates(state: _State) -> list[str]:
    """Say how many pictures were left out because they are in the set already."""
    count = sum(reason.startswith(DUPLICATE) for reason in state.failed.values())
    return [f"{count} duplicates left out; skipped.csv names their twins"] if count else []


def _save(writer: Writer, state: _State) -> None:
    writer.sync()
    write_text(writer.folder / "progress.json", json.dumps(state.model_dump(mode="json")))


def _finish(request: _Request, plan: Plan, state: _State, writer: Writer) -> PackedSet:
    """Write labels, split, names and manifest, and give the set its place."""
    used = np.setdiff1d(np.arange(len(plan.names)), list(state.failed))
    failed = [(plan.names[i], reason) for i, reason in sorted(state.failed.items())]
    skipped = sorted([*plan.skipped, *failed])
    if not len(used):
        raise no_pictures(request.pictures.path, request.listing, skipped)
    names = plan.names.take(used) if state.failed else plan.names
    labels = None if plan.labels is None else plan.labels[used]
    label_names, notes = plan.label_names, plan.notes
    if labels is not None and plan.label_form == "class":
        labels, label_names, left_out = drop_empty(labels, label_names)
        notes = notes + left_out
    shares = request.asked.options.shares
    parts = parts_of(map(plan.cropping.origin, names), shares)
    thin = missing_from_parts(labels, label_names, plan.label_form, parts, shares)
    files, lost = 0, {plan.cropping.origin(name) for name, _ in failed}
    for origin, _ in groupby(map(plan.cropping.origin, names)):  # parts of a picture follow each other
        files += 1
        lost.discard(origin)
    return writer.finish(
        names,
        labels,
        shares,
        skipped,
        parts=parts,
        label_kind=plan.label_kind,
        label_form=plan.label_form,
        label_names=tuple(label_names),
        fit=plan.fit,
        limit=request.asked.options.limit,
        source=request.pictures.path.name,
        key=plan.key,
        found=plan.found,
        skipped_files=len(plan.skipped) + len(lost),
        files=files,
        ignored=request.listing.ignored.total(),
        upscaled=state.upscaled,
        animated=sum(place not in state.failed for place in plan.animated),
        notes=tuple(notes),
        asked=asked_for(request.asked.options),
        facts=(*(plan.pixels.facts if plan.pixels else ()), *_say_duplicates(state)),
        warnings=(*(plan.pixels.warnings if plan.pixels else ()), *thin),
        counts=state.counts,
        examples=state.examples,
        ranges=plan.pixels.ranges if plan.pixels else {},
        colours_beneath=plan.layout.channels in (2, 4),
        pixel_values=None if state.low is None else (state.low, state.high),
    )
