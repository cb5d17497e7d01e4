"""Small made-up domains, written as ordinary MSD task folders: for tests and demonstrations.

They differ in what real domains differ in: modality, channels, spacing, orientation, classes. No
threshold finds their organs, since other shapes are as bright; size, form and place tell them.

- `ball`: MR, one channel, 1 mm isotropic, one class among rods and beads of its own brightness.
- `twin`: MR, two channels, 3 x 0.8 x 0.8 mm, axes flipped and tilted; two classes, each of which
  one channel alone does not tell from its surroundings.
- `ct_organ`: CT in Hounsfield units, 2 mm slices, axes permuted; an organ with a tumour in it, two
  values of the source labels that the plugin merges into one class.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from u2net_platform.domains.plugin import CARD_FILE, SPEC_FILE
from u2net_platform.domains.spec import Augmentation, DataCard, DomainSpec, Intensity, Label
from u2net_platform.domains.toml import to_toml
from u2net_platform.errors import NotWritable
from u2net_platform.files import atomic_directory, write_text
from u2net_platform.imaging.grid import Grid, Shape, Spacing
from u2net_platform.imaging.volume import write_array

TEST_CASES = 2  # without labels, in imagesTs
LICENCE = "CC0-1.0"

Mask = NDArray[np.bool_]
Image = NDArray[np.float64]
Volume = NDArray[Any]
Labels = NDArray[np.uint8]


class _Scene:
    """An empty volume, patient axes z y x, with its own source of chance."""

    def __init__(
        self, random: np.random.Generator, shape_zyx: Shape, spacing_zyx_mm: Spacing
    ) -> None:
        self.random = random
        self.spacing_zyx_mm = spacing_zyx_mm
        index = np.indices(shape_zyx, dtype=float)
        centre = (np.array(shape_zyx) - 1) / 2
        self.mm = (index.T - centre).T * np.reshape(spacing_zyx_mm, (3, 1, 1, 1))

    def texture(self, scale_mm: float) -> Image:
        """Smooth noise of unit deviation."""
        noise = self.random.normal(size=self.mm.shape[1:])
        smooth: Image = gaussian_filter(noise, np.divide(scale_mm, self.spacing_zyx_mm))
        smooth /= smooth.std()
        return smooth

    def noise(self, deviation: float) -> Image:
        return np.asarray(self.random.normal(0, deviation, self.mm.shape[1:]))

    def point(self, reach_mm: float) -> Image:
        return np.asarray(self.random.uniform(-reach_mm, reach_mm, 3))

    def ellipsoid(self, centre_mm: Image, radii_mm: Image, dents: float = 0.0) -> Mask:
        """The inside of an ellipsoid; `dents` is how far its surface strays, as part of a radius"""
        offset = (self.mm.T - centre_mm) / radii_mm
        distance: Image = np.linalg.norm(offset, axis=-1).T
        return distance < 1 + (dents * self.texture(4) if dents else 0.0)

    def rod(self, radius_mm: float) -> Mask:
        """An endless rod through some point near the centre."""
        direction = self.random.normal(size=3)
        offset = self.mm.T - self.point(14)
        along = offset @ (direction / np.linalg.norm(direction))
        away: Mask = (offset**2).sum(axis=-1) - along**2 < radius_mm**2
        return away.T


def _ball(scene: _Scene) -> tuple[Image, Labels]:
    radii = scene.random.uniform(7, 10.5, 3)
    organ = scene.ellipsoid(scene.point(5), radii, dents=0.08)
    image = 300 + 40 * scene.texture(2)
    for _ in range(4):
        image[scene.rod(2.2)] = 520
    for _ in range(6):
        image[scene.ellipsoid(scene.point(16), scene.random.uniform(2, 4, 3))] = 520
    image[organ] = 520 + 40 * scene.texture(2)[organ]
    bias = np.exp(0.15 * scene.texture(15))
    return (image * bias + scene.noise(30))[None], organ.astype(np.uint8)


def _twin(scene: _Scene) -> tuple[Image, Labels]:
    centre = scene.point(3)
    outer = scene.ellipsoid(centre, scene.random.uniform(10, 13, 3) * (1.2, 1, 1), dents=0.06)
    inner = outer & scene.ellipsoid(centre - (0, 3, 0), np.array([9.0, 5.5, 6.5]), dents=0.06)
    first, second = 400 + 40 * scene.texture(2), 800 + 60 * scene.texture(2)
    for _ in range(3):
        first[scene.ellipsoid(scene.point(16), scene.random.uniform(3, 6, 3))] = 700
        second[scene.ellipsoid(scene.point(16), scene.random.uniform(3, 6, 3))] = 450
    # The whole is dark in the second channel, its inner part bright in the first.
    second[outer] = 450 + 40 * scene.texture(2)[outer]
    first[inner] = 700 + 40 * scene.texture(2)[inner]
    bias = np.exp(0.15 * scene.texture(15))
    image = np.stack([first * bias + scene.noise(40), second * bias + scene.noise(60)])
    return image, outer.astype(np.uint8) + inner


def _ct_organ(scene: _Scene) -> tuple[Image, Labels]:
    body = scene.ellipsoid(np.zeros(3), np.array([1e6, 24, 30]))
    # The organ lies on the patient's right, which is the low end of x.
    centre = np.array([0, -3, -9]) + scene.point(3)
    organ = body & scene.ellipsoid(centre, scene.random.uniform(9, 13, 3), dents=0.08)
    spot = centre + scene.point(4)
    tumour = organ & scene.ellipsoid(spot, scene.random.uniform(2.5, 4.5, 3))
    image = np.where(body, -60 + 15 * scene.texture(3), -1000.0)
    for side in (-1, 1):  # muscle and kidneys are as dense as the organ, bone is denser
        kidney = np.array([scene.random.uniform(-6, 6), 10, 14 * side])
        image[body & scene.ellipsoid(kidney, np.array([9.0, 5, 5]))] = 95
    image[body & scene.ellipsoid(np.array([0, -2, 14]), np.array([6.0, 7, 7]))] = 95
    image[scene.ellipsoid(np.array([0, 16, 0]), np.array([1e6, 5, 5]))] = 350
    image[organ] = 95 + 10 * scene.texture(3)[organ]
    image[tumour] = 30
    return (image + scene.noise(20))[None], organ.astype(np.uint8) + tumour


@dataclass(frozen=True)
class _Phantom:
    """`axes`: the patient axis (0 x, 1 y, 2 z) of each image axis x, y, z; `signs`: its sense."""

    draw: Callable[[_Scene], tuple[Image, Labels]]
    folder: str
    spec: DomainSpec
    source_labels: tuple[str, ...]
    spacing_zyx_mm: Spacing
    shape_zyx: Shape
    axes: Shape
    signs: Shape
    tilt_degrees: float


def _spec(name: str, description: str, channels: tuple[str, ...], *labels: Label) -> DomainSpec:
    is_ct = channels == ("CT",)
    return DomainSpec(
        name=name,
        description=description,
        modality="CT" if is_ct else "MR",
        channels=channels,
        labels=labels,
        # A mirrored CT phantom would have its organ on the wrong side.
        augmentation=Augmentation(mirror_axes=() if is_ct else ("x",)),
        intensity=Intensity(statistics="dataset" if is_ct else "image"),
        data=DataCard(dataset="made by u2net_platform.testing.phantoms", licence=LICENCE),
    )


_KINDS = {
    "ball": _Phantom(
        _ball,
        "Task91_Ball",
        _spec("ball", "Phantom: a dented ball in MR", ("MRI",), Label(name="ball", values=(1,))),
        source_labels=("ball",),
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        shape_zyx=(38, 40, 40),
        axes=(0, 1, 2),
        signs=(1, 1, 1),
        tilt_degrees=0,
    ),
    "twin": _Phantom(
        _twin,
        "Task92_Twin",
        _spec(
            "twin",
            "Phantom: two zones in two channels of MR",
            ("T2", "ADC"),
            Label(name="outer zone", values=(1,)),
            Label(name="inner zone", values=(2,)),
        ),
        source_labels=("outer zone", "inner zone"),
        spacing_zyx_mm=(3.0, 0.8, 0.8),
        shape_zyx=(14, 48, 44),
        axes=(0, 1, 2),
        signs=(-1, -1, 1),
        tilt_degrees=12,
    ),
    "ct_organ": _Phantom(
        _ct_organ,
        "Task93_CTOrgan",
        _spec(
            "ct_organ",
            "Phantom: an organ in CT, with its tumour",
            ("CT",),
            Label(name="organ", values=(1, 2)),
        ),
        source_labels=("organ", "tumour"),
        spacing_zyx_mm=(2.0, 1.5, 1.5),
        shape_zyx=(24, 36, 44),
        axes=(1, 2, 0),
        signs=(1, -1, 1),
        tilt_degrees=0,
    ),
}
PHANTOMS: tuple[str, ...] = tuple(_KINDS)


def write_phantom(kind: str, directory: Path, cases: int, seed: int) -> Path:
    """Write labelled cases, and two more without labels; return the task folder in `directory`.

    A case depends on kind, seed and its number alone.

    Args:
        kind: One of `PHANTOMS`.

    Raises:
        NotWritable: the task folder is there already, or cannot be made.
        DiskFull: nothing half-written stays.
    """
    phantom = _KINDS[kind]
    target = directory / phantom.folder
    if target.exists():
        raise NotWritable(f"{target} exists already", "Remove it, or choose another place.")
    names = [f"{kind}_{number:03d}.nii.gz" for number in range(cases + TEST_CASES)]
    with atomic_directory(target) as folder:
        for number, name in enumerate(names):
            image, labels, grid = _case(phantom, seed, number)
            labelled = number < cases
            write_array(folder / ("imagesTr" if labelled else "imagesTs") / name, image, grid)
            if labelled:
                write_array(folder / "labelsTr" / name, labels[None], grid)
        description = _description(phantom, names[:cases], names[cases:])
        write_text(folder / "dataset.json", json.dumps(description, indent=2) + "\n")
    return target


def write_phantom_plugin(kind: str, directory: Path) -> Path:
    """Write the plugin that goes with a phantom; return its folder in `directory`.

    Raises:
        NotWritable, DiskFull: it cannot be written.
    """
    spec = _KINDS[kind].spec
    target = directory / spec.name
    card = f"# {spec.name}\n\n{spec.description}. Made, not measured. Licence: {LICENCE}.\n"
    write_text(target / SPEC_FILE, to_toml(spec))
    write_text(target / CARD_FILE, card)
    return target


def _case(phantom: _Phantom, seed: int, number: int) -> tuple[Volume, Volume, Grid]:
    """Image (c z y x, int16) and labels (z y x, uint8) in the phantom's own orientation."""
    random = np.random.default_rng([seed, PHANTOMS.index(phantom.spec.name), number])
    z, y, x = (side + int(random.integers(-2, 3)) for side in phantom.shape_zyx)
    image, labels = phantom.draw(_Scene(random, (z, y, x), phantom.spacing_zyx_mm))
    first, second, third = _order(phantom)
    tilt = Rotation.from_euler("xyz", random.uniform(-1, 1, 3) * phantom.tilt_degrees, degrees=True)
    steps = tilt.as_matrix()[:, phantom.axes] * phantom.signs
    spacing = phantom.spacing_zyx_mm
    x_mm, y_mm, z_mm = random.uniform(-100, 100, 3).round(2).tolist()
    grid = Grid(
        shape_zyx=(labels.shape[first], labels.shape[second], labels.shape[third]),
        spacing_zyx_mm=(spacing[first], spacing[second], spacing[third]),
        origin_lps_mm=(x_mm, y_mm, z_mm),
        direction_lps=tuple(steps.ravel().tolist()),
    )
    channels = np.stack([_turned(channel, phantom) for channel in image.round()])
    return channels.astype(np.int16), _turned(labels, phantom), grid


def _order(phantom: _Phantom) -> Shape:
    """The patient's z, y, x axis (0, 1, 2) that each of the array's axes runs along."""
    x, y, z = phantom.axes
    return 2 - z, 2 - y, 2 - x


def _turned(volume: Volume, phantom: _Phantom) -> Volume:
    """From the patient's z y x to the order and sense of the image's axes."""
    senses = tuple(slice(None, None, sign) for sign in reversed(phantom.signs))
    return volume.transpose(_order(phantom))[senses]


def _description(phantom: _Phantom, training: list[str], test: list[str]) -> dict[str, object]:
    """The dataset.json, with the keys that the Decathlon's have."""
    spec = phantom.spec
    return {
        "name": spec.name,
        "description": spec.description,
        "reference": spec.data.dataset,
        "licence": LICENCE,
        "release": "1.0",
        "tensorImageSize": "4D" if len(spec.channels) > 1 else "3D",
        "modality": {str(index): name for index, name in enumerate(spec.channels)},
        "labels": {
            str(value): name for value, name in enumerate(("background", *phantom.source_labels))
        },
        "numTraining": len(training),
        "numTest": len(test),
        "training": [
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in training
        ],
        "test": [f"./imagesTs/{name}" for name in test],
    }
