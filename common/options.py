"""Check the settings of a run: its options, and the values and overlays of its config."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence

from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.bundle.reference_resolver import ReferenceResolver

from .errors import InputError, UsageError
from .overlays import check_kinds, check_overlays
from .rules import DEVICE, PATHS, RULES, TRACKING, check_setting, check_value, parse_bool, setting_of
from .running_config import Given, running_config
from .tracking import tracking_defaults, tracking_options
from .typed_texts import literal, typed_texts


def check_settings() -> None:
    """Check the settings of the run that the calling config starts. Its key ``initialize`` calls this function.

    Refuse unknown options, values of another kind and values outside their ranges. Restore paths and names of cases to
    the texts that the user gave: Fire turns some of them into numbers, lists or null, and MONAI replaces ``#`` by
    ``::``.

    Raises:
        InputError: if a config file replaces a component by another kind of value, or has a path that MONAI changed.
        UsageError: if an option is unknown, or has a value of another type or outside its range.
    """
    parser, given = running_config()
    if given is not None:
        refuse_unknown_options(given.overrides, given.files, tracking_options(given.overrides.get("tracking")))
        check_overlays(given)
        check_kinds(given)
        _check_support(parser, given)
    ruled = [name for name in RULES if name in parser.get("")]  # "in parser" is slow: it looks for a similar name
    nulls = [name for name in ruled if parser[name] == "null" and RULES[name].holds(None)]
    if given is not None:
        nulls += [name for name, value in given.overrides.items() if value == "null" and name not in RULES]
    for name in nulls:  # Fire reads null as text
        parser[name] = None
    texts = typed_texts({} if given is None else given.overrides)
    changed = {name: text for name, text in texts.items() if parser[name] != text}
    for name, text in changed.items():
        parser[name] = text if isinstance(text, list) else literal(text)
    if changed or nulls:
        parser.parse(reset=True)
    if defaults := tracking_defaults(parser):
        parser.update({name: literal(text) for name, text in defaults.items()})
        parser.parse(reset=True)
    for name in ruled:
        if name not in texts:
            _check_setting_value(parser, name)


def _check_support(parser: ConfigParser, given: Given) -> None:
    """Check that no option asks for a result that the config does not write.

    The key ``unsupported`` of a config maps the names of such switches to the reasons.

    Raises:
        UsageError: if such a switch is on.
    """
    unsupported: Mapping[str, str] = parser.get("unsupported", {})
    for name, reason in unsupported.items():
        if parse_bool(given.overrides.get(name, False)):
            raise UsageError(f"--{name} true: {reason}; leave it out")


def refuse_unknown_options(
    names: Collection[str], config_files: str | Sequence[str], added: Collection[str] = ()
) -> None:
    """Refuse options that neither MONAI nor the config files read. MONAI itself accepts any name.

    Args:
        names: names of the options.
        config_files: path or paths of the config files, as for ``monai.bundle.run``.
        added: settings that MONAI adds to the config.

    Raises:
        UsageError: if a name is neither an argument of MONAI nor a key of the config files.
    """
    known = {"_meta_", "workflow_name", *added}
    known |= {*inspect.signature(run).parameters, *inspect.signature(ConfigWorkflow).parameters}
    known |= {setting_of(key) for key in ConfigParser.load_config_files(config_files)}
    where = config_files if isinstance(config_files, str) else ", ".join(map(str, config_files))
    for name in names:
        if name in TRACKING and name not in known:
            raise UsageError(f"--{name} needs experiment tracking; add --tracking mlflow")
        check_setting(name, known, where, "--")


def _check_setting_value(parser: ConfigParser, name: str) -> None:
    """Check the value of a setting. Skip a computed setting that would build a component."""
    value = parser[name]
    items = value if isinstance(value, list) else [value]
    computed = [item for item in items if isinstance(item, str) and item.startswith(("$", "@"))]
    if computed:
        if RULES[name] is DEVICE:  # it may need the environment of torchrun, which start_session checks
            return
        references = {reference for item in computed for reference in ReferenceResolver.match_refs_pattern(item)}
        if not all(setting_of(reference) in RULES for reference in references):
            return
        value = parser.get_parsed_content(name)
    if name in PATHS and isinstance(value, str) and "::" in value and value == parser[name]:
        raise InputError(f"--{name} {value}: MONAI writes :: for # in a config; give such a path as an option")
    check_value(name, value)
