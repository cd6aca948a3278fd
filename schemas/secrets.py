"""Whether an environment variable looks like a secret: by its name, the shape of its value, or how random that is."""

import math
import re
from collections import Counter
from itertools import pairwise

_NAME = re.compile(
    r"SECRET|TOKEN(?!IZER)|PASSW|PASSPHRASE|CREDENTIAL|AUTHORIZATION|COOKIE|CONNECTION_?STRING|SIGNATURE"
    r"|(API|ACCESS|ACCOUNT|AUTH|PRIVATE)_?KEY|(^|_)(KEY|PASS|PWD|PAT|SAS|DSN|JWT)$"
)
# The path of a file that holds a secret is none.
_PATH_NAME = re.compile(r"_(FILE|PATH|DIR|CREDENTIALS)$")
_SHAPE = re.compile(
    r"-----BEGIN |\bA[KS]IA[0-9A-Z]{16}\b|\b(gh[posu]|glpat|github_pat|hf|sk|xox[abprs])[-_]\w{16}"
    r"|\beyJ[\w-]{10,}\.|://[^/\s:@]*:[^/\s@]+@|[?&](sig|X-Amz-Signature|token)=|AccountKey="
)
_UUID = re.compile(r"\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b")  # names things, as a rule
_WORD = re.compile(r"[A-Za-z0-9+/=_-]{20,}")
_PIECE = 12  # names that people make have shorter pieces between their hyphens

MIN_ENTROPY = 3.0  # bits a character; random hexadecimal digits have up to 4, random letters and digits up to 6
# Neighbours that differ in kind (upper, lower, digit): 0.62 of them in random letters and digits, 0.4 in those without
# capitals, of which we look at long ones; below 0.35 in compound words.
MIN_CHANGES, MIN_CHANGES_SMALL = 0.35, 0.2
_LONG = 32


def looks_secret(name: str, value: str) -> bool:
    """True if a variable should not stand in plain text. A guess: there are secrets that look like words."""
    path = value.startswith("/")
    if _NAME.search(name.upper()) and not (path and _PATH_NAME.search(name.upper())):
        return True
    if _SHAPE.search(value):
        return True
    return not path and "://" not in value and any(map(_is_random, _WORD.findall(_UUID.sub("", value))))


def _is_random(word: str) -> bool:
    pieces = re.split("[-_]", word)
    letters = "".join(pieces)
    if len(letters) < 20 or max(map(len, pieces)) < _PIECE:
        return False
    small = letters == letters.lower() and len(letters) >= _LONG
    return _entropy(letters) >= MIN_ENTROPY and _changes(letters) >= (MIN_CHANGES_SMALL if small else MIN_CHANGES)


def _entropy(word: str) -> float:
    """Shannon's entropy of the word's characters, in bits a character."""
    return -sum(count / len(word) * math.log2(count / len(word)) for count in Counter(word).values())


def _changes(word: str) -> float:
    kinds = ["d" if c.isdigit() else "u" if c.isupper() else "l" for c in word]
    return sum(one != other for one, other in pairwise(kinds)) / (len(word) - 1)
