"""A report of one run or several: one file of HTML that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from PIL import Image

from progan.config import flatten
from progan.errors import ConfigError, DataError, command
from progan.generation.picture_form import flat
from progan.models.weights import Own
from progan.report.curves import draw, library
from progan.report.neighbours import near_reals
from progan.report.run_facts import RunFacts, describe_machine, read_run
from progan.system.files import write_text
from progan.version import __version__

MOST_BYTES = 20_000_000
_PICTURE_BYTES = 12_000_000
"""Of all pictures of a report together."""

_GRIDS = 40
_WIDEST = 1400
"""Pixels of a grid in a report."""


def write_report(
    paths: Sequence[str | Path], out: str | Path, *, refresh: int | None = None, own: Own = ()
) -> Path:
    """Write a report.

    Args:
        paths: Run folders, one or more; of several the curves are laid over one another.
        out: The file, `.html`.
        refresh: Seconds after which a browser is to load it again; None for never.
        own: Networks of your own that the runs use: classes, or Python files that define them.

    Returns:
        `out` as a path.

    Raises:
        ConfigError: if a folder holds no run, or the file has another ending.
        DataError: if a run has no log points yet, or something of it cannot be read.
        DependencyError: if plotly is not installed.
        StorageError: if it cannot be written.
    """
    out = Path(out)
    if out.suffix.lower() not in (".html", ".htm") or not paths:
        raise ConfigError(f"{out}: a report of one run or more is a file that ends in .html")
    runs = [read_run(path) for path in paths]
    if empty := [run for run in runs if not run.stats]:
        raise DataError(f"{empty[0].folder.path} has no log points yet; train on, or wait for the first")
    single = len(runs) == 1
    title = runs[0].name if single else f"{len(runs)} runs: {', '.join(run.name for run in runs)}"
    curves = "".join(
        f"<figure><figcaption>{_text(head)}</figcaption>{body}</figure>" for head, body in draw(runs)
    )
    share = _PICTURE_BYTES // len(runs)
    samples = [_samples(run, share, named=not single) for run in runs]
    parts = [_facts(run) for run in runs] if single else [_compared(runs)]
    parts += [_near(run, own) for run in runs] if single else samples
    page = Template((files("progan.report") / "page" / "report.html").read_text(encoding="utf-8"))
    text = page.substitute(
        title=_text(title),
        subtitle=_text(_subtitle(runs)),
        refresh="" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">',
        library=library(),
        first="".join(samples) if single else "",
        curves=curves,
        parts="".join(parts),
        endings="".join(_ending(run) for run in runs),
        made=f"progan {__version__}",
    )
    write_text(out, text)
    return out


def _text(value: object) -> str:
    return html.escape(str(value))


def _subtitle(runs: Sequence[RunFacts]) -> str:
    if len(runs) > 1:
        return "Curves laid over one another, and what differs"
    run = runs[0]
    return f"{run.source()}, {run.images_seen:,} images shown, {_duration(_seconds(run))} of training"


def _seconds(run: RunFacts) -> float:
    return sum(cost.seconds for cost in run.costs())


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{body}</section>"


def _facts(run: RunFacts) -> str:
    """Return what one run is: recipe, options that differ, costs, metrics, alarms."""
    recipe, differing = run.recipe()
    words = f"<p>The recipe <b>{_text(recipe)}</b>"
    if differing:
        words += " with other options:</p>" + _table(("option", "recipe", "here"), differing)
    else:
        words += ", as it is shipped.</p>"
    body = _section("Options", words) + _section("Machine, and cost of each level", _costs(run))
    if metrics := _metrics([run]):
        body += _section("Metrics", metrics)
    return body + _section("Alarms and rollbacks", _alarms(run))


def _costs(run: RunFacts) -> str:
    total = _seconds(run) or 1.0
    rows = [
        (cost.resolution, f"{cost.images:,}", _duration(cost.seconds), f"{cost.seconds / total:.0%}",
         f"{cost.images / cost.seconds:,.0f}" if cost.seconds else "")
        for cost in run.costs()
    ]  # fmt: skip
    rows.append(("all", f"{run.images_seen:,}", _duration(_seconds(run)), "", ""))
    table = _table(("level", "images", "time", "share", "images a second"), rows)
    return table + f"<p>Precision: {_text(run.config.run.precision)}.</p>" + _machines(run)


def _machines(run: RunFacts) -> str:
    """Return what has computed, from when on."""
    lines: list[str] = []
    for found in run.folder.machines():
        begun = f"From {found['images_seen']:,} images on: " if lines else ""
        lines.append(f"<li>{_text(begun + describe_machine(found))}</li>")
    return (
        f"<ul>{''.join(lines)}</ul>"
        if lines
        else "<p>Which machine it was, this run has not written down.</p>"
    )


def _near(run: RunFacts, own: Own) -> str:
    """Return samples beside the reals that are nearest to them."""
    found = near_reals(run.folder, own)
    if isinstance(found, str):
        return _section("Nearest real pictures", f"<p>Not looked for: {_text(found)}</p>")
    ratios = ", ".join(f"{ratio:.2f}" for ratio in found.ratios)
    words = (
        f"<p>At the left a sample, then the real pictures that are nearest to it, of {found.looked_at:,}. "
        f"The distances to the nearest, as shares of what real pictures are from each other: {ratios}. "
        f"A copy would be near 0.</p>"
    )
    picture = (
        f'<img alt="Samples and their nearest reals" src="{_encoded(found.picture, _PICTURE_BYTES // 8)}">'
    )
    return _section("Nearest real pictures", words + picture)


def _metrics(runs: Sequence[RunFacts]) -> str:
    """Return a table of the last and best measurements: during training, and by `progan evaluate`."""
    rows = []
    for run in runs:
        for key in run.keys(r"(swd|fid|kid|ms_ssim|duality_gap)(/mean|/\d+|)"):
            clocks, values = run.series(key)
            least = min(range(len(values)), key=values.__getitem__)
            floor = run.series(key.replace("swd/", "swd_floor/"))[1] if key.startswith("swd/") else []
            rows.append((run.name, key, f"{values[-1]:.4g}", f"{values[least]:.4g} at {clocks[least]:,}",
                         f"{floor[-1]:.4g}" if floor else ""))  # fmt: skip
        for result in run.results:
            for name, number in result.numbers.items():
                rows.append(
                    (run.name, f"{name} (evaluate, {result.num_images:,} images)", f"{number:.4g}", "", "")
                )
    if not rows:
        return ""
    return _table(("run", "metric", "last", "lowest", "floor: reals against reals"), rows)


def _alarms(run: RunFacts) -> str:
    if not run.alarms and not run.rollbacks:
        return "<p>None.</p>"
    told = "".join(f"<li>At {clock:,} images: {_text(text)}</li>" for clock, text in run.alarms)
    back = f"<p>It went back to a checkpoint {run.rollbacks} times.</p>" if run.rollbacks else ""
    return f"<ul>{told}</ul>{back}"


def _compared(runs: Sequence[RunFacts]) -> str:
    """Return what differs between several runs."""
    trees = [flatten(run.config.model_dump(mode="json")) for run in runs]
    keys = [key for key in trees[0] if any(tree.get(key) != trees[0].get(key) for tree in trees)]
    differing = [(key, *(tree.get(key) for tree in trees)) for key in keys]
    options = _table(("option", *(run.name for run in runs)), differing)
    rows = [
        (
            run.name,
            run.source(),
            f"{run.images_seen:,}",
            _duration(_seconds(run)),
            len(run.alarms),
            run.rollbacks,
        )
        for run in runs
    ]
    body = _section("Runs", _table(("run", "data", "images", "time", "alarms", "rollbacks"), rows))
    body += _section("Options that differ", options if keys else "<p>None.</p>")
    metrics = _metrics(runs)
    return body + (_section("Metrics", metrics) if metrics else "")


def _samples(run: RunFacts, share: int, *, named: bool) -> str:
    """Return a slider through sample grids, and the last beside real pictures."""
    step = max(1, -(-len(run.grids) // _GRIDS))
    chosen = list(run.grids)[::-1][::step][::-1]
    each = share // (len(chosen) + 2)
    shots = [(clock, _picture(path, each)) for clock, path in chosen]
    if not shots:
        return ""
    head = f"Samples of {run.name}" if named else "Samples"
    data = json.dumps([[f"{clock:,} images", source] for clock, source in shots])
    slider = (
        f"<figure><figcaption>generated: the same latents through the training</figcaption>"
        f'<div class="film" data-shots="{html.escape(data)}">'
        f'<img alt="Samples at one moment" src="{shots[-1][1]}">'
        f'<p><input type="range" min="0" max="{len(shots) - 1}" value="{len(shots) - 1}" '
        f'aria-label="Moment of the training"> <output>{_text(f"{shots[-1][0]:,} images")}</output></p></div>'
        f"</figure>"
    )
    real = ""
    if run.reals is not None:
        source = _picture(run.reals, each)
        real = f'<figure><figcaption>real</figcaption><img alt="Real" src="{source}"></figure>'
    return _section(
        f"{head} beside real pictures" if real else head, f'<div class="pair">{slider}{real}</div>'
    )


def _picture(path: Path, most: int) -> str:
    """Return the picture of a file as `_encoded` does."""
    try:
        with Image.open(path) as opened:
            picture = flat(opened if opened.mode in ("L", "LA", "RGB", "RGBA") else opened.convert("RGB"))
            picture.load()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); delete it") from None
    return _encoded(picture, most)


def _encoded(picture: Image.Image, most: int) -> str:
    """Return a picture as an address that holds it, in at most so many bytes if it can be."""
    if picture.width > _WIDEST:
        picture = picture.resize(
            (_WIDEST, picture.height * _WIDEST // picture.width), Image.Resampling.LANCZOS
        )
    data = b""
    for quality in (92, 75, 50, 25):
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "WEBP", quality=quality, method=4)
        data = buffer.getvalue()
        if len(data) <= most:
            break
    return f"data:image/webp;base64,{base64.b64encode(data).decode()}"


def _ending(run: RunFacts) -> str:
    """Return the commands by which one goes on."""
    place = run.folder.path
    lines = (
        ("train on", command("train", "--resume", place)),
        ("pictures", command("generate", place, "--n", 64, "--out", "samples.png")),
        ("measure", command("evaluate", place)),
        ("explore", command("explore", place)),
        ("film", command("movie", place, "-o", "growth.mp4")),
    )
    rows = "".join(f"<dt>{name}</dt><dd><code>{_text(line)}</code></dd>" for name, line in lines)
    return _section(f"How to go on with {run.name}", f"<dl>{rows}</dl>")
