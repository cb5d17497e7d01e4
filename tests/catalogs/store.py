"""Write a small catalog of the present revision as SQL, once, when that revision is released."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.records import NewVersion, RunRecord
from u2net_platform.catalog.tables import HEAD_REVISION


def fill(catalog: Catalog) -> None:
    """Two domains, a run of each and a second version on the first one's backbone."""
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


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "catalog.db"
        fill(Catalog.open(f"sqlite:///{file}"))
        with closing(sqlite3.connect(file)) as connection:
            dump = "\n".join(connection.iterdump())
    (Path(__file__).parent / f"{HEAD_REVISION}.sql").write_text(f"{dump}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
