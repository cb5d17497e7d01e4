"""Folders of sites and of the coordinator, and what is wrong with them."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from unittest.mock import ANY

import pytest
from cryptography import x509
from flwr.supercore.constant import TASK_TYPE_TO_COMMAND
from mlflow import MlflowClient
from typer.testing import CliRunner

from u2net_platform.cli.app import app
from u2net_platform.errors import (
    FlowerFailed,
    InvalidFederation,
    InvalidSite,
    NotApproved,
    NotWritable,
    RunBusy,
)
from u2net_platform.federation import guarded_client, keys, preflight, superlink
from u2net_platform.federation.coordinator_folder import init_superlink
from u2net_platform.federation.keys import create_authority
from u2net_platform.federation.messages import Ask
from u2net_platform.federation.request import (
    CHANGEABLE,
    FederationRequest,
    new_run,
    request_of,
)
from u2net_platform.federation.site import Site
from u2net_platform.federation.site_config import SiteConfig
from u2net_platform.federation.site_folder import (
    approve,
    find_sites,
    init_site,
    start_command,
    trust_authority,
)
from u2net_platform.federation.status import read_status
from u2net_platform.federation.superlink import SuperLink
from u2net_platform.files import exclusive, write_text
from u2net_platform.settings import PRODUCT
from u2net_platform.tracking.mlflow_recorder import find_run
from u2net_platform.training.recipe import Recipe
from u2net_platform.workflows.collect_garbage import collect_garbage
from u2net_platform.workflows.request import LOCK_FILE


def test_a_site_is_made_once_with_a_private_key(tmp_path: Path) -> None:
    public = init_site(tmp_path / "north", "north", {"heart": tmp_path})
    assert (tmp_path / "north" / "site.key").stat().st_mode & 0o777 == 0o600
    assert public.read_text().startswith("ecdsa-sha2-nistp384 ")
    config = SiteConfig.load(tmp_path / "north")
    assert config.domains["heart"].data == tmp_path
    assert config.domains["heart"].weights == "local"
    assert config.privacy.clip == 0
    with pytest.raises(NotWritable):
        init_site(tmp_path / "north", "north", {})


def test_a_site_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    folder, data = tmp_path / "site", tmp_path / "data"
    data.mkdir()
    for name, domains, authority, reason in (
        ("../up", {}, None, "name"),
        ("north", {"heart": tmp_path / "gone"}, None, "no folder of data"),
        ("north", {"heart": data}, Path("/etc/passwd"), "no certificate"),
    ):
        with pytest.raises(InvalidSite, match=reason):
            init_site(folder, name, domains, authority=authority)
        assert not folder.exists()
    init_site(folder, "north", {"heart": data})


@pytest.mark.parametrize(
    "text",
    [
        "name = 1", 'name = "North Pole"', 'name = "../up"', 'name = "north"\nextra = 1', "name =",
        'name = "north"\n[domains.heart]\nweights = "average"',
        'name = "north"\n[domains.heart]\ndata = "x"\nweights = "all"',
        'name = "north"\n[privacy]\nclip = -1', 'name = "north"\ncoordinator = "lab.example.org"',
    ],
)  # fmt: skip
def test_a_broken_site_is_refused_with_the_reason(tmp_path: Path, text: str) -> None:
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(InvalidSite, match=r"site\.toml"):
        SiteConfig.load(tmp_path)


def test_cases_that_a_site_uses_order_after_order_are_no_garbage(new_site) -> None:
    site = Site(new_site("north", "apple"))
    ask = Ask(run="20260131-120000-1a2b", fold=0, batch_voxels=4096, release=version(PRODUCT))
    site.describe(ask)
    cases = list(site.settings.prepared_dir.glob("apple/*/"))
    for path in [file for case in cases for file in (case, *case.iterdir())]:
        os.utime(path, (0, 0))
    garbage = collect_garbage(site.settings, dry_run=True, prepared_days=1)
    assert {one.path for one in garbage} == set(cases)
    site.describe(ask)
    assert collect_garbage(site.settings, dry_run=True, prepared_days=1) == []


def test_sites_are_found_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidSite, match="no site"):
        find_sites(tmp_path)
    for folder, name in (("a", "north"), ("b", "south")):
        init_site(tmp_path / folder, name, {})
    assert list(find_sites(tmp_path)) == ["north", "south"]
    init_site(tmp_path / "c", "north", {})
    with pytest.raises(InvalidSite, match="both north"):
        find_sites(tmp_path)


def test_a_site_starts_only_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "north"
    init_site(folder, "north", {})
    with pytest.raises(InvalidSite, match="coordinator"):
        start_command(folder)
    text = (folder / "site.toml").read_text()
    (folder / "site.toml").write_text(f'coordinator = "127.0.0.1:1"\n{text}')
    with pytest.raises(InvalidSite, match=r"ca\.crt is missing"):
        start_command(folder)
    create_authority(tmp_path / "lab", ("localhost",))
    with pytest.raises(InvalidSite, match="no certificate"):
        trust_authority(folder, tmp_path / "lab" / "ca.key")
    trust_authority(folder, tmp_path / "lab" / "ca.crt")
    with pytest.raises(InvalidSite, match="approved no bundle"):
        start_command(folder)
    with pytest.raises(InvalidSite, match="SHA-256"):
        approve(folder, "latest")
    approve(folder, "a" * 64)
    command, environment = start_command(folder)
    for program in TASK_TYPE_TO_COMMAND.values():  # whatever the coordinator would have run
        found = shutil.which(program, path=environment["PATH"])
        assert found == str(folder.resolve() / "bin" / program)
        if program != "flwr-clientapp":
            refused = subprocess.run([found], capture_output=True, text=True, check=False)
            assert (refused.returncode, "not run at a site" in refused.stderr) == (1, True)
    assert "--insecure" not in command
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert environment["PATH"].startswith(str(folder / "bin"))
    (folder / "site.key").chmod(0o644)
    with pytest.raises(InvalidSite, match="read by others"):
        start_command(folder)


def test_a_certificate_is_renewed_by_the_same_authority(settings, monkeypatch) -> None:
    folder = init_superlink(settings, ("lab.example.org",), 18001, 8443).folder
    before = (folder / "server.crt").read_bytes()
    kept = {name: (folder / name).read_bytes() for name in ("ca.crt", "ca.key", "server.key")}
    ends = SuperLink(settings).renew()
    ca, server = (
        x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
        for name in ("ca", "server")
    )
    server.verify_directly_issued_by(ca)
    assert server.not_valid_after_utc == ends < ca.not_valid_after_utc
    assert (folder / "server.crt").read_bytes() != before
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    monkeypatch.setattr(keys, "A_MONTH", timedelta(days=11 * 365))
    with pytest.raises(InvalidFederation, match=r"ca\.crt ends on"):
        SuperLink(settings).renew()
    (folder / "ca.key").unlink()
    with pytest.raises(InvalidFederation, match="cannot sign"):
        SuperLink(settings).renew()


def test_no_certificate_outlives_its_authority(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(keys, "AUTHORITY_LASTS", timedelta(days=90))  # of a folder of before
    create_authority(tmp_path, ("lab.example.org",))
    ca = x509.load_pem_x509_certificate((tmp_path / "ca.crt").read_bytes())
    ends = keys.certify_server(tmp_path, ("lab.example.org",))
    assert abs(ends - ca.not_valid_after_utc) < timedelta(minutes=1)


@pytest.mark.parametrize(("days", "status"), [(400, "ok"), (20, "warn")])
def test_a_site_is_told_that_the_coordinator_s_certificate_ends(
    days: int, status: str, tmp_path: Path, monkeypatch
) -> None:
    ends = datetime.now(UTC) + timedelta(days=days)
    monkeypatch.setattr(preflight, "shake_hands", lambda *_: ends)
    create_authority(tmp_path / "lab", ("localhost",))
    init_site(tmp_path / "north", "north", {}, "localhost:1", tmp_path / "lab" / "ca.crt")
    (found,) = [
        one for one in preflight.preflight(tmp_path / "north") if one.subject == "coordinator"
    ]
    assert (found.status, "u2net federation renew" in found.remedy) == (status, status == "warn")


@pytest.mark.parametrize(("ahead_s", "status"), [(0, None), (60, "fail"), (-400, "fail")])
def test_a_site_is_told_that_its_clock_is_wrong(
    ahead_s: int, status: str | None, tmp_path: Path, monkeypatch
) -> None:
    """By the Date of a real server, over TLS that asks for all that Python 3.13 does."""
    create_authority(tmp_path, ("localhost",))
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server.socket = own.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, daemon=True).start()
    told = time.time() - ahead_s
    monkeypatch.setattr(
        BaseHTTPRequestHandler, "date_time_string", lambda *_: formatdate(told, usegmt=True)
    )
    strict = keys._context

    def asking(authority: Path) -> ssl.SSLContext:
        context = strict(authority)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(keys, "_context", asking)
    address = f"localhost:{server.server_port}"
    init_site(tmp_path / "north", "north", {}, address, tmp_path / "ca.crt")
    try:
        found = {one.subject: one for one in preflight.preflight(tmp_path / "north")}
    finally:
        server.shutdown()
        server.server_close()
    assert found["coordinator"].status == "ok"
    clock = found.get("clock")
    assert (clock and clock.status) == status
    assert clock is None or ("ahead of" in clock.detail) == (ahead_s > 0)


@pytest.mark.parametrize("host", ["https://fed.example.org:8443", "", "klinik-süd.example.org"])
def test_what_is_no_host_is_refused_before_anything_is_made(settings, host: str) -> None:
    with pytest.raises(InvalidFederation, match="no name or address"):
        init_superlink(settings, (host,), 18001, 8443)
    assert not (settings.home / "federation").exists()
    init_superlink(settings, ("fed.example.org",), 18001, 8443)


def test_what_a_killed_init_left_is_in_nobody_s_way(settings) -> None:
    write_text(settings.home / "federation" / "ca.key", "half")
    init_superlink(settings, ("fed.example.org",), 18001, 8443)
    assert "half" not in (settings.home / "federation" / "ca.key").read_text()


def test_a_spent_budget_is_told_before_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "north"
    init_site(folder, "north", {})
    text = (folder / "site.toml").read_text()
    rules = "clip = 1.0\nnoise = 4.0\nlargest_epsilon = 0.01"
    (folder / "site.toml").write_text(text.replace("clip = 0.0\nnoise = 0.0", rules))
    (found,) = [one for one in preflight.preflight(folder) if one.subject == "privacy"]
    assert (found.status, "epsilon" in found.detail) == ("fail", True)


def test_the_authority_vouches_for_the_names_that_sites_use(tmp_path: Path) -> None:
    create_authority(tmp_path, ("lab.example.org", "10.0.0.7"))
    ca, server = (
        x509.load_pem_x509_certificate((tmp_path / f"{name}.crt").read_bytes())
        for name in ("ca", "server")
    )
    server.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["lab.example.org"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7"]
    for name in ("ca", "server"):
        assert (tmp_path / f"{name}.key").stat().st_mode & 0o777 == 0o600


def test_a_coordinator_knows_public_keys_alone(settings, tmp_path: Path) -> None:
    with pytest.raises(InvalidFederation, match="federation init"):
        SuperLink(settings)
    made = init_superlink(settings, ("lab.example.org",), 18001, 8443)
    with pytest.raises(NotWritable):
        init_superlink(settings, ("lab.example.org",), 18001, 8443)
    assert len(made.bundle) == 64
    link = SuperLink(settings)
    init_site(tmp_path / "north", "north", {})
    with pytest.raises(InvalidFederation, match="no public key"):
        link.add_site("north", tmp_path / "north" / "site.key")
    link.add_site("north", tmp_path / "north" / "site.key.pub")
    with pytest.raises(InvalidFederation, match="already"):
        link.add_site("north", tmp_path / "north" / "site.key.pub")
    with pytest.raises(InvalidFederation, match="the key of north"):
        link.add_site("south", tmp_path / "north" / "site.key.pub")
    (tmp_path / "nonsense.pub").write_text("ecdsa-sha2-nonsense AAAA")
    with pytest.raises(InvalidFederation, match="no public key"):
        link.add_site("south", tmp_path / "nonsense.pub")
    for name in ("../../escaped", "North Pole", ""):
        with pytest.raises(InvalidFederation, match="no name"):
            link.add_site(name, tmp_path / "north" / "site.key.pub")
    assert SuperLink(settings).sites == ("north",)
    assert [path.name for path in (made.folder / "sites").iterdir()] == ["north.pub"]
    link.remove_site("north")
    assert SuperLink(settings).sites == ()
    with pytest.raises(InvalidFederation, match="no site north"):
        link.remove_site("north")
    link.add_site("north", tmp_path / "north" / "site.key.pub")
    assert not link.running
    assert link.states() == {"north": "unknown"}
    assert not link.stop()


def test_two_commands_at_once_lose_no_site(settings, tmp_path: Path) -> None:
    folder = init_superlink(settings, (), 18001, 8443).folder
    one, other = SuperLink(settings), SuperLink(settings)
    for name in ("north", "south"):
        init_site(tmp_path / name, name, {})
    one.add_site("north", tmp_path / "north" / "site.key.pub")
    adding = Thread(target=other.add_site, args=("south", tmp_path / "south" / "site.key.pub"))
    with exclusive(folder / superlink.LOCK_FILE):
        adding.start()
        adding.join(0.3)
        assert adding.is_alive(), "another command is at work"
    adding.join(10)
    assert SuperLink(settings).sites == ("north", "south")
    one.remove_site("north")
    assert SuperLink(settings).sites == ("south",)


class FakeFlower:
    """Of `flwr supernode`, what a SuperLink would do; its first answer comes too late."""

    def __init__(self) -> None:
        self.nodes: dict[str, str] = {}
        self.late = True

    def __call__(self, *arguments: str) -> dict:
        _, command, target, *_ = arguments
        if command == "list":
            return {"nodes": [{"node-id": n, "status": s} for n, s in self.nodes.items()]}
        if command == "unregister":
            self.nodes[target] = "unregistered"
            return {}
        if self.nodes:
            raise FlowerFailed(superlink.KEY_TAKEN, "")
        self.nodes["7"] = "registered"
        if self.late:
            raise FlowerFailed("no answer", "")
        return {"node-id": "7"}


@pytest.fixture
def late(settings, tmp_path: Path, monkeypatch) -> FakeFlower:
    """A coordinator whose SuperLink has taken the key of north, and has not said so in time."""
    flower = FakeFlower()
    init_superlink(settings, (), 18001, 8443)
    init_site(tmp_path / "north", "north", {})
    monkeypatch.setattr(SuperLink, "running", True)
    monkeypatch.setattr(SuperLink, "_answers", lambda self: True)
    monkeypatch.setattr(SuperLink, "_flwr", flower)
    with pytest.raises(FlowerFailed, match="no answer"):
        SuperLink(settings).add_site("north", tmp_path / "north" / "site.key.pub")
    assert SuperLink(settings).config.sites == {"north": None}
    return flower


def test_to_remove_a_site_takes_no_key_of_another_from_flower(settings, late: FakeFlower) -> None:
    SuperLink(settings)._write({"north": None, "south": None})
    SuperLink(settings).remove_site("south")
    assert late.nodes == {"7": "registered"}, "it may be north's"
    assert SuperLink(settings).sites == ("north",)


@pytest.mark.usefixtures("late")
def test_a_site_that_flower_took_and_said_so_too_late_is_known_after_the_next_start(
    settings,
) -> None:
    SuperLink(settings).start()
    assert SuperLink(settings).config.sites == {"north": 7}


def test_a_site_that_flower_took_and_said_so_too_late_can_be_removed(
    settings, late: FakeFlower
) -> None:
    SuperLink(settings).remove_site("north")
    assert (SuperLink(settings).sites, late.nodes) == ((), {"7": "unregistered"})


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("exec sleep 9", "no answer after 1 s"),
        ("echo '│ Error ─╮ │ It is down. │' >&2; exit 1", "flwr log fails: It is down."),
    ],
)
def test_why_flower_gives_no_log_is_told(
    settings, tmp_path: Path, monkeypatch, does: str, told: str
) -> None:
    init_superlink(settings, (), 18001, 8443)
    program = tmp_path / "flwr"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setattr(superlink, "environment", lambda: {"PATH": f"{tmp_path}:/usr/bin:/bin"})
    monkeypatch.setattr(superlink, "ANSWER_SECONDS", 1)
    write_text(settings.runs_dir / "x" / "flower.json", '{"run": 5}')
    done = CliRunner().invoke(app, ["federation", "logs", "x"])
    assert done.exit_code == FlowerFailed.exit_code
    assert told in done.stderr
    assert "u2net federation st" in done.stderr


def test_a_run_that_has_ended_or_is_none_is_not_stopped(settings, monkeypatch) -> None:
    def finished(*_: object) -> None:
        raise FlowerFailed("flwr stop fails: Run is already finished", "See its log.")

    init_superlink(settings, (), 18001, 8443)
    monkeypatch.setattr(SuperLink, "_flwr", finished)
    with pytest.raises(InvalidFederation, match="Flower has no run x"):
        SuperLink(settings).stop_run("x")
    write_text(settings.runs_dir / "x" / "flower.json", '{"run": 5}')
    with pytest.raises(InvalidFederation, match="x has ended already"):
        SuperLink(settings).stop_run("x")


def test_a_run_that_no_superlink_takes_is_not_made(settings, new_site, tmp_path: Path) -> None:
    init_superlink(settings, (), 18001, 8443)
    init_site(tmp_path / "west", "west", {})
    SuperLink(settings).add_site("west", tmp_path / "west" / "site.key.pub")
    done = CliRunner().invoke(app, ["federation", "run", "--rounds", "1", "--cycles", "1"])
    assert done.exit_code == FlowerFailed.exit_code
    assert "u2net federation start" in done.stderr
    assert not [*settings.runs_dir.glob("*")]


def test_a_folder_is_no_key(settings, tmp_path: Path) -> None:
    init_superlink(settings, (), 18001, 8443)
    done = CliRunner().invoke(app, ["federation", "add", "north", "--key", str(tmp_path)])
    assert (done.exit_code, "directory" in done.stderr) == (2, True)


def test_the_bundle_that_sites_approve_is_told_at_each_start(settings, monkeypatch) -> None:
    made = init_superlink(settings, (), 18001, 8443)
    monkeypatch.setattr(SuperLink, "start", lambda self: None)
    done = CliRunner().invoke(app, ["federation", "start"])
    assert made.bundle in done.stdout


def test_a_folder_of_a_coordinator_of_before_is_still_read(settings) -> None:
    file = init_superlink(settings, (), 18001, 8443).folder / "federation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"public_port": 8443}))
    assert SuperLink(settings).config.port == 18001


def test_the_same_release_makes_the_same_bundle(settings, tmp_path: Path) -> None:
    first = init_superlink(settings, (), 18001, 8443).bundle
    elsewhere = settings.model_copy(update={"home": tmp_path / "elsewhere"})
    assert init_superlink(elsewhere, ("other.example.org",), 18002, 9443).bundle == first


def test_nginx_takes_the_configuration_and_lets_the_fleet_path_through(
    settings, tmp_path: Path
) -> None:
    nginx = shutil.which("nginx")
    if nginx is None:
        pytest.skip("nginx is not installed here")
    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        port, public = one.getsockname()[1], two.getsockname()[1]
    made = init_superlink(settings, ("localhost",), port, public)
    main = tmp_path / "nginx.conf"
    main.write_text(
        f"pid {tmp_path}/pid; daemon off; error_log {tmp_path}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; include {made.nginx}; }}\n"
    )
    process = subprocess.Popen([nginx, "-c", str(main), "-p", str(tmp_path)])
    try:
        answers = {}
        for path in ("/v1/fleet/x", "/v1/control/x", "/v1/runtime/x", "/"):
            done = subprocess.run(
                ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--retry", "5",
                 "--retry-connrefused", "--cacert", str(made.folder / "ca.crt"),
                 f"https://localhost:{public}{path}"],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            answers[path] = done.stdout
        # 502: let through, to a SuperLink that does not run.
        assert answers == {
            "/v1/fleet/x": "502", "/v1/control/x": "403", "/v1/runtime/x": "403", "/": "403",
        }  # fmt: skip
    finally:
        process.terminate()
        process.wait(timeout=10)


def test_nginx_asks_the_superlink_for_a_name_that_its_certificate_has(settings) -> None:
    """It does not look at the addresses in a certificate, and would answer each site with 502."""
    made = init_superlink(settings, ("10.0.0.7",), 18001, 8443)
    (name,) = re.findall(r"proxy_ssl_name (\S+);", made.nginx.read_text())
    server = x509.load_pem_x509_certificate((made.folder / "server.crt").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert name in names.get_values_for_type(x509.DNSName)


def test_the_configuration_of_nginx_names_the_fleet_path_alone(settings) -> None:
    text = init_superlink(settings, ("lab.example.org",), 18001, 8443).nginx.read_text()
    places = [line.split()[1] for line in text.splitlines() if line.strip().startswith("location")]
    assert places == ["/v1/fleet/", "/"]
    assert "listen 8443 ssl" in text
    assert text.count("proxy_pass") == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["federate", "run", "--sites", "/nowhere"], "InvalidSite"),
        (["federate", "status"], "NothingToResume"),
        (["federate", "status", "20260101-000000-ffff"], "NothingToResume"),
        (["federation", "resume", "20260101-000000-ffff"], "NothingToResume"),
        (["federation", "start"], "InvalidFederation"),
        (["federation", "run"], "InvalidFederation"),
        (["site", "approve", "/nowhere", "a" * 64], "InvalidSite"),
        (["site", "start", "/nowhere"], "InvalidSite"),
    ],
)
def test_a_wrong_command_says_what_to_do(settings, command: list[str], code: str) -> None:
    done = CliRunner().invoke(app, [*command, "--json"])
    envelope = json.loads(done.stdout)
    assert envelope["error_code"] == code
    assert len(envelope["hint"]) > 10


def test_more_quorum_than_sites_is_refused(settings, new_site) -> None:
    folder = new_site("north", "apple").parent
    command = ["federate", "run", "--sites", str(folder), "--quorum", "2", "--json"]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, json.loads(done.stdout)["error_code"]) == (10, "InvalidFederation")


def test_a_base_that_is_not_there_begins_no_run(settings, new_site) -> None:
    folder = new_site("north", "apple").parent
    command = ["federate", "run", "--sites", str(folder), "--from", "apple:99", "--json"]
    done = CliRunner().invoke(app, command)
    assert json.loads(done.stdout)["error_code"] == "UnknownDomain"
    assert not settings.runs_dir.exists()


def test_a_run_that_ended_before_its_first_round_waits_no_more(settings) -> None:
    request = FederationRequest(
        sites=("north",), recipe=Recipe.load("default"), rounds=1, cycles=1, quorum=1
    )
    run = new_run(settings, request)
    assert read_status(settings, run).status == "waiting for sites"
    with exclusive(settings.runs_dir / run / LOCK_FILE):
        assert read_status(settings, run).status == "waiting for sites"
    assert read_status(settings, run).status == "interrupted"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["federate", "run", "--resume", "x", "--rounds", "100"], "--rounds"),
        (["federate", "run", "--resume", "x", "--set", "loss=x"], "--set"),
        (["train", "--resume", "x", "--minutes", "3", "--fold", "all"], "--minutes, --fold"),
        (["train", "a", "--from", "a:1", "--architecture", "paper"], "--architecture"),
        (["train", "a", "--minutes", "3", "--cycles", "5"], "--cycles"),
        (["train", "a", "--minutes", "3", "--set", "cycles=5"], "--set cycles=5"),
        (["adapt", "a", "--from", "a:1", "--minutes", "3", "--cycles", "5"], "--cycles"),
    ],
)
def test_an_option_without_effect_is_refused(
    settings, new_site, tmp_path: Path, monkeypatch, command: list[str], option: str
) -> None:
    new_site("north", "apple")
    monkeypatch.chdir(tmp_path)  # whose sites/ has one
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert f"{option}:" in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--momentum", "nan"),
        ("--server-rate", "nan"),
        ("--proximal", "inf"),
        ("--largest-update", "nan"),
        ("--round-minutes", "inf"),
        ("--wait-minutes", "nan"),
    ],
)
def test_what_is_no_number_is_refused(settings, option: str, value: str) -> None:
    done = CliRunner().invoke(app, ["federate", "run", option, value])
    assert done.exit_code == 2
    assert "no finite number" in " ".join(done.stderr.split())


@pytest.mark.parametrize("assignment", ["cycles=3", " temperature = 2", "temperature=inf"])
def test_a_federation_refuses_what_is_not_the_recipe_s_to_say(
    settings, new_site, assignment: str
) -> None:
    folder = new_site("north", "apple").parent
    command = ["federate", "run", "--sites", str(folder), "--set", assignment, "--json"]
    done = CliRunner().invoke(app, command)
    assert json.loads(done.stdout)["error_code"] == "InvalidRecipe"
    assert assignment in json.loads(done.stdout)["message"]
    assert not settings.runs_dir.exists(), "nothing was begun"


def test_the_command_line_runs_resumes_and_shows_a_federation(settings, new_site) -> None:
    folder = new_site("north", "apple").parent
    new_site("south", "plum")
    flags = ["--rounds", "1", "--cycles", "1", "--batch-voxels", "4096", "--momentum", "0.5"]
    flags += ["--set", "augmentation.elastic=0"]
    run = CliRunner().invoke(
        app,
        ["federate", "run", "--sites", str(folder), *flags, "--proximal", "0.1", "--json"],
    )
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)["data"]
    request = request_of(settings, found["run"]["id"])
    assert request.recipe.augmentation.elastic == 0
    assert request.rules.cap == 5  # the steps of five domains in the round's one cycle
    assert found["run"]["status"] == "completed"
    assert set(found["at_sites"]) == {"north", "south"}
    status = CliRunner().invoke(app, ["federate", "status"])
    assert "completed, 1 of 1 rounds" in status.stdout
    assert status.stdout.count("taken") == 2
    client = MlflowClient(settings.mlflow_uri)
    mlflow_id = find_run(client, found["run"]["id"])
    metrics = client.get_run(mlflow_id).data.metrics
    assert metrics["accepted/north"] == metrics["accepted/south"] == 1
    assert metrics["bytes_up/north"] > 3_500_000
    assert {"seconds", "norm/north", "loss/apple/north"} <= set(metrics)
    params = client.get_run(mlflow_id).data.params
    assert "rounds" in params
    assert not CHANGEABLE & set(params), "they may be others after a resume, and MLflow's may not"


def test_a_run_goes_on_with_a_smaller_quorum_when_a_site_is_gone_for_good(
    settings, new_site, new_request
) -> None:
    folder, gone = new_site("north", "apple").parent, new_site("south", "plum")
    run = new_run(settings, new_request("north", "south", rounds=1, quorum=2, attempts=1))
    shutil.rmtree(gone)

    def resume(*options: str) -> tuple[int, str]:
        command = ["federate", "run", "--sites", str(folder), "--resume", run, *options]
        done = CliRunner().invoke(app, command)
        return done.exit_code, " ".join(done.stderr.split())

    assert resume()[0] == 10
    assert resume("--seed", "3") == (2, ANY)
    code, told = resume("--quorum", "3")
    assert (code, "The quorum is 3 of 2 sites" in told) == (10, True)
    with exclusive(settings.runs_dir / run / LOCK_FILE):
        assert resume("--quorum", "1")[0] == RunBusy.exit_code
    assert resume()[0] == 10, "what was refused has changed nothing"
    assert resume("--quorum", "1", "--wait-minutes", "0")[0] == 0
    changed = request_of(settings, run)
    assert (changed.quorum, changed.wait_minutes, changed.attempts) == (1, 0, 1)


def test_only_an_approved_bundle_is_unpacked(tmp_path: Path, monkeypatch) -> None:
    runner = importlib.import_module("flwr.supernode.runtime.run_clientapp")
    unpacked: list[bytes] = []
    monkeypatch.setattr(runner, "install_from_fab", lambda content, **_: unpacked.append(content))
    monkeypatch.setattr(guarded_client, "flwr_clientapp", lambda: None)
    monkeypatch.setenv("U2NET_SITE", str(tmp_path))
    init_site(tmp_path, "north", {})
    approve(tmp_path, hashlib.sha256(b"reviewed").hexdigest())
    guarded_client.main()  # as Flower's program of that name, up to where it has a bundle
    runner.install_from_fab(b"reviewed", skip_prompt=True)
    with pytest.raises(NotApproved) as refused:
        runner.install_from_fab(b"another", skip_prompt=True)
    assert unpacked == [b"reviewed"]
    assert str(tmp_path) not in str(refused.value), "Flower sends this text to the coordinator"
    (fault,) = (tmp_path / "faults.log").read_text().splitlines()
    digest = hashlib.sha256(b"another").hexdigest()
    assert f"u2net site approve FOLDER {digest}" in json.loads(fault)["text"]
    (tmp_path / "approved.txt").unlink()
    (tmp_path / "approved.txt").mkdir()
    with pytest.raises(NotApproved) as refused:
        runner.install_from_fab(b"reviewed", skip_prompt=True)
    assert str(tmp_path) not in str(refused.value)
    assert "IsADirectoryError" in (tmp_path / "faults.log").read_text()
