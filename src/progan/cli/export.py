"""The command that writes a generator for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from progan.cli.config import Plugins
from progan.cli.terminal.chosen import Kimg, choose
from progan.cli.terminal.console import PlainConsole, busy, format_size, say
from progan.errors import ConfigError, command


def export(
    path: Path,
    *,
    kimg: Kimg = None,
    to: Literal["onnx", "pt2", "torchscript", "safetensors"] | None = None,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    level: int | None = None,
    half: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    labels: Annotated[bool | None, Parameter(negative="--no-labels")] = None,
    output: Literal["float", "uint8"] = "float",
    license: str | None = None,
    plugin: Plugins = (),
) -> None:
    """Write a generator for other programs, and compare its images with PyTorch's.

    The file takes latents z [N, latent size], standard normal, for any N, and labels if there are any; it
    normalises latents itself and says what it is. Values of images range from -1 to 1.

    Parameters
    ----------
    path
        Run folder, checkpoint, weight file or name on the hub.
    to
        Form: onnx (with the extra `onnx`), pt2 (torch.export), torchscript, or safetensors (weights alone);
        default: by the ending of --out, else onnx.
    out
        The file; default: generator.onnx (.pt2, .ts, ...) in the current folder.
    level
        Level to make images at; default: the highest that was trained.
    half
        Store weights in 16 bits: half the size; it computes in 32.
    labels
        Insist that labels are an input, or that they are not; default: as the generator was trained.
    output
        float (-1 to 1) or uint8 (pixels).
    license
        Licence of the weights, written into the file, such as cc-by-4.0.
    """
    from progan.interop.export import export as write
    from progan.interop.export_formats import FORMATS

    form = to or ("onnx" if out is None else None)
    if out is None:
        assert form is not None
        out = Path(f"generator{FORMATS[form].suffix}")
        if out.exists():
            raise ConfigError(f"{out} exists already; name a file with --out")
    file = choose(path, kimg).file
    with busy(f"writing {out} and comparing its images"):
        made = write(
            file, out, form, level=level, half=half, labels=labels, output=output, license=license, own=plugin
        )
    facts = made.facts
    rows = [
        f"{made.path}: {facts['resolution']} images, {made.form}, {format_size(made.path.stat().st_size)}"
    ]
    rows += [f"  {name}: {facts[f'input_{name}']}" for name in ("z", "labels") if f"input_{name}" in facts]
    rows.append(f"  image: {facts['output']}")
    if made.rounding is not None:
        rows.append(f"  16-bit weights move images by up to {made.rounding:.2g}")
    rows.append(f"checked with 16 latents: at most {made.difference:.2g} from PyTorch")
    say(PlainConsole(), "\n".join(rows))


def push(
    path: Path,
    name: str,
    *,
    kimg: Kimg = None,
    license: str | None = None,
    private: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    onnx: Annotated[bool, Parameter(negative="--no-onnx", show_default=False)] = True,
    dry_run: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    plugin: Plugins = (),
) -> None:
    """Put a generator on the Hugging Face hub, with a model card made from its run.

    Anyone can then use it: progan generate user/name. Log in first with `hf auth login`, or set HF_TOKEN.

    Parameters
    ----------
    path
        Run folder, checkpoint or weight file.
    name
        Where to: user/name on the hub.
    license
        Licence of the weights as the hub calls it, such as cc-by-4.0 or mit.
    private
        If the repository has to be made, make it for you alone.
    onnx
        With --no-onnx, no file of ONNX is made.
    dry_run
        Write the folder that would be sent, and send nothing.
    out
        Folder of --dry-run; default: the name without user/.
    """
    from progan.runs.trained import publish

    console = PlainConsole()

    def tell(message: str) -> None:
        say(console, message)

    chosen = choose(path, kimg).file
    if out is not None and not dry_run:
        raise ConfigError("--out is the folder of --dry-run: give both, or neither")
    if dry_run:
        publish.require_name(name)
        with busy("writing the folder"):
            folder = publish.write_hub_folder(
                chosen,
                name,
                out or Path(name.split("/")[1]),
                license=license,
                onnx=onnx,
                say=tell,
                own=plugin,
            )
        tell(f"{folder}: {', '.join(sorted(file.name for file in folder.iterdir()))}; nothing was sent")
        return
    with busy(f"writing and sending {name}"):
        address = publish.push(
            chosen, name, license=license, private=private, onnx=onnx, say=tell, own=plugin
        )
    tell(f"{address}\nuse it: {command('generate', name, '--n', 64, '--out', 'samples.png')}")
