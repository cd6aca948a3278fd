import socket

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


def test_one_that_listens_and_names_are_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        refuse_unreachable(f"127.0.0.1:{server.getsockname()[1]}")
    refuse_unreachable("auto")
    refuse_unreachable("local")
