"""What a run says before it begins."""

from __future__ import annotations

import pytest
import torch

from u2net_platform.data.plan import TRAINING_BYTES_PER_VOXEL, Plan
from u2net_platform.model.topology import Architecture
from u2net_platform.workflows import train


def test_a_batch_that_main_memory_may_not_hold_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        shape_zyx=(16, 16, 16),
        patch_zyx=(16, 16, 16),
        strides_zyx=((2, 2, 2),) * 5,
        kernels_zyx=((3, 3, 3),) * 6,
        batch_size=2,
        statistics=None,
    )
    need = 2 * 16**3 * TRAINING_BYTES_PER_VOXEL
    cpu, own = torch.device("cpu"), Architecture()
    common = Architecture(name="paper", common_patch_zyx=(32, 32, 32))

    def told(architecture: Architecture, device: torch.device = cpu) -> str | None:
        return train._memory_note("heart", plan, architecture, device)

    monkeypatch.setattr(train, "free_bytes", lambda: need)
    assert told(own) is None
    assert "--batch-voxels" in (told(common) or "")
    monkeypatch.setattr(train, "free_bytes", lambda: need - 1)
    assert "heart" in (told(own) or "")
    assert told(own, torch.device("cuda")) is None
