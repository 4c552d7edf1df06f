"""Small sources of pictures in every form that is read, each written by the library of its form."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import h5py
import imageio.v2 as imageio
import lmdb
import numpy as np
import scipy.io
import webdataset
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter

from camera_files import heic, write_dng
from progan.preparation.formats.tfrecords import _example_type
from python2_pickles import python2_pickle

Any4D = Any
"""[N, H, W, 3] uint8."""


def png(picture: Any) -> bytes:
    """Return a picture as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "PNG")
    return stream.getvalue()


def tar(entries: dict[str, bytes]) -> bytes:
    """Return a tar file of members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def idx(values: Any) -> bytes:
    """Return an array as an IDX file."""
    codes = {"|u1": 8, ">i2": 11, ">f4": 13}
    head = bytes([0, 0, codes[values.dtype.str], values.ndim])
    return bytes(head + b"".join(side.to_bytes(4, "big") for side in values.shape) + values.tobytes())


def example(**features: Any) -> bytes:
    """Return a `tf.train.Example` of features by name, in which `__` stands for a slash."""
    made = _example_type()()
    for name, value in features.items():
        feature = made.features.feature[name.replace("__", "/")]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        else:
            feature.int64_list.value.extend(value)
    return bytes(made.SerializeToString())


def write_records(path: Path, records: list[bytes]) -> Path:
    """Write frames with TensorBoard's writer of them."""
    with path.open("wb") as stream:
        writer = RecordWriter(stream)
        for record in records:
            writer.write(record)
    return path


def write_film(path: Path, pictures: Any4D, fps: float = 10) -> Path:
    """Write a film of a frame a picture."""
    codec = "libvpx-vp9" if path.suffix == ".webm" else "libx264"
    writer: Any = imageio.get_writer(path, fps=fps, codec=codec, macro_block_size=16)
    with writer:
        for one in pictures:
            writer.append_data(one)
    return path


def hugging_face_set(files: list[bytes], names: list[str]) -> Any:
    """Return a data set of pictures with classes in turn."""
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = {
        "image": [{"bytes": data, "path": None} for data in files],
        "label": [i % len(names) for i in range(len(files))],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def _folder(path: Path, pictures: Any4D) -> Path:
    for i, one in enumerate(pictures):
        (path / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (path / "ab"[i % 2] / f"{i}.png").write_bytes(png(one))
    return path


def _tar_gz(path: Path, pictures: Any4D) -> Path:
    file = path.with_suffix(".tar.gz")
    file.write_bytes(
        gzip.compress(tar({f"{'ab'[i % 2]}/{i}.png": png(one) for i, one in enumerate(pictures)}))
    )
    return file


def _zip(path: Path, pictures: Any4D) -> Path:
    with zipfile.ZipFile(path.with_suffix(".zip"), "w") as archive:
        for i, one in enumerate(pictures):
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", png(one))
    return path.with_suffix(".zip")


def _heic(path: Path, pictures: Any4D) -> Path:
    path.mkdir()
    for i, one in enumerate(pictures):
        (path / f"{i}.heic").write_bytes(heic(one))
    return path


def _dng(path: Path, pictures: Any4D) -> Path:
    path.mkdir()
    for i, one in enumerate(pictures):
        # Of twice the side, as no camera has so few cells.
        write_dng(path / f"{i}.dng", np.repeat(np.repeat(one, 2, 0), 2, 1) / 255)
    return path


def _webdataset(path: Path, pictures: Any4D) -> str:
    for shard in (0, 1):
        with webdataset.TarWriter(f"{path}-{shard:03d}.tar") as writer:
            for i, one in enumerate(pictures[shard::2]):
                writer.write({"__key__": f"{i:04d}", "png": one, "cls": i % 2})
    return f"{path}-{{000..001}}.tar"


def _lmdb(path: Path, pictures: Any4D) -> Path:
    with lmdb.open(str(path), map_size=1 << 32) as database, database.begin(write=True) as transaction:
        for i, one in enumerate(pictures):
            transaction.put(f"{i:08d}".encode(), png(one))
    return path


def _tfrecords(path: Path, pictures: Any4D) -> Path:
    path.mkdir()
    side = pictures.shape[1]
    for level in (side // 2, side):
        parts = pictures[:, :: side // level, :: side // level].transpose(0, 3, 1, 2)
        records = [example(shape=one.shape, data=one.tobytes()) for one in parts]
        write_records(path / f"{path.name}-r{level.bit_length() - 1:02d}.tfrecords", records)
    with (path / f"{path.name}-rxx.labels").open("wb") as stream:
        np.save(stream, np.eye(2, dtype=np.float32)[np.arange(len(pictures)) % 2])
    return path


def _hdf5(path: Path, pictures: Any4D) -> Path:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file.create_dataset("images", data=pictures, chunks=(1, *pictures.shape[1:]), compression="gzip")
        file.create_dataset("labels", data=np.arange(len(pictures)) % 2)
    return path.with_suffix(".h5")


def _npy(path: Path, pictures: Any4D) -> Path:
    np.save(path.with_suffix(".npy"), pictures)
    return path.with_suffix(".npy")


def _npz(path: Path, pictures: Any4D) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), x_train=pictures, y_train=np.arange(len(pictures)) % 2)
    return path.with_suffix(".npz")


def _mat(path: Path, pictures: Any4D) -> Path:
    labels = np.arange(len(pictures))[:, None] % 2 + 1
    scipy.io.savemat(path.with_suffix(".mat"), {"X": pictures.transpose(1, 2, 3, 0), "y": labels})
    return path.with_suffix(".mat")


def _cifar(path: Path, pictures: Any4D) -> Path:
    path.mkdir()
    wide = np.repeat(np.repeat(pictures, 32 // pictures.shape[1], 1), 32 // pictures.shape[2], 2)
    rows = wide.transpose(0, 3, 1, 2).reshape(len(wide), -1)
    batch = {"data": np.ascontiguousarray(rows), "labels": [i % 2 for i in range(len(wide))]}
    (path / "data_batch_1").write_bytes(python2_pickle(batch))
    (path / "batches.meta").write_bytes(python2_pickle({"label_names": ["plane", "car"]}))
    return path


def _idx(path: Path, pictures: Any4D) -> Path:
    path.mkdir()
    labels = (np.arange(len(pictures)) % 2).astype(np.uint8)
    (path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pictures[..., 0].copy())))
    (path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return path


def _parquet(path: Path, pictures: Any4D) -> Path:
    hugging_face_set([png(one) for one in pictures], ["cat", "dog"]).to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def _saved(path: Path, pictures: Any4D) -> Path:
    hugging_face_set([png(one) for one in pictures], ["cat", "dog"]).save_to_disk(path)
    return path


def _film(path: Path, pictures: Any4D) -> Path:
    return write_film(path.with_suffix(".mp4"), pictures)


def _list(path: Path, pictures: Any4D) -> Path:
    folder = _folder(path, pictures)
    lines = [f"{file.relative_to(path.parent)}\t{file.parent.name}" for file in sorted(folder.glob("*/*"))]
    path.with_suffix(".txt").write_text("\n".join(lines))
    return path.with_suffix(".txt")


def _glob(path: Path, pictures: Any4D) -> str:
    return f"{_folder(path, pictures)}/*/*.png"


SOURCES: dict[str, tuple[Callable[[Path, Any4D], Path | str], str]] = {
    "folder": (_folder, "folders"),
    "zip": (_zip, "folders"),
    "tar.gz": (_tar_gz, "folders"),
    "webdataset": (_webdataset, "inside"),
    "lmdb": (_lmdb, "none"),
    "tfrecords": (_tfrecords, "inside"),
    "hdf5": (_hdf5, "inside"),
    "npy": (_npy, "none"),
    "npz": (_npz, "inside"),
    "mat": (_mat, "inside"),
    "cifar": (_cifar, "inside"),
    "idx": (_idx, "inside"),
    "parquet": (_parquet, "inside"),
    "saved": (_saved, "inside"),
    "film": (_film, "none"),
    "heic": (_heic, "none"),
    "dng": (_dng, "none"),
    "list": (_list, "inside"),
    "glob": (_glob, "folders"),
}
"""How a source of each form is made of pictures, and what `data.labels` its labels are asked for with."""
