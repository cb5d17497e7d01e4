from dataclasses import replace

import numpy as np
import pytest
from torch import nn

from u2net_platform.errors import NonFiniteImage, WrongChannels


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
