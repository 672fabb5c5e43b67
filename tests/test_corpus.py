"""The Sandlot corpus is large, well formed, varied and free to use, and no held-out pair leaks into training."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import core
from core.data.overlap import find_leaks, runs_of, words
from core.data.pairs import Pair

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

Row = dict[str, Any]


@cache
def pieces(part: str) -> dict[str, str]:
    """The pieces of a part by id; decoding is strict, so that a file that is not UTF-8 fails every test."""
    return {path.stem: path.read_bytes().decode("utf-8") for path in sorted((CORPUS / part).glob("*.md"))}


@cache
def pairs(part: str) -> tuple[Row, ...]:
    (path,) = CORPUS.glob(f"{part}_qa*.jsonl")
    return tuple(json.loads(line) for line in path.read_bytes().decode("utf-8").splitlines())


def split_of(part: str, split: str) -> list[Row]:
    return [pair for pair in pairs(part) if pair["split"] == split]


def lower(part: str, field: str) -> list[str]:
    return [pair[field].strip().lower() for pair in pairs(part)]


@pytest.mark.parametrize(
    ("part", "least_pieces", "least_words", "least_trained", "least_held_out"),
    [("general", 80, 60_000, 600, 100), ("baseball", 60, 40_000, 1000, 200)],
)
def test_there_is_enough_of_everything(
    part: str, least_pieces: int, least_words: int, least_trained: int, least_held_out: int
) -> None:
    assert len(pieces(part)) >= least_pieces
    assert sum(len(text.split()) for text in pieces(part).values()) >= least_words
    assert len(split_of(part, "train")) >= least_trained
    assert len(split_of(part, "heldout")) >= least_held_out


def test_the_glossary_explains_400_terms_once() -> None:
    lines = [
        line for stem, text in pieces("baseball").items() if "glossary" in stem for line in text.splitlines()
    ]
    terms = [line.partition(":")[0].lower() for line in lines if re.match(r"[^#:.]{2,40}: \S", line)]
    assert [term for term, times in Counter(terms).items() if times > 1] == []
    assert len(terms) >= 400


def test_the_readme_gives_the_true_counts() -> None:
    readme = (CORPUS / "README.md").read_text(encoding="utf-8")
    counts = [
        ("Pieces of text", lambda part: len(pieces(part))),
        ("Words of text", lambda part: sum(len(text.split()) for text in pieces(part).values())),
        ("Question-answer pairs", lambda part: len(pairs(part))),
        ("of these for training", lambda part: len(split_of(part, "train"))),
        ("of these held out", lambda part: len(split_of(part, "heldout"))),
    ]
    for name, count in counts:
        assert f"| {name} | {count('general'):,} | {count('baseball'):,} |" in readme


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
def test_no_held_out_pair_leaks_into_training(part: str) -> None:
    """No held-out question is a training one reworded; no answer repeats eight words in a row of a training answer."""
    held_out, trained = (
        [Pair(row["id"], row["question"], row["answer"]) for row in split_of(part, split)]
        for split in ("heldout", "train")
    )
    assert find_leaks(held_out, trained) == []


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
