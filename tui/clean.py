"""The one door through which text of models, data and files reaches the screen."""

import re

# What a terminal may obey or hide: C0 but tab and newline, DEL and C1, the soft hyphen, zero-width and
# bidirectional controls, line and paragraph separators, variation selectors (they change how wide a
# character is drawn), interlinear marks, lone surrogates, tags.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_SHOWN = {"\x1b": "␛", "\x7f": "␡", "\x00": "␀"}


def clean(text: str, limit: int = 0) -> str:
    """The text with nothing in it that a terminal would obey; some of what is taken out leaves a sign.

    It keeps newlines; a tab becomes four spaces. Show the result with markup off all the same.

    Args:
        limit: at most this many characters, the last an ellipsis; 0 takes all.
    """
    text = _LINE_ENDS.sub("\n", text).replace("\t", "    ")
    text = _UNSAFE.sub(_sign, text)
    if limit and len(text) > limit:
        text = text[: max(0, limit - 1)] + "…"
    return text


def clean_line(text: str, limit: int = 0) -> str:
    """The same on a single line: runs of white space become one space."""
    # A million characters need not be cleaned to show eighty.
    if limit:
        text = text[: limit * 8 + 64]
    return clean(" ".join(clean(text).split()), limit)


def _sign(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHOWN:
        return _SHOWN[character]
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\ufffd" if 0x80 <= code < 0xA0 or 0xD800 <= code < 0xE000 else ""
