import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from u2net_platform.inference import sliding_window as module
from u2net_platform.inference.sliding_window import gaussian_map


def sliding_window(image: Tensor, patch: tuple[int, int, int], scores, batch_size: int) -> Tensor:
    z, y, x = image.shape[1:]
    asked: list[int] = []

    def planes(start: int, stop: int) -> Tensor:
        asked.extend(range(start, stop))
        return image[:, start:stop]

    slabs = list(module.sliding_window(planes, (z, y, x), patch, scores, batch_size))
    assert asked == list(range(z))
    assert all(0 < slab.shape[1] <= patch[0] for slab in slabs)
    return torch.cat(slabs, dim=1)


def position(patches: Tensor) -> Tensor:
    """Scores that depend on where in its patch a voxel lies: every error of placement shows."""
    ramp = torch.arange(patches[0, 0].numel()).reshape(patches.shape[2:]) / 100
    return torch.cat([patches + ramp, patches * ramp], dim=1)


@pytest.mark.parametrize("shape", [(16, 24, 20), (8, 12, 10), (6, 12, 15)])
def test_the_result_is_monais_where_the_positions_coincide(shape: tuple[int, int, int]) -> None:
    image = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
    patch = (8, 12, 10)
    expected = sliding_window_inference(
        image[None], patch, 2, position, overlap=0.5, mode="gaussian"
    )
    found = sliding_window(image, patch, position, batch_size=3)
    torch.testing.assert_close(found, expected[0], atol=1e-4, rtol=1e-4)


def test_a_network_that_returns_its_input_gives_the_image_back_whatever_its_size() -> None:
    for shape in [(5, 9, 31), (8, 8, 8), (3, 3, 3), (1, 17, 8)]:
        image = torch.rand(1, *shape)
        found = sliding_window(image, (8, 8, 8), nn.Identity(), batch_size=2)
        torch.testing.assert_close(found, image)


def test_steps_are_at_most_half_a_patch_and_the_batch_no_larger_than_asked() -> None:
    sizes: list[int] = []

    def centres(patches: Tensor) -> Tensor:
        sizes.append(len(patches))
        assert patches.is_contiguous(memory_format=torch.channels_last_3d)
        return patches

    sliding_window(torch.rand(2, 8, 8, 21), (8, 8, 8), centres, batch_size=3)
    assert sizes == [3, 2]  # room of 13 in steps of at most 4: five positions


def test_the_gaussian_is_nowhere_so_small_that_a_corner_would_be_divided_by_nothing() -> None:
    weight = gaussian_map((32, 32, 32))
    assert float(weight.min()) == pytest.approx(1e-3)
    assert float(weight.max()) == pytest.approx(1, abs=0.1)
