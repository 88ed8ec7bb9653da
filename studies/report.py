"""Write the table, the plot and the paragraph of a study from its finished trainings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.figures.marks import save_png
from common.files import whole_file, write_own_json
from common.reporting import class_probabilities, read_classes, read_scores
from common.reporting.formats import Row, format_table

from .run import read_state
from .statistics import CaseScores, Outcome, decide, detectable
from .study import Cases, Score, Study

OUTCOME, TABLE, PAGE, PLOT = "outcome.json", "claims.csv", "report.md", "claims.png"
FIT = (0.75, 0.92)  # range of the best mean score that leaves room for differences
HEADER = [
    "claim", "first", "second", "score", "cases", "seeds", "difference", "95% low", "95% high", "p Holm", "outcome",
]  # fmt: skip


def write_report(study: Study, out: Path) -> str:
    """Write ``claims.csv``, ``claims.png``, ``report.md`` and ``outcome.json`` into the folder of a study.

    A training counts once it and its evaluation have ended; others are left out.

    Returns:
        the text of ``report.md``.
    """
    state = read_state(out)
    cases = study.cases_called(state["data"])
    arms = study.arms_on(cases)
    found = {name: _scores(arms, score, out) for name, score in study.scores_on(cases).items()}
    outcomes = decide(study.claims_on(cases), study.scores, found)
    table = format_table([HEADER, *map(_row, outcomes)], "csv")
    with whole_file(out / TABLE, lambda path: path.read_text().startswith(",".join(HEADER))) as partial:
        partial.write_text(table + "\n")
    save_png(draw_claims(study, outcomes), out / PLOT)
    content = {"study": study.name, "data": state["data"], "machine": state["machine"], "updates": state["updates"]}
    content |= {"cpu_minutes": _minutes(state, found), "claims": [_noted(outcome) for outcome in outcomes]}
    write_own_json(content, out / OUTCOME)
    text = _text(study, cases, state, found, outcomes)
    with whole_file(out / PAGE, lambda path: path.read_text().startswith("# Study ")) as partial:
        partial.write_text(text + "\n")
    return text


def _scores(arms: Sequence[str], score: Score, out: Path) -> dict[str, dict[int, CaseScores]]:
    """Return the scores of the cases by arm and seed, of what is finished."""
    found: dict[str, dict[int, CaseScores]] = {arm: {} for arm in arms}
    name = "classes.csv" if score.columns == "true class" else "scores.csv"
    for arm in arms:
        for file in sorted((out / "arms" / arm).glob(f"seed*/{name}")):  # written after the evaluation
            values = _true_class(file) if name == "classes.csv" else _means(file, score.columns)
            if values:
                found[arm][int(file.parent.name.removeprefix("seed"))] = values
    return found


def _means(file: Path, beginning: str) -> CaseScores:
    values = {}
    for row in read_scores(file):
        columns = [value for key, value in row.items() if key.startswith(beginning + " ") and not math.isnan(value)]
        values[row["case"]] = sum(columns) / len(columns) if columns else math.nan
    return {} if all(map(math.isnan, values.values())) else values


def _true_class(file: Path) -> CaseScores:
    rows = read_classes(file)
    _, probabilities, true = class_probabilities(rows)
    return {row["case"]: each[index] for row, each, index in zip(rows, probabilities, true)}


def _row(outcome: Outcome) -> Row:
    claim, difference = outcome.claim, outcome.difference
    words: Row = [claim.text, claim.first, claim.second, claim.score]
    if difference is None:
        return [*words, 0, 0, math.nan, math.nan, math.nan, "nan", outcome.result]
    interval = [difference.mean, difference.low, difference.high]
    return [*words, difference.pairs, len(outcome.by_seed), *interval, f"{outcome.p_holm:.3g}", outcome.result]


def _noted(outcome: Outcome) -> dict[str, Any]:
    claim, difference = outcome.claim, outcome.difference
    noted: dict[str, Any] = {"claim": claim.text, "outcome": outcome.result}
    if difference is not None:
        numbers = {"difference": difference.mean, "low": difference.low, "high": difference.high, "sd": outcome.sd}
        noted |= {key: _number(value) for key, value in {**numbers, "p_holm": outcome.p_holm}.items()}
        noted |= {"failed": list(outcome.failed)} if outcome.failed else {}
        noted |= {"cases": difference.pairs, "by_seed": [round(value, 4) for value in outcome.by_seed]}
    return noted


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(f"{value:.4g}")


def _minutes(state: Mapping[str, Any], found: Mapping[str, Mapping[str, Mapping[int, Any]]]) -> float:
    """Return the CPU minutes of the finished trainings and their evaluations."""
    done = {f"{arm}/seed{seed}" for arms in found.values() for arm, seeds in arms.items() for seed in seeds}
    return round(sum(seconds for key, seconds in state["cpu_seconds"].items() if key in done) / 60, 1)


def _text(
    study: Study, cases: Cases, state: Mapping[str, Any], found: Mapping[str, Any], outcomes: Sequence[Outcome]
) -> str:
    arms: list[Row] = [["arm", "updates", "seeds", *(f"{name}, mean (sd over cases)" for name in found)]]
    for arm in study.arms_on(cases):
        seeds = {seed for scores in found.values() for seed in scores[arm]}
        arms.append([arm, state["updates"][arm], len(seeds), *(_mean(scores[arm]) for scores in found.values())])
    lines = [f"# Study {study.name}: {study.title}", "", f"Data: {cases.name}. {cases.carries} {cases.trivial}"]
    lines += ["", format_table(arms, "markdown"), "", format_table([HEADER, *map(_row, outcomes)], "markdown"), ""]
    lines += [f"- {sentence(study, outcome, len(outcomes))}" for outcome in outcomes]
    lines += [f"- {note}" for note in _unfit(cases, found)]
    most = max((len(outcome.by_seed) for outcome in outcomes), default=0)
    lines += [
        "",
        f"The intervals cover cases, and not trainings: {most} training(s) of each arm. 95 % interval: BCa bootstrap "
        "of the mean paired difference over the cases, seeds averaged. p: Wilcoxon signed-rank, Holm over all claims.",
        "",
        f"{_minutes(state, found):g} CPU minutes of training and evaluation. {state['machine']}.",
    ]
    return "\n".join(lines)


def _mean(seeds: Mapping[int, CaseScores]) -> str:
    if not seeds:
        return "not run"
    values = np.mean([[scores[name] for name in sorted(scores)] for scores in seeds.values()], 0)
    return f"{np.nanmean(values):.4f} ({np.nanstd(values, ddof=1):.4f})"


def _unfit(cases: Cases, found: Mapping[str, Mapping[str, Mapping[int, CaseScores]]]) -> list[str]:
    """Return a note for each score that phantoms make too easy or too hard to tell arms apart."""
    notes = []
    for name, arms in found.items():
        means = [np.nanmean([*scores.values()]) for seeds in arms.values() for scores in seeds.values()]
        if cases.recipe is not None and means and not FIT[0] <= max(means) <= FIT[1]:
            notes.append(
                f"The best {name} of a training is {max(means):.3f}, outside {FIT[0]} to {FIT[1]}: the phantoms are "
                "too easy or too hard, or the training is too short, to tell arms apart."
            )
    return notes


def sentence(study: Study, outcome: Outcome, claims: int) -> str:
    """Return the outcome of a claim in words; ``claims`` is the number of claims of the study."""
    claim, difference = outcome.claim, outcome.difference
    text = f"{claim.text}: **{outcome.result}**"
    if difference is None:
        return f"{text}. {claim.first} or {claim.second} has no finished training."
    effect = study.scores[claim.score].effect
    least = detectable(outcome.sd, difference.pairs, claims)
    failed = f" A training of {' and of '.join(outcome.failed)} learned nothing." if outcome.failed else ""
    by_seed = ", ".join(f"{value:+.4f}" for value in outcome.by_seed)
    return (
        f"{text}. {claim.score} of {claim.first} minus {claim.second}: {difference.mean:+.4f}, 95 % interval "
        f"{difference.low:+.4f} to {difference.high:+.4f}, p Holm {outcome.p_holm:.2g}; effect asked for: {effect:g}. "
        f"By seed: {by_seed}. The measured standard deviation over cases, {outcome.sd:.4f}, detects {least:.4f}."
        f"{failed}"
    )


def draw_claims(study: Study, outcomes: Sequence[Outcome]) -> Any:
    """Return a figure with the difference and the interval of each claim."""
    from matplotlib.figure import Figure  # takes a second to import

    figure = Figure(figsize=(9, 1.2 + 0.5 * len(outcomes)), layout="constrained")
    axes = figure.subplots()
    places = range(len(outcomes), 0, -1)
    for place, outcome in zip(places, outcomes):
        if outcome.difference is not None:
            difference, effect = outcome.difference, study.scores[outcome.claim.score].effect
            axes.plot([difference.low, difference.high], [place, place], color="black")
            axes.plot(difference.mean, place, "o", color="black")
            axes.plot([effect, effect], [place - 0.3, place + 0.3], color="tab:red")
    axes.axvline(0, color="grey", linewidth=0.8)
    labels = [f"{o.claim.first} - {o.claim.second}\n{o.claim.score}: {o.result}" for o in outcomes]
    axes.set_yticks(list(places), labels, fontsize=7)
    axes.set_ylim(0.5, len(outcomes) + 0.5)
    axes.set_xlabel("mean paired difference with its 95 % interval; red: effect asked for")
    axes.set_title(f"{study.name}: {study.title}", fontsize=9)
    return figure
