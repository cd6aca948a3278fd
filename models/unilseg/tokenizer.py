"""CLIP's byte-pair tokenizer (Radford et al. 2021), from nothing but its list of merges.

The vocabulary is 256 bytes, the same at the end of a word, one entry per merge, and two marks. With no merge at all it
spells words out. What is not done to a text: repair of broken encodings (ftfy), which CLIP's own code does first.
"""

import html
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

END = "</w>"
_CONTRACTIONS = ("'re", "'ve", "'ll", "'s", "'t", "'m", "'d")
Merge = tuple[str, str]


def byte_letters() -> list[str]:
    """A printable letter for each byte, in the order of the vocabulary: printable ones stand for themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(rest))]


def _byte_table() -> dict[int, str]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return dict(zip([*printable, *rest], byte_letters(), strict=True))


class Tokenizer:
    """Texts to numbers; `size` is that of the vocabulary, whose last two are the marks of beginning and end."""

    def __init__(self, merges: Sequence[Merge] = ()) -> None:
        letters = byte_letters()
        words = [*letters, *(letter + END for letter in letters), *(left + right for left, right in merges)]
        self.merges = tuple(merges)
        self.begin, self.end = len(words), len(words) + 1
        self.size = len(words) + 2
        self._ids = {word: place for place, word in enumerate(words)}
        self._ranks = {merge: place for place, merge in enumerate(merges)}
        self._bytes = _byte_table()
        self._known: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """Numbers of a text without marks."""
        return [number for word in split_words(clean(text)) for number in self._word(word)]

    def batch(self, texts: Sequence[str], length: int) -> Tensor:
        """int64 [B, length]: begin, text, end, zeros. A longer text is cut, and its last number is the end."""
        rows = torch.zeros(len(texts), length, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            numbers = [self.begin, *self.encode(text), self.end][:length]
            numbers[-1] = self.end
            row[: len(numbers)] = torch.tensor(numbers)
        return rows

    def _word(self, word: str) -> list[int]:
        if word not in self._known:
            parts = self._merged([self._bytes[byte] for byte in word.encode()])
            self._known[word] = [self._ids[part] for part in parts]
        return self._known[word]

    def _merged(self, parts: list[str]) -> list[str]:
        parts[-1] += END
        while len(parts) > 1:
            best = min(pairwise(parts), key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            parts = join_pair(parts, best)
        return parts


def padding(tokens_BL: Tensor, end: int) -> Tensor:
    """Which places come after the end, bool [B, L]; number 0 also stands for an exclamation mark."""
    ends = (tokens_BL == end).int()
    return (ends.cumsum(1) - ends) > 0


def clean(text: str) -> str:
    """Without HTML entities, doubled whitespace and capitals; letters composed (NFC)."""
    plain = html.unescape(html.unescape(unicodedata.normalize("NFC", text)))
    return " ".join(plain.split()).lower()


def split_words(text: str) -> Iterator[str]:
    """Contractions, runs of letters, single digits, and runs of anything else but spaces."""
    place = 0
    while place < len(text):
        kind = _kind(text[place])
        stop = place + 1
        contraction = next((one for one in _CONTRACTIONS if text.startswith(one, place)), None)
        if contraction is not None:
            stop = place + len(contraction)
        elif kind in "LO":
            while stop < len(text) and _kind(text[stop]) == kind:
                stop += 1
        if kind != " ":
            yield text[place:stop]
        place = stop


def _kind(letter: str) -> str:
    if letter.isspace():
        return " "
    category = unicodedata.category(letter)[0]
    return category if category in "LN" else "O"


def join_pair(parts: Sequence[str], pair: Merge) -> list[str]:
    """The parts with every occurrence of the pair joined, from the left."""
    joined: list[str] = []
    place = 0
    while place < len(parts):
        if tuple(parts[place : place + 2]) == pair:
            joined.append(parts[place] + parts[place + 1])
            place += 2
        else:
            joined.append(parts[place])
            place += 1
    return joined


def learn_merges(texts: Iterable[str], most: int) -> list[Merge]:
    """Byte-pair merges of a corpus, the most frequent pair first (Sennrich et al. 2016); ties go by the alphabet."""
    table = _byte_table()
    counts = Counter(word for text in texts for word in split_words(clean(text)))
    words = [([table[byte] for byte in word.encode()], count) for word, count in sorted(counts.items())]
    for parts, _ in words:
        parts[-1] += END
    merges: list[Merge] = []
    while len(merges) < most:
        pairs: Counter[Merge] = Counter()
        for parts, count in words:
            for pair in pairwise(parts):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [(join_pair(parts, best), count) for parts, count in words]
    return merges
