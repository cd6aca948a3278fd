"""From pairs to batches: decoding, the square, one text of several, hide and seek.

Shape legend: B pairs, S side of the square, L tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...models.unilseg.model import MEAN
from ...models.unilseg.tokenizer import Tokenizer
from ...schemas.training.unilseg import ReferringData
from ...store.run import Skipped
from ..instances.samples import SampleError, load_pixels
from .letterbox import letterbox, letterbox_mask
from .pairs import Pair, PairSource

Pixels = npt.NDArray[np.uint8]
TRIES = 50  # pairs in a row that may be unusable
Place = tuple[int, int, int]  # source, place in it, turn


@dataclass(frozen=True, slots=True, eq=False)
class ReferringBatch:
    """images uint8 [B, 3, S, S], masks uint8 [B, S, S], tokens int64 [B, L], weights fp32 [B]."""

    images: Tensor
    masks: Tensor
    tokens: Tensor
    weights: Tensor
    skipped: tuple[Skipped, ...] = ()

    def to(self, device: torch.device) -> "ReferringBatch":
        """On a device."""
        images, masks, tokens, weights = (
            one.to(device, non_blocking=True) for one in (self.images, self.masks, self.tokens, self.weights)
        )
        return ReferringBatch(images, masks, tokens, weights, self.skipped)

    def pin_memory(self) -> "ReferringBatch":
        """For copies that don't wait; called by the loader."""
        return replace(self, images=self.images.pin_memory(), masks=self.masks.pin_memory())


class ReferringSamples(Dataset[ReferringBatch]):
    """Batches of one pair by (source, place, turn); what is random in it follows from (seed, turn).

    A pair that cannot be used is replaced by the next one of its source, and named in `skipped`.
    """

    def __init__(
        self, sources: Sequence[PairSource], tokenizer: Tokenizer, length: int, data: ReferringData, seed: int
    ):
        self._sources, self._tokenizer, self._length, self._data, self._seed = sources, tokenizer, length, data, seed

    def __getitem__(self, where: Place) -> ReferringBatch:
        number, place, turn = where
        source, skipped = self._sources[number], list[Skipped]()
        for _ in range(min(TRIES, len(source))):
            pair = source.pair(place)
            try:
                pixels, (height, width) = read_pair(pair, self._data.max_pixels)
            except SampleError as trouble:
                skipped.append(Skipped(place, trouble.file_name, trouble.reason, str(trouble)))
                place = (place + 1) % len(source)
                continue
            rng = np.random.default_rng((self._seed, turn))
            text = pair.texts[int(rng.integers(len(pair.texts)))]
            image = hide_patches(letterbox(pixels, self._data.side), self._data, rng)
            mask = letterbox_mask(pair.mask(height, width), self._data.side)
            return ReferringBatch(
                torch.from_numpy(image).permute(2, 0, 1)[None],
                torch.from_numpy(mask)[None],
                self._tokenizer.batch([text], self._length),
                torch.tensor([pair.weight]),
                tuple(skipped),
            )
        raise SampleError(skipped[0].error, skipped[0].reason, skipped[0].file_name)


def read_pair(pair: Pair, max_pixels: int) -> tuple[Pixels, tuple[int, int]]:
    """The photograph as stored, and the size of its masks. Raises SampleError."""
    return load_pixels(pair.ref, None, max_pixels, pair.sha256, pair.exif)


def hide_patches(image_SS3: Pixels, data: ReferringData, rng: np.random.Generator) -> Pixels:
    """Hide and seek (Singh and Lee 2017): a grid is drawn, and each of its patches hidden with a probability."""
    patch = int(data.hide_patches[int(rng.integers(len(data.hide_patches)))])
    if patch == 0 or data.hide == 0:
        return image_SS3
    cells = -(-len(image_SS3) // patch)
    hidden = rng.random((cells, cells)) < data.hide
    where = hidden.repeat(patch, 0).repeat(patch, 1)[: len(image_SS3), : len(image_SS3)]
    return np.where(where[..., None], np.round(MEAN).astype(np.uint8), image_SS3)


def collate_pairs(parts: Sequence[ReferringBatch]) -> ReferringBatch:
    """One batch of all."""
    return ReferringBatch(
        torch.cat([one.images for one in parts]),
        torch.cat([one.masks for one in parts]),
        torch.cat([one.tokens for one in parts]),
        torch.cat([one.weights for one in parts]),
        tuple(trouble for one in parts for trouble in one.skipped),
    )


class MixedOrder:
    """Which (source, place, turn) every micro step takes: the same for any number of processes.

    `shares_by_step` gives each source's probability at a micro step. A single source is gone through in permutations;
    of several, pairs are drawn with replacement.
    """

    def __init__(
        self,
        shares: "Shares",
        batch: int,
        seed: int,
        start: int,
        stop: int,
        rank: int,
        world: int,
    ) -> None:
        self._counts, self._shares, self._batch, self._seed = shares.counts, shares, batch, seed
        self._start, self._stop, self._rank, self._world = start, stop, rank, world

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[list[Place]]:
        share = self._batch // self._world
        mine = slice(self._rank * share, (self._rank + 1) * share)
        for step in range(self._start, self._stop):
            yield self._draw(step)[mine]

    def _draw(self, step: int) -> list[Place]:
        shares = self._shares.at(step)
        turns = range(step * self._batch, (step + 1) * self._batch)
        if np.count_nonzero(shares) == 1:
            source = int(np.flatnonzero(shares)[0])
            count = self._counts[source]
            passes = {turn // count for turn in turns}
            orders = {one: np.random.default_rng((self._seed, source, one)).permutation(count) for one in passes}
            return [(source, int(orders[turn // count][turn % count]), turn) for turn in turns]
        rng = np.random.default_rng((self._seed, step, 2**20))
        sources = rng.choice(len(shares), len(turns), p=shares)
        return [
            (int(source), int(rng.integers(self._counts[source])), turn)
            for source, turn in zip(sources, turns, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Shares:
    """How often each source is drawn: by its pairs to a power; only from `first` before the micro step `switch`."""

    counts: tuple[int, ...]
    balance: float
    first: tuple[bool, ...]
    switch: int

    def at(self, step: int) -> npt.NDArray[np.float64]:
        """Probabilities at a micro step."""
        weights = np.array(self.counts, np.float64) ** self.balance
        if step < self.switch:
            weights = weights * np.array(self.first)
        shares: npt.NDArray[np.float64] = weights / weights.sum()
        return shares
