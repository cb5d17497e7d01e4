import shutil
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from torch import Tensor, nn

from u2net_platform.data.plan import Plan
from u2net_platform.data.preprocessing import Prepared
from u2net_platform.errors import (
    AmbiguousSeries,
    InvalidCases,
    InvalidDataset,
    MissingFile,
    NeedsDicom,
    NotWritable,
    TooLarge,
    UnreadableImage,
    UnsupportedFormat,
)
from u2net_platform.imaging.dicom import find_series
from u2net_platform.imaging.volume import LabelVolume, read_labels, to_sitk
from u2net_platform.inference.predictor import Predictor
from u2net_platform.memory import held_bytes
from u2net_platform.workflows.labeller import Existing, Labeller
from u2net_platform.workflows.predict import (
    failure_of,
    find_inputs,
    predict_paths,
)


@pytest.fixture
def folder(tmp_path: Path, scan) -> Path:
    """Two good scans, a truncated one between them, and a file that is no image."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a.nii.gz", "b.nii.gz", "c.mha"):
        SimpleITK.WriteImage(to_sitk(scan.array[0], scan.grid), str(folder / name))
    whole = (folder / "b.nii.gz").read_bytes()
    (folder / "b.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("no image")
    return folder


def test_a_bad_case_is_named_and_the_others_are_written(
    bright_predictor, folder, organ, oblique, tmp_path
) -> None:
    done: list[str] = []
    results = predict_paths([Labeller(bright_predictor)], folder, tmp_path / "out", done.append)
    assert done == ["a", "b", "c"]
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["a.labels.json", "a.nii.gz", "c.labels.json", "c.nii.gz"]
    found = read_labels(tmp_path / "out" / "c.nii.gz")
    assert found.grid.displacement_mm(oblique) < 1e-3
    assert 2 * (found.array & organ).sum() > 0.9 * (found.array.sum() + organ.sum())
    failure = failure_of(results)
    assert isinstance(failure, InvalidCases)
    assert "1 of 3" in failure.message
    assert "b: UnreadableImage" in failure.message
    assert "\n  a:" not in failure.message


def test_one_file_gives_one_file_and_its_own_error(bright_predictor, folder, tmp_path) -> None:
    target = tmp_path / "new" / "mask.nrrd"
    results = predict_paths(
        [Labeller(bright_predictor)], folder / "a.nii.gz", target, lambda _: None
    )
    assert (results[0].output, failure_of(results)) == (target, None)
    assert target.is_file()
    bad = predict_paths(
        [Labeller(bright_predictor)], folder / "b.nii.gz", tmp_path / "b.nii.gz", lambda _: None
    )
    assert isinstance(failure_of(bad), UnreadableImage)
    assert not (tmp_path / "b.nii.gz").exists()


def test_labels_say_where_they_lie_in_the_words_of_their_image(
    bright_predictor, scan, tmp_path
) -> None:
    """A viewer may go by the sform, that ITK, which reads and writes here, does not look at."""
    path = tmp_path / "scan.nii"
    SimpleITK.WriteImage(to_sitk(scan.array[0], scan.grid), str(path))
    content = bytearray(path.read_bytes())
    content[254:256] = struct.pack("<h", 4)  # sform_code: of the MNI space
    content[280:328] = struct.pack("<12f", *range(12))
    path.write_bytes(content)
    predict_paths([Labeller(bright_predictor)], path, tmp_path / "labels.nii", lambda _: None)
    assert (tmp_path / "labels.nii").read_bytes()[252:328] == content[252:328]


def test_what_exists_is_replaced_only_on_request(bright_predictor, folder, tmp_path) -> None:
    (tmp_path / "mask.nii.gz").write_text("precious")
    arguments = (
        [Labeller(bright_predictor)],
        folder / "a.nii.gz",
        tmp_path / "mask.nii.gz",
        lambda _: None,
    )
    with pytest.raises(NotWritable, match=r"mask.nii.gz exists"):
        predict_paths(*arguments)
    assert (tmp_path / "mask.nii.gz").read_text() == "precious"
    predict_paths(*arguments, existing="replace")
    assert isinstance(read_labels(tmp_path / "mask.nii.gz"), LabelVolume)


def test_nothing_found_is_warned_of_unless_the_domain_allows_it(
    bright_predictor, folder, tmp_path
) -> None:
    bright_predictor.network = Nothing()

    def warnings() -> tuple[str, ...]:
        arguments = [Labeller(bright_predictor)], folder / "a.nii.gz", tmp_path / "out"
        (found,) = predict_paths(*arguments, lambda _: None, existing="replace")
        assert found.output == tmp_path / "out" / "a.nii.gz"  # a folder, as it has no ending
        assert found.volumes_ml == {"organ": 0}
        return found.warnings

    (warning,) = warnings()
    assert warning.endswith("a.nii.gz shows no organ")
    plugin = bright_predictor.plugin
    spec = plugin.spec.model_copy(update={"empty_labels": True})
    bright_predictor.plugin = replace(plugin, spec=spec)
    assert warnings() == ()


@pytest.mark.parametrize(
    ("codes", "change", "words"),
    [
        ((1, 1), np.diag([-1.0, 1, 1]), "mm apart"),
        ((0, 1), [[1, 0.01, 0], [0, 1, 0], [0, 0, 1]], "right angles"),
    ],
)
def test_a_header_that_contradicts_itself_or_is_sheared_is_warned_of_before_the_prediction(
    bright_predictor, scan, tmp_path, codes: tuple[int, int], change: Any, words: str
) -> None:
    image = tmp_path / "a.nii"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(scan.array[0]), str(image))
    header = bytearray(image.read_bytes())
    sform = np.array(struct.unpack_from("<12f", header, 280)).reshape(3, 4)
    sform[:, :3] = change @ sform[:, :3]
    struct.pack_into("<hh", header, 252, *codes)
    struct.pack_into("<12f", header, 280, *sform.ravel())
    image.write_bytes(header)
    seen: list[str] = []
    bright_predictor.network.register_forward_pre_hook(lambda *_: seen.append("network"))
    target = tmp_path / "out.nii.gz"
    (found,) = predict_paths(
        [Labeller(bright_predictor)], image, target, lambda _: None, on_warning=seen.append
    )
    assert any(words in text for text in found.warnings)
    assert words in seen[0]
    assert seen[-1] == "network"


def test_an_image_far_larger_than_those_of_training_is_warned_of_before_the_prediction(
    bright_predictor, folder, tmp_path
) -> None:
    plan = bright_predictor.plan
    bright_predictor.plan = plan.model_copy(
        update={"shape_zyx": (8, 10, 10), "patch_zyx": (8, 8, 8), "batch_size": 1}
    )
    seen: list[str] = []
    bright_predictor.network.register_forward_pre_hook(lambda *_: seen.append("network"))
    target = tmp_path / "out.nii.gz"
    (found,) = predict_paths(
        [Labeller(bright_predictor)], folder / "a.nii.gz", target, lambda _: None,
        on_warning=seen.append,
    )  # fmt: skip
    (warning,) = found.warnings
    assert seen[0] == warning
    assert f"it takes {seen.count('network')} windows" in warning


class Nothing(nn.Module):
    """Background everywhere."""

    def forward(self, x: Tensor, domain: str) -> Tensor:
        return torch.cat([torch.ones_like(x[:, :1]), torch.zeros_like(x[:, :1])], dim=1)


@pytest.mark.parametrize("name", ["", "a.nii.gz"])
def test_an_output_that_is_the_input_is_refused(bright_predictor, folder, name: str) -> None:
    before = (folder / "a.nii.gz").read_bytes()
    with pytest.raises(NotWritable, match="input and output"):
        predict_paths(
            [Labeller(bright_predictor)], folder / name, folder / name, lambda _: None, "replace"
        )
    assert (folder / "a.nii.gz").read_bytes() == before


def test_a_format_that_cannot_be_written_is_refused_before_any_work(
    bright_predictor, folder, tmp_path
) -> None:
    for name in ("a.png", "labels.v2"):
        with pytest.raises(UnsupportedFormat, match="ends in none of") as caught:
            predict_paths(
                [Labeller(bright_predictor)], folder / "a.nii.gz", tmp_path / name, lambda _: None
            )
        assert "Convert" not in caught.value.hint


def test_a_folder_of_one_case_goes_into_a_file_and_one_of_several_does_not(
    bright_predictor, folder, tmp_path
) -> None:
    target = tmp_path / "labels.nii.gz"
    with pytest.raises(UnsupportedFormat, match="one file for 3 images"):
        predict_paths([Labeller(bright_predictor)], folder, target, lambda _: None)
    assert not target.exists()
    for name in ("b.nii.gz", "c.mha"):
        (folder / name).unlink()
    predict_paths([Labeller(bright_predictor)], folder, target, lambda _: None)
    assert read_labels(target).array.any()


def test_a_folder_without_images_is_an_error_and_leaves_no_output(
    bright_predictor, tmp_path
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(MissingFile, match="holds no image"):
        predict_paths(
            [Labeller(bright_predictor)], tmp_path / "in", tmp_path / "out", lambda _: None
        )
    assert not (tmp_path / "out").exists()


def test_a_path_that_the_system_refuses_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="name too long"):
        find_inputs(tmp_path / ("a" * 300))


def test_numbered_files_are_channels_only_where_one_is_number_zero(tmp_path: Path) -> None:
    for name in ("p_0000.nii.gz", "p_0001.nii.gz", "scan_0012.nii", "x.nrrd", ".hidden.nii.gz"):
        (tmp_path / name).touch()
    found = {case.id: [path.name for path in case.images] for case in find_inputs(tmp_path).cases}
    assert found == {
        "p": ["p_0000.nii.gz", "p_0001.nii.gz"],
        "scan_0012": ["scan_0012.nii"],
        "x": ["x.nrrd"],
    }


@pytest.mark.parametrize(
    "names", [("p_0000.nii", "p_0002.nii"), ("p_0000.nii", "p_0001.nii", "p_0001.mha")]
)
def test_channels_with_a_gap_in_their_numbers_are_refused(tmp_path: Path, names) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InvalidDataset, match=f"{', '.join(n.split('.')[0] for n in names)}: "):
        find_inputs(tmp_path)


def test_what_is_not_read_of_a_folder_is_told(bright_predictor, folder, tmp_path) -> None:
    for name in ("Z.NII.GZ", ".hidden"):
        (folder / name).touch()
    (folder / "ST01").mkdir()
    told: list[str] = []
    labeller = Labeller(bright_predictor)
    predict_paths([labeller], folder, tmp_path / "out", lambda _: None, on_warning=told.append)
    assert f"{folder} holds 3 more, as ST01, that are not read as images" in told


def test_two_files_that_would_have_one_output_are_refused(tmp_path: Path) -> None:
    for name in ("x.nrrd", "x.mha"):
        (tmp_path / name).touch()
    with pytest.raises(InvalidDataset, match="x twice"):
        find_inputs(tmp_path)


def test_all_hidden_channels_reach_the_network_together(bright_predictor, folder, tmp_path) -> None:
    """The domain has one channel: two files of one case are then one channel too many."""
    pair = tmp_path / "pair"
    pair.mkdir()
    for channel in range(2):
        (pair / f"p_{channel:04d}.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes())
    results = predict_paths([Labeller(bright_predictor)], pair, tmp_path / "out", lambda _: None)
    assert failure_of(results).error_code == "WrongChannels"
    assert np.all([result.output is None for result in results])


def of_one_study(_: int, header: pydicom.Dataset) -> None:
    header.StudyInstanceUID = "1.2.3"


@pytest.fixture
def study(write_series: Callable[..., Path], scan, tmp_path: Path) -> Path:
    """An MR series, with a CT series of another patient's side in the folder beside it."""
    raw = scan.array[0].round()
    write_series(tmp_path / "study" / "SE1", raw, scan.grid, "MR", change=of_one_study)
    write_series(tmp_path / "study" / "SE2", raw[:, ::-1], scan.grid, "CT", change=of_one_study)
    return tmp_path / "study"


def dice(found: np.ndarray, organ: np.ndarray) -> float:
    return float(2 * (found * organ).sum() / (found.sum() + organ.sum()))


def test_a_dicom_folder_is_one_image_and_gives_a_file_of_any_format(
    bright_predictor, study, organ, oblique, tmp_path
) -> None:
    (case,) = find_inputs(study).cases
    assert (case.id, case.images) == ("study", (study,))
    target = tmp_path / "mask.nii.gz"
    assert (
        failure_of(predict_paths([Labeller(bright_predictor)], study, target, lambda _: None))
        is None
    )
    found = read_labels(target)
    assert found.grid.displacement_mm(oblique) < 1e-3
    assert dice(found.array, organ) > 0.9


@pytest.fixture
def archive(write_series: Callable[..., Path], scan, tmp_path: Path) -> Path:
    """Two patients whose studies are sound, and others, each with a fault of its own."""
    raw, root = scan.array[0].round(), tmp_path / "archive"

    def without_place(k: int, header: pydicom.Dataset) -> None:
        if k == 0:
            del header.ImageOrientationPatient

    for place in ("sound/ST01", "sound/ST02", "two_in_one", "two_in_one/later", "cut", "odd"):
        write_series(root / place, raw, scan.grid, "MR")
    write_series(root / "no_place", raw, scan.grid, "MR", change=without_place)
    write_series(root / "ct", raw, scan.grid, "CT")
    for path in (root / "cut").iterdir():
        path.write_bytes(path.read_bytes()[:200])  # within its header
    for above in (root, root / "sound"):
        (above / "torn").write_bytes(path.read_bytes())
    first = min((root / "odd").iterdir())
    length = b"\x28\x00\x02\x00US\x02\x00"  # of SamplesPerPixel
    content = first.read_bytes()
    assert content.count(length) == 1
    first.write_bytes(content.replace(length + b"\x01\x00", length[:-2] + b"\x01\x00\x01"))
    contour = pydicom.dcmread(min((root / "sound" / "ST01").iterdir()))
    contour.Modality, contour.SeriesInstanceUID = "RTSTRUCT", "1.2.3.4"
    del contour.PixelData
    (root / "contours").mkdir()
    contour.save_as(root / "contours" / "ST01.dcm")
    return root


def test_every_study_of_a_folder_is_an_image_and_gets_a_seg_in_a_tree_like_it(
    bright_predictor, archive: Path
) -> None:
    told: list[str] = []
    labeller = Labeller(bright_predictor, ending=".dcm")

    def label(existing: Existing) -> dict[str, str]:
        arguments = [labeller], archive, archive / "segs", lambda _: None, existing
        found = predict_paths(*arguments, on_warning=told.append)
        return {one.case_id: type(one.error).__name__ for one in found}

    faults = {
        "cut": "UnreadableImage",
        "no_place": "MissingPosition",
        "odd": "UnreadableImage",
        "two_in_one": "AmbiguousSeries",
    }
    sound = dict.fromkeys(("sound/ST01", "sound/ST02"), "NoneType")
    assert label("refuse") == sound | faults
    left = f"{archive} holds 4 more, as contours, that hold no image of modality MR, or"
    assert f"{left} cannot be read" in told
    seg = highdicom.seg.segread(archive / "segs" / "sound" / "ST02.dcm")
    source = pydicom.dcmread(min((archive / "sound" / "ST02").iterdir()))
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    # What was written is a series of these studies, and no reason to take them for one image.
    assert label("skip") == faults


def test_a_study_has_one_name_however_many_there_are(
    bright_predictor, archive: Path, tmp_path: Path
) -> None:
    labeller = Labeller(bright_predictor)
    shutil.move(archive / "sound", tmp_path / "sound")
    shutil.rmtree(archive)
    shutil.move(tmp_path / "sound", archive / "sound")
    names = [one.id for one in find_inputs(archive, [labeller]).cases]
    assert names == ["sound/ST01", "sound/ST02"]
    with pytest.raises(NotWritable, match="input and output at once"):
        predict_paths([labeller], archive, archive, lambda _: None)
    shutil.rmtree(archive / "sound" / "ST02")
    (case,) = find_inputs(archive, [labeller]).cases
    assert case.id == "sound/ST01"
    (result,) = predict_paths([labeller], archive, tmp_path / "a.nrrd", lambda _: None)
    assert result.output == tmp_path / "a.nrrd"
    (case,) = find_inputs(archive / "sound" / "ST01", [labeller]).cases
    assert case.id == "ST01"


def test_a_series_that_is_named_is_looked_for_in_the_whole_folder(
    bright_predictor, archive: Path, tmp_path: Path
) -> None:
    labeller = Labeller(bright_predictor)
    assert len(find_inputs(archive, [labeller]).cases) == 6
    (first,) = find_series(archive / "sound" / "ST01")
    (case,) = find_inputs(archive, [labeller], [first.uid]).cases
    assert case.images == (archive,)


def test_a_seg_lies_where_the_organ_lies_and_names_the_version(
    bright_predictor, study, organ, tmp_path
) -> None:
    target = tmp_path / "new" / "labels.dcm"
    named = Labeller(bright_predictor, version="bright:3")
    results = predict_paths([named], study, target, lambda _: None)
    assert (results[0].output, failure_of(results)) == (target, None)
    assert [path.name for path in target.parent.iterdir()] == ["labels.dcm"]
    slices = [pydicom.dcmread(path) for path in (study / "SE1").iterdir()]
    source = highdicom.get_volume_from_series(slices)
    seg = highdicom.seg.segread(target)
    found = seg.get_volume(combine_segments=True).match_geometry(source).array
    inside = source.array > 500  # the scan has 100 around the organ and 1000 in it
    assert dice(found, inside) > 0.9
    assert inside.sum() == organ.sum()
    segment = seg.SegmentSequence[0]
    assert segment.SegmentLabel == "organ"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmVersion == "bright:3"


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID", "PatientSex"])
@pytest.mark.filterwarnings("ignore:Invalid value")  # as the test writes it
def test_a_series_that_no_seg_can_refer_to_is_refused_before_the_prediction(
    bright_predictor, write_series, scan, tmp_path, keyword: str
) -> None:
    def change(k: int, header: pydicom.Dataset) -> None:
        with pydicom.config.disable_value_validation():
            setattr(header, keyword, "unknown" if keyword == "PatientSex" else "")

    folder = write_series(tmp_path / "dicom", scan.array[0].round(), scan.grid, change=change)
    bright_predictor.network = None
    (found,) = predict_paths(
        [Labeller(bright_predictor)], folder, tmp_path / "a.dcm", lambda _: None
    )
    assert type(found.error).__name__ in ("MissingPosition", "InvalidHeader")


def test_series_are_named_where_the_choice_is_not_clear_one_for_each_channel(
    bright_predictor, study, write_series, scan, tmp_path
) -> None:
    raw = scan.array[0].round()
    third = write_series(study / "SE3", raw, scan.grid, "MR", change=of_one_study)
    uid = pydicom.dcmread(next(third.iterdir())).SeriesInstanceUID
    arguments = [Labeller(bright_predictor)], study, tmp_path / "a.dcm", lambda _: None, "replace"
    unclear = failure_of(predict_paths(*arguments))
    assert isinstance(unclear, AmbiguousSeries)
    assert failure_of(predict_paths(*arguments, series=(uid,))) is None
    read = pydicom.dcmread(tmp_path / "a.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID
    assert read == uid
    twice = failure_of(predict_paths(*arguments, series=(uid, uid)))
    assert twice is not None
    assert "has 2 channels" in twice.message


def test_a_seg_is_done_by_its_own_version_however_long_the_name_of_that_is(
    bright_predictor, study, write_series, scan, tmp_path
) -> None:
    series = write_series(tmp_path / "series", scan.array[0].round(), scan.grid, "MR")
    labeller = Labeller(bright_predictor, f"{'b' * 63}:12")  # DICOM keeps 64 characters
    target = tmp_path / "a.dcm"
    for existing, count in (("refuse", 1), ("skip", 0)):
        found = predict_paths([labeller], series, target, lambda _: None, existing)
        assert failure_of(found) is None
        assert len(found) == count


def test_domains_of_several_modalities_are_not_given_the_series_of_the_first(
    bright_predictor, study, tmp_path
) -> None:
    plugin = bright_predictor.plugin
    spec = plugin.spec.model_copy(update={"name": "other", "modality": "CT"})
    network, cpu = bright_predictor.network, torch.device("cpu")
    other = Predictor(network, replace(plugin, spec=spec), bright_predictor.plan, cpu)
    for both in ([bright_predictor, other], [other, bright_predictor]):
        labellers = [Labeller(one) for one in both]
        with pytest.raises(AmbiguousSeries, match="several modalities: "):
            predict_paths(labellers, study, tmp_path / "out", lambda _: None)


@pytest.mark.parametrize("name", ["a.nii.gz", ""])
def test_a_seg_or_a_series_of_files_that_are_not_dicom_is_refused(
    bright_predictor, folder, tmp_path, name: str
) -> None:
    with pytest.raises(NeedsDicom, match="SEG"):
        predict_paths(
            [Labeller(bright_predictor)], folder / name, tmp_path / "x.dcm", lambda _: None
        )
    with pytest.raises(NeedsDicom, match="no series"):
        predict_paths(
            [Labeller(bright_predictor)],
            folder / name,
            tmp_path / "x.nii.gz",
            lambda _: None,
            series=("1.2.3",),
        )
    assert not (tmp_path / "x.dcm").exists()


def test_a_seg_is_not_put_among_its_slices(bright_predictor, study) -> None:
    for target in (study / "labels.dcm", study / "SE1" / "labels.dcm"):
        with pytest.raises(NotWritable, match=r"input and output|among the slices"):
            predict_paths([Labeller(bright_predictor)], study, target, lambda _: None)
    below = study / "labels" / "labels.nii.gz"  # where no series is looked for
    Labeller(bright_predictor).require_target(below, [study])


def test_several_domains_share_what_they_see_alike(
    bright_predictor, folder, tmp_path, monkeypatch
) -> None:
    made = []

    class Counted(Prepared):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            made.append(arguments)
            super().__init__(*arguments, **options)

    class Renamed(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor, **_: Any) -> Any:
            return self.network(x, domain="bright")

    monkeypatch.setattr("u2net_platform.inference.predictor.Prepared", Counted)
    wide = bright_predictor.plan.model_copy(update={"spacing_zyx_mm": (4.0, 4.0, 4.0)})

    def another(name: str, plan: Plan) -> Labeller:
        plugin = bright_predictor.plugin
        plugin = replace(plugin, spec=plugin.spec.model_copy(update={"name": name}))
        network = Renamed(bright_predictor.network)
        return Labeller(Predictor(network, plugin, plan, torch.device("cpu")))

    three = [
        Labeller(bright_predictor),
        another("alike", bright_predictor.plan),
        another("wide", wide),
    ]
    results = predict_paths(three, folder / "a.nii.gz", tmp_path / "out", lambda _: None)
    assert failure_of(results) is None
    assert len(made) == 2
    first, alike = (
        read_labels(tmp_path / "out" / name / "a.nii.gz") for name in ("bright", "alike")
    )
    assert first.array.any()
    np.testing.assert_array_equal(first.array, alike.array)
    assert [one.domain for one in results] == ["bright", "alike", "wide"]


def test_what_is_seen_alike_is_checked_for_each_domain(bright_predictor, folder, tmp_path) -> None:
    plugin = bright_predictor.plugin

    def another(patch: tuple[int, int, int], **changed: Any) -> Labeller:
        spec = plugin.spec.model_copy(update={"name": "other"} | changed)
        plan = bright_predictor.plan.model_copy(update={"patch_zyx": patch})
        network, cpu = bright_predictor.network, torch.device("cpu")
        memory = held_bytes() + (1 << 30)
        return Labeller(Predictor(network, replace(plugin, spec=spec), plan, cpu, memory=memory))

    patch = bright_predictor.plan.patch_zyx
    for other, error in (
        (another((256, 256, 256)), "TooLarge"),
        (another(patch, channels=("T1", "T2")), "WrongChannels"),
    ):
        both = [Labeller(bright_predictor), other]
        results = predict_paths(both, folder / "a.nii.gz", tmp_path / error, lambda _: None)
        assert [type(one.error).__name__ for one in results] == ["NoneType", error]


def test_of_several_domains_one_may_fail(bright_predictor, folder, tmp_path) -> None:
    def fails(image: Any, spacing: Any) -> Any:
        raise ArithmeticError

    broken = Predictor(
        bright_predictor.network,
        replace(
            bright_predictor.plugin,
            spec=bright_predictor.plugin.spec.model_copy(update={"name": "broken"}),
            clean_image=fails,
        ),
        bright_predictor.plan,
        torch.device("cpu"),
    )
    both = [Labeller(broken), Labeller(bright_predictor)]
    results = predict_paths(both, folder / "a.nii.gz", tmp_path / "out", lambda _: None)
    assert [one.output is None for one in results] == [True, False]
    fault = failure_of(results)
    assert fault is not None
    assert "a (broken): BrokenPlugin" in fault.message


def test_one_file_for_two_domains_is_refused(bright_predictor, folder, tmp_path) -> None:
    for name in ("both.dcm", "both.nii.gz"):
        with pytest.raises((NeedsDicom, UnsupportedFormat)):
            predict_paths([Labeller(bright_predictor)] * 2, folder, tmp_path / name, lambda _: None)
        assert not (tmp_path / name).exists()


def test_a_file_that_promises_more_than_memory_holds_is_refused_before_it_is_read(
    bright_predictor, tmp_path
) -> None:
    path = tmp_path / "huge.nii"
    SimpleITK.WriteImage(SimpleITK.Image(8, 8, 8, SimpleITK.sitkInt16), str(path))
    header = bytearray(path.read_bytes())
    struct.pack_into("<3h", header, 42, 20_000, 20_000, 20_000)
    path.write_bytes(header)
    results = predict_paths(
        [Labeller(bright_predictor)], path, tmp_path / "out.nii.gz", lambda _: None
    )
    failure = failure_of(results)
    assert isinstance(failure, TooLarge)
    assert "needs about 5960" in failure.message  # GiB, twice 4 bytes a voxel
