"""What callbacks hear of a run and when; the shipped ones against what they are for, without a network."""

from __future__ import annotations

import csv
import importlib
import json
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import progan
from own_parts import plugin
from progan.__main__ import main
from progan.data.packed import PackedSet
from progan.errors import ConfigError, DependencyError, Interrupted, ProganError
from progan.runs.callbacks.callback import RunStart
from progan.runs.logs import Stats, read_stats
from progan.runs.loop import Trainer
from progan.runs.run import resume, train
from tiny import Listener, options, words

SHORT: dict[str, Any] = {
    "schedule": {"stabilise_kimg": [0.032], "fade_kimg": [0.032]},
    "data": {"max_resolution": 8},
}


class Notes(progan.Callback):
    """Notes what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[Any, ...]] = []

    def begin(self, run: RunStart) -> None:
        self.heard.append(("begin", run.images_seen, run.total, run.folder.name))

    def log(self, stats: Stats) -> None:
        self.heard.append(("log", stats["images_seen"]))

    def samples(self, picture: Path, images_seen: int) -> None:
        assert picture.is_file()
        self.heard.append(("samples", images_seen))

    def checkpoint(self, file: Path, images_seen: int) -> None:
        assert file.is_file()
        self.heard.append(("checkpoint", images_seen))

    def growth(self, level: int, images_seen: int) -> None:
        self.heard.append(("growth", level, images_seen))

    def end(self, how: str, images_seen: int) -> None:
        self.heard.append(("end", how, images_seen))

    def of(self, moment: str) -> list[tuple[Any, ...]]:
        return [each[1:] for each in self.heard if each[0] == moment]


def test_the_exact_moments(blobs: PackedSet, tmp_path: Path) -> None:
    notes = Notes()
    told = options(**SHORT, track={"to": ["csv"]}, run={"stop_after": "phase"})
    run = train(blobs.path, tmp_path / "run", options=told, reporter=Listener(), callbacks=[notes])
    assert notes.heard[0] == ("begin", 0, 96, "run")
    assert notes.heard[-1] == ("end", "stopped", 48)
    again = Notes()
    resume(run, options={"run": {"stop_after": "end"}}, reporter=Listener(), callbacks=[again])
    assert again.heard[0] == ("begin", 48, 96, "run")
    assert again.heard[-1] == ("end", "done", 96)
    assert again.of("growth") == [(1, 48)]
    assert [each for (each,) in notes.of("checkpoint") + again.of("checkpoint")] == [48, 64, 96]
    stats = read_stats(run / "stats.jsonl")
    assert [each for (each,) in notes.of("log") + again.of("log")] == [each["images_seen"] for each in stats]
    grids = sorted(int(path.name[:9]) for path in (run / "samples").glob("0*.png"))
    assert [each for (each,) in notes.of("samples") + again.of("samples")] == grids
    assert not list(run.glob("events*")), "TensorBoard was not asked for"
    with (run / "stats.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["images_seen"]) for row in rows] == [each["images_seen"] for each in stats]
    assert float(rows[-1]["D/loss"]) == stats[-1]["D/loss"]


class Failing(progan.Callback):
    """Fails at log points."""

    def log(self, stats: Stats) -> None:
        raise ZeroDivisionError(str(stats["images_seen"]))


class Ending(progan.Callback):
    """Ends a run."""

    def log(self, stats: Stats) -> None:
        raise ProganError(f"enough at {stats['images_seen']}")


def test_what_goes_wrong_in_one(blobs: PackedSet, tmp_path: Path) -> None:
    reporter, notes = Listener(), Notes()
    told = options(schedule={"total_kimg": 0.064}, track={"to": []})
    train(blobs.path, tmp_path / "a", options=told, reporter=reporter, callbacks=[Failing, notes])
    warnings = [line for line in reporter.said if "failing" in line]
    assert len(warnings) == 1
    assert "failed at log and is called no more: ZeroDivisionError: 32 (test_callbacks.py, " in warnings[0]
    assert notes.heard[-1] == ("end", "done", 64)
    with pytest.raises(ProganError, match="enough at 32"):
        train(blobs.path, tmp_path / "b", options=told, reporter=Listener(), callbacks=[Ending, notes])
    assert notes.heard[-1] == ("end", "failed", 32)
    with pytest.raises(ConfigError, match=r"derive its class from progan\.Callback"):
        train(blobs.path, tmp_path / "c", options=told, reporter=Listener(), callbacks=[print])  # type: ignore[list-item]


CALLBACK = '''
import progan

class ToFile(progan.Callback):
    """Writes the clock into a file."""

    class Options(progan.PartOptions):
        name: str = progan.option("clock.txt", "The file.")

    def begin(self, run):
        self.file = run.folder / self.options.name

    def log(self, stats):
        self.file.write_text(str(stats["images_seen"]))
'''


def test_one_from_a_file(blobs: PackedSet, tmp_path: Path) -> None:
    file, out = plugin(tmp_path, CALLBACK), tmp_path / "run"
    told = words(options(schedule={"total_kimg": 0.032}))
    more = ["--track", "to_file", "--track.to-file.name", "mine.txt", "--plugin", str(file)]
    with pytest.raises(SystemExit) as end:
        main(["train", str(blobs.path), "--out", str(out), *told, *more])
    assert not end.value.code
    assert (out / "mine.txt").read_text() == "32"


@contextmanager
def listening() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Hear what is posted to an address of this machine."""
    heard: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook(blobs: PackedSet, tmp_path: Path) -> None:
    with listening() as (url, heard):
        told = options(**SHORT, track={"to": ["webhook"], "url": url})
        train(blobs.path, tmp_path / "run", options=told, reporter=Listener())
    assert [each["moment"] for each in heard] == ["begin", "growth", "end"]
    assert heard[0]["text"] == heard[0]["content"] == "run: training begins of 96 images"
    assert heard[1]["text"] == "run: level 1 begins at 48 images"
    assert heard[2]["text"] == "run: training done at 96 images"
    assert heard[2]["stats"]["images_seen"] == 96


def test_an_address_that_is_gone_does_not_end_a_run(blobs: PackedSet, tmp_path: Path) -> None:
    with listening() as (url, _):
        pass
    reporter = Listener()
    told = options(schedule={"total_kimg": 0.032}, track={"to": ["webhook"], "url": url})
    train(blobs.path, tmp_path / "run", options=told, reporter=reporter)
    assert sum("webhook failed at begin" in line for line in reporter.said) == 1


@pytest.mark.parametrize(
    ("track", "kind", "said"),
    [
        ({"to": ["webhook"]}, ConfigError, "--track.url"),
        ({"to": ["webhook"], "url": "ftp://x"}, ConfigError, "--track.url"),
        ({"to": ["missing"]}, ConfigError, "one that --plugin FILE defines"),
    ],
)
def test_what_is_missing_is_said_before_training(
    blobs: PackedSet, tmp_path: Path, track: Any, kind: type[ProganError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        train(blobs.path, tmp_path / "run", options=options(track=track), reporter=Listener())
    assert not (tmp_path / "run" / "stats.jsonl").exists()


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(DependencyError, match=rf"pip install 'progan\[{name}\]'"):
        train(blobs.path, tmp_path / "run", options=options(track={"to": [name]}), reporter=Listener())


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_offline(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    track = {"to": ["wandb"], "project": "faces", "name": "first"}
    told = options(**SHORT, track=track, run={"stop_after": "level"})
    run = train(blobs.path, tmp_path / "run", options=told, reporter=Listener())
    known = json.loads((run / "track.json").read_text())["wandb"]
    resume(run, options={"run": {"stop_after": "end"}}, reporter=Listener())
    wandb.teardown()  # its own process has written everything when it has ended
    folders = sorted((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2
    # Of those that are begun in one second, the names are numbered behind the tracked run's.
    assert {folder.name.split("-")[3] for folder in folders} == {known}, "one tracked run"
    found = [tracked(folder) for folder in folders]
    config = {key: value for each in found for key, value in each["config"].items()}
    assert config["loss.adversarial"] == "wgan"
    assert {each["project"] for each in found} == {"faces"}
    assert {each["name"] for each in found} == {"first"}
    curve = [
        (row["images_seen"], row["D/loss"]) for each in found for row in each["history"] if "D/loss" in row
    ]
    assert curve == [(each["images_seen"], each["D/loss"]) for each in read_stats(run / "stats.jsonl")]
    pictures = [
        row for each in found for row in each["history"] if "samples/_type" in row or "samples" in row
    ]
    assert len(pictures) == len(list((run / "samples").glob("0*.png")))
    assert found[-1]["summary"]["ended"] == "done"
    assert found[-1]["summary"]["images_seen"] == 96


def tracked(folder: Path) -> dict[str, Any]:
    """Read what an offline run of Weights & Biases wrote down."""
    internal = importlib.import_module("wandb.proto.wandb_internal_pb2")
    [file] = folder.glob("run-*.wandb")
    found: dict[str, Any] = {"config": {}, "history": [], "summary": {}}
    for data in log_records(file.read_bytes()):
        record = internal.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"project": record.run.project, "name": record.run.display_name}
            found["config"] |= values(record.run.config.update)
        elif kind == "history":
            found["history"].append(values(record.history.item))
        elif kind == "summary":
            found["summary"] |= values(record.summary.update)
    return found


def values(items: Any) -> dict[str, Any]:
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json) if item.value_json else None
        for item in items
    }


def log_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a LevelDB log: blocks of 32 KiB, in which a record may be in several pieces."""
    place, whole = 7, b""  # behind the header of the file
    while place < len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole, or its last piece
            yield whole
            whole = b""


def test_an_interrupted_run_is_told_as_stopped(
    blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from progan.system.signals import StopRequest

    notes = Notes()
    original = Trainer._iterate

    def iterate(trainer: Trainer, point: Any) -> None:
        original(trainer, point)
        stops[-1].signal_number = 2

    stops: list[StopRequest] = []
    run_ = Trainer.run

    def begin(trainer: Trainer, stop: StopRequest) -> None:
        stops.append(stop)
        run_(trainer, stop)

    monkeypatch.setattr(Trainer, "run", begin)
    monkeypatch.setattr(Trainer, "_iterate", iterate)
    with pytest.raises(Interrupted):
        train(blobs.path, tmp_path / "run", options=options(), reporter=Listener(), callbacks=[notes])
    assert notes.heard[-1] == ("end", "stopped", 16)
    assert ("checkpoint", 16) in notes.heard


@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_a_folder(blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    place = (tmp_path / "mlruns").as_uri()
    track = {"to": ["mlflow"], "project": "faces", "name": "first", "url": place}
    told = options(**SHORT, track=track, run={"stop_after": "phase"})
    run = train(blobs.path, tmp_path / "run", options=told, reporter=Listener())
    resume(run, options={"run": {"stop_after": "end"}}, reporter=Listener())
    client = mlflow.MlflowClient(place)
    [found] = client.search_runs([client.get_experiment_by_name("faces").experiment_id])
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert found.data.params["loss.adversarial"] == "wgan"
    curve = [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, "D/loss")]
    assert curve == [(each["images_seen"], each["D/loss"]) for each in read_stats(run / "stats.jsonl")]
    pictures = client.list_artifacts(found.info.run_id, "samples")
    assert len(pictures) == len(list((run / "samples").glob("0*.png")))


@pytest.mark.filterwarnings("ignore")
def test_trackio_on_this_machine(blobs: PackedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    told = options(**SHORT, track={"to": ["trackio"], "project": "faces"}, run={"stop_after": "phase"})
    run = train(blobs.path, tmp_path / "run", options=told, reporter=Listener())
    resume(run, options={"run": {"stop_after": "end"}}, reporter=Listener())
    [name] = storage.get_runs("faces")
    logged = storage.get_logs("faces", name)
    curve = [(each["step"], each["D/loss"]) for each in logged if "D/loss" in each]
    assert curve == [(each["images_seen"], each["D/loss"]) for each in read_stats(run / "stats.jsonl")]
    assert sum("samples" in each for each in logged) == len(list((run / "samples").glob("0*.png")))
    assert logged[-1]["ended"] == "done"
