"""The model card of a run: what was trained on what, how well it does, and how it is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from progan.config import Config, format_resolution
from progan.data.packed import PackedSet
from progan.errors import ProganError, command
from progan.evaluation.results import FILE, Result, read_results
from progan.models.generator import Generator
from progan.models.hub import is_hub_name
from progan.runs import checkpoint
from progan.runs.run_folder import RunFolder
from progan.runs.trained.kept_generators import Found

PIPELINE = "unconditional-image-generation"
"""What the hub calls making images of nothing but chance (or a label)."""
SAMPLES, FILM, ONNX, PAGE = "samples.png", "film.gif", "generator.onnx", "explore/index.html"
GROWTH = ("growth.gif", "growth.webp", "growth.mp4", "growth.webm")
"""Names of a film of the training, as `progan movie RUN --out RUN/growth.gif` writes it."""


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Attributes:
        G: The generator.
        found: Where it comes from.
        name: On the hub: `user/name`.
        license: Of the weights; None if nobody said.
        files: Names of the files beside the card and in folders there, such as `explore/index.html`.
    """

    G: Generator
    found: Found
    name: str
    license: str | None
    files: frozenset[str]


def model_card(facts: CardFacts) -> str:
    """Return the README.md of a generator on the hub: front matter in YAML, then Markdown."""
    results = _results(facts.found)
    head = ModelCardData(
        license=facts.license,
        library_name="progan",
        pipeline_tag=PIPELINE,
        tags=["progan", "gan", "image-generation", *(["onnx"] if ONNX in facts.files else [])],
        model_name=facts.name.split("/")[-1],
        eval_results=_eval_results(facts, results) or None,
    ).to_yaml()
    parts = [
        _title(facts), _pictures(facts), _usage(facts), _training(facts), _metrics(results),
        _intended(facts), _paper(),
    ]  # fmt: skip
    return f"---\n{head}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _title(facts: CardFacts) -> str:
    G, size = facts.G, format_resolution(facts.G.resolution())
    labels = ""
    if G.label_size:
        what = {"class": "classes", "classes": "attributes", "vector": "numbers"}[G.label_form]
        names = ", ".join(_plain(name) for name in G.label_names[:20])
        more = ", ..." if len(G.label_names) > 20 else ""
        labels = f" Labels: {G.label_size} {what}{f' ({names}{more})' if names else ''}."
    return (
        f"# {facts.name.split('/')[-1]}\n\nA progressively grown GAN that makes images of {size} with "
        f"{G.channels} channel{'' if G.channels == 1 else 's'}.{labels}"
    )


def _pictures(facts: CardFacts) -> str:
    told = {SAMPLES: "samples", FILM: "a walk through latent space", **dict.fromkeys(GROWTH, "the training")}
    shown = [_shown(name, alt) for name, alt in told.items() if name in facts.files]
    return "\n\n".join(shown)


def _shown(name: str, alt: str) -> str:
    """Return what shows a picture or film; the hub takes video as HTML alone."""
    if name.endswith((".mp4", ".webm")):
        return f'<video controls loop muted src="{name}" title="{alt}"></video>'
    return f"![{alt}]({name})"


def _usage(facts: CardFacts) -> str:
    name, G = facts.name, facts.G
    use = command("generate", name, "--n", 64, "--out", "samples.png")
    text = f"""## How to use it

```bash
pip install progan
{use}
```

```python
import progan

G = progan.load("{name}")
for batch in progan.generate(G, 64, seed=0):  # uint8 [N, {G.channels}, height, width]
    ...
```"""
    if ONNX in facts.files:
        labels = ', "labels": labels' if G.label_size else ""
        rows = f"\nlabels = {_example_labels(G)}" if G.label_size else ""
        text += f"""

Without PyTorch, for any batch (values of images range from -1 to 1):

```python
import numpy, onnxruntime

session = onnxruntime.InferenceSession("{ONNX}")
z = numpy.random.standard_normal((4, {G.latent_size})).astype("float32"){rows}
(images,) = session.run(None, {{"z": z{labels}}})
```"""
    if PAGE in facts.files:
        text += f"""

In a browser, which runs it itself:

```bash
hf download {name} --include "explore/*" --local-dir {name.split("/")[-1]}
python -m http.server --directory {name.split("/")[-1]}/explore
```"""
    return text


def _example_labels(G: Generator) -> str:
    """Return Python that makes labels of four images."""
    if G.label_form == "class":
        return f'numpy.eye({G.label_size}, dtype="float32")[[0, 0, 0, 0]]  # the first class'
    return f'numpy.zeros((4, {G.label_size}), "float32")'


def _training(facts: CardFacts) -> str:
    folder = facts.found.run
    if folder is None:
        return ""
    config, source, seen = folder.config(), Path(folder.dataset().source), facts.found.images_seen
    record, _ = checkpoint.newest_record(folder.checkpoints)
    versions = {} if record is None else record.versions
    rows: list[tuple[str, Any]] = [
        ("pictures", _pictures_of(folder) + _plain(source.name if source.is_absolute() else str(source))),
        ("images shown", "unknown" if seen is None else f"{seen:,}"),
        ("grown to", f"{format_resolution(facts.G.resolution())} (level {facts.G.level}"
                     + (f", alpha {facts.G.alpha:.2f})" if facts.G.alpha < 1 else ")")),
        ("batch size per level", " ".join(map(str, config.schedule.batch_size))),
        ("loss", config.loss.adversarial),
        ("conditioning", config.model.conditioning or "none"),
        ("augmentation", ", ".join(config.augment.policy) or "none"),
        ("mirrored pictures", "yes" if config.data.mirror else "no"),
        ("begun with", _begun_with(config)),
        ("seed", config.run.seed),
        ("parameters", f"{sum(value.numel() for value in facts.G.parameters()):,}"),
    ]  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"## Training\n\n| | |\n| --- | --- |\n{table}\n\nTrained with "
        f"{', '.join(f'{name} {version}' for name, version in versions.items()) or 'progan'}; "
        f"`training.yaml` has the whole configuration."
    )


def _begun_with(config: Config) -> str:
    """Return what a run was begun with: a name on the hub, or the name of what lay in a folder."""
    init = config.init
    if init.source is None:
        return "fresh weights"
    name = init.source if is_hub_name(init.source) else Path(init.source).name
    frozen = [f"first {init.freeze_d} levels of D"] if init.freeze_d else []
    frozen += ["what G had"] if init.freeze_g else []
    told = f"{_plain(name)} (sha256 {(init.sha256 or '')[:16]})"
    return told + (f", not trained: {', '.join(frozen)}" if frozen else "")


def _pictures_of(folder: RunFolder) -> str:
    """Return how many pictures a run was trained on and from where, or from where alone."""
    try:
        return f"{PackedSet.open(folder.pictures()).count:,} of "
    except ProganError:
        return ""


def _results(found: Found) -> list[Result]:
    """Return what was measured of this generator, the newest of each metric."""
    if found.run is None:
        return []
    try:
        results = read_results(found.run.path / FILE)
    except ProganError:
        return []
    of_it = [r for r in results if r.about.get("images", {}).get("images_seen") == found.images_seen]
    return list({result.metric: result for result in of_it}.values())


def _metrics(results: list[Result]) -> str:
    if not results:
        return "## Metrics\n\nNone was measured."
    lines = ["| metric | value | images | reals |", "| --- | --- | --- | --- |"]
    for result in results:
        reals = "" if result.num_reals is None else f"{result.num_reals:,}"
        lines += [
            f"| {name} | {value:.4g} | {result.num_images:,} | {reals} |"
            for name, value in result.numbers.items()
        ]
    return "## Metrics\n\n" + "\n".join(lines)


def _eval_results(facts: CardFacts, results: list[Result]) -> list[EvalResult]:
    run = facts.found.run
    data = "pictures" if run is None else _plain(Path(run.dataset().source).name)
    return [
        EvalResult(
            task_type=PIPELINE, dataset_type="custom", dataset_name=data, metric_type=name,
            metric_value=round(value, 6),
        )
        for result in results
        for name, value in result.numbers.items()
    ]  # fmt: skip


def _intended(facts: CardFacts) -> str:
    license = facts.license or "not stated; ask before you use the weights or images for anything but looking"
    return f"""## Intended use

Making images like the pictures it was trained on, for art, study and tests of tools. It knows nothing but
those pictures: what is rare among them is rare or missing in its images, what is unfair in them stays so, and
an image may come close to one of them (`progan evaluate RUN --neighbours` shows the nearest). Do not
pass its images off as photographs of people or events.

License of the weights: {license}."""


def _paper() -> str:
    return (
        "Method: Karras, Aila, Laine, Lehtinen: *Progressive Growing of GANs for Improved Quality, "
        "Stability, and Variation*, ICLR 2018, [arXiv:1710.10196](https://arxiv.org/abs/1710.10196)."
    )


def _plain(text: str) -> str:
    """Return a text that Markdown takes for nothing else, of at most 100 characters."""
    kept = "".join(letter for letter in text if letter.isprintable() and letter not in "|`<>[]*_#\\")
    return kept[:100]
