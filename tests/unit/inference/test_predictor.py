from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from u2net_platform.data.borders import POINTS, Border
from u2net_platform.data.places import Place
from u2net_platform.domains.spec import DomainSpec, Label, Statistics
from u2net_platform.errors import NonFiniteImage, TooLarge, WrongChannels
from u2net_platform.imaging.grid import Grid, canonical_grid, triple
from u2net_platform.imaging.volume import ImageVolume, canonical, turned_back
from u2net_platform.inference import predictor as module
from u2net_platform.inference.predictor import Predictor
from u2net_platform.memory import held_bytes
from u2net_platform.model.topology import Architecture


def canonical_shape(grid: Grid) -> np.ndarray:
    return np.array(canonical_grid(grid).shape_zyx)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_labels_lie_where_the_organ_is_in_an_oblique_flipped_anisotropic_input(
    bright_predictor, scan, organ
) -> None:
    found = bright_predictor.predict(scan)
    assert found.grid == scan.grid
    assert found.array.dtype == np.uint8
    assert dice(found.array, organ) > 0.9
    for moved in (np.roll(organ, 1, axis) for axis in range(3)):
        assert dice(found.array, organ) > dice(found.array, moved)


def test_a_wrong_number_of_channels_is_refused(bright_predictor, scan) -> None:
    with pytest.raises(WrongChannels):
        bright_predictor.predict(replace(scan, array=np.concatenate([scan.array, scan.array])))


def test_an_image_with_a_hole_of_nan_is_refused(bright_predictor, scan) -> None:
    scan.array[0, 3, 4, 5] = np.nan
    with pytest.raises(NonFiniteImage):
        bright_predictor.predict(scan)


def test_the_plugins_hooks_run_before_and_after_the_network(bright_predictor, scan) -> None:
    plugin = replace(
        bright_predictor.plugin,
        clean_image=lambda image, spacing: 1100 - image,
        postprocess=lambda labels, spacing: 1 - labels,
    )
    expected = bright_predictor.predict(replace(scan, array=1100 - scan.array)).array
    bright_predictor.plugin = plugin
    np.testing.assert_array_equal(bright_predictor.predict(scan).array, 1 - expected)


def test_prediction_leaves_the_modes_of_training_as_they_were(bright_predictor, scan) -> None:
    seen: list[bool] = []
    frozen, trained = nn.Identity().eval(), nn.Identity()
    network = bright_predictor.network.train()
    network.frozen, network.trained = frozen, trained
    network.register_forward_pre_hook(lambda module, _: seen.append(module.trained.training))
    classes = bright_predictor.predict_prepared(scan.array / 900)
    assert classes.shape == scan.array.shape[1:]
    assert not any(seen)
    assert (network.training, frozen.training, trained.training) == (True, False, True)


def test_within_less_memory_the_labels_are_the_same(bright_predictor, scan, monkeypatch) -> None:
    known = Statistics(mean=500.0, std=200.0, low=0.0, high=1000.0)
    bright_predictor.plan = bright_predictor.plan.model_copy(update={"statistics": (known,)})
    whole = bright_predictor.predict(scan)
    assert bright_predictor.prepare(scan)._whole is not None
    monkeypatch.setattr(Predictor, "_may_hold", lambda *_: False)
    assert bright_predictor.prepare(scan)._whole is None
    assert whole.array.any()
    np.testing.assert_array_equal(bright_predictor.predict(scan).array, whole.array)


def test_what_does_not_fit_is_refused_with_the_figure(bright_predictor, scan) -> None:
    bright_predictor.memory = held_bytes() // 2
    with pytest.raises(TooLarge, match=r"needs about \d+\.\d GiB .* and \d+\.\d GiB are allowed"):
        bright_predictor.predict(scan)
    bright_predictor.memory = held_bytes() + (8 << 30)
    bright_predictor.predict(scan)


def test_what_an_image_before_has_freed_is_room_for_the_next(bright_predictor, scan) -> None:
    bright_predictor.predict(scan)
    bright_predictor.memory = held_bytes() + (600 << 20)
    bright_predictor.require_fit(scan)
    for begin in (bright_predictor.require_fit, lambda _: bright_predictor.require_room(1, "b")):
        blocks = [np.ones(1 << 20) for _ in range(100)]  # 8 MiB each, which glibc keeps
        assert held_bytes() > bright_predictor.memory
        del blocks
        begin(scan)


def test_what_cleaning_takes_is_counted_before_it_begins(bright_predictor, scan) -> None:
    known = Statistics(mean=500.0, std=200.0, low=0.0, high=1000.0)
    plan = bright_predictor.plan.model_copy(update={"statistics": (known,)})
    grid = replace(scan.grid, shape_zyx=(800, 512, 512), spacing_zyx_mm=plan.spacing_zyx_mm)
    large = ImageVolume(np.broadcast_to(np.float32(0), (1, *grid.shape_zyx)), grid)
    bright_predictor.memory = held_bytes() + (1280 << 20)
    bright_predictor.plan = plan
    assert not bright_predictor._may_hold(large)
    border = Border(
        axis="y", classes=("organ", "organ"), weights=(0.0,) * 3 * POINTS, offset=0.5, error=0.1
    )
    for cleaned in ({"keep_largest": ("organ",)}, {"border": border}):
        bright_predictor.plan = plan.model_copy(update=cleaned)
        with pytest.raises(TooLarge):
            bright_predictor._may_hold(large)


@pytest.mark.parametrize(
    ("larger", "common", "windows"),
    [((1, 0, 2), False, 1), ((1, 0, -2), False, 1), ((1, 0, 64), False, 0), ((1, 0, 2), True, 4)],
)
def test_an_image_a_little_larger_than_the_patch_is_seen_whole(
    bright_predictor, monkeypatch, larger: tuple[int, int, int], common: bool, windows: int
) -> None:
    patch = bright_predictor.plan.patch_zyx
    if common:
        architecture = Architecture(name="paper", common_patch_zyx=patch)
        bright_predictor.network.architecture = architecture
    seen = []

    def probabilities(self: Predictor, patches: torch.Tensor) -> torch.Tensor:
        seen.extend(tuple(one.shape[1:]) for one in patches)
        return inner(self, patches)

    inner = Predictor._probabilities
    monkeypatch.setattr(Predictor, "_probabilities", probabilities)
    shape = np.add(patch, larger)
    image = np.random.default_rng(0).random((1, *shape), np.float32)
    assert bright_predictor.predict_prepared(image).shape == tuple(shape)
    (window,) = set(seen)
    if windows == 1:
        assert (np.array(window) >= shape).all()
        assert not (np.array(window) % np.prod(bright_predictor.plan.strides_zyx, axis=0)).any()
        assert len(seen) == 1
    else:
        assert window == patch
        assert len(seen) == windows or not windows


def least_bytes(predictor: Predictor, image: ImageVolume) -> int:
    grid = canonical_grid(image.grid)
    return predictor._least_bytes(grid, grid)


def test_what_classes_and_a_common_patch_take_is_counted(bright_predictor, scan) -> None:
    bright_predictor._may_hold(scan)
    before = least_bytes(bright_predictor, scan)
    network = bright_predictor.network
    voxels = 128**3
    network.architecture = Architecture(name="paper", common_patch_zyx=(128, 128, 128))
    assert least_bytes(bright_predictor, scan) - before > 800 * voxels
    spec = bright_predictor.plugin.spec
    labels = [Label(name=f"organ {k}", values=(k,)) for k in range(1, 101)]
    many = spec.model_copy(update={"labels": tuple(labels)})
    fewer = least_bytes(bright_predictor, scan)
    bright_predictor.plugin = replace(bright_predictor.plugin, spec=many)
    assert least_bytes(bright_predictor, scan) - fewer > 12 * 98 * voxels


def test_a_batch_is_small_on_a_cpu_and_the_same_whatever_memory_there_is(
    bright_predictor, scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    bright_predictor.network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    bright_predictor.plan = bright_predictor.plan.model_copy(
        update={"batch_size": 64, "patch_zyx": (16, 16, 16), "spacing_zyx_mm": (1.0, 1.0, 1.0)}
    )
    seen = []
    for memory, voxels in ((None, 1 << 18), (1, 1 << 18), (None, 3 * 16**3), (None, 1)):
        monkeypatch.setattr(module, "CPU_BATCH_VOXELS", voxels)
        bright_predictor.memory = memory and least_bytes(bright_predictor, scan) + (16 << 20)
        bright_predictor.predict(scan)
        seen.append(max(sizes))
        sizes.clear()
    assert seen[0] == seen[1] > 20
    assert seen[2:] == [3, 1]


def test_no_room_on_a_gpu_is_told_with_the_remedy(
    bright_predictor, scan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bright_predictor.network, "forward", full)
    with pytest.raises(TooLarge, match="no room for") as caught:
        bright_predictor.predict(scan)
    assert "--device cpu" in caught.value.hint


def test_layers_on_another_device_take_no_main_memory(bright_predictor, scan) -> None:
    here = bright_predictor._patch_bytes((64, 64, 64))
    bright_predictor.device = torch.device("cuda")
    assert here > 800 * 64**3 > 10 * bright_predictor._patch_bytes((64, 64, 64))


def test_the_part_in_its_place_is_kept_in_an_oblique_input(bright_predictor, oblique) -> None:
    """The larger of two boxes lies in the corner that is furthest from where one is expected."""
    image = np.full((1, *oblique.shape_zyx), 100, np.float32)
    extent = np.multiply(canonical_shape(oblique), canonical_grid(oblique).spacing_zyx_mm)
    expected = Place(centre_zyx=(0.25, 0.25, 0.25), spread_mm=12.0, extent_zyx_mm=triple(extent))
    known = Statistics(mean=500.0, std=200.0, low=0.0, high=1000.0)
    for share, half in ((0.25, 3), (0.75, 4)):
        middle = canonical_grid(oblique).point(triple(share * canonical_shape(oblique) - 0.5))
        z, y, x = np.rint(oblique.index(middle)).astype(int)
        image[0, z - half : z + half, y - half : y + half, x - half : x + half] = 900
    # Zeros around it, which are cropped away, so that no part of the sides changes.
    grid = replace(
        oblique, shape_zyx=(29, 35, 39), origin_lps_mm=triple(oblique.point((-4, 0, -3)))
    )
    scan = ImageVolume(np.pad(image, ((0, 0), (4, 5), (0, 5), (3, 0))), grid)
    plan = bright_predictor.plan
    for places, share in (({}, 0.75), ({"organ": expected}, 0.25)):
        bright_predictor.plan = plan.model_copy(
            update={"keep_largest": ("organ",), "statistics": (known,), "places": places}
        )
        found = bright_predictor.predict(scan).array
        centre = canonical_grid(oblique).index(grid.point(np.argwhere(found).mean(0)))
        assert centre == pytest.approx(share * canonical_shape(oblique) - 0.5, abs=1.5)


def test_a_border_is_one_slice_across_the_patients_axis_in_an_oblique_input(
    bright_predictor, oblique
) -> None:
    """The front half is bright, the rear half brighter, and the shape has the border further in
    front."""

    class Levels(nn.Module):
        def forward(self, x: torch.Tensor, *, domain: str) -> torch.Tensor:
            return torch.cat([1 - x, x - 1, 2 * x - 4], dim=1) * 20

    labels = [{"name": "front", "values": [1]}, {"name": "rear", "values": [2]}]
    spec = DomainSpec.parse(bright_predictor.plugin.spec.document() | {"labels": labels}, "")
    border = Border(
        axis="y", classes=("front", "rear"), weights=(0.0,) * 3 * POINTS, offset=0.2, error=1.0
    )
    known = Statistics(mean=500.0, std=200.0, low=0.0, high=1400.0)
    plan = bright_predictor.plan.model_copy(update={"border": border, "statistics": (known,)})
    plugin = replace(bright_predictor.plugin, spec=spec)
    image = np.full(canonical_shape(oblique), 100, np.float32)
    middle, depth = image.shape[1] // 2, image.shape[1] - 8
    image[4:-4, 4:-4, 4:-4] = 900
    image[4:-4, middle:-4, 4:-4] = 1300
    scan = ImageVolume(turned_back(image, oblique)[None], oblique)
    found = canonical(Predictor(Levels(), plugin, plan, torch.device("cpu")).predict(scan)).array
    fronts, rears = ((found == value).any((0, 2)).nonzero()[0] for value in (1, 2))
    assert fronts.max() + 1 == rears.min() == pytest.approx(4 + (0.5 + 0.2) / 2 * depth, abs=1)
    assert (fronts.min(), rears.max()) == pytest.approx((4, 3 + depth), abs=1)


def test_a_hook_sees_labels_turned_to_the_patients_axes(bright_predictor, scan) -> None:
    before = canonical(bright_predictor.predict(scan)).array

    def cut(labels: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
        assert spacing == canonical_grid(scan.grid).spacing_zyx_mm
        labels[:, :, labels.shape[2] // 2 :] = 0
        return labels

    bright_predictor.plugin = replace(bright_predictor.plugin, postprocess=cut)
    after = canonical(bright_predictor.predict(scan)).array
    half = before.shape[2] // 2
    assert before[:, :, half:].any()
    assert not after[:, :, half:].any()
    np.testing.assert_array_equal(after[:, :, :half], before[:, :, :half])


def test_mirror_images_are_seen_along_the_domains_axes(bright_predictor) -> None:
    seen: list[torch.Tensor] = []

    class Looks(nn.Module):
        def forward(self, x: torch.Tensor, *, domain: str) -> torch.Tensor:
            seen.append(x)
            ramp = torch.linspace(-3, 3, x.shape[-1]).expand_as(x)
            return torch.cat([ramp, torch.zeros_like(x)], dim=1)

    plan, plugin = bright_predictor.plan, bright_predictor.plugin
    predictor = Predictor(Looks(), plugin, plan, torch.device("cpu"), mirror=True)
    patches = torch.rand(2, 1, 4, 4, 6)
    found = predictor._probabilities(patches)
    assert plugin.spec.augmentation.mirror_axes == ("x",)
    assert len(seen) == 2
    assert torch.equal(seen[1], patches.flip(4))
    torch.testing.assert_close(found, found.flip(4))


def test_a_patch_that_is_the_same_everywhere_is_background_unseen(bright_predictor) -> None:
    sizes: list[int] = []
    bright_predictor.network.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    patches = torch.rand(3, 1, *bright_predictor.plan.patch_zyx)
    patches[1] = -1.5
    with torch.inference_mode():
        found = bright_predictor._probabilities(patches)
        assert bool((found[1, 0] == 1).all())
        assert bool((bright_predictor._probabilities(patches[1:2])[:, 0] == 1).all())
    assert sizes == [2]
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]))
