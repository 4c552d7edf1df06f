"""Sets of images: every kind of source gives the same pixels, or says in words why it cannot."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pngs import write_png
from progan.data.packed import PackedSet
from progan.data.pixels import to_image, to_uint8
from progan.errors import CheckpointError, ConfigError, DataError, ProganError
from progan.evaluation import folder_images, generated_images
from progan.evaluation.generated_images import GeneratedImages
from progan.evaluation.image_set import FLIPS, ArrayImages, ImageSet, MirroredImages, PackedImages, choose
from progan.evaluation.open_images import open_images
from progan.generation.sampling import generate
from progan.generation.save_samples import save_samples
from progan.models.generator import Generator
from progan.models.weights import save
from progan.preparation.builtin_sets import synthetic

DICE = np.random.default_rng(0)
PIXELS = DICE.integers(0, 256, (9, 3, 16, 12), dtype=np.uint8)


def tiny(labels: int = 0, level: int = 1) -> Generator:
    torch.manual_seed(0)
    return Generator(
        channels=3, base_shape=(8, 6), max_level=1, fmap_base=64, fmap_max=8, level=level, label_size=labels
    ).eval()


def everything(images: ImageSet) -> NDArray[np.uint8]:
    return np.concatenate(list(images.batches(np.arange(images.count or 0))))


def write_folder(folder: Path, pixels: NDArray[np.uint8]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(pixels):
        to_image(image).save(folder / f"{i:03d}.png")
    return folder


def write_all_kinds(path: Path) -> dict[str, Any]:
    """Write PIXELS in every form that images can have."""
    folder = write_folder(path / "folder", PIXELS)
    with zipfile.ZipFile(path / "x.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"sub/{file.name}")
    np.save(path / "first.npy", PIXELS)
    np.save(path / "last.npy", PIXELS.transpose(0, 2, 3, 1))
    np.save(path / "floats.npy", PIXELS.astype(np.float32) / 127.5 - 1)
    files = {name: path / name for name in ("folder", "x.zip", "first.npy", "last.npy", "floats.npy")}
    batches = iter([PIXELS[:4], PIXELS[4:5], PIXELS[5:]])
    return files | {"array": PIXELS, "text": str(folder), "batches": batches}


def test_every_kind_holds_the_same_pixels(tmp_path: Path) -> None:
    for name, place in write_all_kinds(tmp_path).items():
        images = open_images(place)
        assert (images.count, images.shape) == (9, (3, 16, 12)), name
        np.testing.assert_array_equal(everything(images), PIXELS, err_msg=name)
        np.testing.assert_array_equal(images.read(np.array([7, 2, 7])), PIXELS[[7, 2, 7]], err_msg=name)
        assert open_images(images) is images


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels_are_those_of_the_pictures(tmp_path: Path, channels: int) -> None:
    pixels = DICE.integers(0, 256, (3, channels, 5, 7), dtype=np.uint8)
    images = open_images(write_folder(tmp_path, pixels))
    assert images.shape == (channels, 5, 7)
    np.testing.assert_array_equal(everything(images), pixels)


def test_many_pictures_are_decoded_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "x", PIXELS)
    monkeypatch.setattr(folder_images, "FEW", 3)
    monkeypatch.setattr(folder_images, "usable_cores", lambda: 2)
    np.testing.assert_array_equal(everything(open_images(folder)), PIXELS)


def test_pictures_that_differ_name_two(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x", PIXELS)
    Image.new("RGB", (12, 15)).save(folder / "004.png")
    with pytest.raises(DataError, match=r"000\.png is 16x12 RGB, 004\.png is 15x12 RGB"):
        open_images(folder)
    Image.new("L", (12, 16)).save(folder / "004.png")
    with pytest.raises(DataError, match=r"000\.png is 16x12 RGB, 004\.png is 16x12 gray; .*progan prepare"):
        open_images(folder)


def test_pictures_that_cannot_be_used_are_errors(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "x", PIXELS)
    (folder / "notes.txt").write_text("is no picture, and no error")
    images = open_images(folder)
    whole = (folder / "004.png").read_bytes()
    (folder / "004.png").write_bytes(whole[:-40])
    with pytest.raises(DataError, match=r"x: 004\.png cannot be used: "):
        everything(images)
    Image.new("RGB", (5, 5)).save(folder / "004.png")
    with pytest.raises(DataError, match=r"004\.png has changed"):
        everything(images)
    (folder / "004.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"004\.png cannot be used: not a picture"):
        open_images(folder)
    (folder / "004.png").write_bytes(b"")
    (folder / "005.psd").write_bytes(b"x")
    with pytest.raises(DataError, match=r"004\.png cannot be used: the file is empty.* \(and 1 more\)"):
        open_images(folder)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda path: path / "gone", DataError, "gone: no such file"),
        (lambda path: write_folder(path / "none", PIXELS[:0]), DataError, "holds no pictures$"),
        (lambda path: saved(path, PIXELS[0]), DataError, r"shape \[3, 16, 12\]; expected images"),
        (lambda path: saved(path, PIXELS[:0]), DataError, "at least one"),
        (lambda path: saved(path, PIXELS.astype(np.int32)), DataError, "holds int32; expected uint8"),
        (lambda path: saved(path, PIXELS.astype(object)), DataError, "cannot be read as a .npy"),
        (lambda path: saved(path, np.full((2, 3, 4, 4), np.nan)), DataError, "not finite"),
        (lambda path: saved(path, PIXELS.astype(np.float32)), DataError, "floats from 0 to 255; expected"),
        (lambda path: saved(path, PIXELS / 255), DataError, "floats from 0 to 1; expected"),
        (lambda path: written(path / "x.npy", b"\x93NUMPY"), DataError, "cannot be read as a .npy"),
        (lambda path: written(path / "x.npy", b"PK\x03\x04"), DataError, "cannot be read as a .npy"),
        (lambda path: archive(path), DataError, "a .npz archive under another name"),
        (
            lambda path: written(path / "x.dat", b"?"),
            DataError,
            "in no form that is read; give a folder, .zip",
        ),
        (lambda path: written(path / "x.zip", b"?"), DataError, "damaged .zip"),
        (lambda path: written(path / "x.safetensors", b"?"), CheckpointError, "not a readable safetensors"),
        (lambda path: written(path / "config.yaml", b"").parent, CheckpointError, "first checkpoint"),
        (lambda _: 5, ConfigError, "a int is no set of images"),
        (lambda _: iter([]), DataError, "not one image came"),
        (lambda _: iter([PIXELS[:1], PIXELS[:1, :1]]), DataError, r"array of shape \[1, 1, 16, 12\]"),
        (lambda _: iter([PIXELS[:1], PIXELS[:1].astype(float)]), DataError, "a float64 array"),
        (lambda _: PIXELS[0], DataError, "the array: holds an array of shape"),
    ],
)
def test_what_is_no_set_of_images_is_told(tmp_path: Path, make: Any, kind: Any, message: str) -> None:
    place = make(tmp_path)
    with pytest.raises(ProganError, match=message) as caught:
        open_images(place)
    assert type(caught.value) is kind


def saved(path: Path, array: NDArray[Any]) -> Path:
    np.save(path / "x.npy", array)
    return path / "x.npy"


def archive(path: Path) -> Path:
    np.savez(path / "x.npz", PIXELS)
    return (path / "x.npz").rename(path / "x.npy")


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_floats_become_the_pixels_that_samples_become() -> None:
    floats = DICE.uniform(-1.3, 1.3, (4, 3, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(everything(ArrayImages(floats, "x")), to_uint8(torch.from_numpy(floats)))


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    write_png(tmp_path / "0.png", np.full((4, 4, 1), 65535 // 2, np.uint16))
    assert everything(open_images(tmp_path)).tolist() == np.full((1, 1, 4, 4), 127).tolist()


def test_an_endless_iterator_is_cut() -> None:
    def endless() -> Iterator[NDArray[np.uint8]]:
        while True:
            yield PIXELS[:4]

    images = open_images(endless(), most=10)
    assert images.count == 10
    np.testing.assert_array_equal(everything(images), PIXELS[[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]])


def test_a_packed_set_at_each_level(blobs: PackedSet) -> None:
    for level in range(3):
        images = open_images(blobs.path, size=blobs.resolution(level))
        np.testing.assert_array_equal(everything(images), blobs.read(level, np.arange(48)))
    assert open_images(blobs).shape == (blobs.channels, 16, 16)
    with pytest.raises(DataError, match=r"no level of 5x5; its levels are 4x4, 8x8, 16x16"):
        open_images(blobs, size=(5, 5))
    with pytest.raises(DataError, match="no picture is in the part 'test'"):
        PackedImages(blobs, part="test")
    with pytest.raises(DataError, match="there is no split 'tset'"):
        PackedImages(blobs, part="tset")
    with pytest.raises(DataError, match="the array: has images of 16x12, not 8x8"):
        open_images(PIXELS, size=(8, 8))


def test_samples_are_those_of_generate(tmp_path: Path) -> None:
    G = tiny(labels=3)
    save(G, tmp_path / "g.safetensors")
    for options in ({}, {"label": 1}, {"seed": 4}, {"size": (8, 6)}):
        level = 0 if "size" in options else 1
        asked = {key: value for key, value in options.items() if key != "size"}
        expected = np.concatenate(list(generate(G, 9, level=level, **asked)))  # type: ignore[arg-type]
        for place in (G, tmp_path / "g.safetensors"):
            images = open_images(place, **options)
            assert images.count is None
            found = images.read(np.array([8, 0, 3])).astype(int)
            assert np.abs(found - expected[[8, 0, 3]]).max() <= 1
    with pytest.raises(ConfigError, match="number from 0 to 2"):
        open_images(G, label="cat")
    with pytest.raises(ConfigError, match="no level makes images of 9x9"):
        open_images(G, size=(9, 9))


def test_samples_that_are_not_finite_are_refused() -> None:
    G = tiny()
    with torch.no_grad():
        next(G.parameters()).fill_(torch.nan)
    with pytest.raises(DataError, match="not finite"):
        open_images(G).read(np.arange(2))


def test_identity_tells_sets_apart(tmp_path: Path, blobs: PackedSet) -> None:
    G = tiny(labels=2)
    save(G, tmp_path / "g.safetensors")
    weights = tmp_path / "g.safetensors"
    changed = tiny(labels=2)
    with torch.no_grad():
        next(changed.parameters()).add_(1)
    other = PIXELS.copy()
    other[0, 0, 0, 0] ^= 1
    folder = write_folder(tmp_path / "a", PIXELS)
    different = [
        open_images(PIXELS),
        open_images(PIXELS.astype(np.float32) / 127.5 - 1),
        open_images(other),
        open_images(PIXELS, mirror=True),
        open_images(PIXELS, mirror=True, seed=1),
        open_images(folder),
        open_images(write_folder(tmp_path / "b", PIXELS[:5])),
        open_images(blobs),
        open_images(blobs, part="all"),
        open_images(blobs, size=(8, 8)),
        open_images(G),
        open_images(G, seed=1),
        open_images(G, label=0),
        open_images(G, size=(8, 6)),
        open_images(changed),
    ]
    prints = [images.fingerprint for images in different]
    assert len(set(prints)) == len(prints)
    again = [open_images(PIXELS.copy()), open_images(folder), open_images(tiny(labels=2)), open_images(blobs)]
    again.append(open_images(weights))
    assert {images.fingerprint for images in again} <= set(prints)
    (folder / "000.png").write_bytes((folder / "001.png").read_bytes() + b" ")
    assert open_images(folder).fingerprint not in prints


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 3 * FLIPS), min_size=1, max_size=20))
def test_a_flip_depends_on_seed_and_index_alone(seed: int, places: list[int]) -> None:
    class Numbered(ImageSet):
        def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.tile(np.array([0, 1], np.uint8), (len(indices), 1, 1, 1))

    images = MirroredImages(Numbered("x", (1, 1, 2), None, {}), seed)
    together = images.read(np.array(places))[:, 0, 0, 0]
    alone = [int(images.read(np.array([place]))[0, 0, 0, 0]) for place in places]
    batched = np.concatenate(list(images.batches(np.array(places))))[:, 0, 0, 0]
    assert together.tolist() == alone == batched.tolist()


def test_half_of_the_images_are_flipped(blobs: PackedSet) -> None:
    plain, mirrored = (open_images(PIXELS.repeat(300, 0), mirror=mirror) for mirror in (False, True))
    a, b = everything(plain), everything(mirrored)
    same = (a == b).all((1, 2, 3))
    np.testing.assert_array_equal(np.where(same[:, None, None, None], a, a[..., ::-1]), b)
    assert 0.45 < same.mean() < 0.55
    before = blobs.read(2, np.arange(48))
    everything(open_images(blobs, mirror=True))
    np.testing.assert_array_equal(blobs.read(2, np.arange(48)), before)


@given(st.integers(1, 50), st.integers(0, 2**63 - 1), st.data())
def test_images_are_chosen_without_repeats(count: int, seed: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, count))
    images = ArrayImages(np.zeros((count, 1, 1, 1), np.uint8), "x")
    chosen = choose(images, n, seed)
    assert len(set(chosen.tolist())) == n
    assert 0 <= chosen.min() <= chosen.max() < count
    np.testing.assert_array_equal(chosen, choose(images, count, seed)[:n])


def test_samples_are_chosen_as_those_of_a_folder_that_holds_them() -> None:
    images = ArrayImages(np.zeros((20, 1, 1, 1), np.uint8), "x")
    np.testing.assert_array_equal(choose(open_images(tiny()), 20, 3), choose(images, 20, 3))


class TestKept:
    """Samples on disk while they are measured."""

    N = 300

    def test_they_are_those_of_generate_and_go_away(self, tmp_path: Path) -> None:
        images = GeneratedImages(tiny())
        calls: list[tuple[int, int]] = []
        with images.kept(self.N, tmp_path / "new", lambda _what, *state: calls.append(state)) as kept:
            assert len(list((tmp_path / "new").glob(".samples-*.u8"))) == 1
            np.testing.assert_array_equal(everything(kept), np.concatenate(list(generate(tiny(), self.N))))
            assert kept.identity == images.identity
        assert calls == [(0, 300), (256, 300), (300, 300)]
        assert list((tmp_path / "new").iterdir()) == []

    def test_an_interrupted_work_goes_on(self, tmp_path: Path) -> None:
        images = GeneratedImages(tiny())

        def stop(_what: str, done: int, _total: int) -> None:
            if done == 256:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), images.kept(self.N, tmp_path, stop):
            pass
        (file,) = tmp_path.glob(".samples-*.u8")
        assert file.stat().st_size == 256 * 3 * 16 * 12
        with file.open("ab") as stream:
            stream.write(b"a torn sample")
        calls: list[int] = []

        def interrupted() -> None:
            with images.kept(self.N, tmp_path, lambda _what, done, _total: calls.append(done)):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert calls == [256, 300]
        calls.clear()
        with images.kept(self.N, tmp_path, lambda _what, done, _total: calls.append(done)) as kept:
            np.testing.assert_array_equal(everything(kept), np.concatenate(list(generate(tiny(), self.N))))
        assert calls == [300]
        assert list(tmp_path.iterdir()) == []

    def test_samples_that_cannot_be_made_leave_nothing(self, tmp_path: Path) -> None:
        G = tiny()
        with torch.no_grad():
            next(G.parameters()).fill_(torch.nan)
        with pytest.raises(DataError, match="not finite"), GeneratedImages(G).kept(3, tmp_path):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_an_error_of_others_keeps_them(self, tmp_path: Path) -> None:
        with pytest.raises(DataError), GeneratedImages(tiny()).kept(3, tmp_path):
            raise DataError("x")
        assert [file.suffix for file in tmp_path.iterdir()] == [".u8"]

    def test_room_is_needed_for_the_rest_only(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        images, each = GeneratedImages(tiny()), 3 * 16 * 12
        with pytest.raises(DataError), images.kept(256, tmp_path):
            raise DataError("x")
        free = 2 * 44 * each
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
        with images.kept(self.N, tmp_path) as kept:
            assert kept is not images
        with images.kept(self.N, tmp_path) as kept:
            assert kept is images, "nothing is there now"

    def test_samples_are_made_in_float32_proper(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[tuple[str, bool]] = []
        original = Generator.forward

        def watched(self: Generator, *args: Any, **options: Any) -> torch.Tensor:
            seen.append((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            return original(self, *args, **options)

        monkeypatch.setattr(Generator, "forward", watched)
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
        torch.set_float32_matmul_precision("high")
        try:
            with GeneratedImages(tiny()).kept(3, tmp_path) as kept:
                assert torch.get_float32_matmul_precision() == "high"
                GeneratedImages(tiny()).read(np.arange(2))
                everything(kept)
        finally:
            torch.set_float32_matmul_precision("highest")
        assert seen == [("highest", False)] * 2

    def test_two_at_once_do_not_meet(self, tmp_path: Path) -> None:
        images = GeneratedImages(tiny())
        with images.kept(5, tmp_path) as first, images.kept(5, tmp_path) as second:
            assert len(list(tmp_path.glob(".samples-*.u8"))) == 1
            np.testing.assert_array_equal(everything(first), everything(second))
        assert list(tmp_path.iterdir()) == []

    def test_without_room_they_are_made_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(generated_images, "KEPT_MOST", 100)
        images = GeneratedImages(tiny())
        with images.kept(5, tmp_path) as kept:
            assert kept is images
            assert not list(tmp_path.glob(".samples-*.u8"))


def test_a_folder_of_samples_is_the_generator(tmp_path: Path) -> None:
    """What `progan generate` wrote is measured as the generator itself is."""
    G = tiny()
    folder = open_images(save_samples(G, tmp_path / "x", 20))
    with GeneratedImages(G).kept(20, None) as kept:
        for one, other in ((folder, kept), (open_images(save_samples(G, tmp_path / "x.npy", 20)), kept)):
            np.testing.assert_array_equal(one.read(choose(one, 20, 7)), other.read(choose(other, 20, 7)))


def test_pictures_are_halved_to_the_size_of_a_lower_level(tmp_path: Path) -> None:
    """As the levels of a packed set are made; without being asked for, other sizes are refused."""
    packed = synthetic(tmp_path / "set", count=12, resolution=16)
    whole = packed.read(2, np.arange(12)).astype(np.uint8)
    for level, size in ((1, (8, 8)), (0, (4, 4))):
        halved = open_images(whole, size=size, halve=True)
        assert halved.shape == (3, *size)
        made, stored = halved.read(np.arange(12)), packed.read(level, np.arange(12))
        assert np.abs(made.astype(int) - stored).max() <= 1  # these are made of what is not rounded yet
        assert np.array_equal(np.concatenate(list(halved.batches(np.arange(12)))), made)
    assert open_images(whole, size=(8, 8), halve=True).fingerprint != open_images(whole).fingerprint
    for size in ((8, 16), (5, 5), (32, 32)):
        with pytest.raises(DataError, match="has images of 16x16"):
            open_images(whole, size=size, halve=True)
    with pytest.raises(DataError, match="has images of 16x16"):
        open_images(whole, size=(8, 8))
