"""Late sealers, and seals that do not go with card and commits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saliency_prompt import PseudoLabelDataset
from saliency_prompt.pipeline.status import status
from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.check import verify
from saliency_prompt.store.damage import DamageError
from saliency_prompt.store.dataset import Dataset
from saliency_prompt.store.layout import SEAL, SEALS, commit_key, seal_key
from saliency_prompt.store.objects import ObjectStore

from .conftest import READERS, Labelled


class Stalling(ObjectStore):
    """Stalls once before it writes to a key that `where` picks, while something else happens."""

    def __init__(self, inner: ObjectStore, where: str, meanwhile: Callable[[], object]) -> None:
        super().__init__(inner.url, inner.backend, inner.local_root())
        self.where, self.meanwhile = where, [meanwhile]

    def put(self, key: str, data: bytes) -> None:
        self._stall(key)
        super().put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._stall(key)
        return super().put_if_absent(key, data)

    def _stall(self, key: str) -> None:
        if key.startswith(self.where) and self.meanwhile:
            self.meanwhile.pop()()


@pytest.mark.parametrize("where", [SEAL, SEALS])
def test_a_late_sealer_does_not_undo_a_newer_seal(make: Any, local_store: ObjectStore, where: str) -> None:
    dataset = make.dataset(local_store)
    for shard in range(3):
        make.commit(dataset, shard)

    def supersede() -> None:
        dataset.unseal()
        make.commit(dataset, 1, generation=1, seed=7)
        dataset.seal()

    Dataset.of(Stalling(local_store, where, supersede)).seal()
    expected = dataset.compute_seal()
    assert dataset.sealed == expected
    assert json.loads(local_store.get(SEAL)) == json.loads(expected.to_json())
    assert verify(dataset).problems == []


def test_a_late_sealer_does_not_seal_what_was_opened(make: Any, local_store: ObjectStore) -> None:
    """The shard that is being superseded is sealed again only as it is then."""
    dataset = make.complete(local_store)
    stalled = Stalling(local_store, SEAL, dataset.unseal)
    local_store.delete([SEAL])
    Dataset.of(stalled).seal()
    assert dataset.sealed is None
    assert not local_store.exists(SEAL)


def test_sealing_again_writes_nothing_new(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    dataset.seal()
    assert [info.key for info in local_store.list(SEALS)] == [seal_key(0)]
    local_store.delete([SEAL])
    dataset.seal()
    assert local_store.exists(SEAL)
    dataset.unseal()
    dataset.unseal()
    assert len(list(local_store.list(SEALS))) == 2


def test_an_old_seal_counts_until_it_is_taken_back(old: Labelled) -> None:
    dataset = Dataset.open(old.url)
    assert dataset.sealed is not None
    assert dataset.sealed == dataset.seal()
    assert not (old.path / SEALS).exists()
    dataset.unseal()
    assert dataset.sealed is None
    assert not (old.path / SEAL).exists()


@pytest.mark.parametrize("reader", [name for name in READERS if name not in ("verify", "report")])
@pytest.mark.parametrize("damage", ["missing", "superseded", "seal"])
def test_every_reader_notices_a_seal_of_other_data(
    make: Any, old: Labelled, tmp_path: Path, reader: str, damage: str
) -> None:
    if damage == "missing":
        old.file("commits/*/000001.json").unlink()
    elif damage == "superseded":
        commit = json.loads(old.file("commits/*/000001.json").read_text())
        commit["files"] = {name: {**entry, "sha256": "0" * 64} for name, entry in commit["files"].items()}
        old.file("commits/*/000001.json").write_text(json.dumps(commit))
    else:
        old.edit("sealed.json", counts__masks=15)
    with pytest.raises(DamageError, match=r"000001.json|seal"):
        READERS[reader](old.url, tmp_path)


def test_a_superseded_shard_of_the_same_size_is_not_what_was_sealed(make: Any, local_store: ObjectStore) -> None:
    dataset = make.complete(local_store)
    records = make.records(dataset.read_inputs(2))
    make.commit(dataset, 2, generation=1, records=[*records[:-1], make.records(make.refs(25), seed=0)[24]])
    list(dataset.checked_commits())  # the same data: nothing is wrong
    make.commit(dataset, 2, generation=2, seed=4)
    with pytest.raises(DamageError, match="other data"):
        list(dataset.checked_commits())
    assert status(dataset).root_hash is None
    assert "other data" in status(dataset).trouble
    assert any("other data" in str(problem) for problem in verify(dataset).problems)


def test_what_is_not_sealed_is_read_as_far_as_it_goes(old: Labelled) -> None:
    whole = old.train()
    old.file("commits/*/000001.json").unlink()
    (old.path / SEAL).unlink()
    assert old.train(allow_partial=True) == whole  # that shard had no mask
    with pytest.raises(UserError, match="not sealed"):
        PseudoLabelDataset(old.url)


def test_the_report_names_the_disagreement(make: Any, local_store: ObjectStore) -> None:
    from saliency_prompt.pipeline.report.collect import collect

    dataset = make.complete(local_store)
    local_store.delete([commit_key(1)])
    found = collect(dataset)
    assert found.provenance.root_hash is None
    assert any("seal" in one for one in found.damaged)
