"""The Sandlot corpus is large, well formed, varied and free to use, and no held-out pair leaks into training."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import core

CORPUS = Path(core.__file__).parent / "corpus"
PARTS = ("general", "baseball")
FIELDS = {
    "general": ("id", "question", "answer", "topic", "split"),
    "baseball": ("id", "question", "answer", "topic", "kind", "supports", "split"),
}
KINDS = {"definition", "rule situation", "history", "statistic", "strategy", "comparison"}
LICENCE_NOTE = (
    "The Sandlot corpus is dedicated to the public domain under CC0 1.0.",
    "Anyone may copy it, change it, share it, sell it and train on it, for any purpose, without asking and without "
    "naming us.",
    "The legal text is at https://creativecommons.org/publicdomain/zero/1.0/.",
)
# What says baseball and nothing else: bats fly and tents are pitched in the general text.
BASEBALL = re.compile(
    r"\b(?:baseball|softball|home[ -]?runs?|innings?|shortstops?|infield\w*|outfield\w*|umpires?|strikeouts?|bullpens?"
    r"|dugouts?|ball ?parks?|ball ?games?|home plate|(?:first|second|third) base(?:man|men)?|fastballs?|curveballs?"
    r"|major leagues?|minor leagues?|big leagues?|world series|batters?|catchers?|pitchers?|pitcher's|bunt(?:s|ed|ing)?"
    r"|base ?runners?|batting|bases loaded|fly balls?|ground balls?|little league|yankees|red sox|dodgers)\b",
    re.IGNORECASE,
)

Words = tuple[str, ...]
Pair = dict[str, Any]


def words(text: str) -> Words:
    return tuple(re.findall(r"[a-z0-9]+(?:['.-][a-z0-9]+)*", text.lower()))


COMMON_WORDS = frozenset(
    words(
        "a about an and are as at be been but by can could did do does for from get give had has have he "
        "her his how i if in is it its me my no not of on one or out she should so some than that the their "
        "them there they this to up was we were what when where which who why will with would you your"
    )
)


def content_words(text: str) -> frozenset[str]:
    return frozenset(words(text)) - COMMON_WORDS


def runs_of(length: int, text: str) -> Iterator[Words]:
    found = words(text)
    return (found[at : at + length] for at in range(len(found) - length + 1))


@cache
def pieces(part: str) -> dict[str, str]:
    """The pieces of a part by id; decoding is strict, so that a file that is not UTF-8 fails every test."""
    return {path.stem: path.read_bytes().decode("utf-8") for path in sorted((CORPUS / part).glob("*.md"))}


@cache
def pairs(part: str) -> tuple[Pair, ...]:
    (path,) = CORPUS.glob(f"{part}_qa*.jsonl")
    return tuple(json.loads(line) for line in path.read_bytes().decode("utf-8").splitlines())


def split_of(part: str, split: str) -> list[Pair]:
    return [pair for pair in pairs(part) if pair["split"] == split]


def lower(part: str, field: str) -> list[str]:
    return [pair[field].strip().lower() for pair in pairs(part)]


@pytest.mark.parametrize(
    ("part", "least_words", "least_pairs"), [("general", 15_000, 200), ("baseball", 12_000, 250)]
)
def test_there_is_enough_text_and_a_fifth_of_the_pairs_is_held_out(
    part: str, least_words: int, least_pairs: int
) -> None:
    assert sum(len(text.split()) for text in pieces(part).values()) >= least_words
    assert len(pairs(part)) >= least_pairs
    assert len(split_of(part, "heldout")) >= len(pairs(part)) / 5


@pytest.mark.parametrize("part", PARTS)
def test_every_piece_is_a_title_and_plain_paragraphs(part: str) -> None:
    for stem, text in pieces(part).items():
        title, _, body = text.partition("\n")
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", stem), stem
        assert re.fullmatch(r"# \S.*", title), stem
        assert body.strip() and text.endswith("\n"), stem
        assert not re.search(r"^#|\r|\t|�|https?:|\]\(|<\w|^\|", body, re.MULTILINE), stem


@pytest.mark.parametrize("part", PARTS)
def test_every_pair_has_its_fields_in_order(part: str) -> None:
    for pair in pairs(part):
        chosen = ("choices",) if part == "baseball" and pair["split"] == "heldout" else ()
        assert tuple(pair) == FIELDS[part] + chosen, pair["id"]
        assert pair["split"] in ("train", "heldout"), pair["id"]
        assert all(
            isinstance(pair[field], str) and pair[field].strip()
            for field in FIELDS[part]
            if field != "supports"
        )
        assert not re.search(r"[\n\r\t*_`#�]|\]\(", pair["question"] + pair["answer"]), pair["id"]
        assert pair["answer"].rstrip("'\"")[-1] in ".!?", pair["id"]


@pytest.mark.parametrize("part", PARTS)
def test_ids_and_questions_are_unique(part: str) -> None:
    assert len(set(lower(part, "id"))) == len(pairs(part))
    assert [question for question, times in Counter(lower(part, "question")).items() if times > 1] == []


def test_ids_differ_between_the_parts() -> None:
    assert not set(lower("general", "id")) & set(lower("baseball", "id"))
    assert not set(pieces("general")) & set(pieces("baseball"))


def test_baseball_pairs_name_sections_that_exist() -> None:
    for pair in pairs("baseball"):
        assert pair["kind"] in KINDS, pair["id"]
        assert pair["supports"] and set(pair["supports"]) <= set(pieces("baseball")), pair["id"]


def test_held_out_baseball_pairs_offer_one_right_and_three_wrong_choices() -> None:
    for pair in split_of("baseball", "heldout"):
        assert tuple(pair["choices"]) == ("right", "wrong"), pair["id"]
        choices = [pair["choices"]["right"], *pair["choices"]["wrong"]]
        assert len(choices) == len({choice.strip().lower() for choice in choices}) == 4, pair["id"]
        assert all(choice.strip() for choice in choices), pair["id"]


def test_general_text_and_pairs_say_nothing_of_baseball() -> None:
    texts = pieces("general") | {
        pair["id"]: f"{pair['question']} {pair['answer']}" for pair in pairs("general")
    }
    assert [(name, found.group()) for name, text in texts.items() for found in BASEBALL.finditer(text)] == []


@pytest.mark.parametrize("part", PARTS)
def test_no_held_out_question_is_a_training_question_reworded(part: str) -> None:
    trained = [(pair["id"], content_words(pair["question"])) for pair in split_of(part, "train")]
    alike = []
    for pair in split_of(part, "heldout"):
        asked = content_words(pair["question"])
        alike += [
            (pair["id"], name) for name, other in trained if len(asked & other) >= 0.6 * len(asked | other)
        ]
    assert alike == []


@pytest.mark.parametrize("part", PARTS)
def test_no_held_out_answer_shares_eight_words_in_a_row_with_a_training_answer(part: str) -> None:
    trained = {run for pair in split_of(part, "train") for run in runs_of(8, pair["answer"])}
    held_out = split_of(part, "heldout")
    assert [pair["id"] for pair in held_out if not trained.isdisjoint(runs_of(8, pair["answer"]))] == []


def test_no_eight_words_in_a_row_stand_in_more_than_five_places() -> None:
    texts = [line for part in PARTS for text in pieces(part).values() for line in text.splitlines()]
    texts += [pair[field] for part in PARTS for pair in pairs(part) for field in ("question", "answer")]
    places = Counter(run for text in texts for run in runs_of(8, text))
    assert [(" ".join(run), times) for run, times in places.most_common(5) if times > 5] == []


@pytest.mark.parametrize("field", ["question", "answer"])
@pytest.mark.parametrize("part", PARTS)
def test_no_opening_of_four_words_begins_many_questions_or_answers(part: str, field: str) -> None:
    openings = Counter(words(pair[field])[:4] for pair in pairs(part))
    assert [opening for opening, times in openings.items() if times > 0.03 * len(pairs(part))] == []


@pytest.mark.parametrize("part", PARTS)
def test_answers_are_of_medium_length(part: str) -> None:
    assert 18 <= median(len(pair["answer"].split()) for pair in pairs(part)) <= 45


def test_the_licence_note_stands_whole_in_the_readme() -> None:
    readme = " ".join((CORPUS / "README.md").read_text(encoding="utf-8").split())
    assert [sentence for sentence in LICENCE_NOTE if sentence not in readme] == []
