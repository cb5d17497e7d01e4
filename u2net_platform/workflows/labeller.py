"""What labels images: a predictor, and what its outputs say of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from u2net_platform.data.checkup import odd_intensities, odd_size
from u2net_platform.errors import DataError, NeedsDicom
from u2net_platform.imaging.dicom import Series, choose_series, read_series
from u2net_platform.imaging.volume import (
    ImageVolume,
    LabelVolume,
    canonical,
    joined,
    read_header,
    read_image,
    stem_of,
    volumes_ml,
    write_labels,
)
from u2net_platform.inference.predictor import Predictor
from u2net_platform.settings import PRODUCT

if TYPE_CHECKING:
    from u2net_platform.workflows.versions import LoadedVersion

FOLDER_ENDING = ".nii.gz"
SEG_ENDING = ".dcm"


@dataclass(frozen=True)
class Labeller:
    """What labels. Its outputs say `version`, as `heart:3`; label files the digests of its weights
    too.

    previews: whether each output is to have a picture beside it.
    """

    predictor: Predictor
    version: str = "unpublished"
    digests: Mapping[str, str] = field(default_factory=dict)
    previews: bool = False

    @classmethod
    def of(cls, loaded: LoadedVersion, previews: bool = False) -> Labeller:
        """A version of the catalog."""
        record = loaded.record
        digests = {"backbone": record.backbone_digest, "domain": record.domain_digest}
        return cls(loaded.predictor, record.reference, digests, previews)

    @property
    def domain(self) -> str:
        return self.predictor.plugin.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of class 1, 2, ..."""
        return self.predictor.plugin.spec.class_names

    def read(
        self, paths: Sequence[Path], uids: Sequence[str] = ()
    ) -> tuple[ImageVolume, list[Series]]:
        """The image of one file a channel or of a DICOM folder, and the series that it is from.

        Raises:
            DataError: it cannot be read, or takes more memory than is allowed.
            NeedsDicom: series of files that are no DICOM.
        """
        folder = paths[0]
        if not folder.is_dir():
            if uids:
                raise no_series(folder)
            headers = [header for path in paths if (header := read_header(path))]
            reading = sum(header.reading_bytes for header in headers)
            self.predictor.require_room(reading, str(folder))
            return read_image(paths), []
        modality = self.predictor.plugin.spec.modality
        series = [choose_series(folder, modality, uid) for uid in uids or (None,)]
        self.predictor.require_room(sum(one.reading_bytes for one in series), str(folder))
        return joined([read_series(one) for one in series], [one.uid for one in series]), series

    def require_target(self, target: Path, series: Sequence[Series]) -> None:
        """Refuse before the work what `write` cannot write.

        Raises:
            NeedsDicom, UnsupportedFormat
        """
        if target.suffix.lower() != SEG_ENDING:
            stem_of(target)
        elif not series:
            raise no_slices("The image", target)

    def write(
        self,
        target: Path,
        labels: LabelVolume,
        series: Sequence[Series] = (),
        warnings: Sequence[str] = (),
    ) -> dict[str, float]:
        """Write labels: a DICOM SEG of the first series where the file ends so, else as
        `write_labels`, with all that is known of them. Returns the volume of each class, ml.

        Raises:
            NeedsDicom, UnsupportedFormat, NotWritable, DiskFull: there is no file.
        """
        self.require_target(target, series)
        volumes = volumes_ml(labels, self.classes)
        if target.suffix.lower() == SEG_ENDING:
            from u2net_platform.imaging.dicom_seg import write_seg

            write_seg(target, labels, self.classes, series[0], self.version)
            return volumes
        about = {
            "volumes_ml": volumes,
            "warnings": [*warnings],
            "version": self.version,
            "program": f"{PRODUCT} {metadata.version(PRODUCT)}",
            "digests": {**self.digests},
        }
        write_labels(target, labels, self.classes, about)
        return volumes

    def draw(self, target: Path, image: ImageVolume, labels: LabelVolume) -> Path:
        """Draw labels on three slices of their image, into a PNG beside `target`; returns where.

        Raises:
            NotWritable, DiskFull: there is no picture.
        """
        from u2net_platform.evaluation.pictures import SheetRow, write_sheet  # by matplotlib

        path = preview_of(target)
        seen, found = canonical(image), canonical(labels)
        title = f"{path.stem}, labelled by {self.version}"
        spacing = seen.grid.spacing_zyx_mm
        row = SheetRow(title, self.classes, seen.array[0], None, found.array, spacing)
        write_sheet(path, [row], {})
        return path

    def oddities(self, image: ImageVolume, paths: Sequence[Path], labels: LabelVolume) -> list[str]:
        """How an image differs from what the domain is of, and whether nothing was found in it."""
        plugin, name = self.predictor.plugin, str(paths[0])
        found: list[DataError] = []
        if not plugin.clean_image:  # which may well turn it into what it should be
            found += odd_intensities(plugin.spec.modality, image.array, paths)
        plan = self.predictor.plan.spacing_zyx_mm
        if size := odd_size(canonical(image).grid, plan, name, f"{plugin.name}'s plan"):
            found.append(size)
        odd = [one.message for one in found]
        if not labels.array.any() and not plugin.spec.empty_labels:
            odd.append(f"{name} shows no {', '.join(self.classes)}")
        return odd


def preview_of(target: Path) -> Path:
    """The picture beside a label file."""
    stem = target.stem if target.suffix.lower() == SEG_ENDING else stem_of(target)
    return target.with_name(f"{stem}.png")


def no_slices(image: object, seg: Path) -> NeedsDicom:
    return NeedsDicom(
        f"{image} is no DICOM, and the SEG {seg} would have no slices to refer to",
        f"Give the DICOM folder, or name an output that ends with {FOLDER_ENDING}.",
    )


def no_series(image: Path) -> NeedsDicom:
    return NeedsDicom(f"{image} is no DICOM, and has no series", "Leave out the series.")
