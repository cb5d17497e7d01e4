"""Write a small catalog of the present revision as SQL, once, when that revision is released."""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import (
    ContributionRecord,
    NewVersion,
    RoundRecord,
    RunRecord,
    Slot,
)
from u2net_platform.catalog.tables import HEAD_REVISION


def fill(catalog: Catalog) -> None:
    """Two domains, a run of each and a second version on the first one's backbone; in service, with
    a change of it that was taken back, and one that was withdrawn; and a round of a federation."""
    for name in ("heart", "spleen"):
        catalog.domains.add({"name": name}, name, "a" * 64, "bundled", f"/data/{name}")
    for number, domain in enumerate(("heart", "spleen"), start=1):
        run = RunRecord(
            id=f"run-{number}",
            kind="train" if number == 1 else "adapt",
            mode="universal",
            domains=(domain,),
            recipe={"steps": 100},
            seed=number,
            fold=0,
            device="cpu",
            directory=f"/runs/run-{number}",
            fingerprints={domain: {"data_digest": "f" * 64}},
            base_version="heart:1" if number == 2 else None,
            starts={"spleen": "heart:1"} if number == 2 else {},
            started_at=datetime(2026, 1, number, tzinfo=UTC),
        )
        catalog.runs.create(run)
        catalog.versions.publish(
            NewVersion(
                domain=domain,
                backbone_digest="b" * 64,
                backbone_architecture={"widths": [16, 32]},
                domain_digest=f"{number:064}",
                spec={"name": domain},
                plugin_digest="a" * 64,
                plan={"patch_zyx": [80, 192, 128]},
                run_id=run.id,
                architecture={"classes": 2},
                metrics={"dice": 0.9},
            )
        )

    for site in (None, "north"):
        slot = Slot(domain="heart", site=site)
        catalog.deployments.deploy(slot, 1, "ann", "trial", force=True)
    again = catalog.versions.get("heart", 1).model_dump(include=set(NewVersion.model_fields))
    catalog.versions.publish(NewVersion(**again))
    catalog.deployments.deploy(Slot(domain="heart"), 2, "ann", force=True)
    catalog.deployments.rollback(Slot(domain="heart"), "bob", "worse")
    catalog.deployments.withdraw(Slot(domain="heart", site="north"), "ann")
    taken = ContributionRecord(site="north", accepted=True, examples=8, norm=0.5, bytes_up=2**40)
    refused = ContributionRecord(site="south", accepted=False, reason="NotFinite")
    catalog.federations.end_round(
        RoundRecord(
            run_id="run-1", number=1, attempt=1, status="completed", backbone_digest="b" * 64,
            seconds=1.5, contributions=(taken, refused),
        )
    )  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "catalog.db"
        fill(Catalog.open(f"sqlite:///{file}"))
        with closing(sqlite3.connect(file)) as connection:
            dump = "\n".join(connection.iterdump())
    name = sys.argv[1] if len(sys.argv) > 1 else HEAD_REVISION
    (Path(__file__).parent / f"{name}.sql").write_text(f"{dump}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
