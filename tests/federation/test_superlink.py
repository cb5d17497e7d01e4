"""A real deployment: Flower's SuperLink with TLS, two SuperNodes with keys, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pytest

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import RoundRecord
from u2net_platform.federation.coordinator import Coordinator
from u2net_platform.federation.local import LocalGrid
from u2net_platform.federation.request import new_run, request_of
from u2net_platform.federation.site import Site
from u2net_platform.federation.site_folder import start_command
from u2net_platform.federation.superlink import SuperLink
from u2net_platform.settings import Settings

FAST = ("--cycles", "2", "--batch-voxels", "4096", "--wait-minutes", "1.5", "--round-minutes", "2")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Field:
    """A coordinator's home and sites, and the processes that were started for them."""

    home: Path
    sites: Path
    bundle: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home)

    def u2net(self, *command: object) -> dict:
        done = subprocess.run(
            [sys.executable, "-m", "u2net_platform", *map(str, command), "--json"],
            env=os.environ | {"U2NET_HOME": str(self.home), "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
        try:
            return json.loads(done.stdout)
        except ValueError:
            pytest.fail(done.stderr + done.stdout)

    def start_site(self, name: str) -> None:
        command, environment = start_command(self.sites / name)
        with (self.sites / name / "node.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=environment | {"OMP_NUM_THREADS": "1"}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def end_site(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.processes.pop(name)
        os.killpg(process.pid, number)
        process.wait(timeout=30)

    def log(self, name: str) -> str:
        return (self.sites / name / "node.log").read_text()

    def wait_for(self, name: str, text: str, seconds: float = 40) -> None:
        until = time.monotonic() + seconds
        while text not in self.log(name):
            assert time.monotonic() < until, self.log(name)
            time.sleep(0.2)

    def wait_for_state(self, name: str, run: str, part: str, seconds: float = 100) -> None:
        """Until a site works at a round."""
        until = time.monotonic() + seconds
        while not (self.sites / name / "state" / run / part).exists():
            assert time.monotonic() < until, self.log(name)
            time.sleep(0.02)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, boxes, write_site) -> Iterator[Field]:
    root = tmp_path_factory.mktemp("deployment")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("U2NET_")]:
            patch.delenv(name)
        one = Field(root / "home", root / "sites")
        port = free_port()
        made = one.u2net("federation", "init", "--host", "127.0.0.1", "--port", port)["data"]
        one.bundle = made["bundle"]
        for name, domain in (("north", "apple"), ("south", "plum")):
            place, ca = one.sites / name, one.home / "federation" / "ca.crt"
            one.u2net(
                "site", "init", name, "--folder", place, "--coordinator", f"127.0.0.1:{port}",
                "--ca", ca, "--domain", f"{domain}={boxes(domain)}",
            )  # fmt: skip
            write_site(place, name, domain, more=f'coordinator = "127.0.0.1:{port}"')
            one.u2net("site", "approve", place, one.bundle)
            one.u2net("federation", "add", name, "--key", place / "site.key.pub")
        one.u2net("federation", "start")
        for name in ("north", "south"):
            one.start_site(name)
        yield one
        for name in list(one.processes):
            one.end_site(name)
        SuperLink(one.settings).stop()


def test_two_sites_go_through_two_rounds(deployed: Field) -> None:
    done = deployed.u2net("federation", "run", "--rounds", "2", *FAST)
    assert done["status"] == "ok", done
    status = done["data"]
    assert (status["status"], status["round"]) == ("completed", 2)
    assert (set(status["at_sites"]), status["unpublished"]) == ({"north", "south"}, [])
    for one in status["rounds"]:
        assert [(sent["site"], sent["accepted"]) for sent in one["contributions"]] == [
            ("north", True),
            ("south", True),
        ]
    for name, domain in (("north", "apple"), ("south", "plum")):
        version = Site(deployed.sites / name).catalog.find(domain)
        assert version.backbone_digest == status["rounds"][-1]["backbone_digest"]
        assert version.metrics["federation"]["sites"] == {"north": 2, "south": 2}
    dense = 4 * 21_828_373  # bytes of the network with dense convolutions (mode shared)
    assert all(s["bytes_up"] < dense / 20 for one in status["rounds"] for s in one["contributions"])
    assert deployed.u2net("federation", "status")["data"]["run"] == status["run"]
    assert "Traceback" not in deployed.u2net("federation", "logs", status["run"])["data"]["log"]
    assert Catalog.open(deployed.settings.database_url).runs.get(status["run"]).kind == "federate"


def findings(done: dict) -> dict[str, tuple[str, str]]:
    return {one["subject"]: (one["status"], one["detail"]) for one in done["data"]["findings"]}


def test_a_site_that_is_ready_is_told_so(deployed: Field) -> None:
    done = deployed.u2net("site", "check", deployed.sites / "north")
    assert done["status"] == "ok", done
    found = findings(done)
    assert {status for status, _ in found.values()} == {"ok"}
    assert list(found) == ["folder", "device", "coordinator", "apple"]
    assert found["apple"][1].startswith("6 labelled cases in ")


def test_what_keeps_a_site_from_taking_part_is_told_before(deployed: Field, tmp_path: Path) -> None:
    from u2net_platform.federation.keys import create_authority

    place = tmp_path / "north"
    shutil.copytree(deployed.sites / "north", place, ignore=shutil.ignore_patterns("home", "state"))

    def failed() -> dict[str, str]:
        done = deployed.u2net("site", "check", place)
        found = findings(done)
        assert done["error_code"] == "InvalidSite"
        return {name: detail for name, (status, detail) in found.items() if status == "fail"}

    (place / "site.key").chmod(0o644)
    create_authority(tmp_path / "other", ("127.0.0.1",))
    (place / "ca.crt").write_bytes((tmp_path / "other" / "ca.crt").read_bytes())
    text = (place / "site.toml").read_text()
    (place / "site.toml").write_text(
        text.replace("apple", "pear") + "[domains.nose]\ndata = 'no'\n"
    )
    found = failed()
    assert list(found) == ["folder", "coordinator", "pear", "nose"]
    assert "may be read by others" in found["folder"]
    assert "certificate verify failed" in found["coordinator"]
    port = SuperLink(deployed.settings).config.port
    (place / "site.toml").write_text(text.replace(str(port), str(free_port())))
    assert "refused" in failed()["coordinator"]


def test_keys_are_private_and_stay_where_they_are(deployed: Field) -> None:
    for name in ("north", "south"):
        assert (deployed.sites / name / "site.key").stat().st_mode & 0o777 == 0o600
    folder = deployed.home / "federation"
    for name in ("ca.key", "server.key"):
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    secrets = [path.read_text() for path in deployed.sites.glob("*/site.key")]
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path


def test_sites_are_listed_with_their_state(deployed: Field, tmp_path: Path) -> None:
    def states() -> dict[str, str]:
        rows = deployed.u2net("federation", "sites")["data"]
        return {row["site"]: row["state"] for row in rows}

    assert states() == {"north": "online", "south": "online"}
    deployed.u2net("site", "init", "west", "--folder", tmp_path / "west")
    deployed.u2net("federation", "add", "west", "--key", tmp_path / "west" / "site.key.pub")
    assert states() == {"north": "online", "south": "online", "west": "registered"}
    deployed.u2net("federation", "remove", "west")


def test_a_key_that_was_removed_cannot_come_back_and_a_new_one_can(
    deployed: Field, tmp_path: Path
) -> None:
    place = tmp_path / "east"
    key = place / "site.key.pub"
    deployed.u2net("site", "init", "east", "--folder", place)
    assert deployed.u2net("federation", "add", "east", "--key", key)["status"] == "ok"
    assert deployed.u2net("federation", "remove", "east")["status"] == "ok"
    again = deployed.u2net("federation", "add", "east", "--key", key)
    assert (again["error_code"], "u2net site key" in again["hint"]) == ("FlowerFailed", True)
    assert SuperLink(deployed.settings).sites == ("north", "south")
    before = key.read_text()
    deployed.u2net("site", "key", place)
    assert key.read_text() != before
    assert (place / "site.key").stat().st_mode & 0o777 == 0o600
    assert deployed.u2net("federation", "add", "east", "--key", key)["status"] == "ok"
    assert deployed.u2net("federation", "remove", "east")["status"] == "ok"


def test_a_stranger_is_refused(deployed: Field, write_site) -> None:
    """A key of its own, the right certificate, and nobody who has added it."""
    place = deployed.sites / "stranger"
    config = SuperLink(deployed.settings).config
    deployed.u2net("site", "init", "stranger", "--folder", place)
    write_site(place, "stranger", "apple", more=f'coordinator = "127.0.0.1:{config.port}"')
    (place / "ca.crt").write_bytes((deployed.home / "federation" / "ca.crt").read_bytes())
    deployed.u2net("site", "approve", place, deployed.bundle)
    deployed.start_site("stranger")
    process = deployed.processes.pop("stranger")
    assert process.wait(timeout=40) != 0
    assert not (place / "audit.jsonl").exists()


def test_a_wrong_authority_is_refused(deployed: Field, write_site, tmp_path: Path) -> None:
    from u2net_platform.federation.keys import create_authority

    create_authority(tmp_path, ("127.0.0.1",))
    place = deployed.sites / "careful"
    config = SuperLink(deployed.settings).config
    deployed.u2net("site", "init", "careful", "--folder", place)
    write_site(place, "careful", "apple", more=f'coordinator = "127.0.0.1:{config.port}"')
    (place / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    deployed.u2net("site", "approve", place, deployed.bundle)
    deployed.start_site("careful")
    deployed.wait_for("careful", "CERTIFICATE_VERIFY_FAILED")
    deployed.end_site("careful")


@pytest.mark.slow
def test_a_bundle_that_is_not_approved_does_not_run(deployed: Field) -> None:
    approved = deployed.sites / "south" / "approved.txt"
    text = approved.read_text()
    audit = deployed.sites / "south" / "audit.jsonl"
    before = audit.read_text() if audit.exists() else None
    approved.write_text("0" * 64 + "\n")
    try:
        done = deployed.u2net(
            "federation", "run", "--rounds", "1", *FAST, "--quorum", "1", "--attempts", "1"
        )
    finally:
        approved.write_text(text)
    assert done["status"] == "ok", done
    reasons = {one["site"]: one["reason"] for one in done["data"]["rounds"][0]["contributions"]}
    assert reasons["north"] == ""
    assert reasons["south"]
    assert (audit.read_text() if audit.exists() else None) == before
    assert "NotApproved" in deployed.log("south")
    assert "NotApproved" in (deployed.sites / "south" / "faults.log").read_text()


def test_the_bundle_holds_no_code_and_nothing_of_a_site(deployed: Field) -> None:
    from flwr.cli.build import build_fab_from_disk

    content = build_fab_from_disk(deployed.home / "federation" / "bundle")
    with zipfile.ZipFile(BytesIO(content)) as bundle:
        names = {Path(name).name for name in bundle.namelist()}
    assert "pyproject.toml" in names
    assert not [name for name in names if name.endswith(".py")]
    assert len(content) < 5000


def _wait_for_rounds(deployed: Field, run: str, number: int, seconds: float = 200) -> None:
    until = time.monotonic() + seconds
    catalog = Catalog.open(deployed.settings.database_url)
    while len(catalog.federations.rounds(run)) < number:
        assert time.monotonic() < until, deployed.u2net("federation", "logs", run)
        time.sleep(0.5)


def _wait_for_end(deployed: Field, run: str, seconds: float = 500) -> list[RoundRecord]:
    until = time.monotonic() + seconds
    catalog = Catalog.open(deployed.settings.database_url)
    while catalog.runs.get(run).status == "running":
        assert time.monotonic() < until, deployed.u2net("federation", "logs", run)
        time.sleep(1)
    assert catalog.runs.get(run).status == "completed"
    return catalog.federations.rounds(run)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_supernode_killed_in_mid_round_is_waited_for_no_longer_than_said_and_joins_again(
    deployed: Field,
) -> None:
    flags = ["--cycles", "2", "--batch-voxels", "4096", "--quorum", "1"]
    waits = ["--round-minutes", "0.5", "--wait-minutes", "0.1"]
    run = deployed.u2net("federation", "run", "--detach", "--rounds", "12", *flags, *waits)
    run = run["data"]["run"]
    _wait_for_rounds(deployed, run, 1)
    deployed.wait_for_state("south", run, "round-00002")
    deployed.end_site("south", signal.SIGKILL)
    time.sleep(70)  # until then Flower holds the dead node's place
    deployed.start_site("south")
    rounds = _wait_for_end(deployed, run)
    taken = [[one.site for one in done.contributions if one.accepted] for done in rounds]
    assert len(rounds) == 12
    assert taken[0] == ["north", "south"]
    assert ["north"] in taken
    assert taken[-1] == ["north", "south"]
    assert max(one.seconds for one in rounds) < 60


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_coordinator_goes_on_to_the_same_bytes(deployed: Field, new_site) -> None:
    flags = ["--rounds", "4", *FAST, "--quorum", "2", "--seed", "5", "--momentum", "0.5"]
    run = deployed.u2net("federation", "run", "--detach", *flags)["data"]["run"]
    _wait_for_rounds(deployed, run, 2)
    pid = int((deployed.home / "federation" / "superlink.pid").read_text())
    os.killpg(pid, signal.SIGKILL)
    deployed.u2net("federation", "start")
    done = deployed.u2net("federation", "resume", run)
    assert done["status"] == "ok", done
    rounds = [one for one in done["data"]["rounds"] if one["status"] == "completed"]
    assert [one["number"] for one in rounds] == [1, 2, 3, 4]

    sites = {"north": new_site("north", "apple"), "south": new_site("south", "plum")}
    elsewhere = Settings(home=sites["north"].parent / "home")
    request = request_of(deployed.settings, run)
    again = new_run(elsewhere, request)
    Coordinator(elsewhere, again, LocalGrid(sites), print).go()
    undisturbed = Catalog.open(elsewhere.database_url).federations.rounds(again)
    assert rounds[-1]["backbone_digest"] == undisturbed[-1].backbone_digest
