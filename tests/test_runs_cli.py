"""`bbtui runs`: what it lists, shows, replays, compares, notes and removes, and what it refuses."""

import io
import os
import random
import sys
from pathlib import Path

import pytest

from commanding import SMOKE, Command, finish, only_run, refused, root_of_tests, spawn
from core.commands import AddNote
from core.config import STAGES
from core.events import NoteAdded
from core.launch import start
from core.runs import Run, Runs
from driving import told


def test_runs_list(bbtui: Command, trained_root: Path) -> None:
    rows = bbtui("runs", "list", "--json", "--root", trained_root).document
    assert [row["stage"] for row in rows] == list(STAGES)
    for row in rows:
        assert (row["state"], row["preset"], row["step"]) == ("completed", "smoke", row["steps"])
        assert row["run"] == f"{row['stage']}/{row['id']}" and row["validation_loss"] > 0
    table = bbtui("runs", "list", "--root", trained_root).out
    assert all(row["run"] in table for row in rows)


def test_no_runs_yet(bbtui: Command) -> None:
    assert bbtui("runs", "list", "--json").document == []
    assert "bbtui quickstart" in bbtui("runs", "list").out


def test_runs_show(bbtui: Command, trained_root: Path) -> None:
    run = Runs(trained_root).all("baseball-finetune")[0]
    row = bbtui("runs", "show", run.id, "--json", "--root", trained_root).document
    assert row["run"] == run.name and row["checkpoints"] == run.checkpoint_steps()
    assert [name.partition("/")[0] for name in row["lineage"]] == list(reversed(STAGES))
    assert row["config"]["model"]["width"] == 32 and row["folder"] == str(run.folder)
    # By the end of its id, or with its stage before it.
    for reference in (run.id[-4:], run.name):
        assert bbtui("runs", "show", reference, "--json", "--root", trained_root).document == row
    text = bbtui("runs", "show", run.id, "--root", trained_root).out
    assert "model.width = 32" in text and run.config.parent.partition("@")[0] in text


def test_a_prefix_of_several_runs_is_refused(bbtui: Command, trained_root: Path) -> None:
    prefix = Runs(trained_root).all()[0].id[:8]
    refused(bbtui("runs", "show", prefix, "--root", trained_root), "could be 4 runs", "Write more")


def test_runs_replay_prints_what_was_printed_then(bbtui: Command) -> None:
    trained = bbtui(*SMOKE, "--set", "steps=3")
    run = only_run()
    replayed = bbtui("runs", "replay", run.id)
    assert replayed.code == 0

    def without_pace(text: str) -> list[str]:
        return [line.partition("  ETA")[0] for line in text.splitlines()]

    assert without_pace(replayed.out) == without_pace(trained.out)
    rows = bbtui("runs", "replay", run.id, "--json").lines
    assert [row["event"] for row in rows][-1] == "RunEnded"
    assert bbtui("runs", "replay", run.id, "--json", "--speed", "1e9").lines[-1]["reason"] == "completed"
    refused(bbtui("runs", "replay", run.id, "--speed", "-1"), "--speed")


def test_a_run_without_events_replays_as_nothing(bbtui: Command) -> None:
    run = start(Runs(root_of_tests()), "smoke", "pretrain")
    for speed in ("0", "100"):
        result = bbtui("runs", "replay", run.id, "--speed", speed)
        assert (result.code, result.out, result.err) == (0, "", "")
    assert bbtui("runs", "show", run.id, "--json").document["state"] == "new"


def test_a_damaged_configuration_is_named_and_the_other_runs_are_listed(
    bbtui: Command, trained_copy: Path
) -> None:
    run = only_run("finetune")
    (run.folder / "config.toml").write_bytes(random.Random(4).randbytes(4096))
    assert len(bbtui("runs", "list", "--json", "--root", trained_copy).document) == 4
    refused(bbtui("runs", "show", run.id), "config.toml", "UTF-8")


def test_a_terminal_of_another_alphabet_gets_signs_it_can_write(trained_root: Path) -> None:
    run = Runs(trained_root).all("pretrain")[0]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    result = finish(spawn("runs", "replay", run.id, "--root", trained_root, env=environment))
    assert result.code == 0 and "The river" in result.out


# ---------------------------------------------------------------- sizes


def test_sizes_are_bytes_and_their_sums(bbtui: Command, trained_root: Path) -> None:
    document = bbtui("runs", "sizes", "--json", "--root", trained_root).document
    rows = bbtui("runs", "list", "--json", "--root", trained_root).document
    for row in rows:
        parts = document["runs"][row["run"]]
        total = sum(parts["checkpoints"].values()) + parts["logs"] + parts["other"]
        assert row["bytes"] == parts["total"] == total > 10_000
    assert document["runs_total"] == sum(row["bytes"] for row in rows)
    assert document["data_total"] == sum(folder["total"] for folder in document["data"].values()) > 0
    assert all(folder["used"] for folder in document["data"].values())


def test_sizes_in_words_say_which_data_no_run_uses(bbtui: Command, trained_copy: Path) -> None:
    (trained_copy / ".data" / "files-[red]").mkdir()
    text = bbtui("runs", "sizes").out
    assert "all runs" in text and only_run().name in text
    assert [line.split()[0] for line in text.splitlines() if "no run uses it" in line] == ["files-[red]"]


def test_sizes_of_nothing(bbtui: Command) -> None:
    assert bbtui("runs", "sizes", "--json").document == {
        "runs": {},
        "runs_total": 0,
        "data": {},
        "data_total": 0,
    }
    assert bbtui("runs", "sizes").code == 0 and not root_of_tests().exists()


# ---------------------------------------------------------------- two runs


def test_diff_lists_what_differs(bbtui: Command, trained_root: Path) -> None:
    left, right = (only_run_of(trained_root, stage) for stage in ("pretrain", "finetune"))
    document = bbtui("runs", "diff", left.id[-4:], right.name, "--json", "--root", trained_root).document
    assert document["runs"] == [left.name, right.name] and document["problems"] == []
    assert document["settings"]["stage"] == ["pretrain", "finetune"] and "seed" not in document["settings"]
    assert document["outcome"]["step"] == [12, 6] and document["outcome"]["parent"][1] == right.config.parent
    text = bbtui("runs", "diff", left.id, right.id, "--root", trained_root).out
    assert "12 of 12" in text and "optim.learning_rate" in text and "0.002" in text
    same = bbtui("runs", "diff", left.id, left.id, "--root", trained_root).out
    assert "Their settings are the same." in same


def only_run_of(root: Path, stage: str) -> Run:
    (run,) = Runs(root).all(stage)
    return run


def test_diff_says_whose_settings_cannot_be_read(bbtui: Command, trained_copy: Path) -> None:
    run = only_run("finetune")
    (run.folder / "config.toml").write_text("x = \x1b[2J")
    result = bbtui("runs", "diff", only_run().id, run.id)
    assert result.code == 0 and f"The settings of {run.name} cannot be read" in result.out
    assert "\x1b" not in result.out and "6 of 6" in result.out
    document = bbtui("runs", "diff", only_run().id, run.id, "--json").document
    assert len(document["problems"]) == 1 and document["settings"] == {}


# ---------------------------------------------------------------- notes


def test_a_note_is_written_or_left_to_the_trainer(bbtui: Command, trained_copy: Path) -> None:
    run = only_run()
    assert bbtui("runs", "note", run.id, "too high a rate").out == f"{run.name}: noted.\n"
    assert isinstance(note := list(run.events())[-1], NoteAdded) and note.text == "too high a rate"
    assert "note: too high a rate" in bbtui("runs", "replay", run.id).out
    with run.held():
        assert "the process that trains it" in bbtui("runs", "note", run.id, "watch this").out
    assert told(run)[-1] == AddNote(text="watch this")
    refused(bbtui("runs", "note", run.id, "  "), "empty")


# ---------------------------------------------------------------- removing


def test_without_a_terminal_the_word_has_to_be_given(bbtui: Command, trained_copy: Path) -> None:
    run = only_run("baseball-finetune")
    refused(bbtui("runs", "rm", run.id), "no terminal", f"--yes {run.id[-4:]}")
    for word in ("", "yes", run.id[-4:].upper() + "x", run.id):
        refused(bbtui("runs", "rm", run.id, "--yes", word), "nothing was removed", run.id[-4:])
    assert run.checkpoint_steps() == [4, 6]
    result = bbtui("runs", "rm", run.id, "--yes", run.id[-4:])
    assert (result.code, result.err) == (0, "") and "is removed" in result.out
    assert Runs(trained_copy).all("baseball-finetune") == []


class Terminal(io.StringIO):
    """Stands for a keyboard on which one line was typed."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_what_goes_is_said_and_the_word_is_asked_for(
    bbtui: Command, trained_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = only_run("finetune")
    for typed in ("", "\n", "y\n", "nope\n"):
        monkeypatch.setattr(sys, "stdin", Terminal(typed))
        result = bbtui("runs", "rm", run.id, "--json")
        assert (result.code, result.out) == (2, "") and "nothing was removed" in result.err
    for words in (
        "The whole run goes",
        only_run("baseball-pretrain").name,
        "Chat and Eval",
        f"Type {run.id[-4:]}",
    ):
        assert words in result.err
    assert run.checkpoint_steps()
    monkeypatch.setattr(sys, "stdin", Terminal(f" {run.id[-4:]}\n"))
    assert bbtui("runs", "rm", run.id, "--json").document["run"] == run.name
    assert not run.folder.exists()


def test_a_policy_keeps_what_it_says(bbtui: Command, trained_copy: Path) -> None:
    run = only_run()
    word = run.id[-4:]
    done = bbtui("runs", "rm", run.id, "--keep", "last", "--yes", word, "--json").document
    assert (done["steps_removed"], done["steps_kept"]) == ([8], [12]) and done["bytes_freed"] > 10_000
    assert bbtui("runs", "rm", run.id, "--keep", "log", "--yes", word).code == 0
    assert run.checkpoint_steps() == [] and run.summary().state == "completed"
    assert bbtui("runs", "replay", run.id).code == 0
    refused(bbtui("train", "finetune", "--preset", "smoke"), "No finished pretrain run")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["gone"], ["'gone'", "bbtui runs list"]),
        (["../../etc"], ["does not name a run"]),
        (["pretrain/../finetune"], ["does not name a run"]),
        (["a@best"], ["names one checkpoint", "--keep"]),
        (["a", "--keep", "everything"], ["'everything'", "nothing, best, last, log"]),
        (["\x1b[2J"], ["does not name a run"]),
    ],
    ids=lambda value: " ".join(value)[:30].encode("unicode_escape").decode(),
)
def test_what_cannot_be_removed_is_refused(
    bbtui: Command, trained_copy: Path, words: list[str], named: list[str]
) -> None:
    before = sorted(trained_copy.rglob("*"))
    refused(bbtui("runs", "rm", *words, "--yes", "yes"), *named)
    assert sorted(trained_copy.rglob("*")) == before


def test_a_run_that_is_trained_or_needed_is_refused_before_anything_is_asked(
    bbtui: Command, trained_copy: Path
) -> None:
    run = only_run()
    with run.held():
        refused(bbtui("runs", "rm", run.id, "--yes", run.id[-4:]), "is being trained", "Stop it first")
    child = start(Runs(trained_copy), "smoke", "finetune", run.name)
    refused(bbtui("runs", "rm", run.id), child.name, "first checkpoint")
    assert run.checkpoint_steps() == [8, 12]
