from __future__ import annotations

import hashlib
import json
import pickle
import random
import stat
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from typer.testing import CliRunner

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.imports import ORIGIN
from u2net_platform.catalog.records import Slot
from u2net_platform.catalog.weights import WeightStore, serialised
from u2net_platform.cli.app import app
from u2net_platform.domains.plugin import DomainPlugin
from u2net_platform.domains.spec import DomainSpec
from u2net_platform.errors import (
    BundleAltered,
    BundleSchema,
    BundleUnsafe,
    BundleUntrusted,
    IncompatibleParts,
    IntegrityError,
    InvalidKey,
    InvalidSpec,
    MissingFile,
    NotEvaluated,
    NotWritable,
    U2NetError,
)
from u2net_platform.settings import Settings
from u2net_platform.workflows.bundle import export_bundle, import_bundle
from u2net_platform.workflows.bundle_file import read_bundle
from u2net_platform.workflows.signing import create_key, load_private_key, load_public_key
from u2net_platform.workflows.verify import take_probe, verify
from u2net_platform.workflows.versions import load_predictor

Parts = dict[str, bytes]
Tensors = dict[str, torch.Tensor]
CPU = torch.device("cpu")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "elsewhere")


@pytest.fixture
def bundle(settings, publish_bright, bright_network, tmp_path: Path) -> Path:
    """bright:1 with a probe and test scores, as a file."""
    store = WeightStore(settings.weights_dir)
    publish_bright(probe=take_probe(bright_network, "bright", store))
    catalog = Catalog.open(settings.database_url)
    scores = {"dice": 0.912, "hd95_mm": None, "surface_dice": 0.5}
    test = {"overall": scores, "classes": {"organ": scores}, "cases": 3}
    record = catalog.versions.add_metrics("bright", 1, {"test": test})
    return export_bundle(settings, record, tmp_path / "bright.u2net")


def parts_of(path: Path) -> Parts:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, parts: Parts, listed: bool = True) -> None:
    """Write members, and a list that agrees with them unless the fault is that it does not."""
    if listed:
        manifest = json.loads(parts["manifest.json"])
        manifest["members"] = {
            name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in parts.items()
            if name not in ("manifest.json", "signature.json")
        }
        parts["manifest.json"] = json.dumps(manifest).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def changed(content: bytes, /, **values: Any) -> bytes:
    return json.dumps(json.loads(content) | values).encode()


def test_a_version_predicts_the_same_in_another_catalog(
    settings, elsewhere: Settings, bundle: Path
) -> None:
    done = import_bundle(elsewhere, bundle)
    assert (done.record.reference, done.new, done.signer) == ("bright:1", True, None)
    first, second = (load_predictor(one, "bright", CPU) for one in (settings, elsewhere))
    patch = torch.rand(1, 1, 16, 24, 24)
    with torch.no_grad():
        theirs, ours = (one.predictor.network(patch, domain="bright") for one in (first, second))
    assert torch.equal(theirs, ours)
    assert second.plan == first.plan
    (proven,) = verify(WeightStore(elsewhere.weights_dir), [done.record], lambda _: None)
    assert (proven.output, proven.fault) == ("same", None)
    assert done.record.metrics["test"] == first.record.metrics["test"]
    run = Catalog.open(elsewhere.database_url).runs.get(done.record.run_id)
    assert run.fingerprints["bright"] == {"data_digest": "e" * 64}


def test_equal_contents_are_equal_bytes_and_imported_once(
    settings, elsewhere: Settings, bundle: Path, tmp_path: Path
) -> None:
    again = export_bundle(
        settings, Catalog.open(settings.database_url).find("bright:1"), tmp_path / "again.u2net"
    )
    assert again.read_bytes() == bundle.read_bytes()
    assert [import_bundle(elsewhere, one).new for one in (bundle, again)] == [True, False]
    assert len(Catalog.open(elsewhere.database_url).versions.list()) == 1


def test_nothing_in_it_tells_of_cases_or_of_this_machine(bundle: Path, tmp_path: Path) -> None:
    text = b"".join(content for name, content in parts_of(bundle).items() if "tensors" not in name)
    assert b"case_0" not in text
    assert str(tmp_path).encode() not in text


def test_the_card_says_what_a_person_should_know(bundle: Path) -> None:
    card = parts_of(bundle)["README.md"].decode()
    for told in ("organ", "T1", "made up", "CC0", "0.912", "no medical device", "3 test cases"):
        assert told in card


def test_the_card_tells_of_failures_and_claims_nothing_that_nobody_can_say(
    settings, elsewhere: Settings, bundle: Path, tmp_path: Path
) -> None:
    catalog, again = Catalog.open(settings.database_url), tmp_path / "again.u2net"
    assert b"never seen in training" in parts_of(bundle)["README.md"]
    assert b"failed" not in parts_of(bundle)["README.md"]
    test = catalog.find("bright:1").metrics["test"] | {"failures": 2}
    export_bundle(settings, catalog.versions.add_metrics("bright", 1, {"test": test}), again)
    assert b"2 failed" in parts_of(again)["README.md"]
    record = import_bundle(elsewhere, bundle).record  # without the names of its cases
    export_bundle(elsewhere, record, again)
    card = parts_of(again)["README.md"]
    assert (b"3 test cases" in card, b"never seen" in card) == (True, False)


def test_a_second_journey_keeps_base_and_companions(
    elsewhere: Settings, bundle: Path, tmp_path: Path
) -> None:
    parts = parts_of(bundle)
    origin("base_version", to="ball:1")(parts)
    origin("run", "domains", to=["twin", "bright"])(parts)
    write(bundle, parts)
    further, again = Settings(home=tmp_path / "further"), tmp_path / "again.u2net"
    export_bundle(elsewhere, import_bundle(elsewhere, bundle).record, again)
    assert b"twin, bright" in parts_of(again)["README.md"]
    came = import_bundle(further, again).record.metrics["bundle"]
    assert (came["base"], came["trained_with"]) == ("ball:1", ["twin", "bright"])
    (found,) = Catalog.open(further.database_url).versions.that_saw_case("ball", "ball_000")
    assert (found.version, found.directly) == ("bright:1", None)


def drop(name: str) -> Callable[[Parts], None]:
    return lambda parts: parts.__delitem__(name)


def flip(name: str) -> Callable[[Parts], None]:
    def work(parts: Parts) -> None:
        content = bytearray(parts[name])
        content[-1] ^= 1
        parts[name] = bytes(content)

    return work


def put(name: str, content: bytes) -> Callable[[Parts], None]:
    return lambda parts: parts.__setitem__(name, content)


def edit(member: str, **values: Any) -> Callable[[Parts], None]:
    return lambda parts: parts.__setitem__(member, changed(parts[member], **values))


def inside(member: str, *path: str, to: Any) -> Callable[[Parts], None]:
    """Set a value deep within a member."""

    def work(parts: Parts) -> None:
        content = json.loads(parts[member])
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to
        parts[member] = json.dumps(content).encode()

    return work


def origin(*path: str, to: Any) -> Callable[[Parts], None]:
    return inside("provenance.json", *path, to=to)


def tensors(owner: str, change: Callable[[Tensors], None]) -> Callable[[Parts], None]:
    """Other weights, their digest in the version's origin to match, and a probe of elsewhere."""

    def work(parts: Parts) -> None:
        state = load(parts[f"{owner}.safetensors"])
        change(state)
        parts[f"{owner}.safetensors"] = content = serialised(state)
        made, digest = json.loads(parts["provenance.json"]), hashlib.sha256(content).hexdigest()
        made["probe"]["machine"] = {"torch": "0"}  # whatever comes out of it is no fault then
        if owner == "probe":
            made["probe"]["input"] = digest
        else:
            made[f"{owner}_digest"] = digest
        parts["provenance.json"] = json.dumps(made).encode()

    return work


def with_nan(state: Tensors) -> None:
    next(iter(state.values())).view(-1)[0] = torch.nan


def another_labels(parts: Parts) -> None:
    """A spec of one class more, with the digest of a plugin that has no code."""
    spec = json.loads(parts["spec.json"])
    spec["labels"].append({"name": "other", "values": [2]})
    respecified(spec, parts)


def another_spacing(parts: Parts) -> None:
    respecified(json.loads(parts["spec.json"]) | {"geometry": {"spacing_zyx_mm": [9, 9, 9]}}, parts)


def two_channels(parts: Parts) -> None:
    respecified(json.loads(parts["spec.json"]) | {"channels": ["T1", "T2"]}, parts)


def respecified(spec: dict[str, Any], parts: Parts) -> None:
    parts["spec.json"] = json.dumps(spec).encode()
    digest = DomainPlugin(DomainSpec.parse(spec, "test"), Path()).digest
    origin("plugin_digest", to=digest)(parts)


DEEP = b"[" * 100_000 + b"]" * 100_000
# The base point. One of small order, as 00...00 is, takes zeros for a signature of some messages.
KEY = "58" + "66" * 31
STRANGE = save({"weight": torch.ones(3)})
# What was done to it, whether its list was made to agree, and the name of the refusal.
HOSTILE = {
    "a weight altered": (flip("domain.safetensors"), False, BundleAltered),
    "a weight altered, and its checksum": (flip("domain.safetensors"), True, IncompatibleParts),
    "a score altered": (edit("metrics.json", test={}), False, BundleAltered),
    "a wrong checksum": (flip("README.md"), False, BundleAltered),
    "other weights": (put("backbone.safetensors", STRANGE), True, IncompatibleParts),
    "weights that are none": (put("backbone.safetensors", b"none"), True, IncompatibleParts),
    "a pickled file": (put("model.pkl", pickle.dumps({})), True, BundleUnsafe),
    "a pickle in place of weights": (
        put("domain.safetensors", pickle.dumps({})), True, IncompatibleParts,
    ),
    "code": (put("plugin.py", b"import os"), True, BundleUnsafe),
    "a path that climbs out": (put("../../evil.json", b"{}"), True, BundleUnsafe),
    "an absolute path": (put("/etc/evil.json", b"{}"), True, BundleUnsafe),
    "a path of Windows": (put("..\\evil.json", b"{}"), True, BundleUnsafe),
    "a member in a folder": (put("x/spec.json", b"{}"), True, BundleUnsafe),
    "no weights": (drop("domain.safetensors"), True, BundleAltered),
    "no list": (drop("manifest.json"), False, BundleAltered),
    "a list that is none": (put("manifest.json", b"[]"), False, BundleAltered),
    "a member that is not listed": (put("pictures.png", b"x"), False, BundleAltered),
    "an older format": (edit("manifest.json", schema_version=0), False, BundleSchema),
    "a newer format": (edit("manifest.json", schema_version=2), False, BundleSchema),
    "a wrong spec": (edit("spec.json", modality="X"), True, InvalidSpec),
    "another domain's name": (edit("manifest.json", version="heart:7"), True, IncompatibleParts),
    "another domain's spec": (edit("spec.json", name="heart"), True, IncompatibleParts),
    "a spec that is none": (put("spec.json", b"{"), True, BundleAltered),
    "a spec that was changed": (edit("spec.json", description="x"), True, IncompatibleParts),
    "a plan that is none": (edit("plan.json", patch_zyx=[1]), True, BundleAltered),
    "a probe it does not make so": (
        origin("probe", "output", to="0" * 64), True, IncompatibleParts,
    ),
    "a probe left out": (origin("probe", to=None), True, BundleAltered),
    "a probe without its parts": (origin("probe", to={}), True, BundleAltered),
    "no input of the probe": (drop("probe.safetensors"), True, IncompatibleParts),
    "a probe of another size": (
        tensors("probe", lambda one: one.update(image=torch.zeros(1, 1, 4, 4, 4))), True,
        IncompatibleParts,
    ),
    "a spec of other classes": (another_labels, True, IncompatibleParts),
    "a spec of other channels": (two_channels, True, IncompatibleParts),
    "a spec of another spacing": (another_spacing, True, IncompatibleParts),
    "a plan of other strides": (
        edit("plan.json", strides_zyx=[[1, 1, 1]] * 5), True, IncompatibleParts,
    ),
    "a plan of other kernels": (
        edit("plan.json", kernels_zyx=[[1, 3, 3]] * 6), True, IncompatibleParts,
    ),
    "a plan of a huge patch": (
        edit("plan.json", patch_zyx=[10**6] * 3), True, IncompatibleParts,
    ),
    "a plan without extent": (edit("plan.json", patch_zyx=[0, 8, 8]), True, IncompatibleParts),
    "a plan without spacing": (
        edit("plan.json", spacing_zyx_mm=[0, 1, 1]), True, IncompatibleParts,
    ),
    "a plan of words": (edit("plan.json", batch_size="2"), True, BundleAltered),
    "a very large network": (
        origin("architecture", "classes", to=10**8), True, IncompatibleParts,
    ),
    "very large kernels": (
        origin("architecture", "kernels_zyx", to=[[10**4] * 3] * 6), True, IncompatibleParts,
    ),
    "kernels that are none": (origin("architecture", "kernels_zyx", to=[1]), True, BundleAltered),
    "an architecture that is none": (
        origin("backbone_architecture", "name", to="x"), True, BundleAltered,
    ),
    "another architecture": (
        origin("backbone_architecture", "convolutions", to="dense"), True, IncompatibleParts,
    ),
    "a huge common patch": (
        origin("backbone_architecture", to={"name": "paper", "common_patch_zyx": [10**5] * 3}),
        True, IncompatibleParts,
    ),
    "NaN in the backbone": (tensors("backbone", with_nan), True, IncompatibleParts),
    "NaN in the domain": (tensors("domain", with_nan), True, IncompatibleParts),
    "scores that are words": (edit("metrics.json", test="great"), True, BundleAltered),
    "scores that are none": (edit("metrics.json", test={}), True, BundleAltered),
    "a Dice above 1": (
        inside("metrics.json", "test", "overall", "dice", to=7.5), True, BundleAltered,
    ),
    "an infinite score": (
        put("metrics.json", b'{"validation": {"dice": 1e999}}'), True, BundleAltered,
    ),
    "scores of unknown classes": (
        inside("metrics.json", "test", "classes", to={"tail": {}}), True, IncompatibleParts,
    ),
    "half a character": (put("metrics.json", b'{"x": "\\ud800"}'), True, BundleAltered),
    "a deep spec": (put("spec.json", DEEP), True, BundleAltered),
    "deep scores": (put("metrics.json", DEEP), True, BundleAltered),
    "a deep list": (put("manifest.json", DEEP), False, BundleAltered),
    "a seed that no database holds": (origin("run", "seed", to=10**30), True, BundleAltered),
    "a long name of a run": (origin("run", "id", to="a" * 65), True, BundleAltered),
    "a run that climbs out": (origin("run", "id", to="../../x"), True, BundleAltered),
    "a run that still runs": (origin("run", "status", to="running"), True, BundleAltered),
    "a run of other domains": (origin("run", "domains", to=["heart"]), True, IncompatibleParts),
    "a fingerprint of words": (
        origin("run", "fingerprints", to={"bright": {"data_digest": 7}}), True, BundleAltered,
    ),
    "a fingerprint with names of cases": (
        origin("run", "fingerprints", to={"bright": {"split": {"test": ["Doe"]}}}), True,
        BundleAltered,
    ),
    "a version's name that is none": (edit("manifest.json", version="x y"), False, BundleAltered),
    "an origin that is none": (put("provenance.json", b"{}"), True, BundleAltered),
    "a wrong signature": (
        put("signature.json", json.dumps(
            {"algorithm": "Ed25519", "public_key": KEY, "signature": "00" * 64}
        ).encode()), True, BundleUntrusted,
    ),
    "a signature that is none": (put("signature.json", b"{}"), True, BundleUntrusted),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "listed", "error"), HOSTILE.values(), ids=HOSTILE)
def test_what_was_tampered_with_is_refused_by_name_and_leaves_no_version(
    bundle: Path,
    elsewhere: Settings,
    spoil: Callable[[Parts], None],
    listed: bool,
    error: type[U2NetError],
) -> None:
    parts = parts_of(bundle)
    spoil(parts)
    write(bundle, parts, listed)
    with pytest.raises(error) as caught:
        import_bundle(elsewhere, bundle)
    assert type(caught.value) is error
    catalog = Catalog.open(elsewhere.database_url)
    assert (catalog.versions.list(), catalog.domains.list()) == ([], [])
    assert not elsewhere.weights_dir.exists()


def test_scores_that_are_null_are_none(elsewhere: Settings, bundle: Path) -> None:
    parts = parts_of(bundle)
    put("metrics.json", b'{"test": null, "validation": null, "federation": null}')(parts)
    write(bundle, parts)
    record = import_bundle(elsewhere, bundle).record
    assert list(record.metrics) == [ORIGIN]
    with pytest.raises(NotEvaluated):
        slot = Slot(domain=record.domain)
        Catalog.open(elsewhere.database_url).deployments.deploy(slot, record.number, "me")


def test_what_is_local_to_a_machine_is_not_taken_from_a_bundle(
    settings, elsewhere: Settings, bundle: Path
) -> None:
    import_bundle(elsewhere, bundle)
    parts = parts_of(bundle)
    spoilt = {"directory": "/etc", "mlflow_run_id": "7" * 32, "base_version": "bright:1"}
    for key, value in spoilt.items():
        origin("run", key, to=value)(parts)
    origin("run", "id", to="forged")(parts)
    edit("plan.json", batch_size=3)(parts)
    write(bundle, parts)
    done = import_bundle(elsewhere, bundle)
    run = Catalog.open(elsewhere.database_url).runs.get(done.record.run_id)
    assert (done.record.reference, run.id) == ("bright:2", "forged")
    assert (run.directory, run.mlflow_run_id, run.base_version) == ("", None, None)


def test_a_run_of_the_same_name_that_is_another_gets_another_name(
    elsewhere: Settings, bundle: Path
) -> None:
    first = import_bundle(elsewhere, bundle).record.run_id
    parts = parts_of(bundle)
    origin("run", "seed", to=8)(parts)
    edit("plan.json", batch_size=3)(parts)
    write(bundle, parts)
    second = import_bundle(elsewhere, bundle).record.run_id
    assert second != first
    assert len(second) <= 64
    edit("plan.json", batch_size=4)(parts)
    write(bundle, parts)
    assert import_bundle(elsewhere, bundle).record.run_id == second


def test_scores_that_a_version_lacks_come_with_a_later_bundle_and_others_stay(
    settings, elsewhere: Settings, bundle: Path, tmp_path: Path
) -> None:
    parts = parts_of(bundle)
    scores = parts["metrics.json"]
    put("metrics.json", b"{}")(parts)
    write(tmp_path / "unevaluated", parts)
    assert "test" not in import_bundle(elsewhere, tmp_path / "unevaluated").record.metrics
    done = import_bundle(elsewhere, bundle)
    assert (done.new, done.added, done.kept) == (False, ("test",), ())
    assert done.record.metrics["test"] == json.loads(scores)["test"]
    put("metrics.json", scores.replace(b"0.912", b"0.999"))(parts)
    write(tmp_path / "praised", parts)
    done = import_bundle(elsewhere, tmp_path / "praised")
    assert (done.new, done.added, done.kept) == (False, (), ("test",))
    assert done.record.metrics["test"] == json.loads(scores)["test"]


def test_imported_by_many_at_once_it_is_one_version(elsewhere: Settings, bundle: Path) -> None:
    Catalog.open(elsewhere.database_url)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: import_bundle(elsewhere, bundle), range(4)))
    assert sorted(one.new for one in done) == [False, False, False, True]
    assert {one.record.reference for one in done} == {"bright:1"}
    assert len(Catalog.open(elsewhere.database_url).runs.list()) == 1


def test_an_encrypted_member_is_refused(elsewhere: Settings, bundle: Path) -> None:
    raw = bytearray(bundle.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1  # the flag in the directory at the end
    bundle.write_bytes(raw)
    with pytest.raises(BundleUnsafe, match="encrypted"):
        import_bundle(elsewhere, bundle)


def test_whatever_byte_of_its_frame_is_altered_the_refusal_has_a_name(
    elsewhere: Settings, bundle: Path
) -> None:
    parts = {name: one for name, one in parts_of(bundle).items() if name.endswith("json")}
    write(bundle, parts)  # without weights: it would be refused for that at the latest
    whole = bundle.read_bytes()
    places = random.Random(0).sample(range(len(whole)), 300)
    frame = range(whole.index(b"PK\x01\x02"), len(whole))
    for place in [*places, *frame]:
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << place % 8
        bundle.write_bytes(spoilt)
        with pytest.raises(IntegrityError):
            read_bundle(bundle)


def test_what_is_no_whole_zip_is_refused(bundle: Path, elsewhere: Settings) -> None:
    whole = bundle.read_bytes()
    for broken in (b"", b"no zip", whole[:-100], whole[: len(whole) // 2]):
        bundle.write_bytes(broken)
        with pytest.raises(BundleAltered):
            import_bundle(elsewhere, bundle)
    with pytest.raises(MissingFile):
        import_bundle(elsewhere, bundle.with_name("none"))


def test_a_zip_bomb_a_link_and_a_name_given_twice_are_refused(
    bundle: Path, elsewhere: Settings
) -> None:
    parts = parts_of(bundle)
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", parts["manifest.json"])
        archive.writestr("spec.json", b"0" * 50_000_000)
    with pytest.raises(BundleUnsafe, match="compressed"):
        import_bundle(elsewhere, bundle)

    link = zipfile.ZipInfo("spec.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BundleUnsafe, match="link"):
        import_bundle(elsewhere, bundle)

    with zipfile.ZipFile(bundle, "w") as archive:
        archive.writestr("spec.json", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("spec.json", b"2")
    with pytest.raises(BundleUnsafe, match="twice"):
        import_bundle(elsewhere, bundle)

    # A header that promises more than the file holds, and one that takes in other members.
    write(bundle, parts)
    raw = bytearray(bundle.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    for size in (2**31, len(raw)):
        raw[at + 20 : at + 28] = size.to_bytes(4, "little") * 2
        bundle.write_bytes(raw)
        with pytest.raises(BundleUnsafe, match="larger than the file"):
            import_bundle(elsewhere, bundle)


def test_a_signed_one_is_taken_from_whom_one_trusts(
    settings, elsewhere: Settings, bundle: Path, tmp_path: Path
) -> None:
    public = {name: create_key(tmp_path / name) for name in ("lab", "other")}
    lab, other = (load_public_key(public[name]) for name in ("lab", "other"))
    with pytest.raises(BundleUntrusted, match="not signed"):
        import_bundle(elsewhere, bundle, [lab])
    record = Catalog.open(settings.database_url).find("bright:1")
    export_bundle(settings, record, bundle, load_private_key(tmp_path / "lab"))
    with pytest.raises(BundleUntrusted, match="do not trust"):
        import_bundle(elsewhere, bundle, [other])
    parts = parts_of(bundle)
    write(tmp_path / "altered", parts | {"README.md": b"altered"})
    with pytest.raises(BundleUntrusted, match="wrong"):
        import_bundle(elsewhere, tmp_path / "altered")
    assert import_bundle(elsewhere, bundle, [other, lab]).signer is not None


def test_a_bundle_replaces_a_bundle_and_nothing_else(settings, bundle: Path) -> None:
    record = Catalog.open(settings.database_url).find("bright:1")
    export_bundle(settings, record, bundle)
    key = bundle.with_name("lab")
    create_key(key)
    text = key.read_bytes()
    with pytest.raises(NotWritable, match="is no bundle"):
        export_bundle(settings, record, key)
    assert key.read_bytes() == text


def test_a_private_key_is_its_owner_s_alone_and_never_replaced(tmp_path: Path) -> None:
    with pytest.raises(NotWritable, match="no name"):
        create_key(Path())
    create_key(tmp_path / "lab")
    assert (tmp_path / "lab").stat().st_mode & 0o777 == 0o600
    with pytest.raises(NotWritable):
        create_key(tmp_path / "lab")
    for loaded, name in ((load_private_key, "lab.pub"), (load_public_key, "lab")):
        with pytest.raises(InvalidKey) as caught:
            loaded(tmp_path / name)
        assert "PATH.pub" in caught.value.hint
    with pytest.raises(MissingFile):
        load_public_key(tmp_path / "none")


def test_a_version_made_with_code_needs_that_plugin_here(
    settings, elsewhere: Settings, bright_folder: Path, publish_bright, tmp_path: Path
) -> None:
    (bright_folder / "plugin.py").write_text(
        "def postprocess(labels, spacing_zyx_mm):\n    return labels\n"
    )
    record = publish_bright()
    path = export_bundle(settings, record, tmp_path / "coded.u2net")
    assert not any(name.endswith(".py") for name in parts_of(path))
    with pytest.raises(IncompatibleParts, match=r"plugin's code .* not have: .*bright"):
        import_bundle(elsewhere, path)
    other = elsewhere.home / "plugins" / "bright"
    other.mkdir(parents=True)
    for file in bright_folder.iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
    spec = other / "domain.toml"  # only the code has to be the same
    spec.write_text(spec.read_text().replace("whatever is bright", "bright things"))
    assert import_bundle(elsewhere, path).new


def test_the_command_line_exports_imports_and_says_who_signed(
    settings, bundle: Path, tmp_path: Path
) -> None:
    def u2net(home: Path, *arguments: str) -> Any:
        result = CliRunner().invoke(app, [*arguments, "--json"], env={"U2NET_HOME": str(home)})
        document = json.loads(result.stdout)
        return document.get("data") or document["error_code"]

    made = u2net(settings.home, "model", "key", str(tmp_path / "lab"))
    out = str(tmp_path / "out.u2net")
    u2net(settings.home, "model", "export", "bright", "-o", out, "--sign", str(tmp_path / "lab"))
    taken = ("model", "import", out, "--trust", made["public"])
    done = u2net(tmp_path / "second", *taken)
    assert (done["version"]["number"], done["signer"]) == (1, made["fingerprint"])
    assert u2net(tmp_path / "second", *taken[:3])["new"] is False
    assert u2net(tmp_path / "second", "model", "import", str(tmp_path / "lab")) == "BundleAltered"
    (tmp_path / "theirs.pub").write_bytes(trusted := (tmp_path / "lab.pub").read_bytes())
    assert u2net(settings.home, "model", "key", str(tmp_path / "theirs")) == "NotWritable"
    assert (tmp_path / "theirs.pub").read_bytes() == trusted
    assert not (tmp_path / "theirs").exists()


def export(settings: Settings, path: Path) -> None:
    export_bundle(settings, Catalog.open(settings.database_url).find("bright:1"), path)


def test_an_export_that_is_killed_leaves_no_half_file_and_completes_when_repeated(
    settings, bundle: Path, tmp_path: Path, kills
) -> None:
    def path(kill: int) -> Path:
        return tmp_path / f"{kill}.u2net"

    def then(kill: int) -> None:
        assert not path(kill).exists() or read_bundle(path(kill)).members
        export(settings, path(kill))
        assert path(kill).read_bytes() == bundle.read_bytes()

    kills(export, lambda kill: (settings, path(kill)), then, 10)


def test_an_import_that_is_killed_leaves_no_row_without_its_file_and_completes_when_repeated(
    bundle: Path, tmp_path: Path, kills
) -> None:
    def home(kill: int) -> Settings:
        return Settings(home=tmp_path / f"home-{kill}")

    def then(kill: int) -> None:
        catalog, store = Catalog.open(home(kill).database_url), WeightStore(home(kill).weights_dir)
        assert all(store.get(digest) for digest in catalog.versions.digests_of_files())
        assert import_bundle(home(kill), bundle).record.reference == "bright:1"
        (version,) = catalog.versions.list()
        assert all(store.get(digest) for digest in catalog.versions.digests_of_files())
        assert catalog.runs.get(version.run_id).status == "completed"

    kills(import_bundle, lambda kill: (home(kill), bundle), then, 10)
