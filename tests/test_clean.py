"""Text of models and files cannot command the terminal, however it is built."""

import random
import unicodedata

import pytest

from tui.clean import clean, clean_line

HOSTILE = [
    "\x1b[2J\x1b[1;1Hgone",
    "\x1b]52;c;cm0gLXJm\x07",
    "\x1b]0;title\x1b\\",
    "\x1b",
    "\x9b31mred\x9b0m",
    "\x90q#0\x9c",
    "a\x00b",
    "back\x08\x08\x08space",
    "bell\x07",
    "line\rover\x0b\x0c",
    "\x85next\u2028line\u2029paragraph",
    "\u202egnp.exe",
    "\u2066isolate\u2069",
    "zero\u200bwidth\u200d\ufeffjoiner\u2060",
    "soft\u00adhyphen",
    "\ud800 lone \udfff",
    "variation\ufe0f",
    "\U000e0041tag",
    "\x7fdelete",
    "[bold]no markup[/] [@click=app.quit]x[/]",
]


def is_harmless(text: str) -> bool:
    """Whether no character of the text is a control, a format sign or half of a character; newlines may stay."""
    return all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


@pytest.mark.parametrize("text", HOSTILE)
def test_named_attacks_leave_nothing_a_terminal_obeys(text: str) -> None:
    """Escape sequences, C1, bidirectional and invisible characters never reach the screen."""
    assert is_harmless(clean(text))
    assert is_harmless(clean_line(text))
    assert "\n" not in clean_line(text)


def test_random_text_of_all_planes_is_harmless() -> None:
    """No character of any plane slips through, alone or beside others."""
    draw = random.Random(7)
    for _ in range(300):
        text = "".join(chr(draw.choice((draw.randrange(0x120), draw.randrange(0x110000)))) for _ in range(40))
        assert is_harmless(clean(text))


def test_ordinary_text_stays_as_it_is() -> None:
    """Letters of all scripts, box drawing, braille and line breaks are not touched."""
    text = "Fly balls – ½ of them\nÄpfel, мяч, 野球, ⠑⠒ ├─┤ ×"
    assert clean(text) == text


def test_line_ends_become_newlines_and_tabs_spaces() -> None:
    """Carriage returns cannot write over a line, and a tab has a known width."""
    assert clean("a\r\nb\rc\td") == "a\nb\nc    d"


def test_a_limit_ends_in_an_ellipsis() -> None:
    """A million characters in one line become as many as asked for."""
    assert clean_line("x" * 1_000_000, 10) == "xxxxxxxxx…"
    assert clean("abc", 3) == "abc"
