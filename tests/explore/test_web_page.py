"""The page: what is written, and what a real browser makes of it."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from browser import Opened, find_browser, opened, require_runtime
from progan.__main__ import main
from progan.config import LabelForm
from progan.data.packed import PackedSet
from progan.data.pixels import to_uint8
from progan.errors import ConfigError, DependencyError
from progan.explore import runtime
from progan.explore.about import about_of
from progan.explore.directions import Direction, save, sefa
from progan.explore.serving import address, serve
from progan.explore.web_page import STATIC, About, write_page
from progan.generation.samples import of_seeds
from progan.generation.walks import slerp
from progan.models import weights
from progan.models.generator import Generator
from progan.models.loading import load
from progan.runs.run import train
from tiny import options

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

ABOUT = About("Cats & <dogs>", [("Trained on", "5 pictures of “cats”")])


def make(labels: int = 3, form: LabelForm = "class", channels: int = 3, level: int = 2) -> Generator:
    torch.manual_seed(1)
    G = Generator(
        channels=channels, base_shape=(4, 6), max_level=level, label_size=labels, label_form=form,
        label_names=("cat", "dog", "<b>")[:labels], fmap_base=64, fmap_max=8, latent_size=8,
    )  # fmt: skip
    G.requires_grad_(False).eval()
    for layer in G.to_rgb:
        layer.weight.mul_(0.3)  # type: ignore[operator] # so that few pixels are clipped
    if form != "class":
        G.label_examples.copy_(torch.arange(64.0)[:, None] % 2 + torch.zeros(labels))
    return G


def described(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    model, about = re.fullmatch(
        r"export const model = (.*);\nexport const about = (.*);\n", (folder / "model.js").read_text()
    ).groups()  # type: ignore[union-attr]
    return json.loads(model), json.loads(about)


def test_what_is_written(tmp_path: Path) -> None:
    G = make(level=1)
    said: list[str] = []
    ways = sefa(G, 2)
    index = write_page(G, tmp_path, ABOUT, directions=ways, progress=lambda what, *_: said.append(what))
    assert index == tmp_path / "index.html"
    names = {"README.md", "latents.bin", "model.js", "preview.webp", *STATIC}
    assert {path.name for path in tmp_path.iterdir()} == names | {"level-0.onnx", "level-1.onnx"}
    model, about = described(tmp_path)
    assert about["title"] == ABOUT.title
    assert model["label_names"] == ["cat", "dog", "<b>"]
    assert [level["size"] for level in model["levels"]] == [[4, 6], [8, 12]]
    assert [way["name"] for way in model["directions"]] == ["sefa 1", "sefa 2"]
    z = np.fromfile(tmp_path / "latents.bin", "<f4").reshape(-1, 8)
    assert np.array_equal(z[41], of_seeds(G, [41]).rows(0, 1)[0][0].numpy())
    # Without --offline a fixed version is loaded, and only if it has the right hash.
    for which, kind in itertools.product(("wasm", "gpu"), ("script", "wasm")):
        files = model["runtime"][which]
        assert re.match(r"https://[^ ]+@\d+\.\d+\.\d+/dist/", files[kind])
        assert files[f"{kind}_integrity"].startswith("sha384-")
    head = (tmp_path / "README.md").read_text()
    assert head.startswith('---\ntitle: "Cats & <dogs>"\nsdk: static\n')
    assert "  cross-origin-embedder-policy: require-corp\n" in head[: head.rindex("---")]
    # The first seeds, all with the label of the first, are there before anything is computed.
    rows, labels = of_seeds(G, range(24)).rows(0, 24)
    assert labels is not None
    wanted = to_uint8(G(rows, labels[:1].expand(24, -1)))
    with Image.open(tmp_path / "preview.webp") as sheet:
        shown = np.asarray(sheet.convert("RGB")).reshape(8, 24, 12, 3)
    assert np.array_equal(shown.transpose(1, 3, 0, 2), wanted)
    assert set(said) == {"exporting levels"}


def test_images_that_are_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="5 channels cannot be shown"):
        write_page(make(channels=5), tmp_path, ABOUT)


def package(path: Path, content: bytes) -> bytes:
    for file in runtime.FILES:
        (path / file.name).write_bytes(content)
    with tarfile.open(path / "x.tgz", "w:gz") as archive:
        for file in runtime.FILES:
            archive.add(path / file.name, f"package/dist/{file.name}")
    return (path / "x.tgz").read_bytes()


def test_another_runtime_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for data, message in (
        (package(tmp_path, b"evil"), "is not the file that it should be"),
        (b"no archive", "came damaged"),
    ):
        monkeypatch.setattr(runtime, "_by_npm", lambda data=data: data)
        with pytest.raises(DependencyError, match=message):
            runtime.copy_runtime(tmp_path / "out")
    monkeypatch.setattr(runtime, "_by_npm", lambda: None)

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(DependencyError, match=r"needs onnxruntime-web .* once.*no network"):
        runtime.copy_runtime(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_served_can_use_threads_and_nobody_elses_ports(tmp_path: Path) -> None:
    (tmp_path / "x.js").write_text("1")
    with serve(tmp_path) as server:
        assert address(server).startswith("http://127.0.0.1:")
        with pytest.raises(ConfigError, match="cannot be had"):
            serve(tmp_path, server.server_address[1])
    with pytest.raises(ConfigError, match="port 70000"):
        serve(tmp_path, 70000)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It takes the directions that were found before, and says nothing of where files are."""
    G = make(level=0)
    weights.save(G, tmp_path / "G.safetensors")
    save(sefa(G, 1), tmp_path / "G-directions" / "directions.npz")
    with pytest.raises(SystemExit) as end:
        main(["explore", str(tmp_path / "G.safetensors"), "--out", str(tmp_path / "web"), "--title", "Mine"])
    assert end.value.code in (0, None)
    assert "any host of static files" in capsys.readouterr().out
    model, about = described(tmp_path / "web")
    assert about["title"] == "Mine"
    assert [way["name"] for way in model["directions"]] == ["sefa 1"]
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "web").glob("*.[jm]*"))


def test_what_a_page_says_of_a_run(blobs: PackedSet, tmp_path: Path) -> None:
    run = Path(train(blobs.path, out=tmp_path / "mine", options=options()))
    about = about_of(run, load(run))
    facts = dict(about.facts)
    assert about.title == "mine"
    assert facts["Trained on"].startswith("48 pictures, ")
    assert facts["Training"] == "240 images shown, fade growth"
    assert facts["Loss"] == "wgan"
    assert not any(str(tmp_path) in text for text in facts.values())


# --- in a browser ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="page_folder")
def written_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    find_browser()
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        require_runtime()
        write_page(make(), folder, ABOUT, directions=sefa(make(), 2), offline=True)
    return folder


@pytest.fixture(name="web")
def page_in_browser(page_folder: Path) -> Iterator[Opened]:
    with opened(page_folder, viewport={"width": 1200, "height": 900}) as web:
        web.page.wait_for_selector("body[data-ready]", timeout=60000)
        yield web
        assert web.said == []
        assert web.elsewhere() == []


def expected(z: torch.Tensor, label: list[float], level: int = 2) -> Any:
    with torch.inference_mode():
        return to_uint8(make()(z, torch.tensor([label]), level=level))[0].transpose(1, 2, 0).astype(int)


def move(web: Opened, selector: str, value: float) -> None:
    web.page.evaluate(
        "([s, v]) => { const e = document.querySelector(s); e.value = v;"
        "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); }",
        [selector, value],
    )


@pytest.mark.slow
def test_its_pictures_are_those_of_pytorch(web: Opened) -> None:
    """After every kind of change: a seed, a class, a direction, a mixture, a level."""
    z, drawn = of_seeds(make(), [0, 5]).rows(0, 2)
    assert drawn is not None
    label = drawn[0].tolist()

    def require_picture(z: torch.Tensor, label: list[float], level: int = 2) -> None:
        shown, wanted = web.picture().astype(int), expected(z, label, level)
        assert shown.shape[:2] == wanted.shape[:2]
        assert (shown[..., 3] == 255).all()
        assert np.abs(shown[..., :3] - wanted).max() <= 2
        assert wanted.std() > 10

    require_picture(z[:1], label)
    web.after(lambda: web.page.click("#grid button:nth-child(6)"))
    require_picture(z[1:], label)
    web.after(lambda: web.page.click("#classes button:nth-child(3)"))
    label = [0.0, 0.0, 1.0]
    require_picture(z[1:], label)
    way = sefa(make(), 2)[1]
    web.after(lambda: move(web, "#directions label:nth-child(2) input", 2.5))
    require_picture(z[1:] + 2.5 * way.vector, label)
    web.after(lambda: move(web, "#share", 0.4))
    other = of_seeds(make(), [1]).rows(0, 1)[0]
    require_picture(slerp(z[1:], other, 0.4) + 2.5 * way.vector, label)
    web.after(lambda: move(web, "#level", 1))
    require_picture(slerp(z[1:], other, 0.4) + 2.5 * way.vector, label, level=1)
    assert web.page.inner_text("#size") == "8\N{MULTIPLICATION SIGN}12"


@pytest.mark.slow
def test_the_gpu_makes_the_same_pictures(page_folder: Path) -> None:
    """By WebGPU, which Chromium computes in software here; so the page itself stays with WASM."""
    with opened(page_folder, ["--enable-unsafe-webgpu"]) as web:
        web.page.wait_for_selector("body[data-runtime]", timeout=120000)
        if not web.page.evaluate("async () => !!(await navigator.gpu?.requestAdapter())"):
            pytest.skip("no WebGPU")
        pixels = web.page.evaluate(
            "async ([z, label]) => { const { Engine } = await import('./engine.js');"
            "const gpu = await new Engine('gpu').open(2);"
            "const [made] = await gpu.images([z], label, 2); return Array.from(made.data); }",
            [of_seeds(make(), [3]).rows(0, 1)[0][0].tolist(), [0, 1, 0]],
        )
        shown = np.array(pixels).reshape(16, 24, 4)[..., :3]
        assert np.abs(shown - expected(of_seeds(make(), [3]).rows(0, 1)[0], [0.0, 1.0, 0.0])).max() <= 2
        assert web.page.get_attribute("body", "data-runtime").startswith("WASM, ")
        assert web.said == []
        assert web.elsewhere() == []


@pytest.mark.slow
def test_a_fresh_page_shows_pictures_before_it_computes_any(page_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(page_folder, tmp_path / "page")
    (tmp_path / "page" / "ort-wasm-simd-threaded.wasm").unlink()
    with opened(tmp_path / "page") as web:
        web.page.wait_for_selector("body[data-preview]", timeout=60000)
        z, drawn = of_seeds(make(), [0]).rows(0, 1)
        assert drawn is not None
        wanted = expected(z, drawn[0].tolist())
        assert np.array_equal(web.picture()[..., :3], wanted)
        web.page.wait_for_function(
            "() => document.querySelector('#message').textContent.includes('not work')"
        )
        assert "ort-wasm-simd-threaded.wasm cannot be loaded" in web.page.inner_text("#message")


@pytest.mark.slow
def test_a_page_without_a_network_says_what_to_do(tmp_path: Path) -> None:
    find_browser()
    write_page(make(), tmp_path, ABOUT, directions=[])
    with opened(tmp_path) as web:
        web.page.context.route("https://**", lambda route: route.abort())
        web.page.reload()
        web.page.wait_for_function(
            "() => document.querySelector('#message').textContent.includes('not work')"
        )
        assert "progan explore RUN --offline" in web.page.inner_text("#message")


@pytest.mark.slow
def test_a_page_in_a_file_says_what_to_do(page_folder: Path) -> None:
    with opened(page_folder) as web:
        web.page.goto((page_folder / "index.html").as_uri())
        web.page.wait_for_function(
            "() => getComputedStyle(document.querySelector('#message span')).opacity == 1"
        )
        assert "progan explore" in web.page.inner_text("#message")


@pytest.mark.slow
def test_keys_undo_and_the_address(web: Opened) -> None:
    page = web.page
    page.focus("#picture")
    first = page.evaluate("() => location.hash")
    web.after(lambda: page.keyboard.press("ArrowRight"))
    assert page.inner_text("#which").startswith("seed 1")
    web.after(lambda: page.keyboard.press("r"))
    assert page.inner_text("#which").startswith("random")
    random, picture = page.evaluate("() => location.hash"), web.picture()
    web.after(lambda: page.keyboard.press("z"))
    web.after(lambda: page.click("#undo"))
    assert page.evaluate("() => location.hash") == first
    assert page.is_disabled("#undo")
    assert np.array_equal(web.another(random).picture(), picture)
    odd = web.another("#a=99999&b=x&t=7&l=-3&c=1&d=1,2,3,4")
    assert odd.page.evaluate("() => location.hash").startswith("#a=0&b=1&t=1&l=0&c=")
    assert odd.said == []


@pytest.mark.slow
def test_it_fits_a_phone_and_walks(page_folder: Path) -> None:
    with opened(page_folder, viewport={"width": 400, "height": 800}, has_touch=True) as web:
        web.page.wait_for_selector("body[data-ready]", timeout=60000)
        assert web.page.evaluate("() => document.documentElement.scrollWidth") == 400
        before = web.drawn()
        web.page.tap("#walk")
        web.page.wait_for_function("n => Number(document.body.dataset.drawn) > n + 5", arg=before)
        web.page.tap("#walk")
        assert web.page.get_attribute("#walk", "aria-pressed") == "false"
        assert "%" in web.page.inner_text("#which")
        assert web.said == []


@pytest.mark.slow
def test_downloads(web: Opened, tmp_path: Path) -> None:
    with web.page.expect_download() as picture:
        web.page.click("#save")
    picture.value.save_as(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (24 * 22, 16 * 22)
        shown = np.asarray(image.convert("RGB"))[::22, ::22]
    assert np.array_equal(shown, web.picture()[..., :3])
    with web.page.expect_download(timeout=60000) as film:
        web.page.click("#film")
    film.value.save_as(tmp_path / "x.webm")
    assert (tmp_path / "x.webm").stat().st_size > 2000


@pytest.mark.slow
@pytest.mark.parametrize(("form", "channels"), [("classes", 1), ("vector", 4)])
def test_other_labels_and_channels(tmp_path: Path, form: LabelForm, channels: int) -> None:
    find_browser()
    require_runtime()
    G = make(2, form, channels)
    if channels == 4:
        G.to_rgb[2].bias[3] = 1  # type: ignore[operator] # solid in many places
    write_page(G, tmp_path, ABOUT, directions=[Direction("x", torch.eye(8)[0], "scores", 1.0)], offline=True)
    with opened(tmp_path) as web:
        web.page.wait_for_selector("body[data-ready]", timeout=60000)
        if form == "classes":
            pressed = web.page.get_attribute("#classes button:nth-child(2)", "aria-pressed")
            web.after(lambda: web.page.click("#classes button:nth-child(2)"))
            assert web.page.get_attribute("#classes button:nth-child(2)", "aria-pressed") != pressed
        else:
            web.after(lambda: move(web, "#class-sliders label:nth-child(1) input", -1.5))
        label = [
            float(x) for x in web.page.evaluate("() => location.hash").split("c=")[1].split("&")[0].split(",")
        ]
        z = of_seeds(G, [0]).rows(0, 1)[0]
        with torch.inference_mode():
            wanted = to_uint8(G(z, torch.tensor([label])))[0].transpose(1, 2, 0).astype(int)
        shown = web.picture().astype(int)
        if channels == 1:
            assert np.abs(shown[..., :1] - wanted).max() <= 2
        else:
            solid = wanted[..., 3] == 255  # a canvas rounds colours that are partly seen through
            assert np.abs(shown[..., 3] - wanted[..., 3]).max() <= 2
            assert np.abs(shown[solid] - wanted[solid]).max() <= 2
        assert web.said == []
