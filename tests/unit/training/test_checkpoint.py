from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from u2net_platform.errors import DigestMismatch, NothingToResume, NotWritable
from u2net_platform.training.checkpoint import load_checkpoint, save_checkpoint

TENSORS = {
    "network/a.weight": torch.randn(3, 4),
    "optimiser/a.weight/step": torch.tensor(7.0),
    "network/n": torch.tensor(3),
    "turned": torch.randn(2, 3, 4).transpose(0, 2),
}
STATE = {"step": 3, "schedule": {"best": math.inf}, "curves": {"loss/a": [[1, 0.5]]}}


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "checkpoint.safetensors"
    save_checkpoint(file, TENSORS, STATE)
    tensors, state = load_checkpoint(file)
    assert state == STATE
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert all(tensors[name].dtype == TENSORS[name].dtype for name in TENSORS)


def test_a_checkpoint_that_does_not_exist_is_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(NothingToResume, match="does not exist"):
        load_checkpoint(tmp_path / "checkpoint.safetensors")


@pytest.mark.parametrize("part", [0.0, 0.05, 0.5, 0.99])
def test_a_checkpoint_that_is_cut_off_is_called_damaged(part: float, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(file, TENSORS, STATE)
    content = file.read_bytes()
    file.write_bytes(content[: int(part * len(content))])
    with pytest.raises(DigestMismatch, match=r"checkpoint\.safetensors is damaged"):
        load_checkpoint(file)


@pytest.mark.parametrize("place", ["header", "numbers"])
def test_a_checkpoint_of_which_one_bit_has_changed_is_called_damaged(
    place: str, tmp_path: Path
) -> None:
    file = tmp_path / "checkpoint.safetensors"
    save_checkpoint(file, TENSORS, STATE)
    content = bytearray(file.read_bytes())
    at = content.index(b"0.5") if place == "header" else len(content) - 3
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(DigestMismatch):
        load_checkpoint(file)


def test_the_checkpoint_before_survives_a_save_that_fails(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "checkpoint.safetensors"
    save_checkpoint(file, TENSORS, STATE)
    with pytest.raises(TypeError):
        save_checkpoint(file, TENSORS, {"step": object()})
    assert load_checkpoint(file)[1] == STATE
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    with pytest.raises(NotWritable):
        save_checkpoint(file / "below a file", TENSORS, STATE)
