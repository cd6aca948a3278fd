"""The code in the documentation: fenced blocks with where they stand, and reasons why some are not run."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^```(\w*)$")
_REASON = re.compile(r"^<!-- not run: (.+) -->$")


@dataclass(frozen=True)
class Block:
    """Lines of one fenced block; `language` is empty for commands, `reason` is why it is not run, if it is not."""

    page: str
    line: int
    language: str
    reason: str | None
    lines: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> list[list[str]]:
        """The words of each command: lines end in backslashes if they go on, `&&` parts them, # begins a comment."""
        found = []
        for line in "\n".join(self.lines).replace("\\\n", " ").splitlines():
            words: list[str] = []
            for word in [*shlex.split(line, comments=True), "&&"]:
                if word != "&&":
                    words.append(word)
                elif words:
                    found.append(words)
                    words = []
        return found


def read_blocks(page: str) -> list[Block]:
    """The fenced blocks of a page, named from the root of the repository."""
    blocks, lines = [], (ROOT / page).read_text(encoding="utf-8").splitlines()
    start, language, reason, inside = 0, "", None, False
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if inside and line == "```":
            blocks.append(Block(page, start, language, reason, tuple(lines[start : number - 1])))
            inside, reason = False, None
        elif not inside and fence:
            start, language, inside = number, fence[1], True
        elif not inside and line:
            told = _REASON.match(line)
            reason = told[1] if told else None
    assert not inside, f"{page}: the block of line {start} does not end"
    return blocks
