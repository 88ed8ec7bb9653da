"""Write docs/reference/evidence.md from the definitions of the studies and their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import is_own_json, read_json, whole_file, write_own_json

from .report import OUTCOME
from .statistics import NOT_RUN
from .study import ROOT, Cases, Study, read_study, studies

RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "reference" / "evidence.md"
TITLE = "# Evidence: the papers' claims tested again"
HEAD = f"""{TITLE}

**Not for clinical use.** `python -m studies page` writes this page. No published number can be repeated here: two data
sets are private, and three are large. So each study tests a claim of a paper where it can be tested, on small networks
and short trainings. A phantom decides only what it was made to decide.

All arms of a study have the same cases, plan and updates, and none is tuned more than another. Each difference is the
mean over the test cases, of seeds averaged, with its 95 % bootstrap interval. A claim is

- **supported**: the interval lies above 0, p is below 5 % after Holm's correction over all claims of the study, and
  every seed has a positive difference. A claim "as well as" is supported if the interval lies above minus the effect
  asked for;
- **not supported**: the interval lies below the effect asked for (below minus the effect for "as well as");
- **not decided by this much data**: otherwise, and if a training learned nothing (mean score below 0.1). It failed,
  which does not show what its arm can do. This rule came after the first study had such a training;
- **not run**: nobody has run it yet.

The intervals cover cases, and not trainings. With one seed, another training of the same arm may differ by as much.
[Run the studies](../how-to/studies.md) describes the commands."""


def write_page(folders: Sequence[Path]) -> Path:
    """Copy the outcomes of studies, and write the page.

    Args:
        folders: folders of studies with a report.

    Raises:
        InputError: a folder has no outcome, or it was changed.
    """
    for folder in folders:
        file = folder / OUTCOME
        if not is_own_json(file):
            raise InputError(f"{file}: not written by `python -m studies report NAME --out {folder}`; run it first")
        content = read_json(file)
        write_own_json(
            {k: v for k, v in content.items() if k in RESULT}, result_file(content["study"], content["data"])
        )
    with whole_file(PAGE, lambda path: path.read_text().startswith(TITLE)) as partial:
        partial.write_text(page_text())
    return PAGE


RESULT = ("study", "data", "machine", "updates", "cpu_minutes", "claims")


def result_file(study: str, data: str) -> Path:
    """Return the file of a result in ``studies/results``."""
    return RESULTS / f"{study}_{data.replace(' ', '_')}.json"


def page_text() -> str:
    """Return the text of the page."""
    parts = [HEAD]
    for name in studies():
        study = read_study(name)
        parts.append(f"## {study.title}")
        for cases in filter(None, (study.real, study.phantoms)):
            parts.append(_section(study, cases))
    return "\n\n".join(parts) + "\n"


def _section(study: Study, cases: Cases) -> str:
    file = result_file(study.name, cases.name)
    result: dict[str, Any] = read_json(file) if file.exists() else {"claims": []}
    noted = {claim["claim"]: claim for claim in result["claims"]}
    first = study.arms_on(cases)[0]
    command = f"python -m studies {study.name}"
    if result["claims"]:
        seeds = max(len(claim.get("by_seed", ())) for claim in result["claims"])
        command += f" --seeds {seeds} --updates {result['updates'][first]}"
    if cases.recipe is None:
        command += " --dataset_dir DIR"
    lines = [
        f"### {cases.name[:1].upper()}{cases.name[1:]}",
        "",
        f"{cases.carries} {cases.trivial}",
        "",
        "| claim | published | ours | outcome | command |",
        "|---|---|---|---|---|",
    ]
    for claim in study.claims_on(cases):
        ours = noted.get(claim.text, {"outcome": NOT_RUN})
        cells = [claim.text, claim.published, _ours(claim.score, ours), ours["outcome"], f"`{command}`"]
        lines.append(f"| {' | '.join(cells)} |")
    if result["claims"]:
        lines += ["", f"Run: {result['cpu_minutes']:g} CPU minutes in all; {result['machine']}."]
    return "\n".join(lines)


def _ours(score: str, noted: Mapping[str, Any]) -> str:
    if "difference" not in noted:
        return "-"
    interval = "no interval" if noted["low"] is None else f"{noted['low']:+.4f} to {noted['high']:+.4f}"
    seeds = len(noted["by_seed"])
    failed = f"; a training of {' and of '.join(noted['failed'])} learned nothing" if "failed" in noted else ""
    size = f"{noted['cases']} cases, {seeds} seed{'s' * (seeds > 1)}"
    return f"{score} {noted['difference']:+.4f} ({interval}; {size}{failed})"
