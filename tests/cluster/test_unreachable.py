import socket
from pathlib import Path

import pytest

from saliency_prompt.cluster.session import refuse_unreachable
from saliency_prompt.schemas.errors import UserError


def test_an_address_where_nobody_listens_is_said_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and never listening
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Nobody answers at 127.0.0.1:{port}"):
            refuse_unreachable(f"127.0.0.1:{port}")
    with pytest.raises(UserError, match="Nobody answers"):
        refuse_unreachable("127.0.0.1:99999")


def test_what_auto_means_is_looked_at_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:99999")
    with pytest.raises(UserError, match=":99999"):
        refuse_unreachable("auto")
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr("saliency_prompt.cluster.session.PROCESSES", tmp_path / "proc")
    refuse_unreachable("auto")  # nothing was ever started: Ray says so at once
    left = tmp_path / "ray" / "ray_current_cluster"
    left.parent.mkdir()
    left.write_text("127.0.0.1:99998")
    with pytest.raises(UserError, match=":99998"):
        refuse_unreachable("auto")
    running = tmp_path / "proc" / "17" / "comm"
    running.parent.mkdir(parents=True)
    running.write_text("gcs_server\n")
    refuse_unreachable("auto")  # that head is taken, whatever the file says


def test_one_that_listens_and_local_are_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        refuse_unreachable(f"127.0.0.1:{server.getsockname()[1]}")
    refuse_unreachable("local")
