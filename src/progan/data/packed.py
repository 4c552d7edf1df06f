"""The packed set on disk: one array a level, labels, split, names, and a manifest.

A packed set is a folder:

- `manifest.json`: shape, counts, class names, and where it all came from
- `level_0_4x4.u8`, `level_1_8x8.u8`, ...: raw pixels, C-contiguous [count, C, h, w]; `.u16` is little-endian
- `labels.npy`, only if labelled: int64 class number of each picture, or (version 2, other label forms)
  float32 [count, label_size]
- `split.npy`: uint8, 0 train, 1 validation, 2 test
- `names.json`: the name of each picture
- `skipped.csv`: the pictures that were left out, and why
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from progan.config import LabelForm, explain, level_resolution
from progan.data.level_file import LevelFile
from progan.errors import DataError
from progan.system.files import parse_json
from progan.system.npy_files import load_array

FORMAT_VERSION = 2
"""The newest version that is read; `format_version` says which one is written."""
SPLITS = ("train", "validation", "test")
Side = Annotated[int, Field(ge=1)]
Pixels: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16]
Labels: TypeAlias = NDArray[np.int64] | NDArray[np.float32]
"""As stored: class numbers [count]; or, of the forms 'classes' and 'vector', rows [count, label_size]."""


def format_version(form: LabelForm) -> int:
    """Return the version of a set with labels of a form: 1 where every progan can read it, else 2."""
    return 1 if form == "class" else 2


class Manifest(BaseModel):
    """What `manifest.json` holds; unknown keys are allowed, so that older versions can read newer sets.

    Of what may need an explanation: `files` is the number of pictures of which the set holds parts, `asked`
    are the options of pixels that were not left at their defaults,
    `ranges` the values of black and white in each kind of file, `counts` in how many pictures something was
    done, `examples` the first of them, `pixel_values` the smallest and largest stored value (of colours),
    `colours_beneath` whether colours go on beneath transparency, as they did not in earlier versions.
    """

    model_config = ConfigDict(frozen=True)

    version: int = 1
    base_shape: tuple[Side, Side]
    max_level: int = Field(ge=0, le=20)
    channels: int = Field(ge=1)
    dtype: Literal["uint8", "uint16"] = "uint8"
    count: int = Field(ge=1)
    label_kind: str = "none"
    label_form: LabelForm = "class"
    label_names: tuple[str, ...] = ()
    fit: str = "crop"
    limit: int | None = None
    split: tuple[float, float, float] = (1.0, 0.0, 0.0)
    source: str = ""
    key: str = ""
    fingerprint: str
    found: int = 0
    skipped_files: int = 0
    ignored: int = 0
    upscaled: int = 0
    animated: int = 0
    notes: tuple[str, ...] = ()
    files: int | None = None
    asked: dict[str, Any] = {}
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    counts: dict[str, int] = {}
    examples: dict[str, str] = {}
    ranges: dict[str, tuple[float, float]] = {}
    pixel_values: tuple[int, int] | None = None
    colours_beneath: bool = False

    def resolution(self, level: int) -> tuple[int, int]:
        """Return (height, width) of a level."""
        return level_resolution(self.base_shape, level)

    @property
    def outdated(self) -> bool:
        """Whether an earlier version packed it, and this one would store other pixels."""
        return self.channels in (2, 4) and not self.colours_beneath

    def level_file(self, level: int) -> str:
        """Return the name of the file that holds a level."""
        height, width = self.resolution(level)
        return f"level_{level}_{height}x{width}.{'u8' if self.dtype == 'uint8' else 'u16'}"

    def picture_bytes(self, level: int) -> int:
        """Return how many bytes one picture takes at a level."""
        height, width = self.resolution(level)
        return self.channels * height * width * np.dtype(self.dtype).itemsize


def partial_path(path: Path) -> Path:
    """Return the folder in which a packed set is built before it is renamed to `path`."""
    return path.with_name(path.name + ".partial")


def is_packed(path: Path) -> bool:
    """Tell whether `path` claims to be a packed set (it may still be damaged)."""
    return (path / "manifest.json").is_file()


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the packed set at `path`.

    Raises:
        DataError: if it is missing, unreadable, or of a newer version.
    """
    file = path / "manifest.json"
    try:
        tree = parse_json(file.read_text(encoding="utf-8"))
        version = tree.get("version") if isinstance(tree, dict) else None
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise DataError(
                f"{path}: was written by a newer progan (packed set version {version}, this one reads "
                f"{FORMAT_VERSION}); update progan or prepare the pictures again"
            )
        return Manifest.model_validate(tree)
    except FileNotFoundError:
        unfinished = partial_path(path).is_dir() or (path / "progress.json").exists()
        raise DataError(
            f"{path}: preparing it was not finished; run the same prepare command again, it continues"
            if unfinished
            else f"{path}: is no packed set (it has no manifest.json); make one with `progan prepare`"
        ) from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = explain(error).splitlines()[0]
        raise DataError(f"{file}: is damaged ({first}); prepare the pictures again") from None
    except ValueError as error:
        raise DataError(f"{file}: is damaged ({error}); prepare the pictures again") from None


def _require_size(folder: Path, manifest: Manifest, level: int) -> None:
    """Raise a DataError unless the file of a level is there, as long as it must be."""
    file = folder / manifest.level_file(level)
    expected = manifest.count * manifest.picture_bytes(level)
    try:
        actual: int | None = file.stat().st_size if file.is_file() else None
    except OSError:
        actual = None
    if actual != expected:
        state = "is missing" if actual is None else f"has {actual} bytes instead of {expected}"
        raise DataError(f"{file}: {state}; copy the set again or prepare the pictures again")


class PackedSet:
    """A packed set that is complete; pixels stay on disk until they are read.

    Attributes:
        path: The folder.
        manifest: What `manifest.json` holds.
        base_shape: (height, width) of level 0.
        max_level: The highest level.
        channels: 1 gray, 2 gray + alpha, 3 RGB, 4 RGBA, or more of any meaning.
        depth: Bits of a stored value: 8 or 16.
        count: Number of pictures, all splits together.
        label_names: Names of the classes in the order of their numbers, or of a vector's entries, if any.
        fingerprint: Hash over pixels, names, labels and split: equal where the sets are equal.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.base_shape, self.max_level = manifest.base_shape, manifest.max_level
        self.channels, self.count = manifest.channels, manifest.count
        self.depth = 8 if manifest.dtype == "uint8" else 16
        self.label_names, self.fingerprint = manifest.label_names, manifest.fingerprint
        self._labels = self._load_labels() if manifest.label_names else None
        self._split = self._load("split.npy", np.uint8, ())
        if self._split.max() >= len(SPLITS):
            raise DataError(f"{path / 'split.npy'}: holds other values than 0, 1 and 2")
        self._files: dict[int, LevelFile] = {}
        self._held: dict[int, Pixels] = {}

    @classmethod
    def open(cls, path: str | Path) -> PackedSet:
        """Open the packed set at `path`.

        Raises:
            DataError: if it is missing, unfinished, truncated, damaged or of a newer version.
        """
        path = Path(path)
        manifest = read_manifest(path)
        for level in range(manifest.max_level + 1):
            _require_size(path, manifest, level)
        return cls(path, manifest)

    @property
    def label_form(self) -> LabelForm:
        """What a label is: a 'class', several 'classes' or a 'vector'; 'class' if unlabelled."""
        return self.manifest.label_form if self.manifest.label_names else "class"

    @property
    def label_size(self) -> int:
        """Length of a label vector: number of classes, or of a vector's entries; 0 if unlabelled."""
        return len(self.manifest.label_names)

    def resolution(self, level: int) -> tuple[int, int]:
        """Return (height, width) of a level."""
        return self.manifest.resolution(level)

    def indices(self, split: str = "train") -> NDArray[np.int64]:
        """Return the positions of the pictures of a split, or of "all" splits together, ascending.

        Raises:
            DataError: for another name than train, validation, test and all.
        """
        if split == "all":
            return np.arange(self.count, dtype=np.int64)
        if split not in SPLITS:
            raise DataError(f"there is no split {split!r}; the splits are {', '.join(SPLITS)}, or all")
        return np.flatnonzero(self._split == SPLITS.index(split)).astype(np.int64)

    def read(self, level: int, indices: ArrayLike) -> Pixels:
        """Return a copy of some pictures at one level.

        Args:
            level: 0..max_level.
            indices: [n] integers in [0, count).

        Returns:
            [n, C, h, w], uint8 (0..255) or uint16 (0..65535).

        Raises:
            IndexError: if the level or an index is out of range.
            DataError: if the set was deleted, cut off or replaced since it was opened, or the disk fails.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and not 0 <= rows.min() <= rows.max() < self.count:
            raise IndexError(f"picture index out of range: the set has {self.count} pictures")
        if level in self._held:
            held: Pixels = np.ascontiguousarray(self._held[level][rows], self.manifest.dtype)
            return held
        read: Pixels = self._file(level).read(rows)
        return read

    def hold(self, level: int) -> None:
        """Read a level into memory, from where `read` takes it from then on, and let go of any other.

        Raises:
            IndexError: if the level is out of range.
            DataError: if the memory is not enough, or the disk fails.
        """
        file = self._file(level)
        if level in self._held:
            return
        self._held.clear()
        try:
            self._held[level] = file.read(np.arange(self.count))
        except MemoryError:
            raise DataError(
                f"{self.path}: level {level} needs {file.nbytes / 2**30:.2f} GiB of memory, more than "
                f"there is; leave data.in_memory out"
            ) from None

    def labels(self, indices: ArrayLike) -> NDArray[np.int64]:
        """Return the class number [n] of some pictures; all 0 if unlabelled.

        Raises:
            ValueError: if labels are of another form than 'class'.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if self._labels is None:
            return np.zeros(len(rows), np.int64)
        if self.label_form != "class":
            raise ValueError(
                f"labels of the form {self.label_form!r} are no class numbers: use label_vectors"
            )
        return self._labels[rows].astype(np.int64, copy=False)

    def label_vectors(self, indices: ArrayLike) -> NDArray[np.float32]:
        """Return the labels of some pictures as networks take them.

        Args:
            indices: [n] integers in [0, count).

        Returns:
            [n, label_size]: a 1 in the place of the class; or 1 for each class that the picture has; or the
            vectors. [n, 0] if unlabelled.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if self._labels is None:
            return np.zeros((len(rows), 0), np.float32)
        if self.label_form != "class":
            return self._labels[rows].astype(np.float32, copy=False)
        encoded = np.zeros((len(rows), self.label_size), np.float32)
        encoded[np.arange(len(rows)), self._labels[rows]] = 1
        return encoded

    def names(self) -> list[str]:
        """Return the name of every picture, relative to the source.

        Raises:
            DataError: if the file is missing or damaged.
        """
        file = self.path / "names.json"
        try:
            names = parse_json(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read ({error}); prepare the pictures again") from None
        if not isinstance(names, list) or len(names) != self.count:
            raise DataError(f"{file}: does not hold {self.count} names; prepare the pictures again")
        return [str(name) for name in names]

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        height, width = self.resolution(self.max_level)
        return f"PackedSet({str(self.path)!r}: {self.count} pictures, {self.channels}x{height}x{width})"

    def __getstate__(self) -> dict[str, object]:
        # Open files stay with their process, and pixels in memory would be copied.
        return {**self.__dict__, "_files": {}, "_held": {}}

    def _file(self, level: int) -> LevelFile:
        if not 0 <= level <= self.max_level:
            raise IndexError(f"level {level} is out of range: the set has levels 0 to {self.max_level}")
        _require_size(self.path, self.manifest, level)
        if level not in self._files:
            if read_manifest(self.path).fingerprint != self.fingerprint:
                raise DataError(
                    f"{self.path}: holds other pictures than when it was opened; put the old ones back, or "
                    f"begin anew with these"
                )
            shape = (self.count, self.channels, *self.resolution(level))
            place = self.path / self.manifest.level_file(level)
            self._files[level] = LevelFile(place, self.manifest.dtype, shape)
        return self._files[level]

    def _load_labels(self) -> Labels:
        form, size = self.label_form, self.label_size
        if form == "class":
            numbers: NDArray[np.int64] = self._load("labels.npy", np.int64, ())
            if not 0 <= numbers.min() <= numbers.max() < size:
                raise DataError(f"{self.path / 'labels.npy'}: holds labels that the manifest does not name")
            return numbers
        rows: NDArray[np.float32] = self._load("labels.npy", np.float32, (size,))
        if not np.isfinite(rows).all() or (form == "classes" and not np.isin(rows, (0, 1)).all()):
            allowed = "finite numbers" if form == "vector" else "0 and 1"
            raise DataError(
                f"{self.path / 'labels.npy'}: holds other values than {allowed}; prepare the pictures again"
            )
        return rows

    def _load(self, name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
        """Load a small array that has entries of `dtype` and `shape` for each picture."""
        file = self.path / name
        try:
            values = load_array(file)
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: cannot be read ({error}); prepare the pictures again") from None
        if values.shape != (self.count, *shape) or values.dtype != dtype:
            raise DataError(f"{file}: does not belong to this set; prepare the pictures again")
        return values
