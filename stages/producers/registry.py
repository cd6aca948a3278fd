"""How each producer is loaded, by name. A loader imports its module when it is called.

`schemas/registry.py` holds what can be said of them without torch.
"""

from collections.abc import Callable
from typing import Any

from .contract import Loaded


def _saliency(config: Any) -> Loaded:
    from .saliency.producer import load_saliency

    return load_saliency(config)


LOADERS: dict[str, Callable[[Any], Loaded]] = {"saliency": _saliency}
