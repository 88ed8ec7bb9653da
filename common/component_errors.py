"""Find the config component that MONAI failed to build, and describe the failure."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple

RESOLVER = "_resolve_one_item"  # method of MONAI's ReferenceResolver that builds one item of a config
PARSER = "get_parsed_content"  # method of MONAI's ConfigParser, which keeps the config as the files have it
STEPS = ("initialize", "run", "finalize")  # expressions under these keys do the work and build nothing
TRACEBACK_VARIABLE = "BUNDLE_TRACEBACK"  # environment variable; 1 prints the traceback above the error


class ComponentFailure(NamedTuple):
    """Describe a component that could not be built.

    Args:
        message: names the component, the error, the options that the user gave for it, and what to do.
        by_option: whether the user gave an option of the component.
    """

    message: str
    by_option: bool


def component_failure(links: list[BaseException]) -> ComponentFailure | None:
    """Return the failure if MONAI raised a chain of exceptions while it built a component of a config.

    Args:
        links: chain of exceptions, from the caught one to the origin.

    Returns:
        The failure, or None if the exceptions come from elsewhere, such as from a running training.
    """
    frames = [frame for link in links for frame in _frames(link)]
    building = [frame for frame in frames if frame.f_code.co_name == RESOLVER and "item" in frame.f_locals]
    if not building:
        return None
    name, item = building[-1].f_locals["id"], building[-1].f_locals["item"]
    if name.split("::")[0] in STEPS:
        return None
    config = item.get_config()
    target = config.get("_target_") if isinstance(config, Mapping) else None
    what = f"component {name} ({target})" if isinstance(target, str) else f"setting {name}"
    origin = links[-1]
    text = " ".join(str(origin).split()) or "no message"
    if not isinstance(origin, ValueError):  # the type ValueError would add nothing
        text = f"{type(origin).__name__}: {text}"
    options = _options_of([name], frames) or _options_of(_references(name, frames), frames)
    given = [f"--{key} {value}{_expected(target, key, name)}" for key, value in options.items()]
    check = "; check " + ", ".join(given) if given else "; check its keys in the config files and the options"
    hint = f"set the environment variable {TRACEBACK_VARIABLE}=1 to see the traceback"
    return ComponentFailure(f"{what} cannot be built: {text}{check} ({hint})", bool(given))


def _frames(error: BaseException) -> Iterator[FrameType]:
    trace = error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _references(name: str, frames: list[FrameType]) -> list[str]:
    """Return the names that an expression refers to, or the components that a component uses, also indirectly."""
    parsers = [frame.f_locals["self"] for frame in frames if frame.f_code.co_name == PARSER]
    if not parsers or name not in parsers[-1]:
        return []
    parser = parsers[-1]  # its config still has the references; the resolver's copy has the built objects
    find = parser.ref_resolver.find_refs_in_config
    if isinstance(parser[name], str):
        return list(find(parser[name], name))
    found = [name]
    for key in found:
        references = find(parser[key], key)
        found += [ref for ref in references if ref not in found and ref in parser and isinstance(parser[ref], Mapping)]
    return found[1:]


def _options_of(names: list[str], frames: list[FrameType]) -> dict[str, Any]:
    """Return the options of ``monai.bundle run`` that set a named component, a part of it, or a parent of it."""
    for frame in frames:
        if frame.f_globals.get("__name__") == "monai.bundle.scripts" and "override" in frame.f_locals:
            options = {key.replace("#", "::"): value for key, value in frame.f_locals["override"].items()}
            return {
                key: value
                for key, value in options.items()
                if any(f"{key}::".startswith(f"{name}::") or f"{name}::".startswith(f"{key}::") for name in names)
            }
    return {}


def _expected(target: object, key: str, name: str) -> str:
    """Return ``, expected TYPE`` for the argument that an option sets, or "" if the component declares no type."""
    argument = key.removeprefix(f"{name}::") if key.startswith(f"{name}::") else ""
    component = pydoc.locate(target) if isinstance(target, str) else None
    parameters = inspect.signature(component).parameters if callable(component) else {}
    parameter = parameters.get(argument)
    if parameter is None or parameter.annotation is inspect.Parameter.empty:
        return ""
    annotation = parameter.annotation
    return f", expected {annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)}"
