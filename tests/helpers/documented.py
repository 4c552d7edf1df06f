"""Commands and lines of Python that the pages of documentation give, as a reader finds them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^ {4}\S.*\n)+", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
PATTERN = re.compile(r"\.\.\.|\||[<>\[\]]|\$\(")
"""What a command has that is a pattern for several, or needs a shell to be understood."""


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Attributes:
        page: Its path in the checkout.
        language: After the fence, or empty.
        text: Its lines.
    """

    page: str
    language: str
    text: str


def pages() -> list[Path]:
    """Return the pages that people read."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the fenced and the indented blocks of a page, in order."""
    text, name = page.read_text(encoding="utf-8"), str(page.relative_to(ROOT))
    fenced = [(found.start(), found[1], found[2]) for found in FENCE.finditer(text)]
    rest = FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    indented = [(found.start(), "", re.sub("^ {4}", "", found[0], flags=re.MULTILINE))
                for found in INDENTED.finditer(rest)]  # fmt: skip
    return [Block(name, language, code) for _, language, code in sorted(fenced + indented)]


def documented_commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every command of progan on a page, without `progan`; patterns are left out."""
    text = page.read_text(encoding="utf-8")
    outside = INDENTED.sub("", FENCE.sub("", text))
    lines = [found[1] for found in INLINE.finditer(outside)]
    for block in blocks(page):
        if block.language in ("", "console", "sh", "bash"):
            lines += block.text.replace("\\\n", " ").splitlines()
    for line in lines:
        for part in re.split(r"; |&&", line.partition("  #")[0]):
            found = re.match(r"\s*(?:[A-Z_]+=\S+ )*(?:torchrun .* -m )?(?:\S*/)?progan (.*)", part)
            if found and not PATTERN.search(found[1]):
                words = shlex.split(found[1], comments=True)
                yield [re.sub(r"\$\{?\w+\}?", "1", word) for word in words]
