"""What is wrong with a configuration, in words."""

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

# A file with thousands of unknown keys must not take minutes, or screens, to explain.
_MAX_PROBLEMS = 50


def explain(
    error: Exception, schema: type[BaseModel], name: str, text: str, overridden: set[tuple[str, ...]]
) -> list[str]:
    """Each problem of a failed validation in a line that names file or option, key and fix.

    Args:
        schema: what was validated against; its keys are what an unknown key is compared with.
        name, text: of the file, for the line number.
        overridden: keys that the command line gave, so that it is blamed and not the file.
    """
    if not isinstance(error, ValidationError):
        return [f"{name}: a value is too large or nested too deeply"]
    problems = []
    errors = error.errors(include_url=False)
    for item in errors[:_MAX_PROBLEMS]:
        key = ".".join(str(part) for part in item["loc"])[:80]
        key = key if key.isprintable() else repr(key)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = (
                f"unknown key{did_you_mean(str(item['loc'][-1]), _known_keys(schema, item['loc'][:-1]), ';')}"
            )
        elif item["type"] == "missing":
            message = "is missing"
        elif item["type"] != "value_error":
            given = _shown(item.get("input"))
            message = f"{message[0].lower()}{message[1:]} (it is {given})"
        line = _line_of(item["loc"], text)
        location = tuple(map(str, item["loc"]))
        is_overridden = location in overridden or (
            not line and any(k[: len(location)] == location for k in overridden)
        )
        where = "--set" if location and is_overridden else f"{name}{line}"
        problems.extend(f"{where}: {key + ': ' if key else ''}{part}" for part in message.split("\n"))
    if len(errors) > _MAX_PROBLEMS:
        problems.append(f"{name}: and {len(errors) - _MAX_PROBLEMS} more problems")
    return problems


def _shown(value: Any) -> str:
    try:
        return repr(value)[:60]
    # Python refuses to write integers of thousands of digits, and tables nested too deeply.
    except (ValueError, RecursionError):
        return "too large to show"


def _known_keys(kind: Any, location: tuple[Any, ...]) -> list[str]:
    for part in location:
        annotation = kind.model_fields[part].annotation if part in kind.model_fields else None
        kinds = [
            k for k in (annotation, *get_args(annotation)) if isinstance(k, type) and issubclass(k, BaseModel)
        ]
        if not kinds:
            return []
        kind = kinds[0]
    return list(kind.model_fields)


def _line_of(location: tuple[Any, ...], text: str) -> str:
    """` line 12` for a key that the file's text holds, or nothing."""
    if not location:
        return ""
    section, key = "", str(location[-1])
    wanted = str(location[0]) if len(location) > 1 else ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            section = header[1].strip()
        elif section == wanted and re.match(rf"\s*{re.escape(key)}\s*=", line):
            return f" line {number}"
    return ""


def did_you_mean(word: str, known: Iterable[str], lead: str = "") -> str:
    """` Did you mean ...?` with the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"{lead} Did you mean {near[0]}?" if near else ""
