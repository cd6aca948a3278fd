"""The engine's threads: order, isolation of failures, and no hang when it is stopped."""

import threading
import time
from concurrent.futures import wait
from pathlib import Path

import pytest
import torch

from saliency_prompt.pipeline.engine import Engine, EngineClosedError
from saliency_prompt.pipeline.plan import resolve_config
from saliency_prompt.pipeline.sources import open_source
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.schemas.records import ImageRef
from saliency_prompt.stages.features import FeatureExtractor
from saliency_prompt.stages.producers.saliency.producer import load_saliency

CPU = torch.device("cpu")


@pytest.fixture
def producer(world):
    loaded = load_saliency(world.config())
    return loaded.build(resolve_config(world.config(), loaded.facts, CPU), CPU)


@pytest.fixture
def engine(producer):
    with Engine(producer, read_threads=2, encode_threads=2) as running:
        yield running


@pytest.fixture
def refs(photos: Path) -> list[ImageRef]:
    return list(open_source(str(photos)).refs())


def test_records_come_in_the_order_of_the_images(engine: Engine, refs: list[ImageRef]) -> None:
    backwards = refs[::-1]
    futures = [engine.submit(refs), engine.submit(backwards), engine.submit([])]
    found = [future.result(timeout=60) for future in futures]
    assert [r.image_id for r in found[0]] == [r.image_id for r in refs]
    assert [r.image_id for r in found[1]] == [r.image_id for r in backwards]
    assert found[2] == []
    assert engine.meter.images == 20
    assert engine.meter.masks == sum(len(r.masks) for shard in found for r in shard if r.masks)


def test_a_failing_step_fails_its_shard_alone(
    engine: Engine, refs: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    forward = FeatureExtractor.__call__

    def failing(self: FeatureExtractor, images: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ValueError("a defect")
        return forward(self, images)

    monkeypatch.setattr(FeatureExtractor, "__call__", failing)
    first, second = engine.submit(refs), engine.submit(refs)
    with pytest.raises(ValueError, match="a defect"):
        first.result(timeout=60)
    assert len(second.result(timeout=60)) == len(refs)


def test_out_of_memory_proposes_a_smaller_batch(
    engine: Engine, refs: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(self: FeatureExtractor, images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(FeatureExtractor, "__call__", exhausted)
    with pytest.raises(UserError, match=r"features.batch_size below 2"):
        engine.submit(refs).result(timeout=60)


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.1])
def test_closing_in_the_middle_never_hangs(producer, refs: list[ImageRef], delay: float) -> None:
    engine = Engine(producer, read_threads=2, encode_threads=1)
    futures = [engine.submit(refs * 20) for _ in range(3)]
    time.sleep(delay)
    closer = threading.Thread(target=engine.close)
    closer.start()
    closer.join(timeout=30)
    assert not closer.is_alive()
    assert not wait(futures, timeout=5).not_done
    assert isinstance(futures[-1].exception(), EngineClosedError)
    with pytest.raises(EngineClosedError):
        engine.submit(refs).result(timeout=5)


def test_draining_finishes_what_was_begun(engine: Engine, refs: list[ImageRef]) -> None:
    begun = engine.submit(refs * 3)
    waiting = [engine.submit(refs * 3) for _ in range(3)]
    while not engine.meter.images:
        time.sleep(0.005)
    engine.drain()
    assert len(begun.result(timeout=60)) == 3 * len(refs)
    assert isinstance(waiting[-1].exception(timeout=60), EngineClosedError)
