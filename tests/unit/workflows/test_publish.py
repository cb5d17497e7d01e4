from types import SimpleNamespace

import numpy as np
import pytest
import torch

from u2net_platform.catalog.weights import WeightStore
from u2net_platform.data.borders import POINTS, Border
from u2net_platform.data.places import Place, places_of
from u2net_platform.imaging.grid import Grid
from u2net_platform.inference.postprocessing import keep_largest
from u2net_platform.inference.predictor import Predictor
from u2net_platform.workflows import publish
from u2net_platform.workflows.publish import new_version, scattered_classes

SHAPE = (16, 24, 24)
GRID = Grid(SHAPE, (2.0, 1.5, 1.5), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))


def _case(*bright: tuple[slice, ...], organ: tuple[tuple[slice, ...], ...]) -> SimpleNamespace:
    """A prepared case whose image is bright in some boxes, and whose organ lies in some."""
    image, labels = np.zeros((1, *SHAPE), np.float32), np.zeros(SHAPE, np.uint8)
    for box in bright:
        image[0][box] = 2
    for box in organ:
        labels[box] = 1
    return SimpleNamespace(id="case", image=image, labels=labels, grid=GRID)


LARGE = np.s_[2:12, 4:14, 4:14]
SMALL = np.s_[2:6, 18:22, 18:22]


def test_a_class_whose_larger_part_is_not_in_its_place_is_cleaned(bright_predictor) -> None:
    """Without the place the larger part would be kept, and nothing be chosen."""
    case = _case(LARGE, SMALL, organ=(SMALL,))
    assert scattered_classes(bright_predictor, [case]) == ()
    place = Place(centre_zyx=(0.25, 0.83, 0.83), spread_mm=3.0, extent_zyx_mm=(32.0, 36.0, 36.0))
    bright_predictor.plan = bright_predictor.plan.model_copy(update={"places": {"organ": place}})
    assert scattered_classes(bright_predictor, [case]) == ("organ",)


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


def test_a_version_carries_what_was_chosen_for_its_own_network(
    settings, bright, bright_network, bright_predictor, monkeypatch
) -> None:
    cpu, plan = torch.device("cpu"), bright_predictor.plan
    image = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    scattered = Predictor(bright_network, bright, plan, cpu).predict_prepared(image)
    case = SimpleNamespace(id="case", image=image, labels=scattered.copy(), grid=GRID)
    learned = SimpleNamespace(grid=GRID, foreground={1: np.argwhere(case.labels)})
    places = places_of(["organ"], [learned])
    keep_largest(case.labels, 1, places["organ"].on(GRID, GRID))
    assert (case.labels != scattered).any()
    seen: list[Predictor] = []
    monkeypatch.setattr(
        publish,
        "scattered_classes",
        lambda one, cases: seen.append(one) or scattered_classes(one, cases),
    )
    domain = SimpleNamespace(plugin=bright, plan=plan, training=[learned], validation=[case])
    store = WeightStore(settings.weights_dir)
    version = new_version(bright_network, domain, "run", store, cpu, {})
    assert version.plan["keep_largest"] == ["organ"]
    assert version.plan["places"] == {"organ": places["organ"].model_dump(mode="json")}
    assert seen[0].plan.places == places  # what is chosen is chosen with them
    assert plan.keep_largest == ()


def test_a_version_carries_the_border_that_its_spec_declares(
    settings, bright, bright_network, bright_predictor, monkeypatch
) -> None:
    border = Border(
        axis=1, classes=("organ", "organ"), weights=(0.0,) * 3 * POINTS, offset=0.5, error=0.1
    )
    learned: list[object] = []
    monkeypatch.setattr(publish, "border_of", lambda *found: learned.append(found) or border)
    training = [SimpleNamespace(grid=GRID, foreground={})]
    domain = SimpleNamespace(
        plugin=bright, plan=bright_predictor.plan, training=training, validation=[]
    )
    store = WeightStore(settings.weights_dir)
    version = new_version(bright_network, domain, "run", store, torch.device("cpu"), {})
    assert learned == [(bright.spec, training)]
    assert version.plan["border"] == border.model_dump(mode="json")
