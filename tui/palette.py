"""Every action with its key and its help, read off the bindings: for the palette and the help page."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from textual.binding import Binding, BindingType
from textual.content import Content

from tui.widgets.hint_bar import key_text


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a key does. `place` is the tab that it belongs to, empty for anywhere."""

    place: str
    action: str
    title: str
    keys: tuple[str, ...]
    help: str


def actions_of(place: str, bindings: Iterable[BindingType]) -> Iterator[Action]:
    """The actions behind bindings, each once, with all of its keys."""
    found: dict[str, Action] = {}
    for binding in _single(bindings):
        before = found.get(binding.action)
        keys = (*before.keys, binding.key) if before else (binding.key,)
        title = before.title if before else binding.description
        text = (before.help if before else "") or binding.tooltip or binding.description
        found[binding.action] = Action(place, binding.action, title, keys, text)
    yield from (action for action in found.values() if action.title)


def _single(bindings: Iterable[BindingType]) -> Iterator[Binding]:
    for binding in bindings:
        yield from Binding.make_bindings([binding])


def help_page(sections: Sequence[tuple[str, Sequence[Action]]]) -> Content:
    """The actions under headings, a line each: key, name, what it does."""
    lines: list[Content] = []
    for heading, actions in sections:
        lines += [Content(""), Content(heading).stylize("bold underline")]
        for action in actions:
            keys = " ".join(key_text(key) for key in action.keys)
            lines.append(Content.assemble((f"{keys:<9} ", "bold $text-primary"), action.help))
    return Content("\n").join(lines[1:])
