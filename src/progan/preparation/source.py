"""What a user names as a source, asked once: a built-in set, a packed set, or pictures to pack."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from progan.config import Config, Parts, PictureOptions, at_hand, read_plugins
from progan.data.packed import PackedSet, is_packed
from progan.errors import ConfigError, DataError, StorageError
from progan.preparation import celeba_hq
from progan.preparation.builtin_sets import PREFIX, make_builtin
from progan.preparation.formats.hugging_face import HUB
from progan.preparation.own_source import OwnPictures, PictureSource
from progan.preparation.pack import Request, find_or_pack
from progan.preparation.report import PrepareReport
from progan.preparation.several import gather
from progan.system.files import cache_folder, parse_json
from progan.system.progress import Progress, unheard

OWN_LABELS = ("none", "folders", "inside", "file")
"""What `data.labels` may say of labels that a set has already."""
ENDINGS = frozenset(
    (
        ".zip", ".tar", ".gz", ".tgz", ".npy", ".npz", ".mat", ".h5", ".hdf5", ".lmdb", ".tfrecords",
        ".parquet", ".mp4", ".mov", ".webm", ".gif", ".bin", ".txt",
    )
)  # fmt: skip
"""Endings of files of pictures, which name no run."""
ODD = str.maketrans(dict.fromkeys("*?[]{}:", "-"))
"""Signs of patterns, which are awkward in the names of folders."""
NAMED = 2
"""So many of several sources are in the name of a run."""


class Source(ABC):
    """A source of pictures.

    Attributes:
        place: Where it is, told the same from every folder.
        name: What a run or a cache is called after it.
    """

    place: str
    name: str

    @abstractmethod
    def find(self, asked: Request) -> tuple[PackedSet, PrepareReport | None]:
        """Return the packed set, made if it is not there yet, and the report if this call made it."""

    def require(self, config: Config) -> None:
        """Refuse a configuration that asks for what packing will not give.

        Raises:
            ConfigError: saying what, and which options to change.
        """
        if config.model.conditioning in ("ac_gan", "projection") and config.data.labels == "none":
            raise ConfigError(
                f"model.conditioning {config.model.conditioning} needs labels: set data.labels to 'folders' "
                f"or a label file, or leave the conditioning out"
            )
        if config.monitor.duality_gap and 0 in config.data.shares[1:]:
            raise ConfigError(
                f"monitor.duality_gap needs a validation and a test part, and data.split {config.data.split} "
                f"leaves none: add --data.split 0.8,0.1,0.1"
            )


class BuiltinSource(Source):
    """A set that is drawn, `builtin:glyphs` or `builtin:synthetic`; it has classes of its own."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.name = Path(place.removeprefix(PREFIX)).name

    def find(self, asked: Request) -> tuple[PackedSet, None]:
        """Draw the set into the cache; nothing is reported, for nothing can have gone wrong."""
        form = asked.options.label_form
        if form != "class":
            raise ConfigError(f"data.label_form {form}: the pictures of {self.place} have one class each")
        return make_builtin(self.place, asked, asked.cache or cache_folder()), None

    def require(self, config: Config) -> None:
        """Refuse a label file, besides what every source refuses."""
        if config.data.labels not in ("none", "folders", "inside"):
            raise ConfigError(
                f"data.labels {config.data.labels}: {self.place} has classes of its own; set data.labels to "
                f"'folders' for them, or to 'none'"
            )
        super().require(config)


class PathSource(Source):
    """Pictures that are packed into a cache.

    The cache is `data.cache`, or the folder `<name>.progan` beside the pictures, or, where that cannot be
    written, `~/.cache/progan`. Changed pictures or options make a new set; the old one stays.

    Args:
        places: Paths, patterns, lists of paths, or names of data sets.
    """

    def __init__(self, places: Sequence[str]) -> None:
        whole = [place if place.startswith(HUB) else str(Path(place).resolve()) for place in places]
        self._places = list(places)
        self._beside = None if whole[0].startswith(HUB) else Path(whole[0]).parent
        self.place = whole[0] if len(whole) == 1 else json.dumps(whole)
        self.name = "-and-".join(_plain(place) for place in whole[:NAMED])
        if len(whole) > NAMED:
            self.name += f"-and-{len(whole) - NAMED}-more"

    def find(self, asked: Request) -> tuple[PackedSet, PrepareReport | None]:
        """Look for the set where it may be; else pack the pictures."""
        pictures = gather(self._places, asked.options)
        packed, made = find_or_pack(pictures, asked, partial(self._caches, asked.cache))
        return packed, PrepareReport.of(packed, training=True) if made else None

    def _caches(self, cache: Path | None, key: str) -> list[Path]:
        # Of a single source with its ending, as ever.
        name = (Path(self.place).name.translate(ODD) if len(self._places) == 1 else self.name) or "root"
        if cache is not None:
            return [cache / f"{name}-{key}"]
        beside = [] if self._beside is None else [self._beside / f"{name}.progan" / key]
        try:
            return [*beside, cache_folder() / f"{name}-{key}"]
        except StorageError:
            if not beside:
                raise
            return beside


def _plain(place: str) -> str:
    """Return what a source is called, as the name of a folder: without its ending and signs of patterns."""
    path = Path(place.removeprefix(HUB).translate(ODD))
    while path.suffix.lower() in ENDINGS:
        path = path.with_suffix("")
    return path.name


class OwnSource(PathSource):
    """Pictures of a source of one's own, which are packed into a cache by this process."""

    def __init__(self, source: PictureSource) -> None:
        self._pictures, self._beside, self._places = OwnPictures(source), None, [source.place]
        self.place = source.place
        self.name = "-".join(filter(None, [source.name, Path(source.argument.translate(ODD)).name]))

    def find(self, asked: Request) -> tuple[PackedSet, PrepareReport | None]:
        """Look for the set in the cache; else pack the pictures."""
        # Other processes do not know the class.
        packed, made = find_or_pack(
            self._pictures, asked._replace(workers=1), partial(self._caches, asked.cache)
        )
        return packed, PrepareReport.of(packed, training=True) if made else None


class PackedSource(PathSource):
    """A packed set, used as it is: with the labels and the split that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__([str(path)])
        self.path = path

    def find(self, asked: Request) -> tuple[PackedSet, None]:  # noqa: ARG002 - nothing is left to ask
        """Open the set."""
        return PackedSet.open(self.path), None

    def require(self, config: Config) -> None:
        """Refuse a label file: labels are read when pictures are prepared."""
        if config.data.labels not in OWN_LABELS:
            raise ConfigError(
                f"data.labels {config.data.labels}: {self.path} is packed already, and labels are read when "
                f"pictures are prepared; leave the option out, or prepare the pictures again"
            )


def open_source(place: str | Path | Sequence[str | Path], parts: Parts = Parts()) -> Source:  # noqa: B008
    """Return what `place` is: a built-in set, a packed set, or else pictures, which need not be there yet.

    Args:
        place: A path or name; or several of them, as a list or, as `Source.place` tells it, in JSON.
        parts: Parts of one's own, of which a source may be named: `NAME:ARGUMENT`.

    Raises:
        DataError: if it names several sources of which one is a built-in or packed set, or none.
    """
    places = [str(place)] if isinstance(place, str | Path) else [str(one) for one in place]
    if len(places) == 1 and places[0].startswith('["'):
        places = [str(one) for one in parse_json(places[0])]
    if (own := _own_source(places, parts)) is not None:
        return OwnSource(own)
    if len(places) == 1 and places[0].startswith(PREFIX):
        return BuiltinSource(places[0])
    if len(places) == 1 and is_packed(Path(places[0])):
        return PackedSource(Path(places[0]))
    for one in places:
        if one.startswith(PREFIX) or is_packed(Path(one)):
            raise DataError(f"{one}: only pictures can be put together, and this is a set; give it alone")
    if not places:
        raise DataError("give a source of pictures")
    return PathSource(places)


def _own_source(
    place: str | Path | Sequence[str | Path] | PictureSource, parts: Parts
) -> PictureSource | None:
    """Return a source of one's own if that is what `place` is or names; else None."""
    if isinstance(place, PictureSource):
        return place
    places = [place] if isinstance(place, str | Path) else place
    name, colon, argument = str(places[0]).partition(":") if len(places) == 1 else ("", "", "")
    own = parts.of(PictureSource.chosen_by).get(name) if colon else None
    return None if own is None else at_hand(own, PictureSource)(argument)  # type: ignore[type-abstract]


def prepare(
    source: str | Path | Sequence[str | Path] | PictureSource,
    destination: str | Path,
    options: PictureOptions = PictureOptions(),  # noqa: B008 - frozen
    *,
    base_shape: tuple[int, int] | None = None,
    workers: int | None = None,
    progress: Progress = unheard,
    stop: Callable[[], bool] | None = None,
    say: Callable[[str], None] | None = None,
    plugins: Sequence[str | Path] = (),
) -> PrepareReport:
    """Make a packed set of the pictures of a source.

    If an earlier call with the same pictures and options was interrupted, it continues; if it was finished,
    nothing is done.

    Args:
        source: A folder, a file, a pattern, or another place that docs/data.md lists; or several; or a
            `PictureSource` of your own. After 'celeba-hq': the folders of CelebA and the differences to it,
            or a place of ready pictures.
        destination: The folder to make. It appears when it is complete; until then there is
            `<destination>.partial`.
        options: Resolution, channels, fit, labels, limit and split.
        base_shape: (height, width) of level 0; default: from the resolution, or 4x4.
        workers: Processes; default: all cores. 1 works in this process.
        progress: Told how many pictures are done; 0 are while headers are read.
        stop: Asked after each chunk; if it returns True, KeyboardInterrupt is raised.
        say: Called with what a person should know and no report tells.
        plugins: Python files, which are run, with sources of your own that may be named: `NAME:ARGUMENT`.

    Raises:
        DataError: if the source, a label file or the destination cannot be used.
        ConfigError: if the resolution does not belong to the base shape.
        StorageError: if writing failed; what is done is kept.
        KeyboardInterrupt: on `stop`; what is done is kept.
    """
    asked = Request(options, base_shape, workers, progress, stop, say)
    own = _own_source(source, read_plugins(plugins))
    if own is not None:
        packed, _ = find_or_pack(
            OwnPictures(own), asked._replace(workers=1), lambda _key: [Path(destination)]
        )
        return PrepareReport.of(packed)
    assert not isinstance(source, PictureSource)
    places = [str(source)] if isinstance(source, str | Path) else [str(one) for one in source]
    if places[0] == celeba_hq.NAME and (len(places) > 1 or not Path(places[0]).exists()):
        pictures = celeba_hq.open_celeba_hq(places[1:], options)
    else:
        pictures = gather(places, options)
    packed, _ = find_or_pack(pictures, asked, lambda _key: [Path(destination)])
    return PrepareReport.of(packed)
