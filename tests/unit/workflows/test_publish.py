from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from u2net_platform.catalog.weights import WeightStore
from u2net_platform.data.borders import POINTS, Border, border_of
from u2net_platform.data.places import Place, places_of
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.imaging.grid import Grid
from u2net_platform.inference.postprocessing import keep_largest
from u2net_platform.inference.predictor import Predictor
from u2net_platform.model.network import build_network
from u2net_platform.model.topology import Architecture, Topology
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
    settings, bright, bright_predictor
) -> None:
    plan = bright_predictor.plan
    declared = {
        "labels": [{"name": "front", "values": [1]}, {"name": "rear", "values": [2]}],
        "postprocessing": {"border": {"between": ["front", "rear"], "axis": "y"}},
    }
    spec = DomainSpec.parse(bright.spec.document() | declared, "")
    topology = Topology(
        in_channels=1, classes=3, kernels_zyx=plan.kernels_zyx, strides_zyx=plan.strides_zyx
    )
    network = build_network(Architecture(), {"bright": topology}, seed=3)
    training = [_parted(met) for met in (8, 9, 10) * 4]
    domain = SimpleNamespace(
        plugin=replace(bright, spec=spec), plan=plan, training=training, validation=[]
    )
    store = WeightStore(settings.weights_dir)
    version = new_version(network, domain, "run", store, torch.device("cpu"), {})
    border = border_of(spec, training)
    assert border is not None
    assert version.plan["border"] == border.model_dump(mode="json")


def _parted(met: int) -> SimpleNamespace:
    """A prepared case of an organ along y whose rear begins at a slice."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[4:8, 4:met, 8:12], labels[4:8, met:20, 8:12] = 1, 2
    foreground = {value: np.argwhere(labels == value) for value in (1, 2)}
    return SimpleNamespace(id="case", labels=labels, grid=GRID, foreground=foreground)


def test_what_scatters_is_judged_once_the_border_is_drawn(bright_predictor) -> None:
    """The rear class lies inside the front one too, which the border mends: nothing is cleaned."""

    class Levels(nn.Module):
        def forward(self, x: torch.Tensor, *, domain: str) -> torch.Tensor:
            return torch.cat([1 - x, x - 1, 2 * x - 4], dim=1) * 20

    labels = [{"name": "front", "values": [1]}, {"name": "rear", "values": [2]}]
    spec = DomainSpec.parse(bright_predictor.plugin.spec.document() | {"labels": labels}, "")
    case = _parted(10)
    case.image = 2.0 * case.labels[None].astype(np.float32)
    case.image[0, 5, 5, 9] = 4  # an island of the rear in the front
    border = Border(
        axis="y", classes=("front", "rear"), weights=(0.0,) * 3 * POINTS, offset=0.4, error=0.5
    )
    plugin = replace(bright_predictor.plugin, spec=spec)
    chosen = {}
    for learned in (None, border):
        plan = bright_predictor.plan.model_copy(update={"border": learned})
        predictor = Predictor(Levels(), plugin, plan, torch.device("cpu"))
        chosen[learned is not None] = scattered_classes(predictor, [case])
    assert chosen == {False: ("rear",), True: ()}
