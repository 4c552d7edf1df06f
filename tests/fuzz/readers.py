"""The readers of files that come from strangers, and how inputs for each are made."""

from __future__ import annotations

import io
import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors
from torch import Tensor

from fuzz.mutations import mutate, mutate_tree
from progan import Discriminator, Generator
from progan.config import Config, make_config, to_yaml
from progan.config.documents import read_document
from progan.data.packed import PackedSet
from progan.errors import DataError
from progan.evaluation.image_set import ArrayImages
from progan.models import weights
from progan.models.loading import load_network
from progan.preparation.builtin_sets import synthetic
from progan.preparation.decoding import UnusablePictureError, decode, scan
from progan.preparation.formats.folder import Folder
from progan.preparation.formats.registry import open_pictures
from progan.preparation.labels.class_lists import read_class_list
from progan.preparation.labels.label_source import LabelFile
from progan.preparation.labels.label_tables import read_label_table
from progan.preparation.pictures import Pictures
from progan.runs import checkpoint
from progan.runs.run_folder import RunFolder
from progan.system import tensor_file

Make = Callable[[Random], bytes]
PICTURES = ("png", "jpg", "gif", "bmp", "tif", "webp", "ppm", "jp2", "avif", "tga")


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes:
        name: What to call it.
        make: Makes an input of random choices.
        read: Reads an input as its users would; raises ProganError, or nothing.
    """

    name: str
    make: Make
    read: Callable[[bytes], object]


def to_json(tree: Any) -> str:
    """Write JSON of any depth."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * before)
    try:
        return json.dumps(tree)
    finally:
        sys.setrecursionlimit(before)


def of_seeds(seeds: Sequence[bytes], repair: Callable[[bytes], bytes] | None = None) -> Make:
    """Return a maker that mutates valid inputs, half of the time with checksums made right again."""

    def make(rng: Random) -> bytes:
        data = mutate(rng.choice(seeds), rng, seeds)
        return repair(data) if repair is not None and rng.random() < 0.5 else data

    return make


def either(*makes: Make) -> Make:
    """Return a maker that uses one of others."""
    return lambda rng: rng.choice(makes)(rng)


def as_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return a reader of bytes that writes them to a file first."""

    def read_bytes(data: bytes) -> object:
        path.write_bytes(data)
        return read(path)

    return read_bytes


def described(form: str, record: dict[str, Any], tensors: dict[str, Tensor]) -> Make:
    """Return a maker of tensor files: mutated bytes, or a mutated description with the right checksum."""
    host = {name: value.detach().contiguous() for name, value in tensors.items()}

    def write(header: Any, content: dict[str, Tensor]) -> bytes:
        return to_safetensors(content, metadata={tensor_file.KEY: to_json(header)})

    def whole(changed: Any) -> dict[str, Any]:
        try:
            checksum = tensor_file.digest(changed, host)
        except RecursionError:
            checksum = ""
        return {"format": form, "record": changed, "sha256": checksum}

    def of_record(rng: Random) -> bytes:
        return write(whole(mutate_tree(record, rng)), host)

    def of_header(rng: Random) -> bytes:
        return write(mutate_tree(whole(record), rng), host)

    def of_layout(rng: Random) -> bytes:
        """Mutate the header of safetensors itself: types, shapes, places."""
        size = int.from_bytes(seed[:8], "little")
        text = to_json(mutate_tree(json.loads(seed[8 : 8 + size]), rng)).encode()
        return struct.pack("<Q", len(text)) + text + seed[8 + size :]

    seed = write(whole(record), host)
    return either(of_seeds([seed]), of_record, of_header, of_layout)


def small_networks() -> tuple[Generator, Discriminator]:
    """Return networks of about a hundred numbers."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "channels": 1,
        "base_shape": (1, 1),
        "max_level": 1,
        "fmap_base": 4,
        "fmap_max": 2,
    }
    generator = Generator(**shape, latent_size=2, label_size=1, label_form="vector", label_names=("a",))
    return generator, Discriminator(**shape, stddev_group=2)


def weight_readers(folder: Path) -> list[Reader]:
    """Weight files of both networks, folders as of the hub, and checkpoints."""
    G, D = small_networks()
    records = [{"network": type(n).__name__, "config": n.config()} for n in (G, D)]
    makes = [described(weights.FORMAT, r, n.state_dict()) for r, n in zip(records, (G, D), strict=True)]
    hub = folder / "hub"
    G.save_pretrained(hub)
    config = json.loads((hub / "config.json").read_text())
    state = {f"G/{name}": value for name, value in G.state_dict().items()}
    record = checkpoint.Record(1234, "fade", 1, 0.5, config, "0f" * 16, {"progan": "0"})

    def read_record(path: Path) -> object:
        checkpoint.newest_record(path.parent)
        return checkpoint.load(path)

    name = f"{1234:012d}{checkpoint.SUFFIX}"
    (folder / "checkpoints").mkdir()
    return [
        Reader("weights", either(*makes), as_file(folder / "w", load_network)),
        Reader(
            "hub folder",
            either(
                of_seeds([to_json(config).encode()]),
                lambda rng: to_json(mutate_tree(config, rng)).encode(),
            ),
            as_file(hub / "config.json", lambda path: load_network(path.with_name(weights.HUB_FILE))),
        ),
        Reader(
            "checkpoint",
            described(checkpoint.FORMAT, asdict(record), state),
            as_file(folder / "checkpoints" / name, read_record),
        ),
    ]


def packed_readers(folder: Path) -> list[Reader]:
    """The manifest of a packed set, and each of its other files."""
    made = synthetic(folder / "set", count=3, resolution=8, labelled=True)
    manifest = json.loads((made.path / "manifest.json").read_text())
    others = {p.name: p.read_bytes() for p in made.path.iterdir() if p.name != "manifest.json"}
    others.pop("skipped.csv", None)
    names = sorted(others)

    def read(path: Path) -> None:
        packed = PackedSet.open(path)
        for level in range(packed.max_level + 1):
            packed.read(level, [0, packed.count - 1])
        packed.label_vectors([0])
        packed.names()
        repr(packed)

    def make_part(rng: Random) -> bytes:
        place = rng.randrange(len(names))
        return bytes([place]) + mutate(others[names[place]], rng, list(others.values()))

    def read_part(data: bytes) -> None:
        file = made.path / names[data[0]]
        file.write_bytes(data[1:])
        try:
            read(made.path)
        finally:
            file.write_bytes(others[file.name])

    def read_manifest(data: bytes) -> None:
        file = made.path / "manifest.json"
        whole = to_json(manifest).encode()
        file.write_bytes(data)
        try:
            read(made.path)
        finally:
            file.write_bytes(whole)

    text = to_json(manifest).encode()
    of_tree: Make = lambda rng: to_json(mutate_tree(manifest, rng)).encode()  # noqa: E731
    return [
        Reader("packed manifest", either(of_seeds([text]), of_tree), read_manifest),
        Reader("packed arrays", make_part, read_part),
    ]


def picture_seeds() -> list[bytes]:
    """Return small pictures in every format and several modes."""
    ramp = np.arange(7 * 9 * 4, dtype=np.uint8).reshape(7, 9, 4)
    found = []
    for suffix in PICTURES:
        for mode in ("L", "RGB", "RGBA", "P", "1", "I;16"):
            stream = io.BytesIO()
            image = Image.fromarray(ramp, "RGBA").convert(
                "L" if mode == "I;16" else mode.replace("RGBA", "RGBA")
            )
            if mode == "I;16":
                image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
            try:
                image.save(
                    stream, {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(suffix, suffix.upper())
                )
            except (
                OSError,
                KeyError,
                ValueError,
            ):  # the format has no such mode, or Pillow was built without it
                continue
            found.append(stream.getvalue())
    rgb = Image.fromarray(ramp[..., :3].copy(), "RGB")
    for options in (
        {"format": "JPEG", "progressive": True},
        {"format": "TIFF", "compression": "tiff_lzw"},
        {"format": "TIFF", "compression": "jpeg"},
        {"format": "TIFF", "compression": "tiff_deflate"},
        {"format": "PNG", "exif": _turned()},
        {"format": "GIF", "save_all": True, "append_images": [rgb]},
    ):
        stream = io.BytesIO()
        rgb.save(stream, **options)
        found.append(stream.getvalue())
    return found


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def repair_png(data: bytes) -> bytes:
    """Return a PNG with the checksum of every block made right, so that decoders look at what is in it."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    changed, place = bytearray(data), 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        changed[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(changed)


def look(source: Pictures) -> None:
    """List a source and decode what is in it, as preparing does; refusals become DataError."""
    listing, refusal = source.listing(), None
    listing.digest()
    if listing.skipped:
        refusal = listing.skipped[0][1]
    for item in listing.candidates[:3]:
        header = scan(source, item.name)
        if isinstance(header, str):
            refusal = header
        for channels in (1, 3, 4):
            try:
                image = decode(source, item.name, channels)
                assert len(image.getbands()) == channels
            except UnusablePictureError as error:
                refusal = str(error)
                break
    if refusal is not None:
        raise DataError(refusal)


def picture_readers(folder: Path) -> list[Reader]:
    """Pictures in a folder, and in an archive."""
    seeds = picture_seeds()
    small = sorted(seeds, key=len)[:12]
    (folder / "pictures").mkdir()

    def archive(rng: Random, entries: list[bytes]) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as file:
            chosen = rng.sample(("1.png", "a/1.jpg", "x.png", "ä.png", "../1.png", "a/"), len(entries))
            for name, data in zip(chosen, entries, strict=True):
                file.writestr(name, data)
        return stream.getvalue()

    def of_bytes(rng: Random) -> bytes:
        return mutate(archive(rng, rng.sample(small, 2)), rng, small)

    def of_directory(rng: Random) -> bytes:
        """Mutate the directory of an archive alone."""
        whole = archive(rng, rng.sample(small, 2))
        start = whole.rindex(b"PK\x01\x02")
        return whole[:start] + mutate(whole[start:], rng, small)

    def of_entries(rng: Random) -> bytes:
        return archive(rng, [mutate(rng.choice(small), rng, small)])

    return [
        Reader(
            "picture",
            of_seeds(seeds, repair_png),
            as_file(folder / "pictures" / "x.png", lambda path: look(Folder(path.parent))),
        ),
        Reader(
            "targa picture",
            of_seeds([data for data in seeds if data.endswith(b"TRUEVISION-XFILE.\x00")]),
            as_file(folder / "targa" / "x.tga", lambda path: look(Folder(path.parent))),
        ),
        Reader(
            "zip",
            either(of_bytes, of_directory, of_entries),
            as_file(folder / "x.zip", lambda path: look(open_pictures(path))),
        ),
    ]


def text_readers(folder: Path) -> list[Reader]:
    """Label files and documents."""
    tables = [
        b'name,label\na/1.png,cat\nb.png,"d""og"\n',
        b"name,x,y\n1.png,0,1\n2.png,1,0\n3.png,1,1\n",
        b"2\nBald Hat\n1.jpg -1  1\n2.jpg  1 -1\n",
        "\ufeffname,é\r\nb\u0308.png,-1.5e3\r\n".encode(),
    ]

    def read_labels(path: Path) -> None:
        refusals: list[DataError] = []
        for read in (
            read_class_list,
            lambda f: read_label_table(f, "classes"),
            lambda f: read_label_table(f, "vector"),
        ):
            try:
                read(LabelFile.read(path))
            except DataError as error:
                refusals.append(error)
        if len(refusals) == 3:
            raise refusals[0]

    tree = make_config({"run": {"seed": 3}}).model_dump(mode="json")
    small = {"schedule": {"batch_size": [8, 4], "fade_kimg": 7}, "run": {"device": "cpu", "grid": [2, 4]}}
    toml = (
        b'[schedule]\nbatch_size = [8]\nfade_kimg.x = 0.5\n[[run]]\nd = 1979-05-27T07:32:00Z\ns = """a"""\n'
    )
    yaml = (
        to_yaml(Config())[:600].encode(),
        b"run: {seed: 0x1f, threads: !!int '3'}\nloss:\n  - &a [1e-4, .inf]\n? x\n: |\n  text\n<<: {a: 1}\n",
        b"a: 2001-12-14\nb: !!binary aGk=\nc: !!set {x, y}\nd: 1:30\n",
    )

    def read_config(path: Path) -> object:
        return make_config(read_document(path))

    def of_tree(rng: Random) -> bytes:
        return to_json(mutate_tree(rng.choice((tree, small)), rng)).encode()

    documents = {
        ".yaml": of_seeds((*yaml, to_json(small).encode())),
        ".json": either(of_seeds([to_json(small).encode()]), of_tree),
        ".toml": of_seeds([toml, b"run.seed = 3\n[schedule]\nbatch_size = [8, 4] # x\nfade_kimg = 1_0.5\n"]),
    }
    return [
        Reader("label file", of_seeds(tables), as_file(folder / "labels.csv", read_labels)),
        *(Reader(f"document {s}", m, as_file(folder / f"c{s}", read_config)) for s, m in documents.items()),
    ]


def other_readers(folder: Path) -> list[Reader]:
    """Arrays of images to be measured, and the records in a run folder."""
    arrays = []
    for array in (np.zeros((2, 3, 4, 4), np.uint8), -np.ones((2, 4, 4, 1), np.float32)):
        stream = io.BytesIO()
        np.save(stream, array)
        arrays.append(stream.getvalue())
    dataset = {"source": "photos", "packed": "photos.progan/x", "fingerprint": "0f" * 16}

    def read_array(path: Path) -> None:
        images = ArrayImages.open(path)
        images.read(np.arange(images.count or 0)[:2])

    run = RunFolder(folder / "run")
    run.path.mkdir()
    return [
        Reader("array", of_seeds(arrays), as_file(folder / "x.npy", read_array)),
        Reader(
            "run dataset",
            either(
                of_seeds([to_json(dataset).encode()]),
                lambda rng: to_json(mutate_tree(dataset, rng)).encode(),
            ),
            as_file(run.dataset_file, lambda _: run.dataset()),
        ),
    ]
