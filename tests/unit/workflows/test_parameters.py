"""Sizes of the networks beside those that the paper states or implies."""

from __future__ import annotations

import pytest

from u2net_platform.domains.discovery import find_plugin
from u2net_platform.workflows.parameters import network_sizes

BASE = ("heart", "liver", "hippocampus", "prostate", "pancreas")  # the paper's five


@pytest.fixture
def sizes(settings):
    found = network_sizes([find_plugin(name, settings).working.spec for name in BASE])
    return {one.name: one for one in found}


def test_the_papers_networks_have_the_sizes_that_follow_from_its_description(sizes) -> None:
    assert sizes["paper, shared"].as_the_paper_counts == 33_099_008
    assert sizes["paper, independent"].as_the_paper_counts == 5 * 33_099_008
    assert sizes["paper, universal"].as_the_paper_counts == 1_742_320
    assert sizes["paper, universal"].a_domains_convolutions == 121_392


def test_the_lean_network_is_smaller_with_nothing_left_out(sizes) -> None:
    assert sizes["lean, universal"].as_the_paper_counts == 1_488_320
    assert sizes["lean, universal"].everything < 1_742_320
