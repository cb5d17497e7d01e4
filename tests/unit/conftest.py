"""A made-up domain whose organ is whatever is bright, and a network that knows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from u2net_platform.domains.plugin import DomainPlugin

if TYPE_CHECKING:
    from torch import Tensor

    from u2net_platform.imaging.grid import Grid
    from u2net_platform.imaging.volume import ImageVolume
    from u2net_platform.inference.predictor import Predictor
    from u2net_platform.model.network import UniversalUNet


DOMAIN_TOML = """
name = "bright"
description = "whatever is bright"
modality = "MR"
channels = ["T1"]
labels = [{ name = "organ", values = [1] }]
data = { dataset = "made up", licence = "CC0" }
"""


@pytest.fixture
def bright_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bright"
    folder.mkdir()
    (folder / "domain.toml").write_text(DOMAIN_TOML)
    return folder


@pytest.fixture
def bright(bright_folder: Path) -> DomainPlugin:
    return DomainPlugin.load(bright_folder)


@pytest.fixture
def bright_predictor(bright: DomainPlugin) -> Predictor:
    import torch
    from torch import nn

    from u2net_platform.data.plan import Plan
    from u2net_platform.inference.predictor import Predictor

    class Threshold(nn.Module):
        """Class 1 where the normalised first channel lies above 1."""

        def forward(self, x: Tensor, domain: str) -> Tensor:
            assert domain == "bright"
            return torch.cat([1 - x[:, :1], x[:, :1] - 1], dim=1) * 20

    plan = Plan(
        spacing_zyx_mm=(2.0, 1.5, 1.5),
        shape_zyx=(24, 32, 32),
        patch_zyx=(16, 24, 24),
        strides_zyx=((2, 2, 2),) * 3 + ((1, 1, 1),) * 2,
        kernels_zyx=((3, 3, 3),) * 6,
        batch_size=2,
        statistics=None,
    )
    return Predictor(Threshold(), bright, plan, torch.device("cpu"))


@pytest.fixture
def oblique() -> Grid:
    """Anisotropic, axes permuted and two of them flipped, turned by 20 degrees about two axes."""
    from u2net_platform.imaging.grid import Grid

    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array(
        [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    )
    axes = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # columns: the image's x, y, z
    return Grid(
        (20, 30, 36), (3.0, 1.2, 1.6), (40.0, -25.0, 110.0), tuple((turn @ axes).ravel().tolist())
    )


@pytest.fixture
def organ(oblique: Grid) -> np.ndarray:
    """A box that is long, broad and flat along patient x, y, z and lies off the centre; z y x."""
    direction = np.reshape(oblique.direction_lps, (3, 3))
    index = np.indices(oblique.shape_zyx)[::-1].reshape(3, -1)  # x y z
    spacing_xyz = np.array(oblique.spacing_zyx_mm[::-1])[:, None]
    points = direction @ (index * spacing_xyz) + np.array(oblique.origin_lps_mm)[:, None]
    centre = points.mean(axis=1) + np.array([4.0, -5.0, 3.0])
    inside = np.abs(points - centre[:, None]) < np.array([[16.0], [10.0], [7.0]])
    return inside.all(axis=0).reshape(oblique.shape_zyx).astype(np.uint8)


@pytest.fixture
def scan(oblique: Grid, organ: np.ndarray) -> ImageVolume:
    """An image of the organ."""
    from u2net_platform.imaging.volume import ImageVolume

    noise = np.random.default_rng(0).normal(0, 5, organ.shape)
    return ImageVolume((100 + 900.0 * organ + noise)[None].astype(np.float32), oblique)


@pytest.fixture
def bright_network(bright_predictor: Predictor) -> UniversalUNet:
    from u2net_platform.model.network import build_network
    from u2net_platform.model.topology import Architecture, Topology

    plan = bright_predictor.plan
    topology = Topology(
        in_channels=1, classes=2, kernels_zyx=plan.kernels_zyx, strides_zyx=plan.strides_zyx
    )
    return build_network(Architecture(), {"bright": topology}, seed=3)


@pytest.fixture
def publish_bright(settings, bright_folder, bright_network, bright_predictor):
    """Publish the plugin as it lies on disk, with the network's weights, as the next version."""
    from u2net_platform.catalog.catalog import Catalog
    from u2net_platform.catalog.records import NewVersion, RunRecord, VersionRecord
    from u2net_platform.catalog.weights import WeightStore
    from u2net_platform.errors import Conflict

    def publish(data: Path | None = None, **changed: str) -> VersionRecord:
        plugin, catalog = DomainPlugin.load(bright_folder), Catalog.open(settings.database_url)
        spec = plugin.spec.document()
        catalog.domains.add(spec, "bright", plugin.digest, str(bright_folder), data and str(data))
        split = {
            "test": ["case_0", "case_1", "case_2"],
            "validation": ["case_3"],
            "training": [f"case_{k}" for k in range(4, 12)],
        }
        run = RunRecord(
            id=plugin.digest, kind="train", mode="joint", domains=("bright",), recipe={},
            seed=7, fold=1, device="cpu", directory="r", status="completed",
            fingerprints={"bright": {"split": split, "data_digest": "e" * 64}},
        )  # fmt: skip
        with suppress(Conflict):  # it has published before
            catalog.runs.create(run)
        store = WeightStore(settings.weights_dir)
        topology = bright_network.domains["bright"].topology.model_dump(mode="json")
        made = {
            "domain": "bright",
            "backbone_digest": store.put(bright_network.owner_state("backbone")),
            "backbone_architecture": bright_network.architecture.model_dump(mode="json"),
            "domain_digest": store.put(bright_network.owner_state("bright")),
            "spec": spec,
            "plugin_digest": plugin.digest,
            "plan": bright_predictor.plan.model_dump(mode="json"),
            "run_id": plugin.digest,
            "architecture": topology,
        }
        return catalog.versions.publish(NewVersion.model_validate(made | changed))

    return publish


@pytest.fixture
def bright_data(scan: ImageVolume, organ: np.ndarray, tmp_path: Path) -> Path:
    """An MSD folder of twelve cases with the same image."""
    import json

    import SimpleITK

    from u2net_platform.imaging.volume import to_sitk

    folder = tmp_path / "data"
    pairs = [
        {"image": f"imagesTr/case_{k}.nii.gz", "label": f"labelsTr/case_{k}.nii.gz"}
        for k in range(12)
    ]
    for kind, array in (("image", scan.array[0]), ("label", organ)):
        first = folder / pairs[0][kind]
        first.parent.mkdir(parents=True)
        SimpleITK.WriteImage(to_sitk(array, scan.grid), str(first))
        for pair in pairs[1:]:
            (folder / pair[kind]).write_bytes(first.read_bytes())
    description = {"modality": {"0": "MR"}, "labels": {"0": "no", "1": "organ"}, "training": pairs}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def write_series() -> Callable[..., Path]:
    """Write a volume (z y x, whole numbers) as a DICOM series, files out of order.

    Rescale slope and intercept are those of the arguments; `change(k, header)` may alter slice k.
    """
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

    def write(
        folder: Path,
        array: np.ndarray,
        grid: Grid,
        modality: str = "MR",
        slope: float = 1,
        intercept: float = 0,
        change: Callable[[int, Any], None] = lambda k, header: None,
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        study, series, frame = (generate_uid() for _ in range(3))
        row, column = np.reshape(grid.direction_lps, (3, 3)).T[:2]
        for k, plane in enumerate(array):
            one = pydicom.Dataset()
            one.file_meta = pydicom.dataset.FileMetaDataset()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            one.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
            one.SOPInstanceUID = generate_uid()
            one.StudyInstanceUID, one.SeriesInstanceUID = study, series
            one.FrameOfReferenceUID = frame
            one.PatientName, one.PatientID, one.PatientBirthDate = "Doe^Jane", "4711", "19610823"
            one.Modality, one.SeriesDescription, one.Manufacturer = modality, "made", ""
            one.SeriesNumber, one.InstanceNumber = 3, k + 1
            one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
            one.ImagePositionPatient = [f"{value:.10g}" for value in grid.point([k, 0, 0])]
            one.ImageOrientationPatient = [f"{value:.10g}" for value in (*row, *column)]
            one.PixelSpacing = [f"{value:.10g}" for value in grid.spacing_zyx_mm[1:]]
            one.SliceThickness = f"{grid.spacing_zyx_mm[0]:.10g}"
            one.Rows, one.Columns = plane.shape
            one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
            one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
            one.RescaleSlope, one.RescaleIntercept = slope, intercept
            one.PixelData = plane.astype("<i2").tobytes()
            change(k, one)
            one.save_as(folder / f"IM{k * 7919 % 10007:05d}", enforce_file_format=True)
        return folder

    return write
