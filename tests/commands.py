"""The program as a user types it."""

import os
import subprocess
import sys


def run(*arguments: object, code: int = 0, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    program = "from saliency_prompt.cli.app import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )
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
