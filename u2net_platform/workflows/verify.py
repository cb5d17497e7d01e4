"""Prove that versions are what they were: the bytes of their weights, and what those compute."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import torch

from u2net_platform.catalog.records import VersionRecord
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.errors import U2NetError
from u2net_platform.model.network import UniversalUNet
from u2net_platform.model.partition import tensors_digest
from u2net_platform.model.topology import Topology
from u2net_platform.workflows.versions import load_network

# How this program computes a network; raised when the same weights begin to make other bytes.
ARITHMETIC = "2026-11-30"  # norms keep their digits where channels are far from zero

Output = Literal["same", "other machine", "no probe", "changed", "unknown"]


@dataclass(frozen=True)
class Verification:
    """What was found of one version.

    output: whether the network makes of the stored probe what it made when it was published.
        `other machine`: not the same bytes, as other processors, other releases of torch, and of
        this program where `ARITHMETIC` has changed, round otherwise. `unknown`: the weights cannot
        be read.
    output_digest: of what it makes of it now. fault: what is wrong, or None.
    """

    version: str
    backbone_digest: str
    domain_digest: str
    output: Output
    output_digest: str | None
    fault: str | None


def take_probe(network: UniversalUNet, domain: str, store: WeightStore) -> dict[str, Any]:
    """Store noise that has the shape of a small patch, and note what the network makes of it."""
    shape = probe_shape(network.topology(domain))
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return {
        "input": store.put({"image": noise}),
        "output": _output_digest(network, domain, noise),
        "machine": machine(),
    }


def probe_shape(topology: Topology) -> tuple[int, ...]:
    """Of a probe of such a domain, b c z y x."""
    sides = (2 * prod(stride[axis] for stride in topology.strides_zyx) for axis in range(3))
    return (1, topology.in_channels, *sides)


def prove(
    network: UniversalUNet, domain: str, probe: Mapping[str, Any], image: torch.Tensor
) -> tuple[Output, str]:
    """What the network makes of its probe now, held against what was noted; with its digest."""
    digest = _output_digest(network, domain, image)
    return _compare(probe, digest), digest


def verify(
    store: WeightStore, records: Sequence[VersionRecord], on_version: Callable[[str], None]
) -> list[Verification]:
    """Read all weights of these versions and run each on its probe; a fault stops nothing."""
    found = []
    for record in records:
        found.append(_verify(store, record))
        on_version(record.reference)
    return found


def machine() -> dict[str, str]:
    """What decides how sums are rounded."""
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        "torch": torch.__version__,
        "processor": _processor(),
        "instructions": capability,
        "arithmetic": ARITHMETIC,
    }


def _verify(store: WeightStore, record: VersionRecord) -> Verification:
    output: Output = "unknown"
    digest: str | None = None
    fault: str | None = None
    try:
        network = load_network(store, record)
        if record.probe is None:
            output = "no probe"
        else:
            image = store.get(record.probe["input"])["image"]
            output, digest = prove(network, record.domain, record.probe, image)
    except U2NetError as error:
        fault = f"{error.error_code}: {error.message}"
    if output == "changed":
        fault = f"its output on the probe {record.probe} has become {digest}"
    return Verification(
        record.reference, record.backbone_digest, record.domain_digest, output, digest, fault
    )


def _compare(probe: Mapping[str, Any], digest: str) -> Output:
    if digest == probe["output"]:
        return "same"
    return "changed" if probe["machine"] == machine() else "other machine"


def _output_digest(network: UniversalUNet, domain: str, image: torch.Tensor) -> str:
    """SHA-256 of the logits, computed on the CPU by one thread: the order of sums is fixed."""
    device, training = next(network.parameters()).device, network.training
    frozen = [one for one in network.parameters() if not one.requires_grad]
    # torch takes another kernel for a dense convolution that is frozen, which rounds otherwise.
    network.to("cpu").eval().requires_grad_(True)
    try:
        with _one_thread(), torch.no_grad():
            return tensors_digest({"logits": network(image, domain=domain)})
    finally:
        for one in frozen:
            one.requires_grad_(False)
        network.to(device).train(training)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
