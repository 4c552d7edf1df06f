"""Curves of log points, drawn by plotly: several runs laid over one another, a line at each growth."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from progan.errors import DependencyError
from progan.report.run_facts import RunFacts

_COLOURS = ("#5a4bd6", "#d9822b", "#1f9d78", "#c2407a", "#3182ce", "#8a6d1f", "#7a7a86")
_GREY = "#8a8a94"


class Plot(NamedTuple):
    """A figure.

    Attributes:
        title: Its head.
        keys: Regular expressions of the numbers that it shows.
        dashed: Of those that are drawn dashed: floors and reals, which others are compared with.
        log: Whether the axis is logarithmic.
    """

    title: str
    keys: tuple[str, ...]
    dashed: str = "^$"
    log: bool = False


PLOTS = (
    Plot("Losses", ("D/loss", "G/loss")),
    Plot("Terms of the losses", (r"[DG]/(?!loss$|gradient_norm$|.*score$|variation$).*",)),
    Plot("Scores", ("D/real_score", "D/fake_score")),
    Plot("Gradient norms", (r"[DG]/gradient_norm",), log=True),
    Plot("Variation of samples", ("G/variation",)),
    Plot(
        "Metrics", (r"(?!swd_floor/images)(swd|swd_floor|fid|kid|is|pr|duality_gap)\b.*",), dashed=".*floor.*"
    ),
    Plot("MS-SSIM", (r"ms_ssim(_reals)?",), dashed=".*reals"),
    Plot("Images a second", ("images_per_second",), log=True),
    Plot("Schedule", ("alpha", "batch_size", "g_lr", "d_lr"), log=True),
)


def plotly() -> Any:
    """Return the package, which is the extra `report`.

    Raises:
        DependencyError: if it is not installed.
    """
    try:
        return import_module("plotly.graph_objects")
    except ImportError:
        raise DependencyError('the curves of a report need plotly: pip install "progan[report]"') from None


def library() -> str:
    """Return plotly's JavaScript, to be written into a page."""
    plotly()
    source: str = import_module("plotly.offline").get_plotlyjs()
    return source


def draw(runs: Sequence[RunFacts]) -> list[tuple[str, str]]:
    """Return figures as parts of a page: title and HTML; those that no run has numbers for are left out."""
    go = plotly()
    made = []
    for plot in PLOTS:
        figure = go.Figure()
        keys = list(dict.fromkeys(key for run in runs for pattern in plot.keys for key in run.keys(pattern)))
        for i, run in enumerate(runs):
            for j, key in enumerate(keys):
                clocks, values = run.series(key)
                if clocks:
                    figure.add_trace(_line(go, plot, run, i, key, j, clocks, values, several=len(runs) > 1))
        if not figure.data:
            continue
        _finish(figure, plot, runs)
        html = figure.to_html(
            full_html=False, include_plotlyjs=False, config={"displaylogo": False, "responsive": True}
        )
        made.append((plot.title, html))
    return made


def _line(
    go: Any,
    plot: Plot,
    run: RunFacts,
    i: int,
    key: str,
    j: int,
    clocks: list[int],
    values: list[float],
    *,
    several: bool,
) -> Any:
    """Return a curve; of several runs each has its colour, and its numbers have their dashes."""
    dashes = ("solid", "dot", "dashdot", "longdash")
    dash = "dash" if re.fullmatch(plot.dashed, key) else (dashes[j % len(dashes)] if several else "solid")
    return go.Scatter(
        x=clocks, y=values, name=f"{run.name} {key}" if several else key, mode="lines+markers",
        marker={"size": 4}, line={"color": _COLOURS[(i if several else j) % len(_COLOURS)], "dash": dash},
    )  # fmt: skip


def _finish(figure: Any, plot: Plot, runs: Sequence[RunFacts]) -> None:
    """Give a figure its axes, and a line at each growth of the first run."""
    for clock, size in runs[0].growths():
        figure.add_vline(
            x=clock, line={"color": _GREY, "width": 1, "dash": "dot"}, annotation_text=size,
            annotation_font={"size": 11, "color": _GREY}, annotation_position="top",
        )  # fmt: skip
    lines = {"gridcolor": "rgba(128,128,128,0.2)", "zerolinecolor": "rgba(128,128,128,0.4)"}
    figure.add_annotation(
        text="images seen", x=1, y=0, xref="paper", yref="paper", xanchor="right", yanchor="bottom",
        showarrow=False, font={"size": 11, "color": _GREY},
    )  # fmt: skip
    # Names of many curves take room from the curves, about two in a line.
    lines_of_names = math.ceil(len(figure.data) / 2)
    figure.update_layout(
        height=320 + 19 * max(0, lines_of_names - 2), margin={"l": 55, "r": 15, "t": 25, "b": 40},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
        font={"color": _GREY, "family": "system-ui, sans-serif"},
        legend={"orientation": "h", "y": -0.12}, hovermode="x unified", showlegend=True,
        hoverlabel={"font": {"color": "#222"}},
    )  # fmt: skip
    figure.update_xaxes(**lines)
    figure.update_yaxes(type="log" if plot.log else "linear", **lines)
