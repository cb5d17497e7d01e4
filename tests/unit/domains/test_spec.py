import re
import tomllib
from pathlib import Path

import pytest

from u2net_platform.domains.spec import DomainSpec
from u2net_platform.errors import BrokenPlugin, InvalidSpec, MissingFile

ARCHITECTURE = Path(__file__).parents[3] / "ARCHITECTURE.md"
SPEC = {
    "name": "kidney",
    "description": "Kidneys",
    "modality": "CT",
    "channels": ["CT"],
    "labels": [{"name": "kidney", "values": [1]}, {"name": "cyst", "values": [2, 3]}],
    "data": {"dataset": "none", "licence": "CC0-1.0"},
}


def fault_of(**changes: object) -> str:
    with pytest.raises(InvalidSpec) as caught:
        DomainSpec.parse(SPEC | changes, "domain.toml")
    return caught.value.message


def test_three_faults_are_reported_at_once() -> None:
    message = fault_of(name="Left Kidney", channels=[], intensity={"clip_percentiles": [98, 2]})
    assert "3 faults" in message
    for place in ("name:", "channels:", "intensity:"):
        assert place in message


@pytest.mark.parametrize("name", ["keys", "type", "training"])
def test_a_name_that_torch_keeps_for_itself_is_refused(name: str) -> None:
    assert "reserved" in fault_of(name=name)


def test_a_source_value_cannot_stand_for_two_labels() -> None:
    labels = [{"name": "kidney", "values": [1]}, {"name": "cyst", "values": [1]}]
    assert "belongs to two labels" in fault_of(labels=labels)


def test_only_declared_labels_can_be_postprocessed() -> None:
    assert "liver" in fault_of(postprocessing={"keep_largest": ["liver"]})
    assert "liver" in fault_of(postprocessing=border("kidney", "liver"))


def test_a_border_lies_between_two_labels() -> None:
    assert "not one" in fault_of(postprocessing=border("kidney", "kidney"))
    DomainSpec.parse(SPEC | {"postprocessing": border("kidney", "cyst")}, "")


def border(*between: str) -> dict[str, object]:
    return {"border": {"between": between, "axis": "z"}}


def test_a_subject_is_what_the_group_matches_from_the_start() -> None:
    spec = DomainSpec.parse(SPEC | {"subject": r"(P\d+)_"}, "")
    shown = [spec.subject_of(name) for name in ("P07_early", "P07_late", "P7_early", "xP07_a")]
    assert shown == ["P07", "P07", "P7", "xP07_a"]
    assert DomainSpec.parse(SPEC, "").subject_of("P07_early") == "P07_early"


def test_the_documents_show_a_subject_that_toml_reads(tmp_path: Path) -> None:
    row = re.search(r"^\| `subject` \|.*?as `(.*?)`", ARCHITECTURE.read_text("utf-8"), re.MULTILINE)
    assert row
    assert tomllib.loads(f"subject = {row[1]}") == {"subject": r"(P\d+)_"}


@pytest.mark.parametrize(
    "pattern", ["P", "(P", "(P)(7)", "", "(x{99999999999999999999})", "(" * 9999]
)
def test_a_subject_has_one_group(pattern: str) -> None:
    assert "one group" in fault_of(subject=pattern)


@pytest.mark.parametrize(
    "change",
    [
        {"description": "\x1b[2J"},
        {"channels": ["T1\x9b"]},
        {"labels": [{"name": "a\0", "values": [1]}]},
    ],
)
def test_what_would_move_a_terminal_s_cursor_is_refused(change: dict[str, object]) -> None:
    assert "control characters" in fault_of(**change)


def test_a_key_that_nobody_reads_is_refused() -> None:
    assert "spacing" in fault_of(geometry={"spacing": [1, 1, 1]})


def test_classes_count_the_background_and_merge_source_values() -> None:
    spec = DomainSpec.parse(SPEC, "domain.toml")
    assert (spec.classes, spec.class_names) == (3, ("kidney", "cyst"))


def test_the_digest_follows_content_and_not_its_order() -> None:
    spec = DomainSpec.parse(SPEC, "")
    assert DomainSpec.parse(dict(reversed(SPEC.items())), "").digest == spec.digest
    assert DomainSpec.parse(SPEC | {"modality": "MR"}, "").digest != spec.digest


def test_broken_toml_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "domain.toml"
    with pytest.raises(MissingFile, match=r"domain\.toml"):
        DomainSpec.load(path)
    for text in ("name = ", "name = " + "[" * 9999, "name = " + "1" * 9999):
        path.write_text(text)
        with pytest.raises(BrokenPlugin, match=r"domain\.toml"):
            DomainSpec.load(path)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"geometry": {"spacing_zyx_mm": [float("inf"), 1, 1]}}, "spacing_zyx_mm"),
        ({"plan": {"kernels_zyx": [[2, 3, 3]] * 6}}, "kernels_zyx"),
        ({"plan": {"strides_zyx": [[3, 1, 1]] * 5}}, "strides_zyx"),
        ({"plan": {"statistics": [{"mean": 0, "std": 0, "low": -1, "high": 1}]}}, "std"),
        ({"plan": {"statistics": [{"mean": 0, "std": 1, "low": 1, "high": 1}]}}, "below high"),
        ({"plan": {"statistics": [{"mean": float("nan"), "std": 1, "low": 0, "high": 1}]}}, "mean"),
        ({"augmentation": {"scaling": [1.2, 0.8]}}, "scaling must ascend"),
        ({"ignore": [256]}, "ignore"),
        ({"labels": [{"name": "kidney", "values": [300]}]}, "values"),
    ],
)
def test_figures_that_cannot_work_are_refused(change: dict[str, object], place: str) -> None:
    assert place in fault_of(**change)
