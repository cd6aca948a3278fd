"""What Matrix NMS costs over the matrix product that no such method can do without, beside the other kinds.

    python benchmarks/nms.py [--masks 500] [--size 200 336] [--device cpu] [--json F]

The times of both are taken in turn, on the same masks, and their ratio is that of the medians. On a CPU they are those
of the process, so that others on the machine do not count. The product runs on the units that NMS may use: factors of 0
and 1 are exact as bytes and in bf16. Masks are random ellipses; scores fall.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from environment import describe, publish
from torch import Tensor

from saliency_prompt.models.arithmetic import exact_bf16_products, intersections
from saliency_prompt.models.nms import SUPPRESSIONS, suppress


def ellipses(count: int, height: int, width: int, device: torch.device) -> Tensor:
    """Random masks, 0/1 fp32 [1, count, height * width]."""
    generator = torch.Generator().manual_seed(0)
    centers, radii = torch.rand(2, count, 2, generator=generator)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    near_y, near_x = (
        (place.flatten() - centers[:, axis, None]) / (0.02 + radii[:, axis, None] / 3)
        for axis, place in enumerate((y, x))
    )
    return (near_y**2 + near_x**2 < 1).float()[None].to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=500)
    parser.add_argument("--size", type=int, nargs=2, default=(200, 336))
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    masks = ellipses(options.masks, *options.size, device)
    scores = torch.linspace(1, 0.1, options.masks, device=device)[None]
    labels = torch.arange(options.masks, device=device)[None] % 5

    def in_bf16() -> Tensor:
        with exact_bf16_products(device):
            return torch.bmm(masks, masks.transpose(1, 2))

    calls: dict[str, Callable[[], Tensor]] = {"product": lambda: intersections(masks), "product in bf16": in_bf16}
    for kind in SUPPRESSIONS:
        calls[kind] = lambda kind=kind: suppress(kind, masks, scores, labels)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for turn in range(options.repeat + 2):
            for name, call in calls.items():
                start = clock()
                call()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if turn >= 2:
                    times[name].append(1000 * (clock() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    result = {
        "benchmark": "nms",
        "masks": options.masks,
        "size": list(options.size),
        "milliseconds": {name: round(value, 2) for name, value in medians.items()},
        "over_product": {name: round(medians[name] / medians["product"], 3) for name in SUPPRESSIONS},
        "environment": describe(device),
    }
    publish(result, options.json)


if __name__ == "__main__":
    main()
