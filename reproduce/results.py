"""Read ``docs/results.yaml`` of a bundle: every published row, and the commands that repeat it.

A file has ``paper``, ``differs``, ``lists`` and ``tables``. A table has ``table``, ``about``, ``columns``, ``rows``,
``note``, and ``card``: true if the model card shows its rows that can be repeated, or the names of the columns that it
shows. A row has the following keys. A table may have them too, as defaults for its rows:

- ``published``: the printed values, with a spread where printed, in the order of ``columns``; ``-`` for none.
- ``parameters``: trainable parameters of the network that the configs build. A row without them cannot be repeated.
- ``why_not``: why a row cannot be repeated.
- ``list``: name of the command in ``lists`` that writes the data list.
- ``steps``: names of :data:`STEPS`, the commands in order.
- ``overlay``: config files over the bundle's, by their names below ``configs`` and without the suffix.
- ``run``: folder of the run, below ``runs/BUNDLE``. ``scores``: folder of an evaluation in it.
- ``options``: options of every step but ``predict``; ``train``, ``evaluate`` and so on: further options of this step.
- ``evaluate_configs``, ``predict_configs``: config files of this step, in place of those in :data:`STEPS`.
- ``differs``: what differs from the paper. Those of file, table and row add up.
- ``ours``: ``value`` and ``run`` of an own experiment; null if there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
BUNDLES = sorted(path.parents[1] for path in ROOT.glob("bundles/*/docs/results.yaml"))
STEPS = {  # config files and options of each command; crossval is a verb of python -m common
    "train": ("train", "--dataset_dir {data} --ckpt_dir {run}"),
    "evaluate": ("train evaluate", "--dataset_dir {data} --ckpt_dir {run} --output_dir {run}/{scores}"),
    "crossval": ("", "--dataset_dir {data} --out {run}"),
    "predict": ("inference", "--dataset_dir {cases} --ckpt_dir {run} --output_dir {run}/{scores}"),
}
FILE_KEYS = {"paper", "differs", "lists", "tables"}
TABLE_KEYS = {"table", "about", "columns", "rows", "note", "card"}
ROW_KEYS = {"row", "published", "parameters", "why_not", "list", "steps", "overlay", "run", "scores", "cases"}
ROW_KEYS |= {*STEPS, "options", "evaluate_configs", "predict_configs", "differs", "ours"}


@dataclass(frozen=True)
class Row:
    """Hold a row of a table.

    Args:
        name: name in the paper.
        published: printed values, one for each column of the table.
        how: overlay and options for a card; empty if the row cannot be repeated.
        commands: command by name, ``list`` and then the steps, each in one line.
        one_fold: training and evaluation of fold 0, where the row is a cross-validation.
        parameters: trainable parameters of the network; None if the row cannot be repeated.
        differs: what differs from the paper in this row alone.
        ours: text of the own value and its run, or None.
        why_not: reason why the row cannot be repeated, or None.
    """

    name: str
    published: list[str]
    how: str
    commands: dict[str, str]
    one_fold: list[str]
    parameters: int | None
    differs: list[str]
    ours: str | None
    why_not: str | None


@dataclass(frozen=True)
class Table:
    """Hold a table of a paper: its name, what it shows, its columns and rows, and what differs in all rows.

    ``on_card`` has the columns that the model card shows of the rows that can be repeated, or None.
    """

    name: str
    about: str
    columns: list[str]
    rows: list[Row]
    differs: list[str]
    note: str
    on_card: list[str] | None


@dataclass(frozen=True)
class Results:
    """Hold the results file of a bundle: its folder, the paper, its tables, and what differs in all of them."""

    bundle: Path
    paper: str
    differs: list[str]
    tables: list[Table]


def read_results(bundle: Path) -> Results:
    """Read the results file of a bundle.

    Raises:
        ValueError: a key is unknown, or a row has a wrong number of values, or neither parameters nor why_not.
    """
    path = bundle / "docs" / "results.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    _check_keys(content, FILE_KEYS, str(path))
    tables = [_table(bundle, content.get("lists", {}), table) for table in content["tables"]]
    return Results(bundle, content["paper"], content.get("differs", []), tables)


def _table(bundle: Path, lists: Mapping[str, str], content: Mapping[str, Any]) -> Table:
    where = f"{bundle.name}, {content.get('table')}"
    _check_keys(content, TABLE_KEYS | ROW_KEYS, where)
    defaults = {key: value for key, value in content.items() if key in ROW_KEYS - {"differs"}}
    columns = content["columns"]
    rows = [_row(bundle, lists, columns, defaults, row) for row in content["rows"]]
    return Table(
        name=content["table"],
        about=content["about"],
        columns=columns,
        rows=rows,
        differs=content.get("differs", []),
        note=content.get("note", ""),
        on_card=columns if content.get("card") is True else content.get("card"),
    )


def _row(
    bundle: Path, lists: Mapping[str, str], columns: list[str], defaults: Mapping[str, Any], own: Mapping[str, Any]
) -> Row:
    where = f"{bundle.name}, row {own.get('row')}"
    _check_keys(own, ROW_KEYS, where)
    content = {**defaults, **own}
    published = str(content.get("published", " ".join("-" * len(columns)))).split()
    if len(published) != len(columns):
        raise ValueError(f"{where}: {len(published)} values, expected {len(columns)}, one for each of {columns}")
    parameters = content.get("parameters")
    if parameters is None and "why_not" not in content:
        raise ValueError(f"{where}: expected parameters or why_not")
    commands: dict[str, str] = {}
    one_fold: list[str] = []
    if parameters is not None:
        commands["list"] = " ".join(lists[content["list"]].split())
        commands |= {step: _command(bundle, step, content) for step in content["steps"].split()}
        if "crossval" in commands:
            one_fold = [_command(bundle, step, _of_fold(content, 0)) for step in ("train", "evaluate")]
    ours = content.get("ours")
    return Row(
        name=str(content["row"]),
        published=published,
        how=_how(content, defaults) if commands else "",
        commands=commands,
        one_fold=one_fold,
        parameters=parameters,
        differs=own.get("differs", []),
        ours=f"{ours['value']} ({ours['run']})" if ours else None,
        why_not=None if commands else content["why_not"],
    )


def _check_keys(content: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := {*content} - known:
        raise ValueError(f"{where}: unknown key {min(unknown)}, expected one of {', '.join(sorted(known))}")


def _command(bundle: Path, step: str, content: Mapping[str, Any]) -> str:
    """Return the command of a step, with paths from the root of the repository."""
    folder = bundle.relative_to(ROOT).as_posix()
    configs, options = STEPS[step]
    overlay = [f"{folder}/configs/{name}.json" for name in content.get("overlay", "").split()]
    names = [f"{folder}/configs/{name}.json" for name in content.get(f"{step}_configs", configs).split()] + overlay
    if step == "crossval":
        begin = f"python -m common crossval {bundle.name}"
        begin += f" --overlay {','.join(overlay)}" if overlay else ""
    else:
        files = names[0] if len(names) == 1 else '"[' + ",".join(f"'{name}'" for name in names) + ']"'
        begin = f"python -m monai.bundle run --bundle_root {folder} --config_file {files}"
    values = {
        "data": f"data/{content['list']}",
        "cases": content.get("cases", f"data/{content['list']}"),
        "run": f"runs/{bundle.name}/{_run(content)}",
        "scores": content.get("scores", "scores"),
    }
    return " ".join([begin, options.format(**values), *_options(content, step)])


def _of_fold(content: Mapping[str, Any], fold: int) -> dict[str, Any]:
    options = f"--fold {fold} {content.get('options', '')}".strip()
    return {**content, "run": f"{_run(content)}/fold{fold}", "options": options}


def _options(content: Mapping[str, Any], step: str) -> list[str]:
    shared = [] if step == "predict" else [content.get("options", "")]
    return [text for text in (*shared, content.get(step, "")) if text]


def _run(content: Mapping[str, Any]) -> str:
    return content.get("run") or content.get("overlay", "").split(" ")[-1].rpartition("/")[2] or "paper"


def _how(content: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return the overlay of a row, and the options that differ between the rows of its table, as a card shows them."""
    names = [f"`{name}`" for name in content.get("overlay", "").split()] or ["none: `train.json` itself"]
    own = content.get("options") if content.get("options") != defaults.get("options") else None
    options = [text for text in (own, content.get("evaluate"), content.get("predict")) if text]
    return ", ".join([*names, *(f"`{text}`" for text in options)])
