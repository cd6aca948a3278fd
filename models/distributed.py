"""Groups of processes that train together."""

from torch import distributed as dist


def process_count() -> int:
    """Processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
