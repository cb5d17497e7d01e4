"""Three sites in a federation, beside the same data in one place, and beside each site alone.

    .venv/bin/python benchmarks/federation.py DATA OUTPUT [--cycles 300] [--round 10]

DATA is a folder with Task02_Heart, Task04_Hippocampus, Task25_Promise12 and Task21_HeadNeck. Of
each, every fifth case (the first fold's test part) is held out from all that follows and scored at
the end; data sets that two sites hold are halved between them. A domain's network makes the same
number of steps everywhere. What is done already is not done again: the script may be stopped and
repeated.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from running import BUNDLED, FOLDERS, once, u2net

from u2net_platform.data.dataset import Case, open_dataset
from u2net_platform.data.splits import split_cases
from u2net_platform.workflows.new_domain import write_plugin

SITES = {
    "north": {"heart": (0, 1), "hippocampus": (0, 2)},
    "centre": {"hippocampus": (1, 2), "promise12": (0, 2)},
    "south": {"promise12": (1, 2), "headneck": (0, 1)},
}  # of the cases that are not held out, which share: (0, 2) is the first of two
IN_TURN = ("--set", "temperature=inf")  # as in a federation, so that a domain makes as many steps


def main() -> None:
    arguments = _arguments()
    output: Path = arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    held_out = _prepare_data(arguments.data, output)
    seconds = {}
    seconds["federated"] = once(output / "federated.json", lambda: _federate(arguments, output))
    seconds["central"] = once(
        output / "central.json", lambda: _train(arguments, output, "central", list(FOLDERS))
    )
    for site, domains in SITES.items():
        seconds[site] = once(
            output / f"alone-{site}.json",
            lambda site=site, domains=domains: _train(  # type: ignore[misc]
                arguments, output, f"alone-{site}", list(domains)
            ),
        )
    rows = []
    for site, domains in SITES.items():
        for domain in domains:
            homes = {
                "federated": output / "sites" / site / "home",
                "alone": output / f"alone-{site}",
                "central": output / "central",
            }
            scores = {
                arm: once(
                    output / f"dice-{site}-{domain}-{arm}.json",
                    lambda home=home, domain=domain: _score(  # type: ignore[misc]
                        home, output / "plugins", domain, held_out[domain]
                    ),
                )
                for arm, home in homes.items()
            }
            rows.append((site, domain, scores))
    _report(rows, seconds, output)


def _prepare_data(data: Path, output: Path) -> dict[str, Path]:
    """Folders of links: what is held out, what is central, what each site has."""
    held_out = {}
    for domain, folder in FOLDERS.items():
        dataset = open_dataset(data / folder)
        cases = {case.id: case for case in dataset.training if case.label is not None}
        split = split_cases(list(cases), 0)
        rest = sorted({*split.training, *split.validation})
        if domain not in BUNDLED and not (output / "plugins" / domain).exists():
            write_plugin(domain, dataset, output / "plugins")
        held_out[domain] = _link(
            data / folder, output / "data" / "held-out" / domain, cases, split.test
        )
        _link(data / folder, output / "data" / "central" / domain, cases, rest)
        for site, domains in SITES.items():
            if domain in domains:
                part, parts = domains[domain]
                _link(data / folder, output / "data" / site / domain, cases, rest[part::parts])
    return held_out


def _link(source: Path, target: Path, cases: dict[str, Case], names: Any) -> Path:
    if target.exists():
        return target
    pairs = []
    for name in names:
        pair = {}
        for kind, file in (("image", cases[name].images[0]), ("label", cases[name].label)):
            assert file is not None
            link = target / f"{kind}sTr" / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file.resolve())
            pair[kind] = str(link.relative_to(target))
        pairs.append(pair)
    description = json.loads((source / "dataset.json").read_text("utf-8"))
    description |= {"training": pairs, "test": [], "numTraining": len(pairs)}
    (target / "dataset.json").write_text(json.dumps(description))
    return target


def _federate(arguments: argparse.Namespace, output: Path) -> Any:
    for site, domains in SITES.items():
        folder = output / "sites" / site
        folder.mkdir(parents=True, exist_ok=True)
        text = f'name = "{site}"\nplugins = "{output / "plugins"}"\n'
        for domain in domains:
            text += f'[domains.{domain}]\ndata = "{output / "data" / site / domain}"\n'
        (folder / "site.toml").write_text(text)
    home = output / "coordinator"
    latest = sorted((home / "runs").glob("*/federation.safetensors"))
    if latest:  # a run goes on as it began
        options: list[object] = ["--resume", latest[-1].parent.name]
    else:
        options = ["--rounds", arguments.cycles // arguments.round, "--cycles", arguments.round]
        options += arguments.federate.split()
    u2net(home, output / "plugins", "federate", "run", "--sites", output / "sites", *options)
    return u2net(home, output / "plugins", "federate", "status")


def _train(arguments: argparse.Namespace, output: Path, arm: str, domains: list[str]) -> Any:
    home, data = output / arm, output / "data" / arm.removeprefix("alone-")
    for domain in domains:
        u2net(home, output / "plugins", "domain", "add", domain, "--data", data / domain)
    return u2net(
        home, output / "plugins", "train", *domains, "--cycles", arguments.cycles, *IN_TURN
    )


def _score(home: Path, plugins: Path, domain: str, data: Path) -> Any:
    found = u2net(home, plugins, "evaluate", domain, "--cases", "all", "--data", data)
    return found["mean"]["overall"]["dice"]


def _report(rows: list[Any], seconds: dict[str, Any], output: Path) -> None:
    print("| site | domain | federated | central | alone |")
    print("|---|---|---|---|---|")
    for site, domain, scores in rows:
        dice = [f"{100 * scores[arm]['found']:.1f}" for arm in ("federated", "central", "alone")]
        print(f"| {site} | {domain} | {' | '.join(dice)} |")
    status = seconds["federated"]["found"]
    sent = [one for done in status["rounds"] for one in done["contributions"] if one["accepted"]]
    print(
        f"\nA site sends {sent[-1]['bytes_up'] / 1e6:.2f} MB a round, and is sent "
        f"{sent[-1]['bytes_down'] / 1e6:.2f} MB."
    )
    for arm, one in seconds.items():
        print(f"{arm}: {one['seconds'] / 60:.0f} min")
    print(f"Everything lies in {output}.")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--cycles", type=int, default=300, help="steps of each domain")
    parser.add_argument("--round", type=int, default=10, help="cycles of a site in a round")
    parser.add_argument("--federate", default="", help="more options of federate run, in one word")
    return parser.parse_args()


if __name__ == "__main__":
    main()
