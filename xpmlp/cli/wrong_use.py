"""What is wrong with the options of a command, in the words of its options."""

from __future__ import annotations

import re

import typer

from .app import app

# What options.py and check_choice write: `AdamW`: expected lr finite and ≥ 0, …, got -1.0
_MESSAGE = re.compile(r"`[^`]*`: expected (\w+) (?=to be |in |finite )(.*)", re.DOTALL)
_NAMES = {
    "`validation size`: expected": "`--validation`: expected",
    "Generator: expected seeds that are": "`--seed`: expected",
    "expected a schedule among": "`--schedule`: expected one of",
}


def in_options(message: str) -> str:
    """A message about a parameter of a class, about the option that sets it.

    Parameters
    ----------
    message : str
        Such as "`AdamW`: expected lr finite and ≥ 0, one number or one for each member, got -1.0".

    Returns
    -------
    str
        Such as "`--lr`: expected a finite number ≥ 0, got -1.0"; what is not about an option
        stays as it is.
    """
    for words, option in _NAMES.items():
        if message.startswith(words):
            return message.replace(words, option, 1)
    found = _MESSAGE.fullmatch(message)
    option = _options().get(found[1]) if found else None
    if found is None or option is None:
        return message
    rest = found[2].replace(", one number or one for each member", "", 1).removeprefix("to be ")
    if rest.startswith("finite and "):
        rest = f"a finite number {rest.removeprefix('finite and ')}"
    elif rest.startswith("in "):
        rest = f"a number {rest}"
    elif rest.startswith("one of None"):
        rest = rest.replace("None", "none", 1)  # as it is written there
    return f"`{option}`: expected {rest}"


def _options() -> dict[str, str]:
    """The options of all commands by the names of their parameters."""
    commands = getattr(typer.main.get_command(app), "commands", {}).values()
    return {
        str(parameter.name): parameter.opts[0]
        for one in commands
        for parameter in one.params
        if parameter.opts[0].startswith("--")
    }
