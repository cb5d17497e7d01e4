from types import SimpleNamespace

import numpy as np
import pytest

from u2net_platform.workflows.publish import scattered_classes

SHAPE = (16, 24, 24)


def _case(*bright: tuple[slice, ...], organ: tuple[tuple[slice, ...], ...]) -> SimpleNamespace:
    """A prepared case whose image is bright in some boxes, and whose organ lies in some."""
    image, labels = np.zeros((1, *SHAPE), np.float32), np.zeros(SHAPE, np.uint8)
    for box in bright:
        image[0][box] = 2
    for box in organ:
        labels[box] = 1
    return SimpleNamespace(id="case", image=image, labels=labels)


LARGE = np.s_[2:12, 4:14, 4:14]
SMALL = np.s_[2:6, 18:22, 18:22]


def test_a_class_that_scatters_beyond_its_organ_is_cleaned(bright_predictor) -> None:
    cases = [_case(LARGE, SMALL, organ=(LARGE,)), _case(LARGE, organ=(LARGE,))]
    assert scattered_classes(bright_predictor, cases) == ("organ",)


@pytest.mark.parametrize(
    "case",
    [_case(LARGE, SMALL, organ=(LARGE, SMALL)), _case(LARGE, organ=(LARGE,)), _case(organ=())],
    ids=["two parts", "one part", "nothing"],
)
def test_a_class_that_gains_nothing_is_left_alone(bright_predictor, case) -> None:
    assert scattered_classes(bright_predictor, [case]) == ()


def test_the_mean_over_cases_decides(bright_predictor) -> None:
    two = _case(LARGE, SMALL, organ=(LARGE, SMALL))
    nearer = _case(LARGE, SMALL, organ=(LARGE,))
    assert scattered_classes(bright_predictor, [two, two, nearer]) == ()


def test_without_validation_cases_nothing_is_chosen(bright_predictor) -> None:
    assert scattered_classes(bright_predictor, []) == ()
