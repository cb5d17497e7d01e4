"""Each wrong input has its own error, which names the file."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from u2net_platform.data.dataset import Case
from u2net_platform.data.integrity import check_image, digest_of_case, load_case
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.errors import (
    BrokenPlugin,
    ContradictoryLabel,
    DataError,
    EmptyImage,
    EmptyLabel,
    GeometryMismatch,
    MissingFile,
    NonFiniteImage,
    UnexpectedLabel,
    UnreadableImage,
    WrongChannels,
)

SHAPE = (12, 20, 24)


def noise(channels: int = 2) -> np.ndarray:
    return np.random.default_rng(0).random((channels, *SHAPE))


def test_source_values_merge_into_the_classes_of_the_spec(plugin: DomainPlugin, write_case) -> None:
    _, labels = load_case(plugin, write_case())
    assert labels is not None and labels.array.dtype == np.uint8
    assert (labels.array[4:8, 12:16, 12:18] == 1).all()  # 4: gland
    assert (labels.array[4:8, 6:10, 6:10] == 2).all()  # 1 and 2: organ
    assert np.bincount(labels.array.ravel()).tolist()[1:] == [96, 64]


def test_a_case_without_label_has_none(plugin: DomainPlugin, write_case) -> None:
    assert load_case(plugin, replace(write_case(), label=None))[1] is None


def missing(write) -> Case:
    case = write()
    case.images[0].unlink()
    return case


def missing_label(write) -> Case:
    case = write()
    case.label.unlink()
    return case


def truncated(write) -> Case:
    case = write()
    os.truncate(case.images[0], case.images[0].stat().st_size // 2)
    return case


def with_nan(write) -> Case:
    image = noise()
    image[1, 3, 3, 3] = np.nan
    return write(image=image)


def constant_channel(write) -> Case:
    image = noise()
    image[1] = 7
    return write(image=image)


FAULTS = {
    missing: MissingFile,
    missing_label: MissingFile,
    truncated: UnreadableImage,
    with_nan: NonFiniteImage,
    constant_channel: EmptyImage,
    lambda write: write(label_origin=(0.5, 0, 0)): GeometryMismatch,
    lambda write: write(label=np.ones((12, 20, 23))): GeometryMismatch,
    lambda write: write(label=np.full(SHAPE, 3)): UnexpectedLabel,
    lambda write: write(label=np.zeros(SHAPE)): EmptyLabel,
    lambda write: write(image=noise(3)): WrongChannels,
    lambda write: write(image=noise(1)): WrongChannels,
}


@pytest.mark.parametrize(("make", "error"), FAULTS.items())
def test_each_fault_has_its_own_error_that_names_the_file(
    plugin: DomainPlugin, write_case, make, error: type[DataError]
) -> None:
    with pytest.raises(DataError, match=r"a\.nii\.gz") as caught:
        load_case(plugin, make(write_case))
    assert type(caught.value) is error


def test_the_value_outside_the_spec_is_told(plugin: DomainPlugin, write_case) -> None:
    label = np.zeros(SHAPE)
    label[5, 5, 5:9] = [1, 3, 9, 4]
    with pytest.raises(UnexpectedLabel, match="values 3, 9"):
        load_case(plugin, write_case(label=label))


def test_a_label_within_tolerance_takes_the_image_s_grid(plugin: DomainPlugin, write_case) -> None:
    image, labels = load_case(plugin, write_case(label_origin=(0.05, 0, 0)))
    assert labels is not None and labels.grid == image.grid


def test_the_plugin_cleans_images_before_they_are_checked(plugin: DomainPlugin, write_case) -> None:
    case = write_case()
    spacings = []

    def clean(image: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
        spacings.append(spacing)
        return image * 2

    cleaned, _ = load_case(replace(plugin, clean_image=clean), case)
    assert np.array_equal(cleaned.array, load_case(plugin, case)[0].array * 2)
    assert spacings == [(3.0, 1.0, 1.0)]


@pytest.mark.parametrize(
    "clean",
    [
        lambda image, _: image[:, 1:],
        lambda image, _: image / None,
        lambda image, _: image.fill(0),  # the next domain may be given the same image
    ],
)
def test_a_hook_that_fails_is_the_plugin_s_fault(plugin: DomainPlugin, write_case, clean) -> None:
    with pytest.raises(BrokenPlugin, match="clean_image of made-up"):
        load_case(replace(plugin, clean_image=clean), write_case())


def test_infinity_from_elsewhere_is_refused(plugin: DomainPlugin, write_case) -> None:
    image, _ = load_case(plugin, write_case())
    image.array[0, 0, 0, 0] = np.inf
    with pytest.raises(NonFiniteImage, match="The image"):
        check_image(plugin, image)


def test_a_case_s_digest_follows_its_files(write_case) -> None:
    first, same = digest_of_case(write_case("a")), digest_of_case(write_case("a"))
    assert first == same != digest_of_case(write_case("a", label=np.ones(SHAPE)))


def test_a_class_that_is_drawn_where_nobody_is_said_to_have_drawn_it_is_refused(
    plugin: DomainPlugin, write_case
) -> None:
    rule = {"labels": ["gland"], "cases": ["a"]}
    spec = plugin.spec.model_validate(plugin.spec.document() | {"unlabelled": [rule]})
    with pytest.raises(ContradictoryLabel, match="gland"):
        load_case(replace(plugin, spec=spec), write_case())
