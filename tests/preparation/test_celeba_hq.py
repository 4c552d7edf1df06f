"""CelebA-HQ from small stand-ins of CelebA and the differences, and from ready pictures."""

from __future__ import annotations

import base64
import bz2
import hashlib
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.fernet import Fernet
from PIL import Image, ImageDraw

from progan.config import PictureOptions
from progan.data.packed import PackedSet
from progan.errors import DataError, DependencyError
from progan.preparation.celeba_hq import Facts, nearest_sum, open_celeba_hq
from progan.preparation.pack import Request, find_or_pack
from progan.preparation.picture.face_alignment import align_face, face_square
from progan.preparation.report import PrepareReport
from progan.preparation.source import prepare

FACTS = Facts(pictures=3, photographs=5, side=64, archive=2, sides=(32, 64))
CHOSEN = (4, 0, 2)
"""The photographs of the pictures."""
EYES = np.array([[40, 40], [60, 42], [50, 52], [42, 62], [58, 63]], np.float32)


def face(number: int) -> Image.Image:
    """Two eyes and a mouth, beneath something white and something black."""
    image = Image.new("RGB", (96, 110), (200, 150 + number * 10, 120))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 8, 48, 24), fill=(253, 254, 255))
    draw.rectangle((48, 8, 96, 24), fill=(0, 2, 1))
    for x, y in EYES[:2]:
        draw.ellipse((x - 4, y - 3, x + 4, y + 3), fill=(20, 40, 60))
    draw.line([tuple(EYES[3]), tuple(EYES[4])], fill=(160, 20, 40), width=4)
    return image


def encrypted(delta: Any, file: str, photograph: bytes) -> bytes:
    key = hashlib.pbkdf2_hmac("sha256", photograph, file.encode(), 100_000, 32)
    return Fernet(base64.urlsafe_b64encode(key)).encrypt(bz2.compress(delta.tobytes()))


def moved(pixels: Any, most: int, random: np.random.Generator) -> Any:
    """Return pixels that differ at random by at most so much."""
    change = random.integers(-most, most + 1, pixels.shape)
    return (pixels.astype(int) + change).clip(0, 255).astype(np.uint8)


class StandIn:
    """CelebA of 5 photographs, and differences that make `finished` of 3 of them."""

    def __init__(self, folder: Path, rounding: int = 0) -> None:
        self.celeba, self.deltas = folder / "celeba", folder / "deltas"
        photographs = self.celeba / "Img" / "img_celeba"
        photographs.mkdir(parents=True)
        (self.celeba / "Anno").mkdir()
        self.deltas.mkdir()
        files = [f"{i + 1:06d}.jpg" for i in range(FACTS.photographs)]
        for i, file in enumerate(files):
            face(i).save(photographs / file, quality=92)
        rows = [f"{file} {' '.join(str(int(v)) for v in EYES.ravel())}" for file in files]
        heads = ["5", "lefteye_x lefteye_y righteye_x ..."]
        (self.celeba / "Anno" / "list_landmarks_celeba.txt").write_text("\n".join([*heads, *rows]))
        self.finished = []
        lines = ["idx orig_idx orig_file proc_md5 final_md5"]
        random = np.random.default_rng(0)
        for number, chosen in enumerate(CHOSEN):
            file = files[chosen]
            with Image.open(photographs / file) as image:
                aligned = align_face(image.convert("RGB"), EYES, FACTS.side)
            # As decoders that round differently would have it.
            aligned = moved(aligned, rounding, random)
            final = moved(aligned, 40, random)
            self.finished.append(final)
            name = self.deltas / f"deltas{number - number % FACTS.archive:05d}.zip"
            with zipfile.ZipFile(name, "a") as archive:
                data = encrypted(final - aligned, file, (photographs / file).read_bytes())
                archive.writestr(f"delta{number:05d}.dat", data)
            sums = [hashlib.md5(one.tobytes()).hexdigest() for one in (aligned, final)]
            lines.append(f"{number} {chosen} {file} {' '.join(sums)}")
        (self.deltas / "image_list.txt").write_text("\n".join(lines))

    def places(self) -> list[str]:
        return [str(self.celeba), str(self.deltas)]


def made(places: list[str], destination: Path, **options: Any) -> tuple[PackedSet, str]:
    asked = PictureOptions.model_validate(options)
    pictures = open_celeba_hq(places, asked, FACTS)
    packed, _ = find_or_pack(pictures, Request(asked, workers=1), lambda _key: [destination])
    return packed, "\n".join(PrepareReport.of(packed).lines())


def test_the_square_of_a_face_stands_as_the_eyes_do() -> None:
    level = np.array([[40, 40], [60, 40], [50, 50], [42, 60], [58, 60]], np.float32)
    square, half = face_square(level)
    # The eyes are 20 apart and 20 above the mouth: half the side is 40, the centre a tenth down to the mouth.
    assert half == pytest.approx(40, abs=0.1)
    np.testing.assert_allclose(square.mean(0), [50.5, 42.5], atol=0.1)
    np.testing.assert_allclose(square, [[10.5, 2.5], [10.5, 82.5], [90.5, 82.5], [90.5, 2.5]], atol=0.6)
    turned = level[:, ::-1] * np.array([1, -1], np.float32)
    np.testing.assert_allclose(face_square(turned)[0][0] - face_square(turned)[0][1], [-80, 0], atol=1)


def test_pictures_are_those_of_the_differences_bit_for_bit(tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path)
    packed, said = made(stand_in.places()[::-1], tmp_path / "set")
    assert packed.count == 3
    assert packed.resolution(packed.max_level) == (64, 64)
    np.testing.assert_array_equal(packed.read(packed.max_level, [0, 1, 2]), np.stack(stand_in.finished))
    assert "that of the paper, bit for bit" in said


def test_with_other_libraries_they_differ_by_rounding_and_that_is_said(tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path, rounding=3)
    packed, said = made(stand_in.places(), tmp_path / "set")
    stored = packed.read(packed.max_level, [0, 1, 2]).astype(int)
    assert np.abs(stored - np.stack(stand_in.finished)).max() <= 3
    assert "not to the bit that of the paper" in said


def test_a_sum_over_the_edge_is_black_or_white() -> None:
    aligned = np.array([250, 250, 3, 3, 128, 250], np.uint8)
    delta = np.array([7, 3, 250, 254, 100, 20], np.uint8)
    assert nearest_sum(aligned, delta).tolist() == [255, 253, 0, 1, 228, 255]


def test_a_photograph_that_changed_is_left_out(tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path)
    (file,) = stand_in.celeba.glob("Img/img_celeba/000003.jpg")
    face(9).save(file)
    packed, _ = made(stand_in.places(), tmp_path / "set")
    assert packed.count == 2
    assert "the photograph is not that of CelebA" in (packed.path / "skipped.csv").read_text()


def spoil(place: Path, how: str) -> None:
    """Damage the stand-in in one way."""
    deltas, photographs = place / "deltas", place / "celeba/Img/img_celeba"
    listed = deltas / "image_list.txt"
    if how == "photograph missing":
        (photographs / "000002.jpg").unlink()
    elif how == "archive missing":
        (deltas / "deltas00002.zip").unlink()
    elif how == "list cut off":
        listed.write_text("\n".join(listed.read_text().splitlines()[:3]))
    elif how == "list of something else":
        listed.write_text("a b c\n1 2 3\n")
    elif how == "photograph of another number":
        listed.write_text(listed.read_text().replace(" 4 000005.jpg", " 44 000005.jpg"))
    elif how == "path in the list":
        listed.write_text(listed.read_text().replace("000005.jpg", "../../x.jpg"))
    elif how == "landmarks cut off":
        file = place / "celeba/Anno/list_landmarks_celeba.txt"
        file.write_text(file.read_text()[:-30])
    elif how == "first photograph replaced":
        face(9).save(photographs / "000005.jpg")
    elif how == "no landmarks":
        (place / "celeba/Anno/list_landmarks_celeba.txt").unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("photograph missing", "holds 4 .jpg files, and CelebA has 5"),
        ("archive missing", "holds 1 of 2 archives"),
        ("list cut off", "lists 2 pictures; CelebA-HQ has 3"),
        ("list of something else", "has no columns idx"),
        ("photograph of another number", "names a photograph that CelebA does not have"),
        ("path in the list", "lists 3 pictures; CelebA-HQ has 3, from 0 on"),
        ("landmarks cut off", "holds landmarks of"),
        ("first photograph replaced", "the photograph is not that of CelebA"),
        ("no landmarks", "has no list_landmarks_celeba.txt"),
    ],
)
def test_what_is_wrong_is_told_before_hours_of_work(tmp_path: Path, how: str, message: str) -> None:
    stand_in = StandIn(tmp_path)
    spoil(tmp_path, how)
    with pytest.raises(DataError, match=re.escape(message)):
        made(stand_in.places(), tmp_path / "set")


def test_without_the_extra_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = StandIn(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "cryptography.fernet", None)
    with pytest.raises(DependencyError, match=re.escape('pip install "progan[celeba-hq]"')):
        made(stand_in.places(), tmp_path / "set")


def ready(folder: Path, count: int, size: tuple[int, int] = (32, 32)) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", size, (i * 40, 90, 50)).save(folder / f"{i}.png")
    return folder


def test_ready_pictures_are_checked_and_taken(tmp_path: Path) -> None:
    packed, said = made([str(ready(tmp_path / "hq", 3))], tmp_path / "set")
    assert (packed.count, packed.resolution(packed.max_level)) == (3, (32, 32))
    assert "CelebA-HQ: 3 pictures of 32x32, as there should be" in said
    np.save(tmp_path / "hq.npy", np.zeros((3, 64, 64, 3), np.uint8))
    assert made([str(tmp_path / "hq.npy")], tmp_path / "array")[0].count == 3


def test_masks_beside_ready_pictures_are_left_out(tmp_path: Path) -> None:
    ready(tmp_path / "CelebAMask-HQ" / "CelebA-HQ-img", 3)
    ready(tmp_path / "CelebAMask-HQ" / "CelebAMask-HQ-mask-anno", 5)
    assert made([str(tmp_path / "CelebAMask-HQ")], tmp_path / "set")[0].count == 3


@pytest.mark.parametrize(
    ("count", "size", "message"),
    [
        (2, (32, 32), "holds 2 pictures, and CelebA-HQ has 3: the download is not complete"),
        (4, (32, 32), "holds 4 pictures, and CelebA-HQ has 3: there are others, too"),
        (3, (32, 40), "has pictures of 32x40; CelebA-HQ is passed on in one size, square"),
        (3, (48, 48), "has pictures of 48x48"),
    ],
)
def test_others_than_those_of_celeba_hq_are_refused(
    tmp_path: Path, count: int, size: tuple[int, int], message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        made([str(ready(tmp_path / "hq", count, size))], tmp_path / "set")


def test_the_real_counts_are_asked_for_by_name(tmp_path: Path) -> None:
    ready(tmp_path / "hq", 3)
    with pytest.raises(DataError, match="holds 3 pictures, and CelebA-HQ has 30,000"):
        prepare(["celeba-hq", tmp_path / "hq"], tmp_path / "set")
    stand_in = StandIn(tmp_path)
    with pytest.raises(DataError, match=r"holds 5 \.jpg files, and CelebA has 202,599"):
        prepare(["celeba-hq", *stand_in.places()], tmp_path / "set")
    with pytest.raises(DataError, match="give the folder of CelebA and that of the differences"):
        prepare("celeba-hq", tmp_path / "set")
    with pytest.raises(DataError, match="give the folder of CelebA and that of the differences"):
        prepare(["celeba-hq", stand_in.celeba, tmp_path / "hq"], tmp_path / "set")
