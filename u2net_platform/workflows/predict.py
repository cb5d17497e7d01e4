"""Label the images of a file or a folder, for one domain or several."""

from __future__ import annotations

import json
import os
import re
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from u2net_platform import errors
from u2net_platform.data.dataset import Case
from u2net_platform.data.preprocessing import Prepared
from u2net_platform.errors import (
    AmbiguousSeries,
    InvalidCases,
    InvalidDataset,
    MissingFile,
    NoDicom,
    NotWritable,
    StorageError,
    U2NetError,
    UnreadableImage,
    UnsupportedFormat,
)
from u2net_platform.imaging.dicom import find_studies, holds_dicom
from u2net_platform.imaging.volume import (
    FILE_ENDINGS,
    ImageVolume,
    LabelVolume,
    legend_of,
    stem_of,
)
from u2net_platform.inference.predictor import Predictor
from u2net_platform.workflows.labeller import (
    FOLDER_ENDING,
    SEG_ENDING,
    Existing,
    Labeller,
    Scan,
    no_series,
    no_slices,
)

CHANNEL_FILE = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class PredictedCase:
    """One input and where its labels are, or the error that left it without.

    volumes_ml: of each class. warnings: what somebody should look at. preview: a picture of it.
    """

    case_id: str
    domain: str
    output: Path | None
    error: Exception | None = None
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    preview: Path | None = None


@dataclass(frozen=True)
class Inputs:
    """What is to be labelled: cases, and of a folder what is not one.

    series: UIDs of the DICOM series to read, one a channel, where it is not clear which.
    """

    path: Path
    cases: Sequence[Case]
    left_out: Sequence[Path] = ()
    series: Sequence[str] = ()

    @property
    def are_dicom(self) -> bool:
        return self.cases[0].images[0].is_dir()


def predict_paths(
    labellers: Sequence[Labeller],
    inputs: Path,
    output: Path,
    on_case: Callable[[str], None],
    existing: Existing = "refuse",
    series: Sequence[str] = (),
    on_warning: Callable[[str], None] = lambda _: None,
) -> list[PredictedCase]:
    """`predict_inputs` of what `find_inputs` finds, whose errors it raises too."""
    found = find_inputs(inputs, labellers, series)
    return predict_inputs(labellers, found, output, on_case, existing, on_warning)


def predict_inputs(
    labellers: Sequence[Labeller],
    inputs: Inputs,
    output: Path,
    on_case: Callable[[str], None],
    existing: Existing = "refuse",
    on_warning: Callable[[str], None] = lambda _: None,
) -> list[PredictedCase]:
    """Label one image into one file, or every image of a folder into a folder.

    Several domains label the same images, each into a folder of its name below `output`. An image
    is read once for all, and prepared once for those that see it alike. A case that fails is
    returned with its error and the others go on. Labels of a DICOM image may go into a .dcm file, a
    SEG.

    existing: what becomes of labels that are there: `skip` leaves those of the same version, and
        leaves them out of the result.
    on_warning: takes what is odd, when it is found.

    Raises:
        UnsupportedFormat: several images would go into one file.
        NeedsDicom: a SEG, or a choice of series, is asked for with images that are not DICOM.
        NotWritable, DiskFull: an output exists and is not to be overwritten, or cannot be written.
    """
    _check_dicom(labellers, inputs, output)
    targets = _targets(labellers, inputs, output)
    _check_apart(inputs, output, [path for each in targets.values() for path in each.values()])
    for one in labellers:
        for case in inputs.cases:
            _check_target(targets[one.domain][case.id], one, case, existing)
    if inputs.left_out:
        on_warning(_left_out(inputs, labellers[0]))
    results: list[PredictedCase] = []
    for case in inputs.cases:
        into = [(one, targets[one.domain][case.id]) for one in labellers]
        if existing == "skip":
            into = [(one, target) for one, target in into if not target.exists()]
        results.extend(_predict_case(into, case, inputs.series, on_warning))
        on_case(case.id)
    return results


def find_inputs(
    path: Path, labellers: Sequence[Labeller] = (), series: Sequence[str] = ()
) -> Inputs:
    """The case of a file or of a DICOM folder, or the cases of a folder, sorted by name.

    In a folder, `case_0000.nii.gz`, `case_0001.nii.gz`, ... are the channels of one case; every
    other image file is a case. A folder of DICOM files is one, unless folders in it hold several
    studies of the labellers' modality: then each of these is.

    labellers: who is to label them; none, where one image is wanted.
    series: UIDs that are to be read, which are of one image.

    Raises:
        MissingFile: there is no such path, or no image in the folder.
        UnreadableImage: the system does not let it be looked at.
        UnsupportedFormat: the file is no image.
        InvalidDataset: two files of the folder would be one case, or a channel's file is missing.
    """
    modalities = {one.modality for one in labellers if not series}
    try:
        cases, left = _found_cases(path, modalities)
    except OSError as error:
        raise UnreadableImage(
            f"{path} cannot be read: {error.strerror}", "Correct its name or its permissions."
        ) from error
    return Inputs(path, cases, left, tuple(series))


def _found_cases(inputs: Path, modalities: Collection[str]) -> tuple[list[Case], list[Path]]:
    if inputs.is_file():
        return [Case(stem_of(inputs), (inputs,), None)], []
    if not inputs.is_dir():
        raise MissingFile(f"{inputs} does not exist", "Give an image file, or a folder of them.")
    seen = sorted(inputs.glob("[!.]*"))
    files = [path for path in seen if path.name.endswith(FILE_ENDINGS)]
    if not files and holds_dicom(inputs):
        return _found_studies(inputs, modalities if any(map(Path.is_dir, seen)) else ())
    if not files:
        raise NoDicom(
            f"{inputs} holds no image",
            f"Give a folder with files that end with {', '.join(FILE_ENDINGS)}, or with DICOM.",
        )
    cases = _group_channels(files)
    twice = [name for name, count in Counter(case.id for case in cases).items() if count > 1]
    if twice:
        raise InvalidDataset(f"{inputs} holds case {twice[0]} twice", "Rename one of the files.")
    return cases, [path for path in seen if path not in files]


def _found_studies(inputs: Path, modalities: Collection[str]) -> tuple[list[Case], list[Path]]:
    studies, left = find_studies(inputs, *modalities) if len(modalities) == 1 else ([], [])
    if not studies or studies == [inputs]:
        return [Case(inputs.resolve().name, (inputs,), None)], []
    return [Case(str(path.relative_to(inputs)), (path,), None) for path in studies], left


def _group_channels(files: list[Path]) -> list[Case]:
    """Files numbered from _0000 on are one case; a number alone, as in scan_0012, is a name."""
    numbered = {path: CHANNEL_FILE.fullmatch(stem_of(path)) for path in files}
    grouped = {match[1] for match in numbered.values() if match and match[2] == "0000"}
    cases: dict[str, list[Path]] = {name: [] for name in grouped}
    single = []
    for path, match in numbered.items():
        if match and match[1] in grouped:
            cases[match[1]].append(path)
        else:
            single.append(Case(stem_of(path), (path,), None))
    channels = [Case(name, tuple(sorted(paths)), None) for name, paths in cases.items()]
    for case in channels:
        found = [stem_of(path) for path in case.images]
        if found != [f"{case.id}_{number:04d}" for number in range(len(found))]:
            raise InvalidDataset(
                f"{case.images[0].parent} holds {', '.join(found)}: channels of one case are"
                " numbered without a gap, each of them once",
                "Add the file that is missing; if these are several patients, name them otherwise"
                " than by four digits from 0000 on.",
            )
    return sorted(channels + single, key=lambda case: case.id)


def _left_out(inputs: Inputs, labeller: Labeller) -> str:
    first = inputs.left_out[0].relative_to(inputs.path)
    why = "that are not read as images"
    if inputs.are_dicom:
        why = f"that hold no image of modality {labeller.modality}, or cannot be read"
    return f"{inputs.path} holds {len(inputs.left_out)} more, as {first}, {why}"


def _check_dicom(labellers: Sequence[Labeller], inputs: Inputs, output: Path) -> None:
    if not inputs.are_dicom:
        if output.suffix.lower() == SEG_ENDING:
            raise no_slices(inputs.path, output)
        if inputs.series:
            raise no_series(inputs.path)
        return
    # All domains label one series: which one must not hang on who is named first.
    modalities = {one.domain: one.modality for one in labellers}
    if len({*modalities.values()}) > 1 and not inputs.series:
        listing = ", ".join(f"{name} {modality}" for name, modality in modalities.items())
        raise AmbiguousSeries(
            f"{inputs.path} is read once, for domains of several modalities: {listing}",
            "Name the series that all of them label, --series UID; or label one domain at a time.",
        )


def _targets(
    labellers: Sequence[Labeller], inputs: Inputs, output: Path
) -> dict[str, dict[str, Path]]:
    """The label file of each case, by domain."""
    cases, only = inputs.cases, labellers[0]
    several = {"images": len(cases), "domains": len(labellers)}
    many = [f"{number} {what}" for what, number in several.items() if number > 1]
    is_file = output.name.lower().endswith((*FILE_ENDINGS, SEG_ENDING)) and not output.is_dir()
    if is_file and many:
        raise UnsupportedFormat(
            f"{output} would be one file for {' and '.join(many)}",
            "Name a folder, or one of them alone; each of several domains gets a folder in it.",
        )
    if len(labellers) > 1:
        return {one.domain: in_folder(cases, output / one.domain, one.ending) for one in labellers}
    one_image = inputs.are_dicom or inputs.path.is_file()
    mistaken = bool(output.suffix) and not output.is_dir() and one_image and len(cases) == 1
    if not (is_file or mistaken):
        return {only.domain: in_folder(cases, output, only.ending)}
    if only.ending != FOLDER_ENDING and not output.name.endswith(only.ending):
        raise UnsupportedFormat(
            f"{output} is one file, and no folder with files that end with {only.ending}",
            "Name a folder, or leave out --ending.",
        )
    return {only.domain: {cases[0].id: output}}


def in_folder(cases: Sequence[Case], folder: Path, ending: str = FOLDER_ENDING) -> dict[str, Path]:
    """The label file of each case."""
    return {case.id: folder / f"{case.id}{ending}" for case in cases}


def _check_apart(inputs: Inputs, output: Path, targets: Sequence[Path]) -> None:
    places = {target.parent.resolve() for target in targets}
    if inputs.are_dicom:  # whose labels would lie in the folders of its studies
        places.add(output.resolve())
    if inputs.path.is_dir() and inputs.path.resolve() in places:
        raise NotWritable(f"{inputs.path} is input and output at once", "Name another output.")


def _check_target(target: Path, labeller: Labeller, case: Case, existing: Existing) -> None:
    """Refuse before the first case what would fail, or destroy, after it."""
    labeller.require_target(target, case.images, existing)
    if existing == "skip":
        _require_own(target, labeller)


def _require_own(target: Path, labeller: Labeller) -> None:
    """Labels that are there, or the JSON file of some, are done only if the same version made them.

    Raises:
        NotWritable: another did, or it cannot be told.
    """
    seg = target.suffix.lower() == SEG_ENDING
    if not target.exists() and (seg or not legend_of(target).exists()):
        return
    wanted: dict[str, object] = {"version": labeller.version}
    if seg:
        from u2net_platform.imaging.dicom_seg import LONGEST, labelled_by

        wanted["version"] = labeller.version[:LONGEST]
        found = {"version": labelled_by(target)}
    else:
        wanted["digests"] = {**labeller.digests}
        try:
            found = dict(json.loads(legend_of(target).read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            found = {}
    if any(found.get(key) != value for key, value in wanted.items()):
        by = found.get("version") or "nobody knows whom"
        raise NotWritable(
            f"{target} is by {by}, not by {labeller.version}"
            + (" with these weights" if by == labeller.version else ""),
            "Name another folder for the output, or add --overwrite.",
        )


def _predict_case(
    into: Sequence[tuple[Labeller, Path]],
    case: Case,
    uids: Sequence[str],
    on_warning: Callable[[str], None],
) -> list[PredictedCase]:
    if not into:
        return []
    try:
        scan = into[0][0].read(case.images, uids)
    except Exception as error:
        return [PredictedCase(case.id, one.domain, None, error) for one, _ in into]
    results, made = [], _Made(scan)
    for one, target in into:
        try:
            found = one.label(scan, target, on_warning, made.for_domain(one.predictor))
            picture, odd = _preview(one, target, scan.image, found.labels)
        except StorageError:  # the next case would meet it too
            raise
        except Exception as error:
            results.append(PredictedCase(case.id, one.domain, None, error))
        else:
            warnings = found.warnings + odd
            for text in odd:
                on_warning(text)
            results.append(
                PredictedCase(
                    case.id, one.domain, target, None, found.volumes_ml, warnings, picture
                )
            )
    return results


def _preview(
    labeller: Labeller, target: Path, image: ImageVolume, labels: LabelVolume
) -> tuple[Path | None, tuple[str, ...]]:
    """The picture, if there is to be one, and what is odd: the labels are there, so that they
    cannot be drawn is no more than that."""
    try:
        return labeller.draw(target, image, labels) if labeller.previews else None, ()
    except StorageError:
        raise
    except Exception as error:
        return None, (f"{target} has no preview: {named(error)}",)


class _Made:
    """An image as the last domain saw it, for the next one that sees it alike."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._key: tuple[object, ...] | None = None
        self._last: Prepared | None = None

    def for_domain(self, predictor: Predictor) -> Prepared:
        key = predictor.preparation
        if self._last is None or key is None or key != self._key:
            self._last = None  # its memory goes first
            self._last = predictor.prepare(self._scan.image, self._scan.name)
            self._key = key
        else:
            predictor.require_fit(self._scan.image)
        return self._last


def failure_of(results: list[PredictedCase]) -> U2NetError | None:
    """The fault of a whole run: that of its one case, or one that lists the cases that failed."""
    domains = {result.domain for result in results}
    reasons = {
        result.case_id if len(domains) == 1 else f"{result.case_id} ({result.domain})": named(error)
        for result in results
        if (error := result.error)
    }
    if len(results) == 1 and isinstance(only := results[0].error, U2NetError):
        return only
    return cases_failed(reasons, len(results))


def cases_failed(reasons: dict[str, str], cases: int) -> U2NetError | None:
    """The fault that lists what went wrong with each case, as `named` has it; None where nothing
    did. What is no error of this program's own is a fault in it."""
    if not reasons:
        return None
    listing = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
    message = f"{len(reasons)} of {cases} cases failed:\n{listing}"
    if all(hasattr(errors, reason.partition(":")[0]) for reason in reasons.values()):
        return InvalidCases(
            message,
            "Correct what is named above and repeat for these cases; the others are done.",
        )
    return U2NetError(
        message,
        "A fault of the program is among them: repeat with U2NET_DEBUG=1 for its traceback, and"
        " report it. The other cases are done.",
    )


def named(error: Exception) -> str:
    """The class of an error and its reason, on one line; then, of a fault of the program, the
    traceback where it is asked for."""
    own = error if isinstance(error, U2NetError) else None
    reason = own.message if own else str(error)
    line = f"{type(error).__name__}: {' '.join(reason.split())}"
    if own or os.environ.get("U2NET_DEBUG") != "1":
        return line
    return "\n".join([line, *traceback.format_exception(error)])
