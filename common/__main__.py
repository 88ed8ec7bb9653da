"""Run the command line ``python -m common VERB ...``."""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import fire
from fire.decorators import SetParseFn, SetParseFns
from fire.helptext import HelpText
from fire.trace import FireTrace

from .errors import InputError, UsageError, end_in_one_line, set_user_name
from .logs import show_any_text, silence_notices
from .rules import RULES, SWITCH, check_setting, check_value, parse_bool, positive_number, whole_number
from .verbs import VERBS, function_of

PIPE = 13  # number of SIGPIPE, a signal that Windows lacks
HELP = {"-h", "--help"}
NUMBERS = {
    "cases": whole_number(1),
    "folds": whole_number(2),
    "hours": positive_number(),
    **{name: RULES[name] for name in ("fold", "seed", "validation_share")},
}


def _parser_of(parameter: inspect.Parameter) -> Callable[[str], Any]:
    """Return the function that converts the text of an argument by its annotation.

    Fire's own parser would turn the name of a folder 2024 into a number.

    Raises:
        KeyError: if a number of a verb has no rule in ``NUMBERS``; raised by the returned function.
    """

    def number(text: str) -> Any:
        value: Any = text
        if re.fullmatch(r"[+-]?\d+", text):
            value = int(text)
        elif parameter.annotation is float and re.fullmatch(r"[+-]?\d*\.\d+(e[+-]?\d+)?", text):
            value = float(text)
        check_value(parameter.name, value, {parameter.name: NUMBERS[parameter.name]})
        return value

    def switch(text: str) -> bool:
        check_value(parameter.name, text, {parameter.name: SWITCH})
        return parse_bool(text)

    if parameter.annotation in (int, int | None, float):
        return number
    return switch if parameter.annotation is bool else str


def _call(verb: str, arguments: Sequence[str]) -> Callable[[], None]:
    """Check the arguments of a verb and return the call, without running it.

    Raises:
        UsageError: if an option is unknown, an argument is missing or surplus, or a value has a wrong type.
    """
    function = function_of(verb)
    signature = inspect.signature(function, eval_str=True).parameters
    parameters = {name: parameter for name, parameter in signature.items() if parameter.kind != parameter.VAR_KEYWORD}
    for argument in arguments:
        if argument.startswith("--") and len(parameters) == len(signature):  # else the verb checks the others
            check_setting(argument[2:].partition("=")[0].replace("-", "_"), parameters, verb, "--")
    calls = []

    @functools.wraps(function)
    def take(*values: Any, **options: Any) -> None:
        calls.append(functools.partial(function, *values, **options))

    parsers = {name: _parser_of(parameter) for name, parameter in parameters.items()}
    take = SetParseFn(str)(SetParseFns(**parsers)(take))
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            fire.Fire(take, command=list(arguments), name=f"python -m common {verb}")
    except fire.core.FireExit as error:
        text = error.trace.elements[-1].ErrorAsStr()
        raise UsageError(f"{verb}: {text}; see python -m common {verb} --help") from error
    (call,) = calls
    return call


def _overview() -> str:
    """Return the help text that lists every verb with the first line of its help."""
    width = max(map(len, VERBS))
    firsts = {verb: (inspect.getdoc(function_of(verb)) or "").partition("\n")[0] for verb in VERBS}
    lines = [f"  {verb:{width}}  {first}" for verb, first in firsts.items()]
    return "\n".join(["usage: python -m common VERB ...; add --help after a verb to see its options", "", *lines])


def _run(arguments: Sequence[str]) -> None:
    """Run a command line.

    Raises:
        UsageError: if the verb is unknown, or is called with wrong arguments.
    """
    if not arguments or arguments[0] in HELP:
        print(_overview())
        return
    verb, *rest = arguments
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(VERBS)}"
        raise UsageError(f"unknown verb {verb}; {hint}")
    if HELP & {*rest}:
        function = function_of(verb)
        print(HelpText(function, FireTrace(function, name=f"python -m common {verb}")))
        return
    _call(verb, rest)()


def main() -> None:
    """Run the command line of this process. End with one line and an exit status on an error."""
    show_any_text()
    silence_notices()
    try:
        _run(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python writes as it ends
        sys.exit(128 + PIPE)
    except InputError as error:
        if error.status == 1:
            sys.exit(f"error: {error}")
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(f"error: {error.filename}: cannot be used ({error.strerror}); choose another file or folder")


if __name__ == "__main__":
    end_in_one_line()
    set_user_name()
    main()
