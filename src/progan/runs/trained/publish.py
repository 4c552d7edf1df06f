"""A generator as a folder of the Hugging Face hub, and that folder to the hub."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from progan.config import Config, to_yaml
from progan.data.pixels import to_8_bit
from progan.errors import CheckpointError, ConfigError, DependencyError, command
from progan.generation.grids import save_grid
from progan.generation.sampling import generate
from progan.generation.video import interpolate
from progan.interop.export import export
from progan.models.generator import Generator
from progan.models.hub import MOST_SAID, is_hub_name
from progan.models.loading import load
from progan.models.weights import HUB_FILE, Own, fingerprint
from progan.runs.trained.kept_generators import Found, Kimg, find_generator
from progan.runs.trained.model_card import FILM, GROWTH, ONNX, PAGE, SAMPLES, CardFacts, model_card
from progan.system.files import storage_errors, write_text

GRID = (4, 6)
"""Rows and columns of the samples on the card."""
FILM_SECONDS, FILM_FPS, FILM_SIDE = 4.0, 12.0, 256
"""Of the film on the card; its pictures are of the highest level whose sides are not longer."""

Say = Callable[[str], None]


def push(
    place: str | Path,
    name: str,
    *,
    kimg: Kimg | None = None,
    license: str | None = None,
    private: bool = False,
    onnx: bool = True,
    token: str | None = None,
    say: Say = lambda _message: None,
    own: Own = (),
) -> str:
    """Put a generator on the Hugging Face hub, with a model card made from its run.

    Args:
        place: What `progan.find_generator` takes.
        name: On the hub: `user/name`; made if it is not there.
        kimg: Which generator of the run; `progan.find_generator` explains it.
        license: Of the weights, as the hub calls it: `cc-by-4.0`, `mit`, `other`, ...
        private: Whether a repository that is made is for its owner alone.
        onnx: Also put a file of ONNX there, if the extra `onnx` is installed.
        token: Of the hub; None for that of `hf auth login` or HF_TOKEN.
        say: Told what is done and what is left out.
        own: Networks of your own, one of which it may be: classes, or Python files that define them. They are
            not sent.

    Returns:
        The address of the commit.

    Raises:
        ConfigError: if the name is none.
        CheckpointError: if there is no generator, or the hub refuses or cannot be reached.
    """
    require_name(name)
    with tempfile.TemporaryDirectory(prefix="progan-hub-") as temporary:
        folder = write_hub_folder(
            place, name, temporary, kimg=kimg, license=license, onnx=onnx, say=say, own=own
        )
        say(f"sending {sum(1 for path in folder.rglob('*') if path.is_file())} files to {name}")
        api = HfApi(token=token, library_name="progan")
        try:
            api.create_repo(name, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Trained with progan")
        except Exception as error:  # their kinds depend on the version of huggingface_hub
            raise CheckpointError(
                f"{name} was not written on the hub ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:MOST_SAID]}); log in with `hf auth login`, or set HF_TOKEN; "
                f"--dry-run writes the folder that is sent"
            ) from None
    return str(commit.commit_url)


def write_hub_folder(
    place: str | Path,
    name: str,
    out: str | Path,
    *,
    kimg: Kimg | None = None,
    license: str | None = None,
    onnx: bool = True,
    say: Say = lambda _message: None,
    own: Own = (),
) -> Path:
    """Write what `push` sends: weights, their description, a model card, samples, films, ONNX, the page.

    Args:
        place, name, kimg, license, onnx, say, own: Arguments of `push`.
        out: The folder; made if missing, and empty otherwise.

    Raises:
        ConfigError: if the folder holds something, or the name is none.
        CheckpointError, StorageError: if there is no generator, or the folder cannot be written.
    """
    require_name(name)
    folder, found = Path(out), find_generator(place, kimg)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty; name another folder")
    G = load(found.file, own=own).trimmed().place("cpu")
    if G.is_own:
        say(
            f"the code of {type(G).__qualname__} is not sent: whoever loads these weights needs it "
            f"(own=[...] of progan.load, --plugin of commands)"
        )
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _write_pictures(G, folder)
            if onnx:
                _write_onnx(G, folder, license, say)
            _write_run(G, found, folder, say)
            files = frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
            write_text(folder / "README.md", model_card(CardFacts(G, found, name, license, files)))
            G.save_pretrained(folder)
            (folder / HUB_FILE).chmod((folder / "README.md").stat().st_mode)  # its writer lets nobody else
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return folder


def require_name(name: str) -> None:
    """Refuse what is no `user/name`.

    Raises:
        ConfigError: if it is none.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"{name}: is no name on the hub ({error}); give user/name") from None
    if name.count("/") != 1:
        raise ConfigError(f"{name}: give user/name, your name on the hub and that of the model")


def _write_pictures(G: Generator, folder: Path) -> None:
    """Write the grid and the film of the card."""
    (batch,) = generate(G, GRID[0] * GRID[1], batch_size=GRID[0] * GRID[1])
    save_grid(to_8_bit(batch), folder / SAMPLES, GRID[1])
    level = max((i for i in range(G.level + 1) if max(G.resolution(i)) <= FILM_SIDE), default=0)
    side = max(G.resolution(level))
    cells = (1, 1) if side > FILM_SIDE // 2 else (2, 3)
    interpolate(G, folder / FILM, seconds=FILM_SECONDS, fps=FILM_FPS, grid=cells, level=level)


def _write_onnx(G: Generator, folder: Path, license: str | None, say: Say) -> None:
    try:
        made = export(G, folder / ONNX, "onnx", license=license)
    except DependencyError as error:
        say(f"no {ONNX}: {error}")
        return
    say(f"{ONNX} is at most {made.difference:.2g} from PyTorch")


def _write_run(G: Generator, found: Found, folder: Path, say: Say) -> None:
    """Write the configuration of the run, without paths of this machine; its page and film if it has them."""
    if found.run is None:
        return
    write_text(folder / "training.yaml", to_yaml(_without_paths(found.run.config())))
    for film in (found.run.path / name for name in GROWTH):
        if film.is_file():
            shutil.copyfile(film, folder / film.name)
            break
    page = found.run.path / PAGE
    if page.is_file() and (page.parent / "model.js").is_file():
        _write_page(page, G, found, folder, say)


def _write_page(page: Path, G: Generator, found: Found, folder: Path, say: Say) -> None:
    """Copy the page that a run has, if it is of this generator."""
    if fingerprint(G) not in (page.parent / "model.js").read_text(encoding="utf-8"):
        again = command("explore", found.file, "--out", page.parent)
        say(f"the page in {page.parent} is of another generator and left out; {again} writes it again")
        return
    # The page's own README is of a repository that holds nothing else.
    shutil.copytree(page.parent, folder / page.parent.name, ignore=shutil.ignore_patterns("README.md"))


def _without_paths(config: Config) -> Config:
    """Return a configuration in which files are named without the folders that they lie in."""
    labels, extractor = config.data.labels, config.monitor.extractor
    data = config.data.model_copy(update={"labels": Path(labels).name})
    monitor = config.monitor.model_copy(
        update={"extractor": None if extractor is None else Path(extractor.name)}
    )
    source = config.init.source
    if source is not None and not is_hub_name(source):
        source = Path(source).name
    init = config.init.model_copy(update={"source": source})
    return config.model_copy(update={"data": data, "monitor": monitor, "init": init})
