"""What a notebook needs: load a version of a domain, predict a volume.

    from u2net_platform import load

    heart = load("heart")
    labels = heart.predict("scan.nii.gz")

`labels.array` has the classes, z y x; entry k of `heart.classes` is the name of class k.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from u2net_platform.catalog.records import VersionRecord
from u2net_platform.imaging.volume import ImageVolume, LabelVolume
from u2net_platform.inference.device import choose_device
from u2net_platform.settings import Settings
from u2net_platform.workflows.labeller import Labeller, Scan
from u2net_platform.workflows.versions import LoadedVersion, load_predictor

Image = str | Path | Sequence[str | Path] | ImageVolume


@dataclass(frozen=True)
class Model:
    """A version that predicts. `record` says what it is made of."""

    _loaded: LoadedVersion

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.record.reference}>"

    @property
    def record(self) -> VersionRecord:
        return self._loaded.record

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, background first."""
        return ("background", *self._loaded.plugin.spec.class_names)

    def predict(
        self,
        image: Image,
        output: str | Path | None = None,
        series: Sequence[str] = (),
        overwrite: bool = False,
    ) -> LabelVolume:
        """Classes (z y x, uint8) on the image's own grid, whatever its spacing and orientation.

        What is odd about an image is told as a Python warning, and stands in the JSON file beside
        the output.

        image: a file or DICOM folder, one path a channel, or a volume (c z y x).
        output: where to write the labels as well, as .nii.gz, .nrrd, .mha, or of DICOM as .dcm.
        series: UIDs of the DICOM series to read, one a channel, where it is not clear which.
        overwrite: replace an output that is there.

        Raises:
            DataError: the image is none of this domain, too large, or cannot be read.
            NeedsDicom: a series, or a .dcm file, without DICOM.
            NotWritable, DiskFull, UnsupportedFormat: the labels cannot be written, are there
                already, or would replace the image.
        """
        labeller = Labeller.of(self._loaded)
        paths = () if isinstance(image, ImageVolume) else _paths(image)
        target = None if output is None else Path(output)
        if target is not None:
            labeller.require_target(target, paths, "replace" if overwrite else "refuse")
        scan = Scan(image) if isinstance(image, ImageVolume) else labeller.read(paths, series)
        return labeller.label(scan, target, partial(warnings.warn, stacklevel=3)).labels


def load(
    version: str,
    device: str = "auto",
    settings: Settings | None = None,
    memory: int | None = None,
    mirror: bool = False,
) -> Model:
    """A version by its reference: `heart` is the newest, `heart:3` the third, `heart@champion`
    what is in service under that alias.

    settings: where catalog and weights lie; of the environment (`U2NET_*`) if None.
    memory: bytes that this process may hold while it predicts; what is free if None.
    mirror: predict mirror images too and take the mean.

    Raises:
        UnknownDomain, UnknownRecord: the catalog has no such version.
        MissingFile, DigestMismatch: its weights are gone or altered.
        IncompatibleParts: its parts, or the plugin on disk, do not fit together.
        DeviceUnavailable: this machine has no such device.
    """
    where = settings or Settings()
    return Model(load_predictor(where, version, choose_device(device), memory, mirror))


def _paths(image: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(image, str | Path):
        return [Path(image)]
    return [Path(path) for path in image]
