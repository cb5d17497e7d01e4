"""The coordinator of sites on other machines: one SuperLink of Flower, with TLS and known sites.

Flower's one port serves the sites (`/v1/fleet`, where each request is signed with a site's key) and
the coordinator's own commands (the rest, where nothing is). So it listens on loopback, and a
reverse proxy lets sites reach `/v1/fleet/` alone.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from pydantic import ValidationError

from u2net_platform.errors import FlowerFailed, InvalidFederation
from u2net_platform.federation.coordinator_folder import (
    CONFIG_FILE,
    LINK,
    SuperLinkConfig,
    folder_of,
)
from u2net_platform.federation.keys import CA_FILE, certify_server, shake_hands
from u2net_platform.federation.site_config import SITE_NAME
from u2net_platform.files import exclusive, write_text
from u2net_platform.settings import Settings

LOCK_FILE = "lock"  # held while a command changes the sites
KEY_TAKEN = "Public key already in use"  # Flower's words
START_SECONDS = 60.0
STOP_SECONDS = 20.0
ANSWER_SECONDS = 120.0
# Nothing is installed for a run. What keeps Flower from phoning home is set in `u2net_platform`.
FLOWER = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",
}


class SuperLink:
    """The folder `federation` of the coordinator's home.

    Raises:
        InvalidFederation: there is none, or its configuration is at fault.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = folder_of(settings)
        self.config = self._read()

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the sites whose keys are known."""
        return tuple(sorted(self.config.sites))

    def states(self) -> dict[str, str]:
        """Of each site whose key is known, what Flower says: registered (it was never there),
        online or offline; unknown, where no SuperLink runs that could tell."""
        found = self._flwr("supernode", "list", LINK)["nodes"] if self.running else []
        nodes = {int(node["node-id"]): str(node["status"]) for node in found}
        return {name: nodes.get(self.config.sites[name] or 0, "unknown") for name in self.sites}

    @property
    def running(self) -> bool:
        """Whether there is a SuperLink of this folder, be it too busy to answer."""
        return self._process() is not None

    def add_site(self, name: str, public_key: Path) -> None:
        """Let the holder of a key take part as a site; at once, if the SuperLink runs.

        Raises:
            InvalidFederation: the site or its key is known already, the name is none, or the file
                is no public key.
            FlowerFailed: the SuperLink runs and does not take the key. Where it never will, the
                site is not added, else its next start lets it know.
        """
        if not re.fullmatch(SITE_NAME, name):
            raise InvalidFederation(
                f"{name!r} is no name of a site",
                "Take that of its site.toml: letters, digits, -, _.",
            )
        text = _public_key(public_key)
        with self._alone():
            if name in self.config.sites:
                raise InvalidFederation(f"There is a site {name} already", "Choose another name.")
            for other in self.config.sites:
                if self._key(other).read_text("utf-8").split()[:2] == text.split()[:2]:
                    raise InvalidFederation(
                        f"{public_key} is the key of {other}", "Each site has a key of its own."
                    )
            write_text(self._key(name), text)
            self._write({**self.config.sites, name: None})
            if self.running:
                try:
                    self._register(name)
                except FlowerFailed as error:
                    if KEY_TAKEN in error.message:
                        self._forget(name)
                    raise

    def remove_site(self, name: str) -> None:
        """Let the holder of a site's key take part no more; at once, if the SuperLink runs.

        Raises:
            InvalidFederation: there is no such site, or the SuperLink, which knows it, is down.
        """
        with self._alone():
            if name not in self.config.sites:
                raise InvalidFederation(
                    f"There is no site {name}", f"There are: {', '.join(self.sites) or 'none'}"
                )
            node = self.config.sites[name]
            nodes = [node] if node is not None else []
            if not nodes and self.running and self._waiting() == [name]:
                nodes = self._unnoted()  # else it may be another's, whose key Flower would burn
            for one in nodes:
                self._flwr("supernode", "unregister", str(one), LINK)
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._write({site: node for site, node in self.config.sites.items() if site != name})
        self._key(name).unlink(missing_ok=True)

    def start(self) -> None:
        """Bring up the SuperLink, and let it know the sites' keys; it stays after this process.

        Raises:
            FlowerFailed: it does not come up, or does not take a site's key; the others' it has.
        """
        with self._alone():
            self._bring_up()
            refused = []
            for name in self._waiting():
                try:
                    self._register(name)
                except FlowerFailed as error:
                    refused.append(error)
        if refused:
            raise refused[0]

    def _bring_up(self) -> None:
        runs_already = self.running
        if not runs_already:
            self._launch()
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if not self.running or time.monotonic() > until:
                if runs_already:  # whose runs go on
                    raise FlowerFailed(
                        "Flower's SuperLink runs and does not answer, or its certificate has ended",
                        "Try again later; or: u2net federation renew, then stop, then start.",
                    )
                self.stop()
                raise FlowerFailed("Flower's SuperLink does not come up", f"See {self.log}")
            time.sleep(0.2)

    def _launch(self) -> None:
        command = [
            "flower-superlink", "--host", "127.0.0.1", "--port", str(self.config.port),
            "--ssl-ca-certfile", str(self.folder / CA_FILE),
            "--ssl-certfile", str(self.folder / "server.crt"),
            "--ssl-keyfile", str(self.folder / "server.key"),
            "--enable-supernode-auth", "--database", str(self.folder / "superlink.db"),
        ]  # fmt: skip
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command, env=self._environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        write_text(self.folder / "superlink.pid", str(process.pid))

    def renew(self) -> datetime:
        """Make a new certificate of the server, by the same authority; returns when it ends.

        Raises:
            InvalidFederation: the authority's files are gone.
        """
        try:
            return certify_server(self.folder, self.config.hosts)
        except (OSError, ValueError) as error:
            raise InvalidFederation(
                f"the authority of {self.folder} cannot sign: {error}",
                "Put ca.key, ca.crt and server.key back, or make a new folder and tell all sites.",
            ) from error

    def stop(self) -> bool:
        """End the SuperLink; False if it did not run. Runs can be resumed."""
        pid = self._process()
        if pid is None:
            return False
        os.killpg(pid, signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        while self._process() is not None:
            if time.monotonic() > until:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(0.1)
        (self.folder / "superlink.pid").unlink(missing_ok=True)
        return True

    def submit(self, run_id: str) -> int:
        """Hand a run to Flower; returns Flower's number of it.

        Raises:
            FlowerFailed: the SuperLink does not run, or refuses.
        """
        found = self._flwr(
            "run", str(self.folder / "bundle"), LINK, "--run-config", f'run="{run_id}"'
        )
        number = int(found["run-id"])
        write_text(self._settings.runs_dir / run_id / "flower.json", json.dumps({"run": number}))
        return number

    def flower_status(self, number: int) -> str:
        """What Flower says of a run, as `running` or `finished:completed`.

        It calls a run completed whose sites have all failed: only the catalog knows.
        """
        found = self._flwr("list", LINK, "--run-id", str(number))
        return str(found["runs"][0]["status"])

    def stop_run(self, run_id: str) -> None:
        """End a run; it can be resumed from its last round."""
        try:
            self._flwr("stop", str(self.number_of(run_id)), LINK)
        except FlowerFailed as error:
            if "already finished" not in error.message:
                raise
            raise InvalidFederation(
                f"{run_id} has ended already", f"See: u2net federation status {run_id}"
            ) from error

    def number_of(self, run_id: str) -> int:
        """Flower's number of a run. Raises InvalidFederation: it was never handed over."""
        try:
            text = (self._settings.runs_dir / run_id / "flower.json").read_text("utf-8")
        except OSError as error:
            raise InvalidFederation(
                f"Flower has no run {run_id}",
                f"See: u2net federation status; if it is there: u2net federation resume {run_id}",
            ) from error
        return int(json.loads(text)["run"])

    def logs(self, run_id: str) -> str:
        """What the coordinator's part of a run has written.

        Raises:
            InvalidFederation: the run was never handed to Flower.
            FlowerFailed: the SuperLink does not run, or has no such run.
        """
        done = self._run(["flwr", "log", str(self.number_of(run_id)), LINK, "--show"])
        if done.returncode:
            raise self._failure("log", done.stderr.rpartition("Error")[2])  # in a frame
        return done.stdout

    @property
    def log(self) -> Path:
        """The SuperLink's own log."""
        return self.folder / "superlink.log"

    def _register(self, name: str) -> None:
        try:
            found = self._flwr("supernode", "register", str(self._key(name)), LINK, "--name", name)
        except FlowerFailed as error:
            if KEY_TAKEN not in error.message:
                raise
            # Taken before, but by a command that did not live to note it.
            if self._waiting() == [name] and len(unnoted := self._unnoted()) == 1:
                self._write({**self.config.sites, name: unnoted[0]})
                return
            raise FlowerFailed(
                f"Flower does not take the key of {name}: {error.message}",
                "It takes none that was removed once: let the site make another (u2net site key),"
                f" and add it with that; before, u2net federation remove {name}, if it is known.",
            ) from error
        self._write({**self.config.sites, name: int(found["node-id"])})

    def _waiting(self) -> list[str]:
        """Sites that Flower is still to be told of."""
        return [name for name, node in self.config.sites.items() if node is None]

    def _unnoted(self) -> list[int]:
        """Nodes whose keys Flower has taken, and that no site is noted to have."""
        nodes = self._flwr("supernode", "list", LINK)["nodes"]
        found = [int(one["node-id"]) for one in nodes if one["status"] != "unregistered"]
        return [node for node in found if node not in self.config.sites.values()]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other command change the sites meanwhile; they are read anew."""
        with exclusive(self.folder / LOCK_FILE, wait=True):
            self.config = self._read()
            yield

    def _read(self) -> SuperLinkConfig:
        try:
            text = (self.folder / CONFIG_FILE).read_text("utf-8")
            return SuperLinkConfig.model_validate_json(text)
        except (OSError, ValidationError) as error:
            raise InvalidFederation(
                f"{self.folder} is no coordinator's folder", "Make one: u2net federation init"
            ) from error

    def _write(self, sites: Mapping[str, int | None]) -> None:
        self.config = self.config.model_copy(update={"sites": dict(sites)})
        write_text(self.folder / CONFIG_FILE, self.config.model_dump_json(indent=2))

    def _key(self, name: str) -> Path:
        return self.folder / "sites" / f"{name}.pub"

    def _process(self) -> int | None:
        """The id of our SuperLink; None if another process has that id now."""
        try:
            pid = int((self.folder / "superlink.pid").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        mine = str(self.folder / "superlink.db").encode()
        return pid if mine in words else None

    def _answers(self) -> bool:
        authority, name = self.folder / CA_FILE, self.config.hosts[0]
        try:
            shake_hands(authority, "127.0.0.1", self.config.port, name, seconds=2)
        except OSError:
            return False
        return True

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        done = self._run(["flwr", *arguments, "--format", "json"])
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            found = {}
        # Its exit code is 0 also where it has failed.
        if not found.get("success", "runs" in found):
            raise self._failure(
                arguments[0], found.get("error-message") or done.stdout or done.stderr
            )
        return found

    def _failure(self, command: str, reason: str) -> FlowerFailed:
        words = re.findall(r"[^\s─│╭╮╰╯]+", reason)
        return FlowerFailed(
            f"flwr {command} fails: {' '.join(words)[:400]}",
            f"See that the SuperLink runs: u2net federation start; and {self.log}",
        )

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command, env=self._environment(), capture_output=True, text=True, check=False,
                timeout=ANSWER_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise FlowerFailed(
                f"flwr {command[1]} has no answer after {ANSWER_SECONDS:.0f} s: the SuperLink is"
                " busy, or hangs",
                f"Try again later; or: u2net federation stop, then start; and see {self.log}",
            ) from error

    def _environment(self) -> dict[str, str]:
        home = {
            "U2NET_HOME": str(self._settings.home.resolve()),
            "FLWR_HOME": str(self.folder / "flower"),
        }
        return environment() | home


def _public_key(file: Path) -> str:
    """Raises InvalidFederation: the file is no public key of a site."""
    text = file.read_text("utf-8", errors="replace")
    try:
        known = isinstance(load_ssh_public_key(text.encode()), EllipticCurvePublicKey)
    except (ValueError, UnsupportedAlgorithm):
        known = False
    if not known:
        raise InvalidFederation(
            f"{file} is no public key of a site",
            "Take site.key.pub from the site's folder; site.key never leaves it.",
        )
    return text


def environment() -> dict[str, str]:
    """Of Flower's processes, with this installation's programs first."""
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", "")])
    return os.environ | FLOWER | {"PATH": path}
