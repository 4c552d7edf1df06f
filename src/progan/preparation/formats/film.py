"""The frames of a film, so many a second, without those that hardly differ from the one before."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from progan.errors import DataError
from progan.preparation.formats.extras import needed
from progan.preparation.picture.opening import MAX_PIXELS
from progan.preparation.pictures import HEIF_BRANDS, Candidate, Found, Listing, is_picture

MATROSKA, OGG, FLASH = b"\x1a\x45\xdf\xa3", b"OggS", b"FLV\x01"
PICTURE_BRANDS = (*HEIF_BRANDS, b"avif", b"avis", b"crx ")
PART = re.compile(r"^\[[^]]* @ 0x[0-9a-f]+\] ")
"""Which part of ffmpeg speaks."""
TOLD = ("At least one output", "Error opening input")
"""What ffmpeg says besides the reason."""
QUIET = ["-hide_banner", "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"]
RATE = re.compile(r"Video:.*?([\d.]+) fps")
LENGTH = re.compile(r"Duration: (\d+):(\d+):([\d.]+)")
SIDE = 32
"""Frames are compared at this size, in gray."""
SAME = 1.5
"""Frames that differ by less than this on average, of 255, are the same."""
ALL_BELOW = 1_000
"""A film of fewer frames is taken whole where no number a second is asked for."""
EARLY = 0.001
"""In parts of the time between frames: a frame that is so little too early counts as of the next."""
SHORT = 0.9
"""A film that ends before this share of its length is cut off."""


def recognise(found: Found) -> Film | None:
    """Return the reader of a film: mp4, mov, webm, mkv, avi, ogg or gif."""
    head = found.head
    if head[4:8] == b"ftyp" and not is_picture(head) and head[8:12] not in PICTURE_BRANDS:
        return Film(found.path, found.options.fps)
    riff = head.startswith(b"RIFF") and head[8:12] == b"AVI "
    if riff or head.startswith((MATROSKA, OGG, FLASH, b"GIF8")):
        return Film(found.path, found.options.fps)
    return None


class Film:
    """Frames of a film, read by ffmpeg in a process of its own; a process reads on from the frame before.

    Args:
        path: The file.
        fps: Frames a second; None: all, or one a second of a film of `ALL_BELOW` or more.
    """

    in_archive = False

    def __init__(self, path: Path, fps: float | None) -> None:
        self.path = path
        self._fps = fps
        self._reader: Generator[bytes, None, None] | None = None
        self._next = 0

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_reader": None, "_next": 0}

    def listing(self) -> Listing:
        """Look at all frames, small, and leave out those that are as the one before.

        Raises:
            DataError: if the film cannot be read.
            DependencyError: if ffmpeg is not installed.
        """
        rate, seconds = self._about()
        listing = Listing(ordered=True)
        if self._fps is None and rate * seconds >= ALL_BELOW:
            self._fps = 1.0
            listing.notes.append(f"of {rate:g} frames a second one is read; --fps decides otherwise")
        stamp, frames, kept = self.path.stat().st_mtime_ns, 0, None
        for data in self._frames(f"scale={SIDE}:{SIDE}", "gray", _read_gray):
            frame = np.frombuffer(data, np.uint8).astype(np.int16)
            if kept is None or float(np.abs(frame - kept).mean()) >= SAME:
                listing.candidates.append(Candidate(f"{frames:06d}", len(data), stamp))
                kept = frame
            frames += 1
        same = frames - len(listing.candidates)
        notes = [f"{frames:,} frames were read"]
        if same:
            notes.append(f"{same:,} of them left out as they hardly differ from the one before")
        listing.notes.append(", ".join(notes))
        taken = min(self._fps, rate) if self._fps and rate else self._fps or rate
        if not frames:
            raise DataError(f"{self.path}: cannot be read as a film (no frame of it can be decoded)")
        if seconds and taken and frames < SHORT * seconds * taken - 1:
            listing.notes.append(
                f"the film is cut off: it ends after {frames / taken:.1f} of {seconds:.1f} seconds"
            )
        return listing

    def open(self, name: str) -> BinaryIO:
        """Return a frame as a PPM file; raises OSError if the film ends before it."""
        index = int(name)
        if self._reader is None or index < self._next:
            self.close()
            self._reader, self._next = self._frames("null", "ppm", _read_ppm), 0
        for data in self._reader:
            self._next += 1
            if self._next > index:
                return io.BytesIO(data)
        raise OSError("the film ends before this frame")

    def read_file(self, name: str) -> bytes | None:  # noqa: ARG002 - there are none
        """Return nothing: a film holds no other files."""
        return None

    def close(self) -> None:
        """End the process that reads frames."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __del__(self) -> None:
        self.close()

    def _about(self) -> tuple[float, float]:
        """Return frames a second and seconds of the film, 0 if they are not known."""
        told = subprocess.run(
            [self._ffmpeg(), *QUIET[:2], "-i", str(self.path)], capture_output=True, check=False
        )
        text = told.stderr.decode("utf-8", "replace")
        if "Video:" not in text:
            lines = [PART.sub("", line).strip() for line in text.splitlines() if line.strip()]
            why = next((line for line in reversed(lines) if not line.startswith(TOLD)), "no video is in it")
            raise DataError(f"{self.path}: cannot be read as a film ({why[:200]})")
        rate, length = RATE.search(text), LENGTH.search(text)
        hours, minutes, seconds = map(float, length.groups()) if length else (0.0, 0.0, 0.0)
        return float(rate[1]) if rate else 0.0, 3600 * hours + 60 * minutes + seconds

    def _frames(
        self, scaling: str, codec: str, read: Callable[[IO[bytes]], bytes]
    ) -> Generator[bytes, None, None]:
        """Yield frames at the wanted number a second, as `read` takes them from what ffmpeg writes."""
        # The first frame of each part of a second is chosen, and none repeated: the times that a damaged file
        # tells could ask for millions.
        part, chosen = f"*{self._fps}+{EARLY}", "isnan(prev_selected_t)"
        chosen += f"+gt(floor(t{part})\\,floor(prev_selected_t{part}))"
        filters = scaling if self._fps is None else f"select={chosen},{scaling}"
        form = (
            ["-f", "rawvideo", "-pix_fmt", "gray"] if codec == "gray" else ["-f", "image2pipe", "-c:v", codec]
        )
        shaped = ["-vf", filters, "-fps_mode", "passthrough", *form]
        command = [self._ffmpeg(), *QUIET, "-i", str(self.path), *shaped, "-"]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdout is not None
            try:
                while data := read(process.stdout):
                    yield data
            finally:
                process.kill()

    def _ffmpeg(self) -> str:
        path: str = needed("imageio_ffmpeg", "video", self.path).get_ffmpeg_exe()
        return path


def _read_gray(stream: IO[bytes]) -> bytes:
    data = stream.read(SIDE * SIDE)
    return data if len(data) == SIDE * SIDE else b""


def _read_ppm(stream: IO[bytes]) -> bytes:
    """Return the next picture `P6 width height 255`; nothing at the end, or if it is too large."""
    lines = [stream.readline() for _ in range(3)]
    if not lines[0].startswith(b"P6"):
        return b""
    width, height = map(int, lines[1].split())
    if width * height > MAX_PIXELS:
        return b""
    data = stream.read(3 * width * height)
    return b"".join(lines) + data if len(data) == 3 * width * height else b""
