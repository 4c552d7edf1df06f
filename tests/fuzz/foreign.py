"""Readers of other people's forms of pictures: arrays, databases, archives, batches, records, labels."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from camera_files import heic, ramp, write_dng
from foreign_sources import SOURCES, example, idx, png, tar, write_film
from fuzz.mutations import mutate
from fuzz.readers import Reader, as_file, either, look, of_seeds
from progan.config import PictureOptions
from progan.errors import DataError, ProganError
from progan.preparation.celeba_hq import read_image_list, read_landmarks
from progan.preparation.formats.tfrecords import HEAD, masked_crc, parse_example
from progan.preparation.labels.json_labels import number_labels, read_json_labels
from progan.preparation.labels.label_source import LabelFile
from progan.preparation.several import gather


def opened(path: Path | str) -> None:
    """List a source and decode what is in it."""
    look(gather([str(path)], PictureOptions()))


def in_a_child(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Return a reader in a process of its own: some libraries end theirs, which is told and no finding."""

    def read_there(path: Path) -> None:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                read(path)
                code = 0
            except ProganError:
                code = 2
            except BaseException:
                import traceback

                traceback.print_exc()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            raise DataError(f"reading it ends the process by signal {os.WTERMSIG(status)}")
        if os.WEXITSTATUS(status) == 2:
            raise DataError("refused")
        assert os.WEXITSTATUS(status) == 0, "another error than one in words"

    return read_there


def foreign_readers(folder: Path) -> list[Reader]:
    """Return the readers of every form of pictures but picture files."""
    place = folder / "foreign"
    place.mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    made = {name: SOURCES[name][0](place / name.replace(".", "-"), pictures) for name in FILES}
    seeds = {name: Path(made[name]).read_bytes() for name in FILES if Path(made[name]).is_file()}
    simple = [
        Reader(f"source .{name}", of_seeds([seeds[name]]), as_file(Path(made[name]), opened))
        for name in ("npy", "npz", "parquet")
    ]
    return [
        *simple,
        _records(place, pictures),
        _tar(place, pictures),
        _idx(place, pictures),
        _cifar(Path(made["cifar"])),
        _children(place, made),
        _labels(place),
        *_cameras(place),
        _film(place, pictures),
        _celeba_hq(place),
        Reader("list of paths", of_seeds([seeds["list"]]), as_file(Path(made["list"]), opened)),
    ]


FILES = ("npy", "npz", "mat", "parquet", "hdf5", "lmdb", "cifar", "list")


def _records(place: Path, pictures: Any) -> Reader:
    records = [example(image=png(one), label=[1]) for one in pictures]
    records += [example(shape=(3, 8, 8), data=one.transpose(2, 0, 1).tobytes()) for one in pictures]

    def frame(data: bytes) -> bytes:
        head = len(data).to_bytes(8, "little")
        return HEAD.pack(len(data), masked_crc(head)) + data + masked_crc(data).to_bytes(4, "little")

    def of_records(rng: Random) -> bytes:
        return b"".join(frame(mutate(one, rng, records)) for one in rng.sample(records, 2))

    def of_frames(rng: Random) -> bytes:
        return mutate(b"".join(map(frame, rng.sample(records, 2))), rng, records)

    def read(path: Path) -> None:
        opened(path)
        for one in records:
            parse_example(one)

    return Reader("tfrecords", either(of_records, of_frames), as_file(place / "x.tfrecords", read))


def _tar(place: Path, pictures: Any) -> Reader:
    files = [png(one) for one in pictures]

    def whole(rng: Random, entries: list[bytes]) -> bytes:
        names = rng.sample(
            ("1.png", "a/1.cls", "1.cls", "1.json", "./x.png", "../y.png", "a/1.png"), len(entries)
        )
        return tar(dict(zip(names, entries, strict=True)))

    def of_bytes(rng: Random) -> bytes:
        return mutate(whole(rng, [*rng.sample(files, 2), b"3"]), rng, files)

    def of_members(rng: Random) -> bytes:
        return whole(rng, [mutate(rng.choice(files), rng, files), b'{"label": 2}'])

    def of_compressed(rng: Random) -> bytes:
        return mutate(gzip.compress(whole(rng, rng.sample(files, 2))), rng, files)

    return Reader("tar", either(of_bytes, of_members, of_compressed), as_file(place / "x.tar", opened))


def _idx(place: Path, pictures: Any) -> Reader:
    images, labels = idx(pictures[..., 0].copy()), idx(np.array([0, 1, 0], np.uint8))

    def make(rng: Random) -> bytes:
        part = rng.choice((images, gzip.compress(images)))
        return mutate(part, rng, [images]) + b"|labels|" + mutate(labels, rng, [labels])

    def read(data: bytes) -> None:
        parts = data.split(b"|labels|", 1)
        (place / "train-images-idx3-ubyte").write_bytes(parts[0])
        (place / "train-labels-idx1-ubyte").write_bytes(parts[1])
        opened(place / "train-images-idx3-ubyte")

    return Reader("idx", make, read)


def _cifar(folder: Path) -> Reader:
    batch = (folder / "data_batch_1").read_bytes()
    return Reader(
        "cifar", of_seeds([batch]), as_file(folder / "data_batch_1", lambda path: opened(path.parent))
    )


def _children(place: Path, made: dict[str, Path | str]) -> Reader:
    """HDF5, LMDB and MATLAB, whose libraries may end the process on damaged files."""
    hdf5 = Path(made["hdf5"]).read_bytes()
    mat = Path(made["mat"]).read_bytes()
    lmdb = (Path(made["lmdb"]) / "data.mdb").read_bytes()
    shutil.rmtree(Path(made["lmdb"]))

    def make(rng: Random) -> bytes:
        if rng.random() < 0.4:
            return _mutated_pages(lmdb, rng)
        return mutate(rng.choice((hdf5, mat)), rng, [hdf5[:2000]])

    return Reader("databases", make, as_file(place / "database", in_a_child(_opened_here)))


def _mutated_pages(data: bytes, rng: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[: rng.choice((len(changed), rng.randrange(len(changed))))])


def _opened_here(path: Path) -> None:
    """Open a database in this process, which is one of its own already."""
    import progan.preparation.formats.arrays as arrays
    import progan.preparation.formats.lmdb_database as lmdb

    for module in (arrays, lmdb):
        module.elsewhere = lambda function, context, _path: function(context)  # type: ignore[attr-defined]
    opened(path)


def _labels(place: Path) -> Reader:
    trees: list[object] = [
        {"labels": [["a/1.png", 1], ["b.png", 0]]},
        {"labels": [["a.png", [0.5, 1]], ["b.png", [0, 1]]]},
        [{"file_name": "1.png", "label": "cat"}, {"file_name": "2.png", "label": ["a", "b"]}],
    ]
    seeds = [json.dumps(tree).encode() for tree in trees]
    seeds.append(b'{"file_name": "1.png", "label": 1}\n{"file_name": "2.png", "label": 2}\n')

    def read(path: Path) -> None:
        number_labels("labels", read_json_labels(LabelFile.read(path)), None)

    return Reader("labels in json", of_seeds(seeds), as_file(place / "labels.json", read))


def _cameras(place: Path) -> list[Reader]:
    """HEIC and RAW files, whose libraries may end the process on damaged files."""
    picture = (ramp(16, 16) * 255).astype(np.uint8)
    wide = (ramp(16, 16) * 65535).astype(np.uint16)
    phone = [heic(picture), heic(np.dstack([picture, picture[..., :1]])), heic(wide)]
    raw = [write_dng(place / "seed.dng", ramp(24, 32)).read_bytes()]
    # In folders of their own: what is read is a folder with a picture.
    for name in ("phone", "camera"):
        (place / name).mkdir()
    return [
        Reader(
            "heic picture",
            of_seeds(phone),
            as_file(place / "phone" / "x.heic", in_a_child(lambda path: opened(path.parent))),
        ),
        Reader(
            "raw picture",
            of_seeds(raw),
            as_file(place / "camera" / "x.dng", in_a_child(lambda path: opened(path.parent))),
        ),
    ]


def _film(place: Path, pictures: Any) -> Reader:
    """Films, which a program of its own decodes."""
    frames = np.repeat(np.repeat(pictures, 2, 1), 2, 2)
    seeds = [write_film(place / name, frames).read_bytes() for name in ("seed.mp4", "seed.webm")]
    stream = io.BytesIO()
    first, *others = (Image.fromarray(one) for one in frames)
    first.save(stream, "GIF", save_all=True, append_images=others)
    seeds.append(stream.getvalue())

    def read(path: Path) -> None:
        for fps in (None, 5.0):
            look(gather([str(path)], PictureOptions(fps=fps)))

    return Reader("film", of_seeds(seeds), as_file(place / "x.film", read))


def _celeba_hq(place: Path) -> Reader:
    """The lists of CelebA-HQ and of the landmarks of CelebA."""
    listed = b"idx orig_idx orig_file proc_md5 final_md5\n0 1 000002.jpg 0a 0b\n1 0 000001.jpg 0c 0d\n"
    landmarks = b"2\nlefteye_x lefteye_y\n000001.jpg 1 2 3 4 5 6 7 8 9 10\n000002.jpg 1 2 3 4 5 6 7 8 9 -1\n"

    def make(rng: Random) -> bytes:
        if rng.random() < 0.5:
            return mutate(listed, rng, [landmarks]) + b"|landmarks|" + landmarks
        return listed + b"|landmarks|" + mutate(landmarks, rng, [listed])

    def read(data: bytes) -> None:
        refusals = []
        parts = data.split(b"|landmarks|", 1)
        for part, read_part in zip(parts, (read_image_list, read_landmarks), strict=False):
            (place / "list.txt").write_bytes(part)
            try:
                read_part(place / "list.txt", 2)
            except DataError as error:
                refusals.append(error)
        if refusals:
            raise refusals[0]

    return Reader("lists of celeba-hq", make, read)
