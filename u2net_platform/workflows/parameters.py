"""How large the networks of the paper's Table 3 are here, for any domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from u2net_platform.domains.spec import DomainSpec
from u2net_platform.model.counting import Counts, count_parameters, nominal_topology
from u2net_platform.model.topology import Architecture
from u2net_platform.workflows.train import PAPER_PATCH_ZYX


@dataclass(frozen=True)
class NetworkSize:
    """`as_the_paper_counts`: without stems, heads, norms and dense strided convolutions of
    universal networks. `paper_says`: its Table 3, for five domains."""

    name: str
    shared_convolutions: int
    a_domains_convolutions: int
    as_the_paper_counts: int
    paper_says: str
    everything: int


def network_sizes(specs: Sequence[DomainSpec]) -> list[NetworkSize]:
    """The paper's network in all modes, and the default one, with cubic kernels."""
    paper = Architecture(name="paper", common_patch_zyx=PAPER_PATCH_ZYX)
    dense = paper.model_copy(update={"convolutions": "dense"})
    shared = _counts(dense, specs)
    each = [_counts(dense, [spec]) for spec in specs]
    return [
        NetworkSize(
            "paper, independent",
            0,
            each[0].shared_convolutions,
            sum(one.shared_convolutions for one in each),
            "126.7M",
            sum(one.everything for one in each),
        ),
        _size("paper, shared", shared, shared.convolutions, "30.7M"),
        _universal("paper, universal", _counts(paper, specs), "1.7M"),
        _universal("lean, universal", _counts(Architecture(), specs), "-"),
    ]


def _counts(architecture: Architecture, specs: Sequence[DomainSpec]) -> Counts:
    topologies = {spec.name: nominal_topology(len(spec.channels), spec.classes) for spec in specs}
    return count_parameters(architecture, topologies)


def _universal(name: str, counts: Counts, paper_says: str) -> NetworkSize:
    return _size(name, counts, counts.convolutions - counts.strided, paper_says)


def _size(name: str, counts: Counts, as_the_paper: int, paper_says: str) -> NetworkSize:
    return NetworkSize(
        name,
        counts.shared_convolutions,
        max(counts.domain_convolutions.values()),
        as_the_paper,
        paper_says,
        counts.everything,
    )
