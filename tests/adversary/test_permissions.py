"""A data set that the user may not read or write, as a user to whom that applies."""

import shutil

import pytest

from saliency_prompt.schemas.errors import UserError
from saliency_prompt.store.check import gc, verify
from saliency_prompt.store.dataset import Dataset
from unprivileged import unprivileged

from .conftest import FIXTURES


@pytest.mark.parametrize("place", ["dataset.json", "commits", "shards/000/000000", "sealed.json"])
def test_what_may_not_be_read_is_one_sentence(place: str) -> None:
    with unprivileged() as folder:
        copy = folder / "data"
        shutil.copytree(FIXTURES / "format1", copy, copy_function=shutil.copyfile)
        (copy / place).chmod(0)
        with pytest.raises(UserError, match="permissions"):
            verify(Dataset.open(str(copy)))


def test_what_may_not_be_written_is_one_sentence() -> None:
    with unprivileged() as folder:
        copy = folder / "data"
        shutil.copytree(FIXTURES / "format1", copy, copy_function=shutil.copyfile)
        dataset = Dataset.open(str(copy))
        copy.chmod(0o500)
        with pytest.raises(UserError, match="permissions"):
            dataset.unseal()
        assert dataset.sealed is not None
        assert verify(dataset).problems == []
        (copy / "commits" / "000").chmod(0)
        with pytest.raises(UserError, match="permissions"):
            gc(dataset, grace_seconds=0)
