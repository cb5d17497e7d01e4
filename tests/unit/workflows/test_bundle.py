from __future__ import annotations

import hashlib
import json
import multiprocessing
import pickle
import random
import stat
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from typer.testing import CliRunner

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.weights import WeightStore
from u2net_platform.cli.app import app
from u2net_platform.errors import (
    BundleAltered,
    BundleSchema,
    BundleUnsafe,
    BundleUntrusted,
    IncompatibleParts,
    InvalidKey,
    InvalidSpec,
    MissingFile,
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
    "another domain's spec": (edit("spec.json", name="heart"), True, IncompatibleParts),
    "a spec that is none": (put("spec.json", b"{"), True, BundleAltered),
    "a spec that was changed": (edit("spec.json", description="x"), True, IncompatibleParts),
    "a plan that is none": (edit("plan.json", patch_zyx=[1]), True, BundleAltered),
    "a probe it does not make so": (
        lambda parts: put("provenance.json", parts["provenance.json"].replace(
            b'"output": "', b'"output": "0'))(parts), True, IncompatibleParts,
    ),
    "an origin that is none": (put("provenance.json", b"{}"), True, BundleAltered),
    "a wrong signature": (
        put("signature.json", json.dumps(
            {"algorithm": "Ed25519", "public_key": "00" * 32, "signature": "00" * 64}
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

    # A header that promises more than the file holds.
    write(bundle, parts)
    raw = bytearray(bundle.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 20 : at + 28] = (2**31).to_bytes(4, "little") * 2
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


def test_a_private_key_is_its_owner_s_alone_and_never_replaced(tmp_path: Path) -> None:
    create_key(tmp_path / "lab")
    assert (tmp_path / "lab").stat().st_mode & 0o777 == 0o600
    with pytest.raises(NotWritable):
        create_key(tmp_path / "lab")
    with pytest.raises(InvalidKey):
        load_private_key(tmp_path / "lab.pub")
    with pytest.raises(InvalidKey):
        load_public_key(tmp_path / "lab")
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
    with pytest.raises(IncompatibleParts, match="plugin's code"):
        import_bundle(elsewhere, path)
    other = elsewhere.home / "plugins" / "bright"
    other.mkdir(parents=True)
    for file in bright_folder.iterdir():
        if file.is_file():
            (other / file.name).write_bytes(file.read_bytes())
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


def export_and_import(settings: Settings, elsewhere: Settings, path: Path) -> None:
    record = Catalog.open(settings.database_url).find("bright:1")
    import_bundle(elsewhere, export_bundle(settings, record, path))


def test_killed_while_it_exports_or_imports_it_leaves_nothing_half_done(
    settings, bundle: Path, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "alembic.command"])
    for first in ("warm-up", "timed"):
        home, path = Settings(home=tmp_path / first), tmp_path / f"{first}.u2net"
        process = context.Process(target=export_and_import, args=(settings, home, path))
        started = time.monotonic()
        process.start()
        process.join()
        whole_s = time.monotonic() - started
    random_s, left = random.Random(0), set()
    for kill in range(20):
        path, home = tmp_path / f"{kill}.u2net", Settings(home=tmp_path / f"home-{kill}")
        process = context.Process(target=export_and_import, args=(settings, home, path))
        process.start()
        time.sleep(random_s.uniform(0, 1.2 * whole_s))
        process.kill()
        process.join()
        if path.exists():
            read_bundle(path)
        versions = Catalog.open(home.database_url).versions.list()
        left.add((path.exists(), len(versions)))
        export_and_import(settings, home, path)
        versions = Catalog.open(home.database_url).versions.list()
        assert [version.reference for version in versions] == ["bright:1"]
        (proven,) = verify(WeightStore(home.weights_dir), versions, lambda _: None)
        assert proven.output == "same"
    assert len(left) > 1  # some were early, some late
