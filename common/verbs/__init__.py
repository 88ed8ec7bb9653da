"""Find the function of each verb of ``python -m common``. Its docstring is the help text of the verb."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

# verb -> the module and the function that define it. Most modules take seconds to import, so only the used one is.
VERBS = {
    "list": "bundles.list_bundles",
    "doctor": "doctor.doctor",
    "phantoms": "data_sets.phantoms",
    "datalist": "data_sets.datalist",
    "plan": "plan.plan",
    "nnunet": "data_sets.nnunet",
    "intensity": "data_sets.intensity",
    "series": "volumes.series",
    "stack": "volumes.stack",
    "unstack": "volumes.unstack",
    "picture": "results.picture",
    "crossval": "crossval.crossval",
    "scores": "results.scores",
    "plots": "results.plots",
    "report": "results.report",
    "pack": "packages.pack",
    "verify": "packages.verify",
}


def function_of(verb: str) -> Callable[..., None]:
    """Return the function of a verb, and import its module.

    Raises:
        KeyError: if the verb is unknown.
    """
    module, _, function = VERBS[verb].partition(".")
    return getattr(import_module(f"{__name__}.{module}"), function)
