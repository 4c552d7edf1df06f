"""Measuring: what is fed to metrics, what is written down, what is found again, what is refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from progan.data.packed import PackedSet
from progan.errors import CheckpointError, ConfigError, DataError, StorageError
from progan.evaluation import measure as measuring
from progan.evaluation.image_set import ArrayImages, choose
from progan.evaluation.measure import compare, evaluate
from progan.evaluation.monitor import Monitor
from progan.evaluation.nearest_reals import neighbour_rows
from progan.evaluation.open_images import Place, open_images
from progan.evaluation.results import Result, append_result, find_result, read_results
from progan.metrics.extractor import Extractor
from progan.metrics.metric import Metric, MetricTools, SetMetric
from progan.metrics.ms_ssim import ms_ssim
from progan.metrics.path_length import PathLength
from progan.metrics.registry import METRICS, ExtractorFile, make_metrics
from progan.models.generator import Generator
from progan.models.weights import save
from progan.preparation.builtin_sets import synthetic

DICE = np.random.default_rng(1)
REALS = DICE.integers(0, 256, (12, 3, 16, 16), dtype=np.uint8)
FAKES = DICE.integers(0, 256, (10, 3, 16, 16), dtype=np.uint8)


JSON = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text())


def tiny(labels: int = 0) -> Generator:
    torch.manual_seed(0)
    return Generator(channels=3, max_level=2, fmap_base=64, fmap_max=8, level=2, label_size=labels).eval()


def pooled(images: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


class Sums(Metric):
    """The sums of all pixels; remembers what it was fed with."""

    name = "sums"
    version = 1
    minimum = 2
    needs_reals: ClassVar[bool] = True

    def __init__(self, name: str = "sums", failing: type[BaseException] | None = None, **own: Any) -> None:
        self.name = name
        self.own = own
        self.failing = failing
        self.reals: list[NDArray[np.uint8]] = []
        self.fakes: list[NDArray[np.uint8]] = []

    def definition(self) -> dict[str, Any]:
        return self.own

    def add_reals(self, images: NDArray[np.uint8]) -> None:
        self.reals.append(images)

    def add_fakes(self, images: NDArray[np.uint8]) -> None:
        self.fakes.append(images)

    def compute(self) -> dict[str, float]:
        if self.failing:
            raise self.failing
        warnings.warn(f"{self.name} is only a sum", stacklevel=1)
        sums = {f"{self.name}_fakes": float(np.concatenate(self.fakes).sum())}
        return sums | ({f"{self.name}_reals": float(np.concatenate(self.reals).sum())} if self.reals else {})

    def forget_reals(self) -> None:
        self.compared_with, self.reals = self.reals, []

    def forget_fakes(self) -> None:
        self.computed_on, self.fakes = self.fakes, []


class Alone(Sums):
    needs_reals: ClassVar[bool] = False


def test_metrics_are_fed_with_the_chosen_images() -> None:
    metric = Sums()
    (result,) = compare(REALS, FAKES, [metric], n=7, num_reals=11, seed=5)
    reals, fakes = (choose(ArrayImages(x, "x"), n, 5) for x, n in ((REALS, 11), (FAKES, 7)))
    np.testing.assert_array_equal(np.concatenate(metric.compared_with), REALS[reals])
    np.testing.assert_array_equal(np.concatenate(metric.computed_on), FAKES[fakes])
    assert result.numbers == {
        "sums_fakes": float(FAKES[fakes].sum()),
        "sums_reals": float(REALS[reals].sum()),
    }
    assert (result.num_images, result.num_reals, result.seed, result.cached) == (7, 11, 5, False)
    assert result.notes == ("sums is only a sum",)


def test_a_metric_that_is_used_again_begins_anew() -> None:
    metric = Sums()
    for _ in range(2):
        compare(REALS, FAKES, [metric])
        assert len(np.concatenate(metric.compared_with)) == 10
        assert (metric.reals, metric.fakes) == ([], []), "their memory is free"
    metric.add_reals(REALS)
    metric.add_fakes(FAKES)
    (result,) = compare(REALS, FAKES, [metric])
    assert result.numbers == compare(REALS, FAKES, [Sums()])[0].numbers


def test_endless_sets_are_read_as_far_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[NDArray[np.uint8]]:
        while True:
            yield REALS

    monkeypatch.setattr(measuring, "USUAL", 24)
    for n, num_reals, expected in ((None, None, (24, 24)), (5, None, (5, 5)), (30, None, (30, 30)),
                                   (5, 40, (5, 40))):  # fmt: skip
        (result,) = compare(endless(), endless(), [Sums()], n=n, num_reals=num_reals)
        assert (result.num_images, result.num_reals) == expected
    (result,) = compare(endless(), endless(), ["swd"], n=12)
    assert result.num_reals == 24, "as many as a floor of its own count needs"


def test_how_many_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compare(REALS, FAKES, [Sums()])[0].num_images == 10, "the smaller set"
    assert evaluate(tiny(), REALS, [Sums()])[0].num_images == 12, "a generator has no end"
    monkeypatch.setattr(measuring, "USUAL", 4)
    assert compare(REALS, FAKES, [Sums()])[0].num_images == 4
    assert evaluate(tiny(), None, [Alone()])[0].num_images == 4
    for options, message in (
        ({"n": 11}, "the array: holds 10 images, but 11 were asked for"),
        ({"n": 3, "num_reals": 13}, "the array: holds 12 images, but 13"),
    ):
        with pytest.raises(DataError, match=message):
            compare(REALS, FAKES, [Sums()], **options)  # type: ignore[arg-type]
    for wrong in (0, 2.5):
        with pytest.raises(ConfigError, match="n "):
            compare(REALS, FAKES, [Sums()], n=wrong)  # type: ignore[arg-type]


def test_the_floor_has_as_many_reals_where_there_are() -> None:
    """Twice as many reals make halves as large as the set that is measured, while memory allows it."""
    pixels = np.repeat(REALS, 2, 0)
    for n, num_reals, expected in ((12, None, 24), (12, 24, 24), (12, 13, 12), (13, None, 13)):
        (result,) = compare(pixels, pixels, ["swd"], n=n, num_reals=num_reals)
        assert (result.num_reals, result.numbers["swd_floor/images"]) == (expected, expected // 2)


def test_kinds_of_one_set_give_one_number(tmp_path: Path, blobs: PackedSet) -> None:
    pixels = blobs.read(2, blobs.indices()).astype(np.uint8)
    np.save(tmp_path / "x.npy", pixels)
    places: list[Place] = [blobs, blobs.path, pixels, tmp_path / "x.npy", iter(np.array_split(pixels, 5))]
    found = [evaluate(tiny(), place, ["swd", "ms_ssim"], n=20) for place in places]
    for results in found[1:]:
        assert [result.numbers for result in results] == [result.numbers for result in found[0]]
    assert set(found[0][1].numbers) == {"ms_ssim", "ms_ssim_reals"}
    order = choose(ArrayImages(pixels, "x"), 20, 0)
    assert found[0][1].numbers["ms_ssim_reals"] == pytest.approx(ms_ssim([pixels[order]]), abs=1e-12)


def test_each_option_of_the_sets_counts(blobs: PackedSet) -> None:
    def measured(**options: Any) -> dict[str, float]:
        (result,) = evaluate(tiny(labels=2), blobs, [Sums()], n=20, **options)
        return result.numbers

    usual = measured()
    for options, changed in (
        ({"seed": 1}, "fakes reals"),
        ({"label": 1}, "fakes"),
        ({"size": (8, 8)}, "fakes reals"),
        ({"part": "all"}, ""),  # all of them are of the train part
    ):
        other = measured(**options)
        assert {key[5:] for key in other if other[key] != usual[key]} == set(changed.split()), options
    mirrored, plain = Sums(), Sums()
    evaluate(tiny(), blobs, [mirrored], mirror=True)
    evaluate(tiny(), blobs, [plain])
    assert not np.array_equal(mirrored.compared_with[0], plain.compared_with[0])


def test_two_generators_share_no_latents(tmp_path: Path) -> None:
    save(tiny(), tmp_path / "g.safetensors")
    metric = Sums()
    compare(tmp_path / "g.safetensors", tmp_path / "g.safetensors", [metric], n=8)
    fakes, reals = np.concatenate(metric.computed_on), np.concatenate(metric.compared_with)
    assert all(not np.array_equal(fake, real) for fake in fakes for real in reals)


def test_metrics_on_one_extractor_see_a_batch_once() -> None:
    calls: list[int] = []

    def network(images: Tensor) -> Tensor:
        calls.append(len(images))
        return pooled(images)

    extractor = Extractor(network, "pool")
    results = compare(REALS, FAKES, ["fid", "kid", "pr", "swd"], extractor=extractor, n=10)
    assert [r.metric for r in results] == ["fid_pool", "kid_pool", "pr_pool", "swd"]
    assert sum(calls) == 10 + 10 + 2, "each image once, and two to try its shape"
    assert len(results[0].notes) == 2, "there are no more images than features"
    assert results[0].definition["extractor"] == "pool"


def test_a_path_length_is_that_of_the_generator() -> None:
    extractor, G = Extractor(pooled, "pool"), tiny()
    found, other = evaluate(G, None, ["ppl", Alone()], n=6, extractor=extractor)
    with torch.inference_mode():
        expected = PathLength(extractor, samples=6).measure(lambda z, _: G(z), G.latent_size)
    assert found.numbers == pytest.approx(expected)
    assert (found.num_images, found.num_reals, other.metric) == (6, None, "sums")
    labelled = evaluate(tiny(labels=2), None, ["ppl"], n=6, extractor=extractor, label=1)
    assert labelled != evaluate(tiny(labels=2), None, ["ppl"], n=6, extractor=extractor, label=0)
    with pytest.raises(ConfigError, match=r"ppl_zfull_pool follows the latents of a generator; the array is"):
        compare(REALS, FAKES, ["ppl"], extractor=extractor)


class TestFile:
    """Results that are found again."""

    def test_a_second_time_nothing_is_computed(self, tmp_path: Path) -> None:
        out = tmp_path / "new" / "metrics.jsonl"
        (first,) = evaluate(tiny(), REALS, [Sums()], out=out)
        metric = Sums(failing=RuntimeError)
        (second,) = evaluate(tiny(), REALS, [metric], out=out)
        assert (second.cached, second.numbers, second.notes) == (True, first.numbers, first.notes)
        assert not hasattr(metric, "compared_with"), "it was not touched"
        assert len(out.read_text().splitlines()) == 1
        (third,) = evaluate(tiny(), REALS, [Sums()], out=out, force=True)
        assert (third.cached, third.numbers) == (False, first.numbers)
        assert len(out.read_text().splitlines()) == 2

    def test_a_line_tells_everything(self, tmp_path: Path) -> None:
        out = tmp_path / "metrics.jsonl"
        save(tiny(), tmp_path / "g.safetensors")
        evaluate(tmp_path / "g.safetensors", REALS, [Sums(k=3)], out=out, seed=2, n=5)
        line = json.loads(out.read_text())
        assert line["metric"] == "sums"
        assert (line["version"], line["definition"], line["seed"]) == (1, {"k": 3}, 2)
        assert (line["num_images"], line["num_reals"]) == (5, 5)
        assert line["images"]["kind"] == "generator"
        assert len(line["images"]["weights"]) == 64
        assert line["reals"]["kind"] == "array"
        assert line["about"]["images"] == {"path": str(tmp_path / "g.safetensors")}
        assert line["software"]["torch"] == torch.__version__
        assert line["seconds"] > 0
        assert "cached" not in line

    @pytest.mark.parametrize(
        "other",
        [
            lambda out: compare(REALS, FAKES, [Sums()], out=out, n=9),
            lambda out: compare(REALS, FAKES, [Sums()], out=out, num_reals=9),
            lambda out: compare(REALS, FAKES, [Sums()], out=out, seed=1),
            lambda out: compare(REALS, FAKES, [Sums(k=1)], out=out),
            lambda out: compare(REALS, FAKES, [Sums("other")], out=out),
            lambda out: compare(REALS, REALS[:10], [Sums()], out=out),
            lambda out: compare(FAKES, FAKES, [Sums()], out=out),
            lambda out: compare(REALS, FAKES, [Sums()], out=out, mirror=True),
        ],
    )
    def test_what_differs_is_computed(self, tmp_path: Path, other: Callable[[Path], list[Result]]) -> None:
        out = tmp_path / "metrics.jsonl"
        compare(REALS, FAKES, [Sums()], out=out)
        assert not other(out)[0].cached
        assert other(out)[0].cached
        assert compare(REALS, FAKES, [Sums()], out=out)[0].cached

    def test_another_version_is_computed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out = tmp_path / "metrics.jsonl"
        compare(REALS, FAKES, [Sums()], out=out)
        monkeypatch.setattr(Sums, "version", 2)
        assert not compare(REALS, FAKES, [Sums()], out=out)[0].cached

    def test_a_torn_line_is_dropped(self, tmp_path: Path) -> None:
        out = tmp_path / "metrics.jsonl"
        compare(REALS, FAKES, [Sums("a"), Sums("b")], out=out)
        whole = out.read_bytes()
        for cut in (1, 20, len(whole.splitlines()[1])):
            out.write_bytes(whole[:-cut])
            results = compare(REALS, FAKES, [Sums("a"), Sums("b")], out=out)
            assert [result.cached for result in results] == [True, False]
            assert [r.metric for r in read_results(out)] == ["a", "b"]
            assert out.read_bytes().endswith(b"}\n")

    def test_what_is_no_result_is_told(self, tmp_path: Path) -> None:
        out = tmp_path / "metrics.jsonl"
        compare(REALS, FAKES, [Sums()], out=out)
        whole = json.loads(out.read_text())
        notes = json.dumps({**whole, "notes": 5})
        for line in ("[]", "{", '{"metric": "x"}', '{"numbers": 1}', notes):
            damaged = tmp_path / "damaged.jsonl"
            damaged.write_text(f"{out.read_text()}{line}\n")
            with pytest.raises(DataError, match=r"damaged.jsonl, line 2: is no result.*delete the line"):
                compare(REALS, FAKES, [Sums()], out=damaged)
        newer = {**json.loads(out.read_text()), "invented": 1}
        out.write_text(json.dumps(newer) + "\n\n")
        assert compare(REALS, FAKES, [Sums()], out=out)[0].cached

    def test_a_file_that_cannot_be_written_is_told_before_the_work(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for out, message in ((tmp_path, "cannot be read"), (tmp_path / "file" / "x.jsonl", "file is where")):
            metric = Sums(failing=RuntimeError)
            with pytest.raises((StorageError, DataError), match=message):
                compare(REALS, FAKES, [metric], out=out)
            assert not metric.reals

    def test_a_number_that_is_none_is_refused(self, tmp_path: Path) -> None:
        class Broken(Sums):
            def compute(self) -> dict[str, float]:
                return {"sums": float("nan")}

        with pytest.raises(DataError, match="sums came out as nan"):
            compare(REALS, FAKES, [Broken()], out=tmp_path / "x.jsonl")
        assert read_results(tmp_path / "x.jsonl") == []

    @given(
        st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
        st.dictionaries(st.text(), JSON),
        st.lists(st.text()),
    )
    def test_what_is_written_is_read(
        self, tmp_path_factory: pytest.TempPathFactory, numbers: Any, tree: Any, notes: list[str]
    ) -> None:
        path = tmp_path_factory.mktemp("results") / "x.jsonl"
        made = Result("m", 1, numbers, tree, 3, None, 2**70, tree, None, tree, tuple(notes), {}, 0.5)
        append_result(path, made)
        append_result(path, made)
        (one, other) = read_results(path)
        assert one == other == Result(**{**vars(made), "cached": True})
        assert find_result(path, made) == one
        assert find_result(None, made) is None


def test_an_interrupted_evaluation_goes_on(tmp_path: Path) -> None:
    """What was finished is known; samples are kept; the metric in hand begins again."""
    out, stages = tmp_path / "metrics.jsonl", []
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny(), REALS, [Sums("a"), Sums("b", failing=KeyboardInterrupt)], out=out)
    assert [result.metric for result in read_results(out)] == ["a"]
    assert len(list(tmp_path.glob(".samples-*.u8"))) == 1
    results = evaluate(
        tiny(), REALS, [Sums("a"), Sums("b")], out=out, progress=lambda *state: stages.append(state)
    )
    assert [result.cached for result in results] == [True, False]
    assert stages == [
        ("generating", 12, 12),
        ("b: reals", 0, 12),
        ("b: reals", 12, 12),
        ("b: images", 0, 12),
        ("b: images", 12, 12),
    ]
    assert not list(tmp_path.glob(".samples-*"))


def test_an_error_of_a_metric_keeps_the_samples(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        evaluate(tiny(), REALS, [Sums(failing=RuntimeError)], out=tmp_path / "metrics.jsonl")
    (file,) = tmp_path.glob(".samples-*.u8")
    assert file.stat().st_size == 12 * 3 * 16 * 16


def test_what_cannot_be_measured_is_told_before_the_work() -> None:
    metric = Sums()
    small, gray = REALS[:, :, :8, :8], REALS[:, :1]
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: compare(small, FAKES, [metric]), DataError, "the array: has images of 8x8, not 16x16"),
        (
            lambda: compare(gray, FAKES, [metric]),
            DataError,
            "images of 16x16 RGB, .* of 16x16 gray",
        ),
        (lambda: compare(small, small, ["swd"]), DataError, "8x8 are too small"),
        (lambda: compare(small, small, ["ms_ssim"]), DataError, "multiples of 16"),
        (
            lambda: compare(REALS, FAKES, [metric], n=1),
            DataError,
            "at least 2 images .*, not 1 and 1",
        ),
        (
            lambda: compare(REALS, FAKES, ["swdd"]),
            ConfigError,
            r"did you mean 'swd'\? Metrics: swd, ms",
        ),
        (lambda: compare(REALS, FAKES, ["swd", "swd"]), ConfigError, "once"),
        (lambda: compare(REALS, FAKES, [Sums(), Sums()]), ConfigError, "once"),
        (lambda: compare(REALS, FAKES, []), ConfigError, "at least one"),
        (lambda: compare(REALS, FAKES, [metric], seed=-1), ConfigError, "seed -1"),
        (lambda: evaluate(tiny(), None, [metric]), ConfigError, r"sums compares with reals: give .*--data"),
        (
            lambda: compare(REALS, FAKES, ["fid"]),
            CheckpointError,
            "inception-2015.* is not there: .*cache",
        ),
        (
            lambda: compare(REALS, FAKES, ["fid"], extractor=ExtractorFile(Path("gone.pt"))),
            CheckpointError,
            "no extractor gone.pt",
        ),
        (
            lambda: compare(REALS, FAKES, ["fid"], extractor=ExtractorFile(None, "bilinear:8")),
            ConfigError,
            "Inception network resizes .* itself",
        ),
    ]
    for call, kind, message in cases:
        with pytest.raises(kind, match=message):
            call()
    assert not metric.reals


def test_every_name_is_a_metric() -> None:
    extractor = Extractor(lambda images: torch.softmax(pooled(images), 1), "pool")
    for metric, name in zip(make_metrics(list(METRICS), extractor=extractor), METRICS, strict=True):
        assert metric.name.startswith(name)


class TestMonitor:
    """Metrics while training."""

    def test_its_numbers_are_those_of_evaluate(self, blobs: PackedSet) -> None:
        G = tiny()
        for mirror in (False, True):
            monitor = Monitor(blobs, ["swd", "ms_ssim"], n=20, mirror=mirror, seed=3)
            expected = evaluate(G, blobs, ["swd", "ms_ssim"], n=20, mirror=mirror, seed=3)
            numbers = {name: number for result in expected for name, number in result.numbers.items()}
            assert monitor.measure(G) == pytest.approx(numbers, rel=1e-3)
            assert monitor.measure(G) == monitor.measure(G)

    def test_reals_are_read_once_a_level(self, blobs: PackedSet, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[int] = []
        original = PackedSet.read

        def watched(self: PackedSet, level: int, rows: Any) -> Any:
            read.append(level)
            return original(self, level, rows)

        monkeypatch.setattr(PackedSet, "read", watched)
        monitor, G = Monitor(blobs, ["fid"], n=20, extractor=Extractor(pooled, "pool")), tiny()
        changed = tiny()
        with torch.no_grad():
            next(changed.parameters()).add_(1)
        first = monitor.measure(G)
        assert read == [2]
        assert monitor.measure(changed) != first
        assert monitor.measure(G) == first
        assert read == [2]
        G.set_growth(1, 0.5)
        small = monitor.measure(G)
        assert read == [2, 1]
        assert small != first
        G.set_growth(1, 1.0)
        assert monitor.measure(G) != small, "alpha counts"
        assert read == [2, 1]

    @pytest.mark.parametrize("batches", [2, 4, 6])
    def test_it_gives_up_at_a_batch_and_is_none_the_worse(self, blobs: PackedSet, batches: int) -> None:
        """After the reals, after the fakes, after the paths."""
        asked: list[bool] = []

        def stop() -> bool:
            asked.append(len(asked) + 1 == batches)
            return asked[-1]

        G = tiny()
        whole = Monitor(blobs, ["swd", "ppl"], n=20, extractor=Extractor(pooled, "pool"))
        expected = whole.measure(G)
        monitor = Monitor(blobs, ["swd", "ppl"], n=20, extractor=Extractor(pooled, "pool"))
        assert monitor.measure(G, stop) == {}
        assert asked == [False] * (batches - 1) + [True]
        assert monitor.measure(G) == expected

    def test_metrics_that_a_level_is_too_small_for_are_left_out(self, blobs: PackedSet) -> None:
        monitor, G = Monitor(blobs, ["swd", "ppl"], n=8, extractor=Extractor(pooled, "pool")), tiny()
        G.set_growth(1, 1.0)
        assert set(monitor.measure(G)) == {"ppl_zfull_pool"}
        G.set_growth(2, 1.0)
        assert {"swd/mean", "ppl_zfull_pool"} <= set(monitor.measure(G))

    def test_random_numbers_of_others_are_left_alone(self, blobs: PackedSet) -> None:
        def probabilities(images: Tensor) -> Tensor:
            return torch.softmax(pooled(images), 1)

        monitor = Monitor(blobs, ["swd", "kid"], n=20, extractor=Extractor(probabilities, "p"))
        before = torch.get_rng_state()
        monitor.measure(tiny())
        assert torch.equal(before, torch.get_rng_state())

    def test_a_failure_leaves_no_fakes_behind(self, blobs: PackedSet) -> None:
        monitor, G = Monitor(blobs, ["ms_ssim", "kid"], n=20, extractor=Extractor(pooled, "pool")), tiny()
        first = monitor.measure(G)
        diverged = tiny()
        with torch.no_grad():
            next(diverged.parameters()).fill_(torch.nan)
        with pytest.raises(DataError, match="not finite"):
            monitor.measure(diverged)
        assert monitor.measure(G) == first
        calls = 0

        def failing(images: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise RuntimeError
            return pooled(images)

        monitor = Monitor(blobs, ["ms_ssim", "kid"], n=20, extractor=Extractor(failing, "failing"))
        monitor.measure(G)
        other = tiny()
        with torch.no_grad():
            next(other.parameters()).add_(1)
        with pytest.raises(RuntimeError):
            monitor.measure(other)
        assert monitor.measure(G)["ms_ssim"] == first["ms_ssim"]

    def test_only_a_path_length_makes_no_other_images(
        self, blobs: PackedSet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monitor = Monitor(blobs, ["ppl"], n=4, extractor=Extractor(pooled, "pool"))
        monkeypatch.setattr("progan.evaluation.generated_images.render", pytest.fail)
        assert set(monitor.measure(tiny())) == {"ppl_zfull_pool"}

    def test_what_is_missing_is_told_at_once(self, blobs: PackedSet) -> None:
        with pytest.raises(ConfigError, match="did you mean 'swd'"):
            Monitor(blobs, ["swdd"])
        with pytest.raises(CheckpointError, match="inception"):
            Monitor(blobs, ["fid"])
        with pytest.raises(DataError, match="is_pool needs at least 100 images, not 48"):
            Monitor(blobs, ["is"], extractor=Extractor(pooled, "pool"))
        with pytest.raises(DataError, match="no split 'x'"):
            Monitor(blobs, ["swd"], part="x")
        assert Monitor(blobs, ["swd"], n=1000).n == 48


def test_neighbours_stand_beside_their_samples() -> None:
    samples = REALS[[3, 0]]
    together, found = neighbour_rows(
        open_images(samples), open_images(REALS), Extractor(pooled, "pool"), rows=2, k=3
    )
    assert together.shape == (8, 3, 16, 16)
    assert found.indices[:, 0].tolist() == [3, 0]
    assert found.distances[:, 0].tolist() == [0, 0]
    for row, indices in enumerate(found.indices):
        np.testing.assert_array_equal(together[4 * row], samples[row])
        np.testing.assert_array_equal(together[4 * row + 1 : 4 * row + 4], REALS[indices])
    extractor = Extractor(pooled, "pool")
    for images, reals, message in (
        (FAKES[:1], REALS, "holds 1 images; the picture needs 8"),
        (FAKES, REALS[:5], "holds 5 images; the picture needs 7"),
        (FAKES, REALS[..., :8], "the sets differ"),
        (FAKES, tiny(), "no end"),
    ):
        with pytest.raises(DataError, match=message):
            neighbour_rows(open_images(images), open_images(reals), extractor)


def test_noise_is_far_above_the_floor(tmp_path: Path) -> None:
    packed = synthetic(tmp_path / "set", count=256, resolution=32)
    pixels = packed.read(packed.max_level, packed.indices()).astype(np.uint8)
    noise = DICE.integers(0, 256, pixels[128:].shape, dtype=np.uint8)
    (same,) = compare(pixels[:128], pixels[128:], ["swd"])
    (far,) = compare(pixels[:128], noise, ["swd"])
    assert same.numbers["swd/mean"] < 1.2 * same.numbers["swd_floor/mean"] < far.numbers["swd/mean"] / 2


class Spread(SetMetric):
    """How far apart the features of fakes lie, with the network and the seed that all metrics are given."""

    needs_network = True
    features: Extractor
    seed: int

    @classmethod
    def make(cls, options: Any, tools: MetricTools) -> Spread:
        made = cls(options)
        made.features, made.seed = tools.network().features, tools.seed
        return made

    def measure(self, reals: NDArray[np.uint8], fakes: NDArray[np.uint8]) -> dict[str, float]:
        assert reals.shape == fakes.shape
        return {"std": float(self.features(fakes).std()), "seed": self.seed}


def test_a_metric_of_ones_own_on_features() -> None:
    extractor = Extractor(lambda images: images.float().flatten(1), "pixels")
    [result] = evaluate(FAKES, REALS[:10], [Spread], seed=5, extractor=extractor)
    assert result.numbers["spread/seed"] == 5
    assert result.numbers["spread/std"] == pytest.approx(FAKES.std(), rel=1e-2)
