"""What a person should know of a version before it is used."""

from __future__ import annotations

from typing import Any

from u2net_platform.catalog.records import RunRecord, VersionRecord
from u2net_platform.domains.spec import DomainSpec


def model_card(record: VersionRecord, run: RunRecord, pictures: bool, unseen: bool) -> str:
    """The card as Markdown.

    pictures: there is a pictures.png beside it. unseen: all cases that it learned from are known,
    so that none of them was a test.
    """
    spec = DomainSpec.parse(record.spec, f"the spec of {record.reference}")
    citation = f"\n{spec.data.citation}\n" if spec.data.citation else ""
    shown = "\n![predicted and true contours](pictures.png)\n" if pictures else ""
    spacing = " x ".join(f"{side:g}" for side in record.plan["spacing_zyx_mm"])
    return f"""# {record.reference}: {spec.description}

| | |
|---|---|
| classes | {", ".join(spec.class_names)} |
| modality | {spec.modality}: {", ".join(spec.channels)} |
| grid | {spacing} mm, z y x |
| trained with | {", ".join(run.domains)}; {run.mode}, {run.step} steps, seed {run.seed} |
| made | {record.created_at:%Y-%m-%d} |
| backbone | `{record.backbone_digest}` |
| domain's weights | `{record.domain_digest}` |

## Scores
{_scores(record.metrics.get("test"), unseen)}{shown}
## Data

{spec.data.dataset}, licence: {spec.data.licence}. The weights learned from these data; see whether
the licence allows your use.
{citation}
## Use

A means of research. It is no medical device: nobody has examined it for diagnosis or treatment.
It knows images of the modality above, as in its data set. On others it gives labels too, and they
mean nothing.
"""


def _scores(test: dict[str, Any] | None, unseen: bool) -> str:
    if test is None:
        return "\nIt has no scores of test cases.\n"
    rows = "".join(
        f"| {name} | {_shown(one, 'dice')} | {_shown(one, 'hd95_mm')} "
        f"| {_shown(one, 'surface_dice')} |\n"
        for name, one in [*test["classes"].items(), ("mean", test["overall"])]
    )
    claim = ", never seen in training" if unseen else ""
    cases = f"{test['cases']} test cases{claim}. " if "cases" in test else ""
    if "failures" in test:
        cases += f"{test['failures']} failed: such a case has Dice 0, and no HD95."
    return f"\n{cases}\n\n| class | Dice | HD95, mm | surface Dice |\n|---|---|---|---|\n{rows}"


def _shown(scores: dict[str, Any], name: str) -> str:
    value = scores.get(name)
    return "-" if value is None else f"{value:.3f}"
