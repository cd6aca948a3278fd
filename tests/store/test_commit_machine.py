"""Commit, crash, supersede, collect and read in any order, against a dictionary."""

import time
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from saliency_prompt.store.check import gc, verify
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.layout import SHARDS, attempt_prefix
from saliency_prompt.store.objects import ObjectStore

N_SHARDS = 3
COLLECTED = "removed by gc"
shards = st.integers(0, N_SHARDS - 1)
FUTURE = -60


def machine_of(make: Any, new_memory_store: Callable[[], ObjectStore]) -> type[RuleBasedStateMachine]:
    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.store = new_memory_store()
            self.dataset: Dataset = make.dataset(self.store, images=4 * N_SHARDS, shard_size=4)
            self.model: dict[int, list[str]] = {}  # content hashes of a shard, by generation
            self.held: list[Any] = []  # commits a reader took some time ago

        @rule(shard=shards, seed=st.integers(0, 2))
        def commit(self, shard: int, seed: int) -> None:
            """First, or too late: the data of the first stay, and those of a later generation even more so."""
            commit = make.commit(self.dataset, shard, seed=seed)
            history = self.model.setdefault(shard, [commit.content_hash])
            if history[0] == COLLECTED:
                history[0] = commit.content_hash
            assert commit.content_hash == history[0]

        @rule(shard=shards, seed=st.integers(0, 2))
        def supersede(self, shard: int, seed: int) -> None:
            if shard in self.model:
                generation = len(self.model[shard])
                commit = make.commit(self.dataset, shard, generation=generation, seed=seed)
                self.model[shard].append(commit.content_hash)

        @rule(shard=shards, n_files=st.integers(1, 7))
        def crash(self, shard: int, n_files: int) -> None:
            """A worker dies before its commit."""
            prefix = attempt_prefix(shard, f"{time.time_ns():032x}")
            for i in range(n_files):
                self.store.put(f"{prefix}/file{i}", b"half")

        @rule()
        def take(self) -> None:
            self.held = list(self.dataset.commits())

        @rule()
        def collect_with_grace(self) -> None:
            assert gc(self.dataset).files == 0
            for commit in self.held:
                self.dataset.read_shard(commit, vectors=True, verify=True)

        @rule()
        def collect(self) -> None:
            gc(self.dataset, grace_seconds=FUTURE)
            self.held = []
            self.model = {shard: [COLLECTED] * (len(h) - 1) + h[-1:] for shard, h in self.model.items()}
            live = {attempt_prefix(c.shard_id, c.attempt) for c in self.dataset.commits()}
            assert {info.key.rsplit("/", 1)[0].split("/prompts")[0] for info in self.store.list(SHARDS)} == live

        @invariant()
        def readers_see_the_model(self) -> None:
            visible = list(self.dataset.commits())
            newest = {shard: (len(hashes) - 1, hashes[-1]) for shard, hashes in sorted(self.model.items())}
            assert {c.shard_id: (c.generation, c.content_hash) for c in visible} == newest
            for commit in visible:
                images = self.dataset.read_shard(commit, vectors=True, verify=True).images
                planned = [ref.image_id for ref in self.dataset.read_inputs(commit.shard_id)]
                assert images["image_id"].to_pylist() == planned

        def teardown(self) -> None:
            missing = N_SHARDS - len(self.model)
            assert len(verify(self.dataset).problems) == (1 if missing else 0)

    return Machine


def test_any_order_of_events(make: Any, new_memory_store: Callable[[], ObjectStore]) -> None:
    machine = machine_of(make, new_memory_store)
    run_state_machine_as_test(machine, settings=settings(deadline=None, max_examples=25, stateful_step_count=15))
