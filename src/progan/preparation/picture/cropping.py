"""Which parts of a picture get into a set: the whole, one box, several random ones, or tiles.

Where a picture gives several, each is called by the name of its file, `#` and its number.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Mapping
from typing import NamedTuple

from progan.errors import DataError

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels of the upright picture."""

Size = tuple[int, int]
"""Height and width."""

SMALLEST = 0.5
"""A random crop has at least this share of the sides of the largest that fits."""

_EDGES = ("left", "top", "right", "bottom")
_CORNER = ("x", "y", "width", "height")


class Cropping(NamedTuple):
    """What is cut out of each picture; nothing set: it is taken whole.

    Attributes:
        target: (height, width) of the pictures of the set.
        tiles: Cut it into as many parts of the target's size as it has room for.
        parts: Cut out so many parts at random, by a hash of its name; 0 for none.
        square: (centre x, centre y, side) of the one part.
        boxes: The part of each picture, by its name.
    """

    target: Size = (1, 1)
    tiles: bool = False
    parts: int = 0
    square: tuple[float, float, float] | None = None
    boxes: Mapping[str, Box] | None = None

    @property
    def several(self) -> bool:
        """Whether a picture may give several parts."""
        return self.tiles or self.parts > 0

    def items(self, name: str, size: Size) -> list[str]:
        """Return what the parts of a picture are called."""
        if not self.several:
            return [name]
        count = self.parts
        if self.tiles:
            count = max(1, size[0] // self.target[0]) * max(1, size[1] // self.target[1])
        return [f"{name}#{i}" for i in range(count)]

    def origin(self, item: str) -> str:
        """Return the name of the picture of which something is a part."""
        return item.rpartition("#")[0] if self.several else item

    def box(self, item: str, size: Size) -> Box | None:
        """Return where a part is in a picture of (height, width), or None for all of it.

        Raises:
            ValueError: if it is not inside, in words.
        """
        if self.several:
            number = int(item.rpartition("#")[2])
            return self._tile(number, size) if self.tiles else self._random(item, size)
        if self.square is not None:
            x, y, side = self.square
            half = side / 2
            return _inside((round(x - half), round(y - half), round(x + half), round(y + half)), size)
        if self.boxes is not None:
            return _inside(self.boxes[item], size)
        return None

    def region(self, name: str, size: Size) -> Size | None:
        """Return the (height, width) of what is cut out of a picture, or None if it does not fit in."""
        if self.several:
            return size
        try:
            box = self.box(name, size)
        except (ValueError, KeyError):
            return None
        return size if box is None else (box[3] - box[1], box[2] - box[0])

    def _tile(self, number: int, size: Size) -> Box | None:
        """Tiles lie in rows, in the middle of the picture."""
        rows, columns = size[0] // self.target[0], size[1] // self.target[1]
        if rows == 0 or columns == 0:
            return None
        top = (size[0] - rows * self.target[0]) // 2 + number // columns * self.target[0]
        left = (size[1] - columns * self.target[1]) // 2 + number % columns * self.target[1]
        return left, top, left + self.target[1], top + self.target[0]

    def _random(self, item: str, size: Size) -> Box:
        """Draw size and place of a part with the target's shape from a hash of its name."""
        drawn = hashlib.sha256(item.encode("utf-8", "surrogatepass")).digest()
        scale, x, y = (int.from_bytes(drawn[i : i + 8], "big") / 2**64 for i in (0, 8, 16))
        largest = min(size[0] / self.target[0], size[1] / self.target[1])
        factor = largest * (SMALLEST + (1 - SMALLEST) * scale)
        factor = min(largest, max(factor, 1.0))  # not smaller than the target, so that nothing is enlarged
        height, width = max(1, int(self.target[0] * factor)), max(1, int(self.target[1] * factor))
        left, top = int(x * (size[1] - width + 1)), int(y * (size[0] - height + 1))
        return left, top, left + width, top + height


def _inside(box: Box, size: Size) -> Box:
    left, top, right, bottom = box
    if not (0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]):
        raise ValueError(
            f"the crop {left},{top} to {right},{bottom} is not inside {size[1]}x{size[0]} pixels"
        )
    return box


def parse_crop(text: str) -> tuple[int, tuple[float, float, float] | None, str | None]:
    """Read the option `crop`, whose form is checked.

    Returns:
        How many random parts (0: none), the square (centre x, centre y, side), and the name of a file of
        boxes; of the last two, one at most is not None.
    """
    if text.startswith("random:"):
        return int(text.removeprefix("random:")), None, None
    if re.fullmatch(r"[-+\d.,\s]+", text):
        x, y, side = (float(part) for part in text.split(","))
        return 0, (x, y, side), None
    return 0, None, text


def read_boxes(data: bytes, path: object) -> dict[str, Box]:
    """Read a CSV file of boxes: a header `name,left,top,right,bottom` or `name,x,y,width,height`, then rows.

    Raises:
        DataError: saying which line is wrong.
    """
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig", "surrogateescape"))))
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if tuple(header[1:]) not in (_EDGES, _CORNER):
        raise DataError(
            f"{path}: line 1 is no header of crop boxes; expected name,{','.join(_EDGES)} or "
            f"name,{','.join(_CORNER)}"
        )
    boxes: dict[str, Box] = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(row):
            continue
        try:
            name, *cells = row
            a, b, c, d = (round(float(cell)) for cell in cells)
        except (ValueError, OverflowError):
            raise DataError(f"{path}: line {number}: expected a name and four numbers") from None
        boxes[name] = (a, b, c, d) if tuple(header[1:]) == _EDGES else (a, b, a + c, b + d)
    return boxes
