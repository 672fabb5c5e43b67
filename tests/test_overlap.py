"""The leak guard finds reworded questions and repeated answers, and nothing else."""

import random

import pytest

from core.data.overlap import content_words, find_leaks, likeness, runs_of, words
from core.data.pairs import Pair

TRAINED = [
    Pair(
        "t1",
        "How far is the pitcher's rubber from home plate?",
        "It lies sixty feet six inches from the back point.",
    ),
    Pair(
        "t2",
        "Why do sailors watch the barometer?",
        "Falling pressure tells them that wind and rain are on the way.",
    ),
]


def leaks_of(question: str, answer: str) -> list[tuple[str, str]]:
    return [(leak.trained, leak.where) for leak in find_leaks([Pair("h", question, answer)], TRAINED)]


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("What is a balk?", "A trick by the pitcher that the rules forbid.", []),
        ("From home plate, how far is the pitcher\u2019s rubber?", "Ten long steps.", [("t1", "question")]),
        (
            "Where does the mound end?",
            "There: it lies SIXTY feet, six inches from the back edge.",
            [("t1", "answer")],
        ),
        (
            "Why do sailors watch a barometer?",
            "So: falling pressure tells them that wind and rain come.",
            [("t2", "question"), ("t2", "answer")],
        ),
        ("", "", []),
        ("What is it?", "No.", []),
    ],
)
def test_leaks_are_found_and_named(question: str, answer: str, expected: list[tuple[str, str]]) -> None:
    assert leaks_of(question, answer) == expected


def test_the_index_finds_what_comparing_every_pair_finds() -> None:
    """The shortcut through shared words misses nothing."""
    draw = random.Random(1)
    vocabulary = [f"w{n}" for n in range(40)]

    def some(prefix: str, count: int) -> list[Pair]:
        return [
            Pair(f"{prefix}{n}", " ".join(draw.choices(vocabulary, k=draw.randint(1, 8))), "an answer")
            for n in range(count)
        ]

    trained, held_out = some("t", 150), some("h", 150)
    slowly = {
        held.id
        for held in held_out
        if any(
            likeness(content_words(held.question), content_words(pair.question)) >= 0.6 for pair in trained
        )
    }
    found = [leak for leak in find_leaks(held_out, trained) if leak.where == "question"]
    assert {leak.held_out for leak in found} == slowly
    assert 0 < len(slowly) < len(held_out)


def test_words_ignore_case_and_punctuation() -> None:
    assert words("The Umpire's call -- 60.5 feet!") == ("the", "umpire's", "call", "60.5", "feet")
    assert content_words("What is the infield fly?") == {"infield", "fly"}
    assert list(runs_of(3, "one two three four")) == [("one", "two", "three"), ("two", "three", "four")]
    assert list(runs_of(3, "one two")) == []
    assert likeness(frozenset(), frozenset()) == 0.0
