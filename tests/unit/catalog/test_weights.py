from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
import torch

from u2net_platform.catalog.weights import WeightStore
from u2net_platform.errors import DigestMismatch, MissingFile, NotWritable

TENSORS = {
    "backbone.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "backbone.bias": torch.ones(2),
    "steps": torch.tensor(5),
}


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(tmp_path / "weights")


def test_tensors_are_read_back_bit_for_bit(store: WeightStore) -> None:
    read = store.get(store.put(TENSORS))
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)
    assert all(read[name].dtype == TENSORS[name].dtype for name in TENSORS)


def test_the_name_of_a_file_is_the_digest_of_its_bytes(store: WeightStore) -> None:
    digest = store.put(TENSORS)
    [file] = store.root.iterdir()
    assert file.name == f"{hashlib.sha256(file.read_bytes()).hexdigest()}.safetensors"
    assert store.path(digest) == file


def test_equal_tensors_share_a_file_whatever_their_order_and_layout(store: WeightStore) -> None:
    turned = dict(reversed(TENSORS.items()))
    # Same values, held column by column, and as a parameter that has a gradient.
    turned["backbone.weight"] = torch.nn.Parameter(
        TENSORS["backbone.weight"].t().contiguous().t(), requires_grad=True
    )
    assert store.put(TENSORS) == store.put(turned)
    assert len(list(store.root.iterdir())) == 1


def test_channels_last_weights_and_views_of_one_tensor_are_stored(store: WeightStore) -> None:
    kernel = torch.randn(2, 3, 4, 4, 4).to(memory_format=torch.channels_last_3d)
    both = torch.arange(4.0)
    read = store.get(store.put({"kernel": kernel, "low": both[:2], "high": both[1:]}))
    assert torch.equal(read["kernel"], kernel)
    assert read["high"].tolist() == [1.0, 2.0, 3.0]


def test_one_changed_bit_changes_the_digest(store: WeightStore) -> None:
    changed = {**TENSORS, "steps": torch.tensor(6)}
    assert store.put(TENSORS) != store.put(changed)


def test_an_altered_file_is_named_with_both_digests(store: WeightStore) -> None:
    digest = store.put(TENSORS)
    file = store.path(digest)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(DigestMismatch) as caught:
        store.get(digest)
    for named in (str(file), digest, hashlib.sha256(content).hexdigest()):
        assert named in caught.value.message


def test_putting_again_repairs_an_altered_file(store: WeightStore) -> None:
    digest = store.put(TENSORS)
    store.path(digest).write_bytes(b"damaged")
    assert store.put(TENSORS) == digest
    assert store.get(digest).keys() == TENSORS.keys()


def test_a_file_of_another_user_s_is_written_again_so_that_it_is_young(
    store: WeightStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:  # as the system does for a file that is not one's own
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    file = store.path(store.put(TENSORS))
    os.utime(file, (0, 0))
    monkeypatch.setattr(os, "utime", refuse)
    store.put(TENSORS)
    assert file.stat().st_mtime > 0


def test_weights_that_are_not_there_are_named(store: WeightStore) -> None:
    with pytest.raises(MissingFile, match="f00"):
        store.get("f00")


def test_a_store_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(NotWritable, match="weights"):
        WeightStore(tmp_path / "weights").put(TENSORS)
