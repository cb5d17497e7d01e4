"""Time and memory of the coordinator in a round, by the number of sites.

    .venv/bin/python benchmarks/aggregation.py [--sites 100] [--domains 30]

Simulated sites answer with updates of the backbone and of the shared domains that they hold, three
each of `--domains`. What is measured is all that the coordinator does with the answers: reading
Flower's messages, the guards, the weighted means, the new weights and the stored state.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from u2net_platform.federation.aggregation import apply_update, check, mean_update
from u2net_platform.federation.messages import Description, Held, answer, answer_of, size_of
from u2net_platform.federation.request import Rules
from u2net_platform.federation.state import State
from u2net_platform.model.network import build_network
from u2net_platform.model.partition import BACKBONE
from u2net_platform.model.topology import Architecture, Topology

HELD_BY_A_SITE = 3
DOMAIN = Topology(
    in_channels=1,
    classes=2,
    kernels_zyx=((3, 3, 3),) * 6,
    strides_zyx=((2, 2, 2),) * 5,
)


def main() -> None:
    arguments = _arguments()
    if arguments.alone:
        _measure(arguments.sites, arguments.domains)
        return
    print("| sites | MB received | s | s per 100 MB | peak memory, MB |")
    print("|---|---|---|---|---|", flush=True)
    for sites in (
        arguments.sites // 8,
        arguments.sites // 4,
        arguments.sites // 2,
        arguments.sites,
    ):
        # A process each: the peak of memory is of the whole process.
        command = [sys.executable, __file__, "--alone", "--sites", str(sites)]
        subprocess.run([*command, "--domains", str(arguments.domains)], check=True)


def _measure(sites: int, domains: int) -> None:
    torch.manual_seed(0)
    names = [f"domain{k:02d}" for k in range(domains)]
    network = build_network(Architecture(), dict.fromkeys(names, DOMAIN), 0)
    state = State({owner: network.owner_state(owner) for owner in (BACKBONE, *names)})
    rules, taken, messages, received = Rules(), [], [], 0
    for number in range(sites):
        owners = [
            BACKBONE,
            *(names[(number * HELD_BY_A_SITE + k) % domains] for k in range(HELD_BY_A_SITE)),
        ]
        held = {owner: state.weights[owner] for owner in owners}
        messages.append((_Reply(_answer(held, owners[1:])), held))
        received += size_of(messages[-1][0].content)
    started = time.perf_counter()
    for number in range(sites):
        message, held = messages.pop(0)  # all have come before the first is read
        found = answer_of(f"site{number:03d}", message)  # type: ignore[arg-type]
        check(found.contribution, held, rules)
        taken.append(found.contribution)
    for owner, weights in state.weights.items():
        update = mean_update(owner, taken, rules)
        assert update is not None
        state.weights[owner], _ = apply_update(weights, update, None, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        state.save(Path(folder) / "state")
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    megabytes = received / 1e6
    print(
        f"| {sites} | {megabytes:.0f} | {seconds:.2f} | {100 * seconds / megabytes:.2f} "
        f"| {peak:.0f} |",
        flush=True,
    )


class _Reply:
    """As much of Flower's message as an answer is read from."""

    def __init__(self, content: object) -> None:
        self.content = content

    def has_error(self) -> bool:
        return False


def _answer(held: dict[str, dict[str, torch.Tensor]], domains: list[str]) -> object:
    updates = {
        owner: {name: 0.01 * torch.randn_like(tensor) for name, tensor in weights.items()}
        for owner, weights in held.items()
    }
    one = Held(spec={}, plugin_digest="0" * 64, examples=20, plan={})
    return answer(Description(domains=dict.fromkeys(domains, one)), updates, 20, 30, {})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--domains", type=int, default=30)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
