"""Draws the figures of docs/how-it-works.md as SVG, from the networks and the schedule in the code.

`python benchmarks/draw_figures.py docs/images` writes them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from progan.config import load_config
from progan.models.network import filters
from progan.system.files import write_text
from progan.training.schedule import Schedule

BLUE, ORANGE, GREY, INK = "#4a7fb5", "#d9822b", "#9aa5b1", "#25303b"
Parts = Iterable[str]


def svg(width: int, height: int, parts: Parts) -> str:
    """Return a drawing on a white ground, with arrow heads to use."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="13" fill="{INK}">'
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>'
        f'<rect width="{width}" height="{height}" rx="6" fill="white"/>'
    )
    return head + "".join(parts) + "</svg>\n"


def box(x: float, y: float, width: float, height: float, text: str, colour: str) -> str:
    """Return a box with a text in its middle."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="{colour}" fill-opacity="0.25" '
        f'stroke="{colour}"/>' + label(x + width / 2, y + height / 2 + 4.5, text)
    )


def label(x: float, y: float, text: str, anchor: str = "middle") -> str:
    """Return a text."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return an arrow."""
    return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{INK}" fill="none" marker-end="url(#tip)"/>'


def growth() -> str:
    """Draw both networks at three levels: new layers come at the side of the pictures."""
    counts = filters(load_config("paper-celebahq-1024").model.generator, 8)
    parts = []
    for column, level in enumerate((0, 2, 8)):
        left, shown = 30 + column * 250, range(level, -1, -1)
        parts.append(label(left + 50, 24, "generator") + label(left + 165, 24, "discriminator"))
        tall = 26 if level < 8 else 24
        bottom = 300
        for place, each in enumerate(reversed(shown)):
            side = 4 * 2**each
            y = bottom - (place + 1) * (tall + 3)
            text = f"{side}x{side}, {counts[each]}"
            parts.append(box(left, y, 100, tall, text, BLUE) + box(left + 115, y, 100, tall, text, ORANGE))
        top = bottom - (level + 1) * (tall + 3)
        parts.append(arrow(left + 50, 330, left + 50, bottom + 4) + label(left + 50, 345, "latent"))
        parts.append(arrow(left + 165, bottom + 1, left + 165, 330) + label(left + 165, 345, "score"))
        path = f"M{left + 50} {top}V{top - 10}H{left + 165}V{top - 3}"
        parts.append(f'<path d="{path}" stroke="{INK}" fill="none" marker-end="url(#tip)"/>')
    return svg(790, 360, parts)


def fading() -> str:
    """Draw what alpha does to both networks while a level fades in."""
    parts = [label(210, 24, "generator"), label(610, 24, "discriminator")]
    parts += [box(20, 60, 80, 34, "16x16", BLUE), arrow(100, 77, 128, 77), box(130, 60, 60, 34, "2x", GREY)]
    parts += [arrow(190, 70, 218, 55), box(220, 36, 80, 34, "32x32", BLUE), arrow(300, 53, 318, 53)]
    parts += [box(320, 36, 60, 34, "toRGB", GREY), box(320, 96, 60, 34, "toRGB", GREY)]
    parts += [arrow(190, 86, 318, 113), arrow(380, 53, 412, 74), arrow(380, 113, 412, 94), plus(424, 84)]
    parts += [label(412, 50, "alpha"), label(424, 128, "1 - alpha")]
    parts += [box(480, 36, 66, 34, "fromRGB", GREY), arrow(546, 53, 562, 53)]
    parts += [
        box(564, 36, 80, 34, "32x32", ORANGE),
        arrow(644, 53, 660, 53),
        box(662, 36, 46, 34, "1/2", GREY),
    ]
    parts += [
        box(480, 96, 66, 34, "1/2", GREY),
        arrow(546, 113, 562, 113),
        box(564, 96, 80, 34, "fromRGB", GREY),
    ]
    parts += [arrow(708, 53, 740, 76), arrow(644, 113, 740, 92), plus(752, 84), arrow(764, 84, 780, 84)]
    parts += [label(742, 50, "alpha"), label(742, 128, "1 - alpha"), box(782, 67, 76, 34, "16x16", ORANGE)]
    return svg(880, 150, parts)


def plus(x: float, y: float) -> str:
    """Return the sign of a sum."""
    return f'<circle cx="{x}" cy="{y}" r="11" fill="none" stroke="{INK}"/>' + label(x, y + 5, "+")


def schedule() -> str:
    """Draw resolution and alpha over the images seen, of the paper's setting."""
    plan = Schedule(load_config("paper-celebahq-1024"), 8, 30_000)
    left, width, top, height = 60, 700, 20, 150
    across = width / plan.total
    parts = []
    for phase in plan.phases:
        x, wide = left + phase.start * across, (phase.end - phase.start) * across
        tall = (phase.level + 1) * height / 9
        colour = ORANGE if phase.kind == "fade" else BLUE
        points = (
            f"{x},{top + height} {x},{top + height - (tall - height / 9 if phase.kind == 'fade' else tall)} "
        )
        points += f"{x + wide},{top + height - tall} {x + wide},{top + height}"
        parts.append(f'<polygon points="{points}" fill="{colour}" fill-opacity="0.35" stroke="{colour}"/>')
        if phase.kind != "fade":
            side = 4 * 2**phase.level
            parts.append(label(min(x + wide / 2, left + width - 20), top + height - tall - 4, f"{side}"))
    parts.append(label(left + width / 2, top + height + 36, "million real images shown to D"))
    for million in range(0, plan.total // 10**6 + 1, 2):
        parts.append(label(left + million * 1e6 * across, top + height + 17, str(million)))
    parts.append(box(left, top, 12, 12, "", BLUE) + label(left + 18, top + 11, "train at a size", "start"))
    parts.append(
        box(left, top + 20, 12, 12, "", ORANGE) + label(left + 18, top + 31, "fade the next one in", "start")
    )
    return svg(800, 220, parts)


if __name__ == "__main__":
    for name, draw in (("growth-of-networks", growth), ("fading", fading), ("schedule", schedule)):
        write_text(Path(sys.argv[1]) / f"{name}.svg", draw())
