"""What journals tell of runs, and what a forecast makes of a calibration."""

import json
import time
from pathlib import Path

import pytest

from saliency_prompt.pipeline.estimate import START_SECONDS, Estimate, forecast
from saliency_prompt.pipeline.journal import Journal, read_journal
from saliency_prompt.pipeline.runs import ALIVE_SECONDS, run_state, runs
from saliency_prompt.schemas.labels.saliency import Config
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.objects import open_store


def events(*rows: tuple[float, str, dict]) -> list[dict]:
    return [{"time": at, "run": "r", "event": name, **fields} for at, name, fields in rows]


STARTED = (0.0, "run_started", {"executor": "RayExecutor"})


def test_a_run_counts_its_workers_and_its_rate() -> None:
    state = run_state(
        events(
            STARTED,
            (5.0, "worker_ready", {"worker": 1}),
            (6.0, "worker_ready", {"worker": 2}),
            (9.0, "worker_lost", {"worker": 1}),
            (10.0, "worker_ready", {"worker": 3}),
            (50.0, "shard_committed", {"images": 100}),
            (90.0, "worker_released", {"worker": 2}),
            (100.0, "shard_committed", {"images": 100}),
        )
    )
    assert (state.workers, state.workers_lost, state.shards_failed, state.ended) == (1, 1, 0, "")
    assert state.images_per_second == pytest.approx(2.0)
    assert state.alive(100.0 + ALIVE_SECONDS - 1)
    assert not state.alive(100.0 + ALIVE_SECONDS + 1)


def test_the_rate_is_that_of_the_last_minutes() -> None:
    commits = [(float(at), "shard_committed", {"images": 60 if at > 4000 else 6}) for at in range(60, 6001, 60)]
    assert run_state(events(STARTED, *commits)).images_per_second == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("last", "ended"),
    [
        (("run_ended", {"drained": False, "shards_left": 0}), "all shards done"),
        (("run_ended", {"drained": True, "shards_left": 3}), "drained"),
        (("run_ended", {"drained": False, "shards_left": 3}), "stopped"),
        (("run_stopped", {"error": "UserError: full"}), "UserError: full"),
    ],
)
def test_how_a_run_ended(last: tuple[str, dict], ended: str) -> None:
    state = run_state(events(STARTED, (1.0, *last)))
    assert state.ended == ended
    assert not state.alive(1.0)


def test_a_killed_run_is_told_from_a_live_one(world, photos: Path) -> None:
    dataset, _ = world.run(photos, "out")
    finished = runs(dataset)
    assert [run.ended for run in finished] == ["all shards done"]
    live = Journal(dataset.store, executor="InProcess", shards=1)
    live._flush()
    assert [run.run_id for run in runs(dataset)] == [live.run_id]
    assert [run.run_id for run in runs(dataset, now=time.time() + ALIVE_SECONDS + 1)] == [live.run_id]
    assert not runs(dataset)[0].alive(time.time() + ALIVE_SECONDS + 1)


def test_a_journal_of_several_parts_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_prompt.pipeline.journal.PART_EVENTS", 7)
    with Journal(open_store(str(tmp_path)), executor="InProcess") as journal:
        for index in range(20):
            journal.write("tick", index=index)
    assert len(list(tmp_path.glob("runs/*.jsonl"))) == 3

    class Data:
        store = open_store(str(tmp_path))

    read = list(read_journal(Data()))  # type: ignore[arg-type]
    assert [event["index"] for event in read[1:]] == list(range(20))


def test_a_sign_of_life_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saliency_prompt.pipeline.journal.PULSE_SECONDS", 0.0)
    with Journal(open_store(str(tmp_path)), executor="InProcess") as journal:
        journal.pulse(images=3)
        monkeypatch.setattr("saliency_prompt.pipeline.journal.PULSE_SECONDS", 1e9)
        journal.pulse(images=4)
    lines = [json.loads(line) for path in tmp_path.glob("runs/*") for line in path.read_text().splitlines()]
    assert [line.get("images") for line in lines] == [None, 3]


def estimate(n_images: int, shard_size: int = 100) -> Estimate:
    return Estimate(n_images, -(-n_images // shard_size), 10**6, 10**5, 7, n_images * 0.5, 8, 0, Config())


def test_a_forecast_shares_whole_shards(tmp_path: Path) -> None:
    run = forecast(estimate(1000), str(tmp_path / "new"), workers=4, seconds_per_image=None, price=3.0)
    assert (run.shards_left, run.images_left, run.objects_out) == (10, 1000, 80)
    assert run.seconds == pytest.approx(3 * 50 + START_SECONDS)  # 10 shards on 4 workers: 3 rounds
    assert run.worker_seconds == pytest.approx(500 + 4 * START_SECONDS)
    assert run.cost == pytest.approx(4 * run.seconds / 3600 * 3.0)
    assert not (tmp_path / "new").exists()
    faster = forecast(estimate(1000), str(tmp_path / "new"), workers=4, seconds_per_image=0.05, price=None)
    assert faster.seconds == pytest.approx(3 * 5 + START_SECONDS)
    assert faster.cost is None


def test_a_forecast_leaves_out_what_is_done(world, photos: Path) -> None:
    dataset, _ = world.run(photos, "out")
    run = forecast(estimate(1000), dataset.url, workers=4, seconds_per_image=None, price=1.0)
    assert (run.shards_left, run.images_left, run.seconds, run.cost) == (0, 0, 0.0, 0.0)
    assert Dataset.open(dataset.url).sealed
