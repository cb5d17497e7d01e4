"""The slice between two classes: what is learned of it, and how it is drawn."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from u2net_platform.data.borders import LEAST_CASES, POINTS, Border, border_of
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.imaging.grid import Grid

AXIAL = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
SPACING = (2.0, 1.0, 1.0)


def _spec(axis: str = "y", **keys: object) -> DomainSpec:
    return DomainSpec.model_validate(
        {
            "name": "pair",
            "description": "an organ of two parts, and another",
            "modality": "MR",
            "channels": ["T1"],
            "labels": [
                {"name": n, "values": [k]} for k, n in enumerate(("tail", "else", "head"), 1)
            ],
            "postprocessing": {"border": {"between": ["tail", "head"], "axis": axis}},
            "data": {"dataset": "made up", "licence": "CC0"},
        }
        | keys
    )


def _organ(length: int, head: int, wide: int | None = None) -> np.ndarray:
    """Along y from slice 5 on: `head` slices of class 3, then class 1; `wide` slices are wider."""
    labels = np.zeros((8, 50, 12), np.uint8)
    labels[3:5, 5 : 5 + length, 4:8] = 1
    labels[3:5, 5 : 5 + head, 4:8] = 3
    if wide is not None:
        labels[2:6, 5 : 5 + wide, 3:9] = labels[3:4, 5 : 5 + wide, 4:5]
    labels[0, :, 0] = 2
    return labels


def _cases(*volumes: np.ndarray) -> list[SimpleNamespace]:
    return [
        SimpleNamespace(
            id=f"case_{index}",
            labels=labels,
            grid=Grid(labels.shape, SPACING, (0.0, 0.0, 0.0), AXIAL),
        )
        for index, labels in enumerate(volumes)
    ]


def _border(**changes: object) -> Border:
    sound = {
        "axis": "y", "classes": ("head", "tail"), "weights": (0.0,) * 3 * POINTS, "offset": 0.5,
        "error": 0.1,
    }  # fmt: skip
    return Border.model_validate(sound | changes)


NAMES = ("tail", "else", "head")


def test_the_border_is_learned_from_the_shape_of_both() -> None:
    """Readers part an organ where its wide part ends, a quarter to a half along, or a slice off."""
    sizes = [
        (length, wide, wide + slip)
        for length in (24, 30, 36)
        for wide in (9, 10, 11, 12)
        for slip in (-1, 0, 1)
    ]
    volumes = (_organ(length, head, wide) for length, wide, head in sizes)
    border = border_of(_spec(), _cases(*volumes))
    assert border is not None
    assert (border.axis, border.classes) == ("y", ("head", "tail"))
    assert 0.02 < border.error < 0.04  # of some 30 slices
    for length, wide, met in ((27, 10, 12), (33, 12, 10)):
        labels = _organ(length, met, wide)
        border.draw(labels, NAMES, SPACING)
        np.testing.assert_array_equal(labels, _organ(length, (met + wide) // 2, wide))


def test_the_order_of_the_classes_does_not_matter() -> None:
    cases = _cases(*(_organ(length, length // 3) for length in range(20, 40)))
    spec = _spec(postprocessing={"border": {"between": ["head", "tail"], "axis": "y"}})
    assert border_of(spec, cases) == border_of(_spec(), cases)


def test_along_another_axis_too() -> None:
    volumes = [_organ(length, length // 3) for length in range(20, 40)]
    turned = [np.ascontiguousarray(volume.transpose(1, 0, 2)) for volume in volumes]
    border = border_of(_spec("z"), _cases(*turned))
    assert border is not None
    assert (border.axis, border.classes) == ("z", ("head", "tail"))
    ragged = turned[10].copy()
    ragged[15, 3, 4:6] = 1  # a third of 30 slices from slice 5 on are the head
    ragged[14, 3, 4] = 1
    border.draw(ragged, NAMES, SPACING)
    np.testing.assert_array_equal(ragged, turned[10])


def test_it_lies_halfway_between_where_they_meet_and_where_the_shape_has_it() -> None:
    labels = _organ(30, 13)
    _border(offset=9 / 30).draw(labels, NAMES, SPACING)
    np.testing.assert_array_equal(labels, _organ(30, 11))


def test_a_shape_that_says_something_else_altogether_is_not_asked() -> None:
    labels = _organ(30, 13)
    labels[3, 20, 5] = 3
    _border(offset=28 / 30).draw(labels, NAMES, SPACING)
    np.testing.assert_array_equal(labels, _organ(30, 13))


def test_an_organ_that_the_volume_cuts_off_is_parted_where_its_classes_meet() -> None:
    labels = _organ(45, 13)  # to the last slice
    labels[3, 20, 5] = 3
    _border(offset=0.4).draw(labels, NAMES, SPACING)
    np.testing.assert_array_equal(labels, _organ(45, 13))
    assert border_of(_spec(), _cases(*[_organ(45, head) for head in range(10, 30)])) is None


def test_what_is_no_part_of_the_organ_stays_and_does_not_count() -> None:
    labels, expected = _organ(30, 13), _organ(30, 11)
    for one in (labels, expected):
        one[0, 48, 5] = one[7, 2, 9] = 3
    _border(offset=9 / 30).draw(labels, NAMES, SPACING)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("offset", [-0.3, 1.3])
def test_neither_class_vanishes(offset: float) -> None:
    labels = _organ(30, 1 if offset < 0 else 29)
    before = labels.copy()
    _border(offset=offset, error=1.0).draw(labels, NAMES, SPACING)
    np.testing.assert_array_equal(labels, before)


def test_which_class_lies_below_is_told_by_cases_that_have_both() -> None:
    """Where the head is unlabelled, the tail lies at the low end of a longer image."""
    both = [_organ(length, length // 3) for length in range(20, 32)]
    alone = [np.roll(np.where(_organ(12, 0) == 1, 1, 0).astype(np.uint8), -4, 1)] * 60
    spec = _spec(unlabelled=[{"labels": ["head"], "cases": [f"case_{k}" for k in range(12, 72)]}])
    border = border_of(spec, _cases(*both, *alone))
    assert border is not None
    assert border.classes == ("head", "tail")


@pytest.mark.parametrize("value", [1, 3])
def test_where_a_class_is_absent_nothing_is_changed(value: int) -> None:
    labels = _organ(30, 10)
    labels[labels == value] = 0
    before = labels.copy()
    _border().draw(labels, NAMES, SPACING)
    np.testing.assert_array_equal(labels, before)


def test_cases_in_which_a_class_is_unlabelled_or_absent_do_not_count() -> None:
    volumes = [_organ(length, length // 3) for length in range(20, 20 + LEAST_CASES)]
    assert border_of(_spec(), _cases(*volumes)) is not None
    hidden = _spec(unlabelled=[{"labels": ["head"], "cases": ["case_0"]}])
    assert border_of(hidden, _cases(*volumes)) is None
    assert border_of(_spec(), _cases(*volumes[1:], volumes[0] // 2)) is None


def test_what_declares_no_border_has_none() -> None:
    cases = _cases(*(_organ(length, length // 3) for length in range(20, 40)))
    assert border_of(_spec(postprocessing={}), cases) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"axis": "w"},
        {"weights": (0.0,)},
        {"offset": math.nan},
        {"offset": 1e4},
        {"error": -1.0},
        {"error": 2.0},
    ],
)
def test_a_border_that_cannot_be_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(changed))):
        _border(**changed)
