"""A program that carries out rounds of FreeSOLO in processes of its own, and kills them.

    python killed_rounds.py WORLD WEIGHTS OUT EVENTS KILLS SEED

EVENTS is how many an undisturbed run has. It says as JSON which labels they ended in, and how often they were killed.
Processes are forked from one that has loaded all but computed nothing: starting a new one takes longer than a round.
"""

import gc
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from free_rounds import Counted, go, hashes, rounds_of

from saliency_prompt.pipeline.rounds import Rounds


class Told(Counted):
    """A reporter that writes a byte at every event."""

    def __init__(self, pipe: int) -> None:
        super().__init__()
        self.pipe = pipe

    def event(self, *_: Any) -> None:
        """See `Counted`."""
        os.write(self.pipe, b".")

    planned = committed = event


def carry_out(rounds: Rounds, fatal: int | None = None, delay: float = 0.0) -> int:
    """The exit code of a process, which is killed some seconds after the event of number `fatal`."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        code = 1
        try:
            found = go(rounds, Told(writing))
            (rounds.out / "hashes.json").write_text(json.dumps(hashes(found)))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    seen = 0
    with os.fdopen(reading, "rb", 0) as events:
        while seen != fatal and events.read(1):
            seen += 1
        if seen == fatal:
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(world: Path, weights: str, out: Path, events: int, kills: int, seed: int) -> None:
    """See the file."""
    dice = random.Random(seed)
    gc.freeze()  # a collection would copy all that is shared with this process
    killed, found = 0, []
    while killed < kills:
        (out / f"killed-{len(found)}").mkdir()
        rounds = rounds_of(world, out / f"killed-{len(found)}", weights=weights)
        while killed < kills:
            code = carry_out(rounds, dice.randint(1, events), dice.random() / 4)
            if code == 0:
                break
            assert code == -signal.SIGKILL, code
            killed += 1
        assert carry_out(rounds) == 0
        found.append(json.loads((rounds.out / "hashes.json").read_text()))
    print(json.dumps({"killed": killed, "found": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:]))
