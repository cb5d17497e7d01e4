"""Small topologies: as many levels as the real ones, on volumes of a few voxels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from u2net_platform.model.topology import Topology

CUBE = (3, 3, 3)
FLAT = (1, 3, 3)
HALVED = (2, 2, 2)
KEPT = (1, 1, 1)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For volumes this small a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_threads(one_thread: None) -> None:
    """With one thread torch leaves its fast kernels, and their layout, for volumes this small."""
    torch.set_num_threads(2)


@pytest.fixture
def isotropic() -> Topology:
    """Halved at every transition, as the paper's network is."""
    return Topology(in_channels=1, classes=2, kernels_zyx=(CUBE,) * 6, strides_zyx=(HALVED,) * 5)


@pytest.fixture
def shallow() -> Topology:
    """For 8 x 16 x 16 voxels."""
    strides = (HALVED, HALVED, KEPT, KEPT, KEPT)
    return Topology(in_channels=1, classes=2, kernels_zyx=(CUBE,) * 6, strides_zyx=strides)


@pytest.fixture
def thin() -> Topology:
    """Coarse along z, as a prostate is: flat kernels first, z is halved last. Two channels."""
    return Topology(
        in_channels=2,
        classes=3,
        kernels_zyx=(FLAT, FLAT, CUBE, CUBE, CUBE, CUBE),
        strides_zyx=((1, 2, 2), (1, 2, 2), HALVED, KEPT, KEPT),
    )
