import pytest
import torch

from u2net_platform.errors import DeviceUnavailable
from u2net_platform.inference.device import choose_device


@pytest.mark.parametrize("name", ["graphics", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(DeviceUnavailable, match=name):
        choose_device(name)


def test_the_gpu_is_taken_where_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected
