from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from numpy.typing import NDArray
from scipy.ndimage import label

from u2net_platform.errors import NotWritable
from u2net_platform.evaluation.pictures import COLOURS, SheetRow, _colour, best_slice, write_sheet

CURVES = {"training loss/ball": [(0, 1.0), (5, 0.4)], "validation Dice/ball": [(5, 0.7)]}


@pytest.fixture
def row() -> SheetRow:
    reference = np.zeros((6, 20, 30), np.uint8)
    reference[2:5, 5:15, 8:20] = 1
    reference[2:5, 5:15, 23:28] = 2
    image = np.random.default_rng(0).normal(size=reference.shape)
    return SheetRow(
        "case 7 · Dice 0.91", ("left", "right"), image, reference, reference, (5.0, 1.0, 1.0)
    )


def pixels_of(path: Path, colour: str) -> int:
    picture: NDArray[np.float32] = matplotlib.image.imread(path)[..., :3]
    return int((np.abs(picture - to_rgb(colour)).max(axis=-1) < 0.15).sum())


def pieces_of(path: Path, colour: str) -> int:
    picture: NDArray[np.float32] = matplotlib.image.imread(path)[..., :3]
    near = np.abs(picture - to_rgb(colour)).max(axis=-1) < 0.4
    return int(label(near, np.ones((3, 3)))[1])


def test_the_slice_shown_is_the_one_with_most_of_the_reference(row: SheetRow) -> None:
    more = row.reference.copy()
    more[4, 5:18, 8:22] = 1
    assert best_slice(more, 0) == 4
    assert best_slice(np.zeros_like(more), 1) == 10


def test_every_class_has_its_contour_in_its_own_colour(row: SheetRow, tmp_path: Path) -> None:
    unnamed = replace(row, classes=())
    nothing = replace(unnamed, reference=row.reference * 0, prediction=row.reference * 0)
    write_sheet(tmp_path / "with.png", [unnamed], {})
    write_sheet(tmp_path / "without.png", [nothing], {})
    for colour in COLOURS[:2]:
        assert pixels_of(tmp_path / "without.png", colour) == 0
        assert pixels_of(tmp_path / "with.png", colour) > 50


def test_a_key_says_which_colour_is_which_class(row: SheetRow, tmp_path: Path) -> None:
    one = replace(row, reference=None, prediction=(row.reference == 1).astype(np.uint8))
    write_sheet(tmp_path / "named.png", [one], {})
    write_sheet(tmp_path / "unnamed.png", [replace(one, classes=())], {})
    named, unnamed = (tmp_path / f"{name}.png" for name in ("named", "unnamed"))
    assert imread(named).shape == imread(unnamed).shape
    corner = [(imread(path)[:30, -60:, :3].max(-1) < 0.5).sum() for path in (named, unnamed)]
    assert corner[0] > corner[1] == 0  # its letters
    assert pixels_of(named, COLOURS[1]) == 0  # of what is not there


def test_many_classes_have_a_colour_and_a_place_in_the_key_each(tmp_path: Path) -> None:
    labels = np.zeros((4, 60, 60), np.uint8)
    for k in range(24):
        y, x = 10 * (k // 6) + 3, 10 * (k % 6) + 1
        labels[1:3, y : y + 6, x : x + 7] = k + 1
    names = [f"organ {k}" for k in range(1, 25)]
    row = SheetRow("many", names, labels.astype(float), None, labels, (5.0, 1.0, 1.0))
    write_sheet(tmp_path / "many.png", [row], {})
    colours = {_colour(value) for value in range(1, 25)}
    assert len(colours) == 24
    assert all(pixels_of(tmp_path / "many.png", colour) > 5 for colour in colours)


def test_a_predicted_contour_is_one_line_and_the_true_one_dashes(
    row: SheetRow, tmp_path: Path
) -> None:
    elsewhere = np.where(row.reference == 1, 3, 0).astype(np.uint8)
    true = replace(row, reference=np.where(row.reference == 1, 1, 0).astype(np.uint8))
    write_sheet(tmp_path / "true.png", [replace(true, prediction=elsewhere * 0)], {})
    write_sheet(tmp_path / "both.png", [replace(true, prediction=elsewhere)], {})
    assert pieces_of(tmp_path / "true.png", COLOURS[0]) > 15
    assert pixels_of(tmp_path / "both.png", COLOURS[2]) > 50  # seen between the dashes


def test_a_row_a_case_and_a_panel_for_the_curves_make_the_height(
    row: SheetRow, tmp_path: Path
) -> None:
    write_sheet(tmp_path / "one.png", [row], CURVES)
    write_sheet(tmp_path / "three.png", [row] * 3, CURVES)
    one, three = (matplotlib.image.imread(tmp_path / f"{name}.png") for name in ("one", "three"))
    assert one.shape[1] == three.shape[1]
    assert three.shape[0] / one.shape[0] == pytest.approx(4.2 / 2.2, rel=0.01)


def test_curves_alone_make_a_sheet(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.png", [], CURVES)
    assert (tmp_path / "sheet.png").stat().st_size > 0


def test_a_curve_without_a_point_yet_is_no_fault(row: SheetRow, tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.png", [row], {"loss/ball": []})
    assert (tmp_path / "sheet.png").exists()


def test_a_sheet_that_cannot_be_written_leaves_nothing(row: SheetRow, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWritable):
        write_sheet(tmp_path / "file" / "sheet.png", [row], CURVES)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
