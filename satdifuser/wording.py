"""What Hydra and OmegaConf complain of, in words that name nothing but what there is here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Said = Callable[[re.Match[str], str], str]

SAID: tuple[tuple[str, Said], ...] = (
    (
        r"Multiple values for ([\w@/]+)\. To override a value use 'override [^:]+: ([^']*)'",
        lambda m, c: f"{m[1]} is chosen already: leave out the +, as {m[1]}={m[2]}",
    ),
    (
        r"force-add of config groups is not supported: '\+\+([^']*)'",
        lambda m, c: f"a choice of a group is made without ++, as {m[1]}",
    ),
    (
        r"Could not delete '([^'=]*)(=?[^']*)'\. No match in the defaults list",
        lambda m, c: f"~{m[1]}{m[2]} leaves out what was not chosen" + (f": write ~{m[1]}" if m[2] else ""),
    ),
    (
        r"Could not append to config\. An item is already at '([^']*)'\..*?remove \+ prefix: '([^']*)'",
        lambda m, c: f"{m[1]} is there already: leave out the +, as {m[2]}",
    ),
    (
        r"Could not delete from config\. '([^']*)' does not exist",
        lambda m, c: f"~{m[1]}: there is no setting {m[1]} in satdifuser {c} that could be left out",
    ),
    (
        r"Could not delete from config\. The value of '([^']*)' is (.*?) and not (.*)\.$",
        lambda m, c: f"{m[1]} is {m[2]}, so ~{m[1]}={m[3]} leaves out nothing: write ~{m[1]}",
    ),
    (
        r"Interpolation key '([^']*)' not found",
        lambda m, c: f"${{{m[1]}}} refers to a setting that satdifuser {c} does not have",
    ),
    (
        r"Environment variable '([^']*)' not found",
        lambda m, c: f"the environment variable {m[1]} is not set, and a setting refers to it: export {m[1]}=...",
    ),
    (
        r"Unsupported interpolation type ([\w.]+)",
        lambda m, c: f"${{{m[1]}:...}} is no reference: there is ${{name.of.a.setting}} and ${{oc.env:VARIABLE}}",
    ),
    (
        r"Recursive interpolation detected",
        lambda m, c: "a setting refers to itself: ${...} must name another one",
    ),
    (
        r"Error merging override ([^=\n]+)='?(.*\$\{.*?)'?$",
        lambda m, c: f"{m[1]} cannot become {m[2]}: a reference to another setting is written as ${{data.size}}",
    ),
)
"""Of each message of theirs the beginning, and what is said in its place (of the match, and the command)."""

_ELSEWHERE = (
    r"(?:\.|;)?\s*See https?://\S+(?: for [\w ]+)?\.?",
    r"\s*Config search path:.*$",
    r"\s*(?:Set the environment variable|, set env var) HYDRA_FULL_ERROR=1 [\w ]*\.?",
    r"[^.;:]*--(?:multirun|info|cfg|resolve)\b[^.;]*\.?",
)


def reworded(message: str, command: str) -> str | None:
    """What is said in place of one of their messages; None of one that is not known."""
    text = " ".join(message.split())
    for pattern, said in SAID:
        found = re.search(pattern, text)
        if found:
            return said(found, command)
    return None


def without_advice(message: str) -> str:
    """A message in one line, without what only an application of Hydra's own has.

    >>> without_advice("No such key.\\nSee https://hydra.cc/docs/1.2/x for details")
    'No such key'
    """
    text = " ".join(line.strip() for line in message.splitlines() if line.strip())
    for pattern in _ELSEWHERE:
        text = re.sub(pattern, "", text)
    return text.strip() or "an override cannot be read"


def several(name: str, value: str, held: Any, command: str, groups: Iterable[str]) -> str:
    """What to do with a value that reads as several, by what the setting holds (None: it may become anything).

    >>> several("encoder.timesteps", "0,21", [0, 21, 61], "train", [])
    'encoder.timesteps=0,21 is several values: a list is written in brackets, as encoder.timesteps=[0,21]'
    """
    own = name.lstrip("+")
    listed = f"a list is written in brackets, as {name}={as_list(value)}"
    if isinstance(held, Sequence) and not isinstance(held, str):
        return f"{name}={value} is several values: {listed}"
    if isinstance(held, str) and own not in groups:
        return f"{name}={value} reads as several values: quote one with a comma, as \"{name}='{value}'\""
    if held is None and own not in groups:
        return f"{name}={value} is several values: {listed}; one with a comma is quoted, as \"{name}='{value}'\""
    each = "give one of them" if command == "compare" else f"satdifuser compare {name}={value} makes a run of each"
    return f"{name}={value} is several values, and satdifuser {command} takes one: {each}"


def as_list(value: str) -> str:
    """Several values of an override as a list; of a call of Hydra's whose values are not at hand the beginning.

    >>> as_list("0,21"), as_list("range(1, 9, 3)"), as_list("choice(a,b)"), as_list("interval(0,1)")
    ('[0,21]', '[1,4,7]', '[a,b]', '[1,2,...]')
    """
    call = re.fullmatch(r"(\w+)\((.*)\)", value.strip())
    if call is None:
        return f"[{value}]"
    bounds = [word.strip() for word in call[2].split(",")]
    if call[1] == "choice":
        return f"[{','.join(bounds)}]"
    whole = 1 <= len(bounds) <= 3 and all(re.fullmatch(r"-?\d+", word) for word in bounds)
    if call[1] != "range" or not whole or (len(bounds) == 3 and not int(bounds[2])):
        return "[1,2,...]"
    numbers = range(*map(int, bounds))
    return f"[{','.join(map(str, numbers))}]" if len(numbers) <= 50 else f"[{numbers[0]},{numbers[1]},...]"
