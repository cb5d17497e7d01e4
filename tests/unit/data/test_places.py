import math
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from u2net_platform.data.places import Place, places_of
from u2net_platform.imaging.grid import Grid

AXIAL = (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)


def _case(shape: tuple[int, int, int], **voxels: list[tuple[int, int, int]]) -> SimpleNamespace:
    grid = Grid(shape, (2.0, 1.0, 1.0), (5.0, 6.0, 7.0), AXIAL)
    found = {int(name[1:]): np.array(where, np.int32) for name, where in voxels.items()}
    return SimpleNamespace(grid=grid, foreground=found)


def test_a_place_is_the_mean_of_centres_as_parts_of_the_sides() -> None:
    cases = [
        _case((10, 20, 20), c1=[(4, 9, 9), (4, 9, 10)], c3=[(0, 0, 0)]),
        _case((20, 40, 20), c1=[(9, 27, 9), (10, 27, 10)]),
    ]
    places = places_of(["organ", "absent", "speck"], cases)
    assert places.keys() == {"organ", "speck"}
    middle = [(4.5 / 10 + 10 / 20) / 2, (9.5 / 20 + 27.5 / 40) / 2, 0.5]
    assert places["organ"].centre_zyx == pytest.approx(middle)
    assert places["organ"].extent_zyx_mm == pytest.approx((30, 30, 20))


def test_the_spread_counts_the_organs_size_and_how_far_it_moves() -> None:
    still = [_case((10, 20, 20), c1=[(4, 9, 6), (4, 9, 12)])] * 2
    assert places_of(["organ"], still)["organ"].spread_mm == pytest.approx(3)
    moving = [_case((10, 20, 20), c1=[(z, 9, 6), (z, 9, 12)]) for z in (2, 6)]
    assert places_of(["organ"], moving)["organ"].spread_mm == pytest.approx(5)  # 3, and 2 x 2 mm


def test_a_single_voxel_has_a_spread_too() -> None:
    assert places_of(["speck"], [_case((10, 20, 20), c1=[(1, 2, 3)])])["speck"].spread_mm == 1


def test_a_place_lies_where_it_was_on_the_grid_that_it_was_taken_from_and_on_others() -> None:
    place = Place(centre_zyx=(0.25, 0.5, 0.75), spread_mm=6.0, extent_zyx_mm=(16.0, 10.0, 12.0))
    image = Grid((8, 10, 12), (2.0, 1.0, 1.0), (5.0, 6.0, 7.0), AXIAL)
    here = place.on(image, image)
    assert here.centre_zyx == pytest.approx([1.5, 4.5, 8.5])
    assert here.spread_zyx == pytest.approx([3, 6, 6])
    larger = Grid((20, 30, 30), (1.0, 1.0, 2.0), (-5.0, 2.0, 4.0), AXIAL)
    there = place.on(image, larger)
    assert larger.point(there.centre_zyx) == pytest.approx(image.point(here.centre_zyx))
    assert there.spread_zyx == pytest.approx([6, 6, 3])


def test_in_an_image_that_shows_more_the_place_is_less_certain() -> None:
    place = Place(centre_zyx=(0.5, 0.5, 0.5), spread_mm=6.0, extent_zyx_mm=(24.0, 10.0, 12.0))
    image = Grid((20, 10, 12), (2.0, 1.0, 1.0), (5.0, 6.0, 7.0), AXIAL)  # by 16 mm along z
    assert place.on(image, image).spread_zyx == pytest.approx([5, 10, 10])


@pytest.mark.parametrize(
    "changed",
    [
        {"centre_zyx": (0.5, 0.5, 1.5)},
        {"centre_zyx": (0.5, 0.5, math.nan)},
        {"spread_mm": 0.0},
        {"spread_mm": math.inf},
        {"extent_zyx_mm": (0.0, 1.0, 1.0)},
    ],
)
def test_a_place_that_cannot_be_is_refused(changed: dict[str, object]) -> None:
    sound = {"centre_zyx": (0.5, 0.5, 0.5), "spread_mm": 6.0, "extent_zyx_mm": (9.0, 9.0, 9.0)}
    Place.model_validate(sound)
    with pytest.raises(ValidationError, match=next(iter(changed))):
        Place.model_validate(sound | changed)
