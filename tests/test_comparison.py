"""Two runs side by side: only what differs, outcomes that count what still holds, and unreadable settings said."""

from pathlib import Path

import pytest

from core.comparison import all_settings, compare, differing_settings, outcome_of
from core.config import load_stage
from core.events import Event, NoteAdded, Validated
from core.runs import Run, Runs
from driving import a_run, ended, measured, started


def validated(step: int, loss: float) -> Validated:
    return Validated(step=step, tokens=step * 4096, loss=loss, bits_per_byte=1.0, elapsed_s=0.1)


def test_only_what_differs_is_listed_by_its_dotted_key(tmp_path: Path) -> None:
    left = load_stage("smoke", "pretrain", tmp_path, ["seed=7", "optim.learning_rate=1e-3"])
    right = load_stage("smoke", "pretrain", tmp_path, ["seed=8", "optim.learning_rate=2e-3"])
    rows = {pair.key: (pair.left, pair.right) for pair in differing_settings(left, right)}
    assert rows == {"seed": (7, 8), "optim.learning_rate": (1e-3, 2e-3)}
    assert differing_settings(left, left) == []
    everything = all_settings(left, right)
    assert len(everything) > 30 and not any(pair.key == "parent" for pair in everything)


def test_a_setting_that_only_one_has_stands_against_nothing(tmp_path: Path) -> None:
    """A finetune of the form has no tokenizer of its own; steps and epochs exclude each other."""
    left = load_stage("smoke", "pretrain", tmp_path)
    right = load_stage("smoke", "finetune", tmp_path)
    rows = {pair.key: (pair.left, pair.right) for pair in differing_settings(left, right)}
    assert rows["tokenizer.kind"][0] is not None and rows["tokenizer.kind"][1] is None


def write_at(run: Run, *lines: tuple[Event, str]) -> None:
    text = "".join(event.to_line(f"2026-01-01T{at}.000+00:00") + "\n" for event, at in lines)
    run.events_file.write_text(text)


def test_the_outcome_counts_what_still_holds(tmp_path: Path) -> None:
    """What a resume took again counts no more; time is that of every process; a note adds nothing to it."""
    run = Runs(tmp_path).create(load_stage("smoke", "pretrain", tmp_path))
    write_at(
        run,
        (started(run), "10:00:00"),
        (validated(4, 3.5), "10:00:10"),
        (validated(8, 1.0), "10:00:20"),
        (started(run, step=4), "12:00:00"),
        (validated(8, float("nan")), "12:00:30"),
        (measured(12), "12:01:00"),
        (ended("stopped"), "12:01:00"),
        (NoteAdded(step=13, tokens=0, text="later"), "20:00:00"),
    )
    outcome = outcome_of(run)
    assert (outcome.best_validation_loss, outcome.best_step) == (3.5, 4)
    assert outcome.trained_s == 20 + 60
    assert (outcome.state, outcome.step, outcome.tokens) == ("stopped", 12, 12 * 4096)


@pytest.mark.parametrize("log", [None, b"", b"\x00\xff garbage\n", b'{"event":"RunStarted"}\n'])
def test_a_log_that_says_nothing_gives_no_figures(tmp_path: Path, log: bytes | None) -> None:
    run = Runs(tmp_path).create(load_stage("smoke", "pretrain", tmp_path))
    if log is not None:
        run.events_file.write_bytes(log)
    outcome = outcome_of(run)
    assert (outcome.best_step, outcome.trained_s, outcome.tokens) == (None, 0.0, 0)


def test_settings_that_cannot_be_read_are_said_and_outcomes_still_compared(tmp_path: Path) -> None:
    left, right = a_run(tmp_path, [ended("completed")]), a_run(tmp_path, [])
    (right.folder / "config.toml").write_text("seed = [")
    comparison = compare(left, right)
    assert comparison.settings == [] and len(comparison.problems) == 1
    assert right.name in comparison.problems[0] and "config.toml" in comparison.problems[0]
    assert [outcome.state for outcome in comparison.outcomes] == ["completed", "interrupted"]
