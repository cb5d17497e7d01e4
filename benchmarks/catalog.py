"""How long the catalog takes to answer when it holds very many versions.

    .venv/bin/python benchmarks/catalog.py [--domains 1000] [--each 100] [--url URL]

The catalog is filled in bulk: every tenth domain is trained together with the nine after it, on one
backbone, and every later version of a domain starts from its last. Each domain has one deployment,
each run three of a hundred sites.
Prints the median and the slowest of repeated questions, in ms, each through the same calls as the
command line. By default on an SQLite file that is removed at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sqlalchemy import insert

from u2net_platform.catalog import tables
from u2net_platform.catalog.catalog import Catalog
from u2net_platform.catalog.database import Database
from u2net_platform.catalog.records import Page

TOGETHER = 10  # domains of a run
SITES = 3  # of a run
REPEATS = 9
PAGE = Page(limit=100)
PLAN = {"spacing_zyx_mm": [1, 1, 1], "patch_zyx": [64, 64, 64], "batch_size": 2}
METRICS = {"test": {"overall": {"dice": 0.9, "hd95_mm": 2.0}, "classes": {}}}


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or f"sqlite:///{Path(folder) / 'catalog.db'}"
        Catalog.upgrade(url)
        started = time.perf_counter()
        _fill(Database(url), arguments.domains, arguments.each)
        print(f"{arguments.domains * arguments.each:,} versions of {arguments.domains:,} domains")
        print(f"filled in {time.perf_counter() - started:.0f} s\n")
        print("| question | rows | median, ms | slowest, ms |\n|---|---|---|---|")
        for question, ask in _questions(Catalog.open(url), url, arguments.domains, arguments.each):
            rows, times = 0, []
            for _ in range(REPEATS):
                begun = time.perf_counter()
                answer = ask()
                times.append((time.perf_counter() - begun) * 1000)
                rows = len(answer) if isinstance(answer, list) else 1
            print(f"| {question} | {rows} | {statistics.median(times):.1f} | {max(times):.1f} |")


def _questions(
    catalog: Catalog, url: str, domains: int, each: int
) -> Iterator[tuple[str, Callable[[], object]]]:
    middle = _digest("data", 500)
    backbone = catalog.find("domain-500").backbone_digest
    yield "open", lambda: Catalog.open(url)
    yield "list versions, first page", lambda: catalog.versions.list(page=PAGE)
    yield (
        "list versions, last page",
        lambda: catalog.versions.list(page=Page(limit=100, offset=domains * each - 100)),
    )
    yield "list versions of a domain", lambda: catalog.versions.list("domain-500", PAGE)
    yield "show the newest of a domain", lambda: catalog.find("domain-500")
    yield "show what is in service", lambda: catalog.find("domain-500@champion")
    yield "versions on a backbone", lambda: catalog.versions.by_backbone(backbone)
    yield "query deployed, first page", lambda: catalog.deployments.current(page=PAGE)
    yield "query deployed, all", catalog.deployments.current
    yield "query backbone", lambda: catalog.deployments.current(backbone=backbone, page=PAGE)
    yield "query data (lineage), first page", lambda: catalog.versions.that_saw(middle, PAGE)
    yield "query data (lineage), all", lambda: catalog.versions.that_saw(middle)
    yield (
        "query case (lineage), first page",
        lambda: catalog.versions.that_saw_case("domain-500", "P5_*", PAGE),
    )
    yield "query site, first page", lambda: catalog.versions.that_saw_site("site-0", PAGE)
    yield "query site, all", lambda: catalog.versions.that_saw_site("site-0")
    yield "history, first page", lambda: catalog.deployments.history(page=PAGE)


def _fill(database: Database, domains: int, each: int) -> None:
    names = [f"domain-{k}" for k in range(domains)]
    time_of = tables.now()

    def work(session: object) -> None:
        def add(table: type, rows: list[dict[str, object]]) -> None:
            if rows:
                session.execute(insert(table), rows)  # type: ignore[attr-defined]

        add(tables.SpecRow, [{"digest": _digest("spec", 0), "content": {"name": "any"}}])
        add(tables.PlanRow, [{"digest": _digest("plan", 0), "content": PLAN}])
        shared = {"spec_digest": _digest("spec", 0), "plugin_digest": "a" * 64}
        add(
            tables.DomainRow,
            [{"name": name, "source": "bundled", "data_dir": None, **shared} for name in names],
        )
        for number in range(1, each + 1):
            groups = range(0, domains, TOGETHER)
            runs = [f"run-{number}-{first}" for first in groups]
            add(tables.RunRow, [_run(run, time_of) for run in runs])
            add(tables.RoundRow, [_round(run) for run in runs])
            add(tables.ContributionRow, [one for run in runs for one in _contributions(run)])
            members, backbones, versions, bases = [], [], [], []
            for first, run in zip(groups, runs, strict=True):
                backbone = _digest(run, 0)
                backbones.append({"digest": backbone, "architecture": {}, "run_id": run})
                for k in range(first, min(first + TOGETHER, domains)):
                    members.append(_member(run, names[k], k))
                    versions.append(
                        {
                            "id": k * each + number,
                            "domain": names[k],
                            "number": number,
                            "backbone_digest": backbone,
                            "domain_digest": _digest(run, k),
                            "plan_digest": _digest("plan", 0),
                            "run_id": run,
                            "architecture": {"classes": 2},
                            "metrics": METRICS,
                            **shared,
                        }
                    )
                if number > 1:
                    bases.append({"run_id": run, "version_id": first * each + number - 1})
            add(tables.RunDomainRow, members)
            add(tables.BackboneRow, backbones)
            add(tables.VersionRow, versions)
            add(tables.RunBaseRow, bases)
        add(
            tables.DeploymentRow,
            [
                {
                    "domain": names[k],
                    "alias": "champion",
                    "site": "",
                    "version_id": k * each + each,
                    "action": "deploy",
                    "forced": False,
                    "actor": "benchmark",
                    "reason": "",
                }
                for k in range(domains)
            ],
        )

    database.write(work)


def _run(run: str, started: str) -> dict[str, object]:
    return {
        "id": run,
        "kind": "train",
        "mode": "universal",
        "recipe": {},
        "seed": 0,
        "fold": 0,
        "device": "cpu",
        "directory": run,
        "status": "completed",
        "step": 1,
        "started_at": started,
    }


def _round(run: str) -> dict[str, object]:
    key = {"run_id": run, "number": 1, "attempt": 1}
    return key | {"status": "completed", "seconds": 1.0}


def _contributions(run: str) -> Iterator[dict[str, object]]:
    counts = {"examples": 16, "steps": 40, "norm": 0.5, "bytes_down": 1, "bytes_up": 1}
    group = int(run.rpartition("-")[2])
    for k in range(SITES):
        site = f"site-{(group // TOGETHER + k) % 100}"
        key = {"run_id": run, "number": 1, "attempt": 1, "site": site}
        yield key | counts | {"accepted": True, "reason": "", "seconds": 1.0}


def _member(run: str, domain: str, k: int) -> dict[str, object]:
    digest = _digest("data", k)
    return {
        "run_id": run,
        "domain": domain,
        "position": k % TOGETHER,
        "fingerprint": {"data_digest": digest, "split": {"training": [f"P{k % 9}_a"]}},
        "data_digest": digest,
    }


def _digest(kind: str, k: int) -> str:
    return hashlib.sha256(f"{kind} {k}".encode()).hexdigest()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--each", type=int, default=100)
    parser.add_argument("--url")
    return parser.parse_args()


if __name__ == "__main__":
    main()
