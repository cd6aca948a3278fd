"""Whether a Ray cluster can run the job, seen from every node of it."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ..schemas.cluster import Workers
from ..schemas.errors import UserError
from ..schemas.labels.saliency import Config
from ..store.objects import open_store
from ..store.weights import resolve_weights
from .session import load_ray, session, versions

CLOCK_SECONDS = 30.0  # of difference: buckets refuse requests from 300 s on, and gc counts ages
PROBE_SECONDS = 120.0  # for a node to answer


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked; if it is not `ok`, the text says what to do."""

    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says of itself; the troubles are one sentence each, empty if there is none."""

    host: str
    versions: dict[str, str]
    clock: float
    gpus: list[str]
    weights: str
    weights_trouble: str
    target_trouble: str
    target_skew: float


def check_cluster(address: str, workers: Workers, config: Config, out: str | None) -> list[Finding]:
    """Join the cluster and check it. Raises UserError if there is no cluster to join."""
    ray = load_ray()
    with session(address, workers.model_copy(update={"min_workers": 1, "max_workers": 1})):
        nodes = [node for node in ray.nodes() if node["Alive"]]
        findings = [_room(nodes, workers)]
        fitting = [node for node in nodes if _places(node, workers)] or nodes
        facts: dict[str, NodeFacts] = {}
        asked = time.time()
        for node, answer in _ask(ray, fitting, workers, config, out):
            if isinstance(answer, str):
                findings.append(Finding(False, f"node {node['NodeManagerAddress']}: {answer}"))
            else:
                facts[node["NodeID"]] = answer
        findings += [finding for fact in facts.values() for finding in _judge(fact, workers, out, (asked, time.time()))]
        if len({fact.weights for fact in facts.values()} - {""}) > 1:
            findings.append(Finding(False, "the nodes hold different files of the weights: put the same on every one"))
        return findings


def _room(nodes: list[Any], workers: Workers) -> Finding:
    places = sum(_places(node, workers) for node in nodes)
    cpus, gpus = (sum(node["Resources"].get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    has = f"{len(nodes)} nodes with {cpus:g} CPU cores and {gpus:g} GPUs have room for {places} workers"
    wants = f"{workers.min_workers} to {workers.max_workers} of {workers.describe()} each"
    if places >= workers.min_workers:
        return Finding(True, f"{has} ({wants} are asked for)")
    return Finding(False, f"{has}, and {wants} are asked for: add nodes, or ask for fewer or smaller workers")


def _places(node: Any, workers: Workers) -> int:
    has = node["Resources"]
    places = int(has.get("CPU", 0) // workers.cpus_per_worker)
    if not workers.gpus_per_worker:
        return places
    return min(places, int(has.get("GPU", 0) // workers.gpus_per_worker))


def _ask(ray: Any, nodes: list[Any], workers: Workers, config: Config, out: str | None) -> Iterator[tuple[Any, Any]]:
    """What every node says, or why it says nothing."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe = ray.remote(max_retries=0, num_cpus=0)(_probe)
    refs = {}
    for node in nodes:
        gpus = workers.gpus_per_worker if node["Resources"].get("GPU", 0) else 0
        placed = probe.options(num_gpus=gpus, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False))
        refs[placed.remote(config.features.weights, out, bool(gpus))] = node
    ray.wait(list(refs), num_returns=len(refs), timeout=PROBE_SECONDS)
    for ref, node in refs.items():
        try:
            yield node, ray.get(ref, timeout=0)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(ref, force=True)
            yield node, f"gave no answer in {PROBE_SECONDS:.0f} s: its GPUs are taken, or it hangs"
        except ray.exceptions.RayError as error:
            yield node, f"cannot run this program ({' '.join(str(error).split())[-300:]}): use the driver's image there"


def _probe(weights: str, out: str | None, gpu: bool) -> NodeFacts:
    """Runs on a node."""
    import torch

    clock = time.time()
    found = trouble = target = ""
    skew = 0.0
    try:
        found = resolve_weights(weights).sha256
    except UserError as error:
        trouble = str(error)
    if out is not None:
        try:
            skew = _try_target(out)
        except UserError as error:
            target = str(error)
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if gpu else []
    return NodeFacts(socket.gethostname(), versions(), clock, gpus, found, trouble, target, skew)


def _try_target(out: str) -> float:
    """Create an object once, be refused a second time, and remove it; how far the store's clock is ahead, in s."""
    store = open_store(out)
    key = f"runs/check-{os.getpid()}-{uuid4().hex}"
    before = time.time()
    store.put_if_absent(key, b"check")
    try:
        if store.put_if_absent(key, b"again"):
            raise UserError(
                f"{out} overwrites objects that must be created only once: use a store with conditional put "
                "(S3, GCS, Azure, a POSIX disk)."
            )
        modified = next(info.modified.timestamp() for info in store.list("runs") if info.key == key)
        return max(modified - time.time(), min(modified - before, 0.0))
    finally:
        store.delete([key])


def _judge(fact: NodeFacts, workers: Workers, out: str | None, asked: tuple[float, float]) -> Iterator[Finding]:
    """What the facts of a node mean; `asked` is when, by the driver's clock."""
    mine = versions()
    others = [
        f"{name} {fact.versions.get(name)} not {mine[name]}" for name in mine if fact.versions.get(name) != mine[name]
    ]
    if others:
        yield Finding(False, f"{fact.host}: other versions than the driver's ({', '.join(others)}): use one image")
    else:
        yield Finding(True, f"{fact.host}: the driver's versions")
    if workers.gpus_per_worker:
        text = f"{fact.host}: torch sees {', '.join(fact.gpus)}"
        no_gpu = f"{fact.host}: torch sees no GPU: check its driver and that the image's torch is a CUDA build"
        yield Finding(True, text) if fact.gpus else Finding(False, no_gpu)
    yield Finding(not fact.weights_trouble, f"{fact.host}: {fact.weights_trouble or 'the weights are there'}")
    if out is not None:
        yield Finding(not fact.target_trouble, f"{fact.host}: {fact.target_trouble or f'{out} is writable, once'}")
    skew = max(asked[0] - fact.clock, fact.clock - asked[1], abs(fact.target_skew))
    if skew > CLOCK_SECONDS:
        yield Finding(False, f"{fact.host}: its clock and others differ by {skew:.0f} s: run a time service on it")
