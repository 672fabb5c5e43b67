"""Turns of a chat to token ids: the one place that knows how a question and its answer stand in a sequence.

`markers`: <|user|> question <|assistant|> answer <|endoftext|>, each marker a single id.
`plain`:   question answer <|endoftext|>, nothing between, as in the published experiment.
"""

from typing import Literal

from core.errors import UsageError
from core.tokenizer import Tokenizer

PromptFormat = Literal["markers", "plain"]
Turn = tuple[str, str]
"""(`user` or `assistant`, text)"""


def render_example(
    tokenizer: Tokenizer, question: str, answer: str, prompt_format: PromptFormat
) -> tuple[list[int], int]:
    """The ids of a pair, end-of-text last, and the index at which the answer's ids begin."""
    prompt = _opened(tokenizer, [("user", question)], prompt_format)
    return [*prompt, *tokenizer.encode(answer), tokenizer.end_of_text], len(prompt)


def render_prompt(
    tokenizer: Tokenizer, turns: list[Turn], prompt_format: PromptFormat, limit: int
) -> tuple[list[int], int]:
    """The ids that the next answer follows, at most `limit` of them, and how many of the oldest turns had to go.

    Raises: UsageError where the last question alone is longer than the limit.
    """
    ids: list[int] = []
    for dropped in range(0, len(turns), 2):
        ids = _opened(tokenizer, turns[dropped:], prompt_format)
        if len(ids) <= limit:
            return ids, dropped
    raise UsageError(
        f"The prompt is {len(ids):,} tokens long; this model can take {limit:,}.", "Shorten the question."
    )


def _opened(tokenizer: Tokenizer, turns: list[Turn], prompt_format: PromptFormat) -> list[int]:
    ids: list[int] = []
    for role, text in turns:
        is_answer = role == "assistant"
        if prompt_format == "markers":
            ids.append(tokenizer.assistant if is_answer else tokenizer.user)
        ids += tokenizer.encode(text)
        if is_answer:
            ids.append(tokenizer.end_of_text)
    if prompt_format == "markers":
        ids.append(tokenizer.assistant)
    return ids
