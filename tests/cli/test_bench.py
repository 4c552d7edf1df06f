"""Measuring iterations: the command, what it reports, and what it makes of the schedule."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from progan.__main__ import main
from progan.cli.terminal.bench_tables import print_measurements
from progan.config import Config, make_config, merge
from progan.data.batches import Batch, DiscriminatorBatch
from progan.data.packed import PackedSet
from progan.errors import ConfigError
from progan.performance import interleaved
from progan.performance.bench import Report, as_tree, bench, choose_phases, shapes
from progan.performance.breakdown import Parts
from progan.performance.compiled_cost import CompiledCosts
from progan.performance.iteration_cost import Ceiling
from progan.performance.peak_rates import Sizes, measure_copy, measure_products
from progan.performance.projection import PhaseKind, kind_of, nearest, project
from progan.performance.variants import VARIANTS, choose_variants
from progan.training.iteration import Iteration
from progan.training.losses import Conditions
from progan.training.schedule import Phase, Point, Schedule
from progan.training.spec import ImageSpec, make_spec
from progan.training.step import Step
from tiny import OPTIONS, words

CPU = torch.device("cpu")
CEILING = Ceiling(1e11, 1e10)
LEVELS = st.integers(0, 8)
STAGES = st.tuples(LEVELS, st.booleans())


def configuration(*trees: dict[str, Any]) -> Config:
    return make_config(merge(OPTIONS, {"data": {"resolution": 8}}, *trees))


def measured(config: Config, **options: Any) -> Report:
    return bench(config, CPU, rounds=2, ceiling=CEILING, **options)


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    """Run `progan bench` in this process: its exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as caught:
        main(["bench", *map(str, arguments)])
    return caught.value.code, *capsys.readouterr()


def phases_of(lengths: dict[PhaseKind, int]) -> list[Phase]:
    found, clock = [], 0
    for i, ((level, fading), length) in enumerate(sorted(lengths.items())):
        found.append(Phase(i, level, "fade" if fading else "stabilise", clock, clock + length))
        clock += length
    return found


@given(
    lengths=st.dictionaries(STAGES, st.integers(0, 10**6), min_size=1),
    ratio=st.floats(1, 100),
    data=st.data(),
)
def test_what_is_as_far_from_its_floor_everywhere_is_so_as_a_whole(
    lengths: dict[PhaseKind, int], ratio: float, data: st.DataObject
) -> None:
    floors = {stage: data.draw(st.floats(1e-6, 1)) for stage in lengths}
    known = data.draw(st.sets(st.sampled_from(sorted(lengths)), min_size=1))
    made = project(phases_of(lengths), {stage: ratio * floors[stage] for stage in known}, floors)
    assert made is not None
    least = sum(length * floors[stage] for stage, length in lengths.items())
    assert made.seconds == pytest.approx(ratio * least)
    assert {kind_of(each.phase) for each in made.phases if each.measured} == known
    assert 0 <= made.measured_share <= 1 + 1e-9


def test_a_level_that_was_not_measured_is_like_its_nearest() -> None:
    phases = phases_of({(0, False): 100, (1, True): 10, (1, False): 10, (3, False): 1000})
    floors = {(0, False): 1.0, (1, True): 2.0, (1, False): 3.0, (3, False): 4.0}
    made = project(phases, {(0, False): 2.0, (3, False): 12.0}, floors)
    assert made is not None
    # Level 1 takes 2 and 3 seconds an image at least, and twice that as level 0 does.
    assert [each.seconds for each in made.phases] == [200, 60, 40, 12000]
    assert [each.measured for each in made.phases] == [True, False, False, True]
    assert project(phases, {}, floors) is None


@given(stage=STAGES, known=st.dictionaries(STAGES, st.floats(0, 1), min_size=1))
def test_the_nearest_is_of_the_nearest_level(stage: PhaseKind, known: dict[PhaseKind, float]) -> None:
    found = nearest(stage, known)
    assert abs(found[0] - stage[0]) == min(abs(level - stage[0]) for level, _ in known)
    if stage in known:
        assert found == stage


def test_one_phase_of_each_kind_of_each_level() -> None:
    config = configuration()
    schedule = Schedule(config, shapes(config).max_level, 1)
    assert [kind_of(phase) for phase in choose_phases(schedule, None)] == [(0, False), (1, True), (1, False)]
    assert [phase.kind for phase in choose_phases(schedule, [1])] == ["fade", "stabilise"]
    with pytest.raises(ConfigError, match=r"level 2 is not in the schedule, whose levels are 0 to 1"):
        choose_phases(schedule, [0, 2])


def test_the_command_measures_and_writes_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bench.json"
    code, out, _ = call(
        capsys,
        *("--levels", "1", "--rounds", "2", "--resolution", "8", "--ceiling", "0.1", "10"),
        *("--variants", "plain", "default", "bfloat16", "--json", file, *words(OPTIONS)),
    )
    assert code == 0
    assert "level 1: 8x8, 8 images an iteration" in out
    assert "level 0" not in out
    assert "whole schedule, bfloat16" in out
    tree = json.loads(file.read_text())
    found = tree["measurements"]
    assert [(one["phase"], one["variant"]) for one in found] == [
        (kind, name) for kind in ("fade", "stabilise") for name in ("plain", "default", "bfloat16")
    ]
    assert tree["machine"]["torch"] == torch.__version__
    for one in found:
        assert one["images_per_second"] == pytest.approx(one["images"] / one["seconds"])
        assert one["cost"]["total"]["operations"] > 0
        assert one["parts"]["g"] >= 0, "a difference of two measurements"
        assert one["parts"]["optimizer"] > 0
        assert one["peak_memory"] is None, "it cannot be measured here"
    assert found[0]["ratio"] == 1
    assert found[2]["floor_seconds"] < found[0]["floor_seconds"], "bfloat16 moves half the bytes"
    times = tree["schedule"]["projections"]["default"]["phases"]
    assert [each["measured"] for each in times] == [False, True, True]


def test_the_command_counts_without_measuring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Iteration, "__call__", lambda *_: pytest.fail("nothing is computed"))
    monkeypatch.setenv("COLUMNS", "80")
    arguments = ["--count-only", "--ceiling", "989", "3350", "--memory", "8", "--resolution", "8"]
    code, out, _ = call(capsys, *arguments, *words(OPTIONS))
    assert code == 0
    assert "at 989 TFLOP/s and 3,350 GB/s" in out
    assert all(len(line) <= 80 for line in out.splitlines() if line.startswith((" 0", " 1", " level")))


def test_the_command_asks_the_compiler(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """How it asks, `tests/performance/test_compiled_cost.py` shows; here, a third of all is moved."""
    monkeypatch.setattr(
        CompiledCosts, "iteration", lambda _, cost: replace(cost.work, bytes=cost.work.bytes / 3, operators=1)
    )
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / "counts.json"
    arguments = ["--count-only", "--ceiling", "989", "0.01", "--resolution", "8", "--compiled"]
    code, out, _ = call(capsys, *arguments, "--json", str(file), *words(OPTIONS))
    assert code == 0
    assert "modelled, each compiled kernel for itself" in out
    assert all(len(line) <= 80 for line in out.splitlines() if line.startswith((" 0", " 1", " level")))
    tree = json.loads(file.read_text())
    for one in tree["measurements"]:
        assert one["compiled"]["bytes"] == pytest.approx(one["cost"]["total"]["bytes"] / 3)
    schedule = tree["schedule"]
    assert schedule["compiled_seconds"] == pytest.approx(schedule["eager_seconds"] / 3), "memory is the bound"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--variants", "bfloat"], "no variant is called 'bfloat'; did you mean 'bfloat16'?"),
        (["--variants", "graphs"], "variant graphs is for cuda, and this is cpu"),
        (["--levels", "7"], "level 7 is not in the schedule, whose levels are 0 to 3"),
        (["--count-only"], "needs --ceiling"),
        (["--memory", "8"], "--memory belongs to --count-only"),
        (["--compiled"], "--compiled belongs to --count-only"),
        (["--ceiling", "0", "1"], "--ceiling"),
        (["--json", "nowhere/bench.json"], "there is no folder nowhere"),
        (["--resolution", "17"], "resolution 17x17 is not a small base shape"),
    ],
)
def test_mistakes_are_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "--device", "cpu", *arguments)
    assert code == 2
    assert message in err


def test_a_level_without_room_is_told_and_the_next_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    iterate: Callable[[Iteration, Point], Any] = Iteration.__call__

    def fails(self: Iteration, point: Point) -> Any:
        if point.fading:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return iterate(self, point)

    monkeypatch.setattr(Iteration, "__call__", fails)
    report = measured(configuration(), variants=("default",))
    seconds = {one.phase.name: one.seconds is None for one in report.measurements}
    assert seconds == {"stabilise level 0": False, "fade to level 1": True, "stabilise level 1": False}
    assert as_tree(report)["measurements"][1]["images_per_second"] is None
    print_measurements(Console(width=110), report)
    out = capsys.readouterr().out
    assert "no memory" in out
    assert "fade, default: out of memory: CUDA out of memory" in out


def test_what_is_refused_is_not_called_a_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(*_: Any) -> Any:
        raise ConfigError("the compiled update finds gradients that differ by 0.5 of their norm")

    monkeypatch.setattr(Iteration, "__call__", refuses)
    print_measurements(Console(width=110), measured(configuration(), levels=[0], variants=("default",)))
    out = capsys.readouterr().out
    assert "default: failed: the compiled update finds gradients that differ" in out
    assert "memory:" not in out
    assert "no memory" not in out


def test_a_round_holds_as_many_penalties_as_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    update = Step.__call__

    def note(self: Step, batch: Batch, at: Conditions, *args: Any) -> Any:
        if isinstance(batch, DiscriminatorBatch):
            seen.append(at.penalize)
        return update(self, batch, at, *args)

    monkeypatch.setattr(Step, "__call__", note)
    monkeypatch.setattr(interleaved, "measure_parts", lambda *_: Parts(1, 1, 1, 1, 1))
    config = configuration({"loss": {"penalty_interval": 3}})
    measured(config, variants=("default",), levels=[0])
    updates = 3 * (interleaved.WARM_UP + 2)
    assert len(seen) == updates
    assert sum(seen) == updates / 3


def test_parts_are_shares_of_their_sum() -> None:
    config = configuration({"loss": {"gp_lambda": 0, "drift": 0}})
    (one,) = measured(config, variants=("default",), levels=[0]).measurements
    assert one.timed is not None
    assert one.timed.parts is not None
    assert one.timed.parts.penalty == 0
    assert sum(one.timed.parts.shares()) == pytest.approx(1)


def test_automatic_precision_is_that_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("progan.training.precision.choose_precision", lambda *_: "bfloat16")
    report = measured(
        configuration({"run": {"precision": "auto"}}), variants=("plain", "default"), levels=[0]
    )
    plain, default = report.measurements
    assert report.config.run.precision == "bfloat16"
    assert default.cost.g.least_bytes == plain.cost.g.least_bytes / 2


def test_labels_of_a_file_are_replaced() -> None:
    labels = {"data": {"labels": "labels.csv", "label_form": "classes"}, "model": {"conditioning": "ac_gan"}}
    (one,) = measured(configuration(labels), variants=("default",), levels=[0]).measurements
    assert one.seconds is not None


@pytest.mark.parametrize("name", [name for name, variant in VARIANTS.items() if variant.device != "cuda"])
def test_a_variant_changes_how_and_not_what(name: str) -> None:
    if name != "compile":
        choose_variants((name,), configuration(), CPU)
    old, new = configuration(), VARIANTS[name].config(configuration())
    assert new.model_copy(update={"run": old.run}) == old
    assert new.run.compile == ("always" if name == "compile" else "never")


def test_plain_computes_the_same_in_its_own_layout(blobs: PackedSet) -> None:
    config = VARIANTS["plain"].config(make_config(OPTIONS))
    spec = make_spec(config, ImageSpec(3, (4, 4), 2, blobs.label_names), blobs.count)
    usual, plain = (Iteration(spec, blobs, CPU, print) for _ in range(2))
    VARIANTS["plain"].place(plain)
    reals = plain.batches.discriminator(0, 8, 2, None).reals
    kernels = [weight for weight in plain.state.D.parameters() if weight.ndim == 4]
    assert all(tensor.is_contiguous() for tensor in [reals, *kernels])
    blocks = [part for part in plain.state.G.modules() if "fused" in vars(part)]
    assert blocks
    assert not any(vars(part)["fused"] for part in blocks)
    entry = spec.schedule.entry(spec.schedule.phases[-1])
    terms = []
    for updates in (usual, plain):
        updates.state.images_seen = entry
        terms.append(updates(spec.schedule.at(entry)))
    for one, other in zip(*terms, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_machine_is_measured_in_operations_and_bytes() -> None:
    sizes = Sizes(matrix=64, images=1, channels=8, side=8, elements=4096)
    run = configuration().run
    product, convolution = measure_products(run, CPU, sizes)
    assert 1e6 < product < 1e14
    assert 1e6 < convolution < 1e14
    assert 1e6 < measure_copy(run, CPU, sizes) < 1e14
