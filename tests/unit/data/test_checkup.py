"""What is said of a data set as a whole; faults of cases are in `tests/corpus.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from u2net_platform.data.checkup import check_dataset
from u2net_platform.data.dataset import open_dataset
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.imaging.volume import read_labels, write_array
from u2net_platform.testing.phantoms import write_phantom, write_phantom_plugin


def test_a_subject_that_no_case_tells_is_told(tmp_path: Path) -> None:
    dataset = open_dataset(write_phantom("ball", tmp_path, cases=3, seed=0))
    names = ("P1_a", "P1_b", "P2_a")
    named = [replace(one, id=name) for one, name in zip(dataset.training, names, strict=False)]
    dataset = replace(dataset, training=tuple(named), test=())
    plugin = DomainPlugin.load(write_phantom_plugin("ball", tmp_path / "plugins"))

    def told(subject: str) -> list[str]:
        spec = plugin.spec.model_validate(plugin.spec.document() | {"subject": subject})
        found = check_dataset(replace(plugin, spec=spec), dataset, lambda _: None)
        return [one.fault.message for one in found if one.fault.error_code == "UnmatchedPattern"]

    assert told(r"(P\d)_") == []
    (none,), (one,) = told("(patient)_"), told("(P)")
    assert "in no case" in none and "one patient in all cases" in one


def test_sides_that_are_told_apart_and_mirrored_are_told(tmp_path: Path) -> None:
    dataset = open_dataset(write_phantom("ball", tmp_path, cases=2, seed=0))
    plugin = DomainPlugin.load(write_phantom_plugin("ball", tmp_path / "plugins"))
    labels = [{"name": "Lung_L", "values": [1]}, {"name": "Lung_R", "values": [2]}]

    def told(**changes: object) -> list[str]:
        spec = plugin.spec.model_validate(plugin.spec.document() | {"labels": labels} | changes)
        found = check_dataset(replace(plugin, spec=spec), dataset, lambda _: None)
        return [one.fault.message for one in found if one.fault.error_code == "MirroredSides"]

    (one,) = told()
    assert "lung_l from lung_r" in one
    assert told(augmentation={"mirror_axes": ["z"]}) == []


def test_cases_in_which_nothing_is_drawn_are_neither_alike_nor_faults_where_allowed(
    tmp_path: Path,
) -> None:
    folder = write_phantom("ball", tmp_path, cases=4, seed=0)
    dataset = open_dataset(folder)
    for case in dataset.training[:2]:
        labels = read_labels(case.label)
        write_array(case.label, np.zeros_like(labels.array)[None], labels.grid)
    plugin = DomainPlugin.load(write_phantom_plugin("ball", tmp_path / "plugins"))
    found = check_dataset(plugin, dataset, lambda _: None)
    assert [one.fault.error_code for one in found] == ["EmptyLabel"] * 2
    spec = plugin.spec.model_validate(plugin.spec.document() | {"empty_labels": True})
    assert check_dataset(replace(plugin, spec=spec), dataset, lambda _: None) == []


def test_patterns_of_no_case_and_those_that_spell_out_a_name_are_told(tmp_path: Path) -> None:
    dataset = open_dataset(write_phantom("ball", tmp_path, cases=1, seed=0))
    plugin = DomainPlugin.load(write_phantom_plugin("ball", tmp_path / "plugins"))
    named = dataset.test[0].id
    rule = {"labels": [plugin.spec.class_names[0]], "cases": [named, f"{named[:-1]}*", "nobody_*"]}
    # Without the training cases, whose labels hold the class.
    found = check_dataset(
        replace(
            plugin, spec=plugin.spec.model_validate(plugin.spec.document() | {"unlabelled": [rule]})
        ),
        replace(dataset, training=()),
        lambda _: None,
    )
    told = {one.fault.error_code: one for one in found}
    assert told["NamedCase"].severity == told["UnmatchedPattern"].severity == "warning"
    assert f"names the case {named}," in told["NamedCase"].fault.message
    assert "nobody_*" in told["UnmatchedPattern"].fault.message
    assert sum(one.fault.error_code in ("NamedCase", "UnmatchedPattern") for one in found) == 2
