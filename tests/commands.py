"""The program as a user types it, each command in a process of its own.

The processes are forked from one that has loaded the libraries below this package, and nothing of the package itself:
loading them takes longer than most commands do. `gold` and `test_packaging.py` start the installed program.
"""

import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from signal import Signals
from subprocess import CompletedProcess
from typing import IO

import torch

_forks = get_context("forkserver")
_forks.set_forkserver_preload(
    [
        "cv2",
        "faster_coco_eval",
        "lightning",
        "matplotlib.figure",
        "pycocotools.cocoeval",
        "rich.progress",
        "scipy.optimize",
        "torchvision.models.detection",
        "torchvision.transforms.v2",
        "transformers",
        "typer",
        "zarr",
    ]
)


class Program:
    """A command that runs: its process, and what it writes.

    arguments: as they are typed after `saliency-prompt`. env: variables beside those of this process. first: Python to
    run before the program.
    """

    def __init__(self, *arguments: object, env: dict[str, str] | None = None, first: str = "") -> None:
        (stdout, out), (stderr, err) = _forks.Pipe(duplex=False), _forks.Pipe(duplex=False)
        self.arguments = [str(one) for one in arguments]
        variables = {**os.environ, **(env or {})}
        self.process = _forks.Process(target=_main, args=(self.arguments, variables, first, out, err))
        self.process.start()
        self.stdout, self.stderr = (_reader(end) for end in (stdout, stderr))
        for end in (stdout, stderr, out, err):
            end.close()

    def send(self, number: Signals) -> None:
        """Signal it, if it has not ended."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def finish(self) -> CompletedProcess[str]:
        """Wait for its end, and hear it out."""
        with self.stdout, self.stderr, ThreadPoolExecutor(1) as other:
            out = other.submit(self.stdout.read)  # beside the other, as a full pipe stops the program
            err = self.stderr.read()
        self.process.join()
        assert self.process.exitcode is not None
        return CompletedProcess(self.arguments, self.process.exitcode, out.result(), err)


def _reader(end: Connection) -> IO[str]:
    return os.fdopen(os.dup(end.fileno()), encoding="utf-8")


def _main(arguments: list[str], variables: dict[str, str], first: str, out: Connection, err: Connection) -> None:
    gc.freeze()  # a collection would copy all that is shared with the process this one was forked from
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    os.environ.clear()
    os.environ.update(variables)
    if "OMP_NUM_THREADS" in variables:  # which OpenMP read when it was loaded
        torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))
    sys.argv = ["saliency-prompt", *arguments]
    exec(first, {})  # noqa: S102
    from saliency_prompt.cli.app import main

    main()


def run(*arguments: object, code: int = 0, env: dict[str, str] | None = None) -> CompletedProcess[str]:
    result = Program(*arguments, env=env).finish()
    assert result.returncode == code, result.stderr + result.stdout
    assert "Traceback" not in result.stderr
    return result


def complains(*arguments: object, env: dict[str, str] | None = None) -> str:
    """The one sentence a mistake gives."""
    lines = run(*arguments, code=2, env=env).stderr.strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, lines
    assert lines[-1] == errors[0]
    return errors[0]
