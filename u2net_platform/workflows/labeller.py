"""What labels images: a predictor, and what its outputs say of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from u2net_platform.data.checkup import odd_headers, odd_intensities, odd_size
from u2net_platform.data.preprocessing import Prepared
from u2net_platform.errors import AmbiguousSeries, NeedsDicom, NotWritable, UnsupportedFormat
from u2net_platform.files import storage_errors
from u2net_platform.imaging.dicom import Series, choose_series, read_series
from u2net_platform.imaging.grid import Shape
from u2net_platform.imaging.volume import (
    FILE_ENDINGS,
    ImageVolume,
    LabelVolume,
    canonical,
    joined,
    legend_of,
    read_header,
    read_image,
    require_utf8,
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
LARGER = 3  # than the images of training, along an axis: another part of the body, and much work


Existing = Literal["refuse", "replace", "skip"]


@dataclass(frozen=True)
class Scan:
    """An image, the files or DICOM folders that it was read from, and the series of the latter."""

    image: ImageVolume
    paths: tuple[Path, ...] = ()
    series: tuple[Series, ...] = ()

    @property
    def name(self) -> str:
        """As messages have it."""
        return str(self.paths[0]) if self.paths else "The image"


@dataclass(frozen=True)
class Labelled:
    """What became of an image. warnings: what somebody should look at. volumes_ml: by class."""

    labels: LabelVolume
    warnings: tuple[str, ...]
    volumes_ml: Mapping[str, float]


@dataclass(frozen=True)
class Labeller:
    """What labels. Its outputs say `version`, as `heart:3`; label files the digests of its weights
    too.

    previews: whether each output is to have a picture beside it.
    ending: of the outputs in a folder; .dcm makes a SEG of each.
    """

    predictor: Predictor
    version: str = "unpublished"
    digests: Mapping[str, str] = field(default_factory=dict)
    previews: bool = False
    ending: str = FOLDER_ENDING

    @classmethod
    def of(
        cls, loaded: LoadedVersion, previews: bool = False, ending: str = FOLDER_ENDING
    ) -> Labeller:
        """A version of the catalog."""
        record = loaded.record
        digests = {"backbone": record.backbone_digest, "domain": record.domain_digest}
        return cls(loaded.predictor, record.reference, digests, previews, ending)

    @property
    def domain(self) -> str:
        return self.predictor.plugin.name

    @property
    def modality(self) -> str:
        """As the domain's spec has it: MR, CT ..."""
        return self.predictor.plugin.spec.modality

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of class 1, 2, ..."""
        return self.predictor.plugin.spec.class_names

    def require_target(
        self, target: Path, inputs: Sequence[Path], existing: Existing = "refuse"
    ) -> None:
        """Refuse before the work what could not be written, or would destroy what is there.

        inputs: the files or DICOM folders that are to be read.
        existing: with `skip`, whoever asks leaves a target that is there.

        Raises:
            NeedsDicom, UnsupportedFormat, NotWritable, DiskFull
        """
        seg = target.suffix.lower() == SEG_ENDING
        if not seg and not target.name.endswith(FILE_ENDINGS):
            raise UnsupportedFormat(
                f"{target} ends in none of {', '.join(FILE_ENDINGS)}, {SEG_ENDING}",
                "Give it such an ending, or none where a folder is meant.",
            )
        if seg and not any(path.is_dir() for path in inputs):
            raise no_slices(inputs[0] if inputs else "The image", target)
        files = [target] if seg else [target, legend_of(target)]
        for file in files + [preview_of(target)] * self.previews:
            require_free(file, inputs, existing)

    def read(self, paths: Sequence[Path], uids: Sequence[str] = ()) -> Scan:
        """The image of one file a channel, or of DICOM folders.

        uids: of the DICOM series to read, one a channel, where it is not clear which.

        Raises:
            DataError: it cannot be read, or takes more memory than is allowed.
            NeedsDicom: series of files that are no DICOM.
        """
        name = str(paths[0])
        if not paths[0].is_dir():
            if uids:
                raise no_series(paths[0])
            headers = [header for path in paths if (header := read_header(path))]
            self.predictor.require_room(sum(header.reading_bytes for header in headers), name)
            return Scan(read_image(paths), tuple(paths))
        wanted: list[str | None] = [*uids] if uids else [None] * len(paths)
        folders = [*paths] if len(paths) > 1 else [paths[0]] * len(wanted)
        if len(folders) != len(wanted):
            raise AmbiguousSeries(
                f"{len(wanted)} series are named for {len(folders)} folders",
                "Name one of each folder, in the same order.",
            )
        choices = zip(folders, wanted, strict=True)
        series = [choose_series(folder, self.modality, uid) for folder, uid in choices]
        self.predictor.require_room(sum(one.reading_bytes for one in series), name)
        image = joined([read_series(one) for one in series], [one.uid for one in series])
        return Scan(image, tuple(paths), tuple(series))

    def label(
        self,
        scan: Scan,
        target: Path | None = None,
        on_warning: Callable[[str], None] = lambda _: None,
        prepared: Prepared | None = None,
    ) -> Labelled:
        """Predict labels on the image's own grid, and write them where `require_target` allowed it.

        on_warning: takes what is odd when it is found, most of it before the prediction.
        prepared: the image as the domain sees it, if it is there already.

        Raises:
            DataError: the image is none of this domain, or too large.
            BrokenPlugin: a hook of the plugin fails.
            NotWritable, DiskFull: there is no file.
        """
        made = prepared or self.predictor.prepare(scan.image, scan.name)
        odd = []
        for text in self._oddities(scan, made):
            odd.append(text)
            on_warning(text)
        if target is not None and target.suffix.lower() == SEG_ENDING:
            from u2net_platform.imaging.dicom_seg import check_seg

            check_seg(scan.image.grid, self.classes, scan.series[0], self.version)
        labels = self.predictor.predict_made(made, scan.image.grid)
        if not labels.array.any() and not self.predictor.plugin.spec.empty_labels:
            odd.append(f"{scan.name} shows no {', '.join(self.classes)}")
            on_warning(odd[-1])
        found = Labelled(labels, tuple(odd), volumes_ml(labels, self.classes))
        if target is not None:
            self.write(target, found, scan.series, scan.paths[0] if scan.paths else None)
        return found

    def write(
        self,
        target: Path,
        found: Labelled,
        series: Sequence[Series] = (),
        like: Path | None = None,
    ) -> None:
        """Write labels: a DICOM SEG of the first series where the file ends so, else as
        `write_labels`, with all that is known of them.

        like: the file whose grid they are on.

        Raises:
            UnsupportedFormat, NotWritable, DiskFull: there is no file.
        """
        if target.suffix.lower() == SEG_ENDING:
            from u2net_platform.imaging.dicom_seg import write_seg

            write_seg(target, found.labels, self.classes, series[0], self.version)
            return
        about = {
            "volumes_ml": found.volumes_ml,
            "warnings": found.warnings,
            "version": self.version,
            "program": f"{PRODUCT} {metadata.version(PRODUCT)}",
            "digests": {**self.digests},
        }
        write_labels(target, found.labels, self.classes, about, like)

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

    def _oddities(self, scan: Scan, made: Prepared) -> Iterator[str]:
        """How an image differs from what the domain is of."""
        plugin, plan = self.predictor.plugin, self.predictor.plan
        found = [*odd_headers(scan.paths)]
        if not plugin.clean_image:  # which may well turn it into what it should be
            names = scan.paths or [Path(scan.name)]
            found += odd_intensities(self.modality, scan.image.array, names)
        grid, whose = canonical(scan.image).grid, f"{plugin.name}'s plan"
        if size := odd_size(grid, plan.spacing_zyx_mm, scan.name, whose):
            found.append(size)
        yield from (one.message for one in found)
        shape = made.grid.shape_zyx
        if any(s > LARGER * own for s, own in zip(shape, plan.shape_zyx, strict=True)):
            yield (
                f"{scan.name} has {_by(shape)} voxels as {plugin.name} sees it, where images of"
                f" training had about {_by(plan.shape_zyx)}: it takes"
                f" {self.predictor.windows(made)} windows; cropped to what is around the"
                f" {self.classes[0]} it is faster, and safer"
            )


def _by(sides: Shape) -> str:
    return " x ".join(map(str, sides))


def require_free(file: Path, inputs: Sequence[Path], existing: Existing = "refuse") -> None:
    """Stop where a file is an input or lies within one, is there already, or cannot be written.

    Raises:
        UnreadableImage: its name is not UTF-8.
        NotWritable, DiskFull
    """
    require_utf8(file)
    places, place = {path.resolve() for path in inputs}, file.resolve()
    if place in places:
        raise NotWritable(f"{file} would be input and output at once", "Name another output.")
    if file.suffix.lower() == SEG_ENDING and places & {*place.parents}:
        raise NotWritable(
            f"{file} would lie among the slices that are read", "Name a place outside of them."
        )
    if existing == "refuse" and file.exists():
        raise NotWritable(
            f"{file} exists already",
            "Name another, or move it. `u2net predict` replaces it with --overwrite, and goes on"
            " with others by --skip-existing; in Python, predict with overwrite=True.",
        )
    with storage_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(file.parent, os.W_OK):
        raise NotWritable(f"{file.parent} cannot be written", "Choose another place.")


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
