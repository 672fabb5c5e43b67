"""Sizes, removals, notes: what goes is what was said, nothing else is touched, and a kill in between harms nothing."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core import checkpoint
from core.checkpoint import best_step
from core.commands import AddNote
from core.errors import BbtuiError, CheckpointError, MissingError, RunBusyError, UsageError
from core.events import NoteAdded, RunEnded, TrainMeasured
from core.housekeeping import (
    KEEPS,
    Keep,
    add_note,
    bytes_of,
    prepared_data,
    removal_of,
    remove,
    sweep,
    word_of,
)
from core.launch import resume, start
from core.runs import Run, Runs
from core.series import RunSeries
from core.stage_queue import QueueEntry, QueueFile, new_queue
from core.train import train
from driving import told

STEPS = (8, 12)


@pytest.fixture
def store(trained_copy: Path) -> Runs:
    """Four finished stages, each with two checkpoints."""
    return Runs(trained_copy)


def only(store: Runs, stage: str = "pretrain") -> Run:
    (run,) = store.all(stage)
    return run


def files_under(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def trained(store: Runs, until: int | None = None) -> Run:
    """A pretrain run of three checkpoints that ended, or, as if killed, stands at step `until`."""
    run = start(store, "smoke", "pretrain", None, ["samples.every=0", "keep_last=3"])
    for event in (events := train(run.config, run)):
        if isinstance(event, TrainMeasured) and event.step == until:
            events.close()
    return run


def a_child_without_checkpoint(store: Runs) -> Run:
    return start(store, "smoke", "finetune", f"{only(store).name}@8")


# ---------------------------------------------------------------- sizes


def test_sizes_are_those_on_the_disk_and_links_count_as_nothing(store: Runs, tmp_path: Path) -> None:
    run = only(store)
    total = sum(map(len, files_under(run.folder).values()))
    (tmp_path / "big").write_bytes(b"x" * 10**6)
    (run.folder / "link").symlink_to(tmp_path / "big")
    (run.folder / "step-0000099").symlink_to(tmp_path)
    sizes = bytes_of(run)
    assert sizes.total == total
    assert tuple(sizes.checkpoints) == (*STEPS, 99) and sizes.checkpoints[99] == 0
    assert sizes.logs == run.events_file.stat().st_size and sizes.other > 0


def test_data_that_no_run_uses_is_told_from_data_in_use(store: Runs) -> None:
    data = store.root / ".data"
    (data / "files-0123456789ab").mkdir()
    (data / "files-0123456789ab" / "train-00000.bin").write_bytes(b"x" * 1000)
    unused = [folder for folder in prepared_data(store) if not folder.is_used]
    assert [(folder.name, folder.bytes_used) for folder in unused] == [("files-0123456789ab", 1000)]
    assert len(prepared_data(store)) > 3
    remove(store, only(store, "baseball-finetune"), "log")
    assert len([folder for folder in prepared_data(store) if not folder.is_used]) == 2


def test_while_a_live_run_has_no_checkpoint_no_data_is_called_unused(store: Runs) -> None:
    (store.root / ".data" / "files-0123456789ab").mkdir()
    run = a_child_without_checkpoint(store)
    with run.held():
        assert all(folder.is_used for folder in prepared_data(store))


# ---------------------------------------------------------------- what goes and what stays


@pytest.mark.parametrize("keep", KEEPS)
def test_a_removal_takes_what_it_said_and_nothing_else(store: Runs, keep: Keep) -> None:
    run = trained(store)
    # Let the best one be neither the first nor the last.
    for step, loss in zip((4, 8, 12), (3.0, 1.0, 2.0), strict=True):
        rate(run, step, loss)
    expected = {"nothing": (), "log": (), "last": (12,), "best": (8, 12)}[keep]
    before = files_under(store.root)
    plan = removal_of(store, run, keep)
    assert files_under(store.root) == before
    assert plan.steps_kept == expected and set(plan.steps_gone) == {4, 8, 12} - set(expected)
    done = remove(store, run, keep)
    after = files_under(store.root)
    gone = before.keys() - after.keys()
    assert sum(len(before[name]) for name in gone) == done.bytes_freed == plan.bytes_freed
    assert all(name.startswith(f"checkpoints/{run.name}/") for name in gone)
    assert all(after[name] == before[name] for name in after if not name.endswith("run.lock"))
    assert run.checkpoint_steps() == list(expected)
    if keep == "nothing":
        assert not run.folder.exists()
    else:
        assert {"config.toml", "events.jsonl", "tokenizer.json"} <= {p.name for p in run.folder.iterdir()}


def rate(run: Run, step: int, loss: float) -> None:
    """Let the checkpoint have been validated with that loss."""
    import hashlib
    import json

    folder = run.checkpoint_folder(step)
    state = json.loads((folder / "state.json").read_text()) | {"validation_loss": loss}
    text = json.dumps(state)
    (folder / "state.json").write_text(text)
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    digest = hashlib.sha256(text.encode()).hexdigest()
    manifest["files"]["state.json"] = {"bytes": len(text), "sha256": digest}
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


def test_the_kept_checkpoint_is_the_one_that_counts_as_best(store: Runs) -> None:
    run = only(store)
    best = best_step(run)
    assert removal_of(store, run, "best").steps_kept == tuple(sorted({best, 12}))


def test_nothing_goes_while_the_checkpoint_that_shall_stay_is_damaged(store: Runs) -> None:
    """Those before it may be the only good ones."""
    run = only(store)
    model = run.checkpoint_folder(12) / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00\x01")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        remove(store, run, "last")
    assert tuple(run.checkpoint_steps()) == STEPS
    assert checkpoint.load_at(run).state.step == 8


def test_a_keep_policy_clears_what_was_set_aside_or_cut_off(store: Runs) -> None:
    run = only(store)
    for name in ("damaged-step-0000002", ".saving-step-0000014", ".removing-step-0000001"):
        shutil.copytree(run.checkpoint_folder(8), run.folder / name)
    freed = remove(store, run, "best").bytes_freed
    assert freed > 0 and not [p for p in run.folder.iterdir() if "step" in p.name and p.name[0] != "s"]


def test_a_finished_run_whose_log_alone_is_kept_is_no_parent_and_no_model(store: Runs) -> None:
    """Whoever starts the next stage gets the newest run that has weights, or is told that there is none."""
    run = only(store, "finetune")
    remove(store, run, "log")
    assert run.summary().state == "completed" and run in store.all("finetune")
    assert store.newest("finetune") is None and store.newest_pair() is None
    with pytest.raises(MissingError, match="No finished finetune run"):
        start(store, "smoke", "baseball-pretrain")


# ---------------------------------------------------------------- what is refused


def test_a_live_run_is_not_removed(store: Runs) -> None:
    run = only(store)
    before = files_under(run.folder)
    with run.held():
        for keep in KEEPS:
            with pytest.raises(RunBusyError):
                remove(store, run, keep)
    assert files_under(run.folder) == before


def test_a_parent_that_a_child_still_needs_is_not_removed(store: Runs) -> None:
    """A child without a checkpoint begins from the parent's; only what leaves that one there is allowed."""
    run, child = only(store), a_child_without_checkpoint(store)
    for keep in ("nothing", "log", "last"):
        assert removal_of(store, run, keep).needed_by == (child.name,)
        with pytest.raises(UsageError, match=child.name):
            remove(store, run, keep)
    assert tuple(run.checkpoint_steps()) == STEPS
    remove(store, child, "nothing")
    remove(store, run, "nothing")
    assert store.all("pretrain") == []


def test_children_are_named_and_go_on_without_their_parent(store: Runs) -> None:
    """A checkpoint is whole in itself: a child killed after its first one resumes though its parent is gone."""
    parent, other = only(store), only(store, "finetune")
    child = start(store, "smoke", "finetune", parent.name, ["samples.every=0"])
    for event in (events := train(child.config, child)):
        if isinstance(event, TrainMeasured) and event.step == child.config.checkpoint_every + 1:
            events.close()
    said = " ".join(removal_of(store, parent, "nothing").consequences)
    assert child.name in said and other.name in said and "lineage" in said
    remove(store, parent, "nothing")
    assert store.lineage(child) == [child]
    list(train(child.config, child))
    assert child.summary().state == "completed"


def test_the_loss_of_the_pair_is_said(store: Runs) -> None:
    for stage in ("finetune", "baseball-pretrain", "baseball-finetune"):
        said = removal_of(store, only(store, stage), "nothing").consequences
        assert any("Chat and Eval" in sentence for sentence in said)
    assert not any("Chat" in sentence for sentence in removal_of(store, only(store), "nothing").consequences)
    # Between the two, only the lineage counts; and what keeps the last checkpoint costs nothing.
    kept = removal_of(store, only(store, "baseball-pretrain"), "log").consequences
    assert not any("Chat and Eval" in sentence for sentence in kept)
    assert removal_of(store, only(store, "finetune"), "last").consequences == ()


def test_a_queue_that_goes_on_from_it_is_said(store: Runs) -> None:
    """Its next stage begins from the run that did the stage before."""
    run, queue = only(store), new_queue("smoke")
    assert not any("queue" in sentence for sentence in removal_of(store, run, "log").consequences)
    QueueFile(store).write(replace(queue, entries=(QueueEntry("pretrain", run.name), *queue.entries[1:])))
    for keep, words in (("nothing", "anew"), ("log", "could not")):
        said = removal_of(store, run, keep).consequences  # type: ignore[arg-type]
        assert any("The queue" in sentence and words in sentence for sentence in said)
    assert removal_of(store, run, "last").consequences == ()


def test_an_unfinished_run_is_said_to_lose_its_place(store: Runs) -> None:
    run = trained(store, until=6)
    assert any("unfinished" in sentence for sentence in removal_of(store, run, "log").consequences)
    assert removal_of(store, run, "last").consequences == ()


@pytest.mark.parametrize("name", ["..", "../../outside", ".removing-x", "x/../../../outside"])
def test_a_name_that_leads_elsewhere_is_refused(store: Runs, name: str) -> None:
    outside = store.root.parent / "outside"
    outside.mkdir()
    (outside / "config.toml").write_text("seed = 1")
    before = files_under(store.root)
    with pytest.raises(BbtuiError):
        remove(store, Run(store.folder / "pretrain" / name), "nothing")
    assert (outside / "config.toml").is_file() and files_under(store.root) == before


def test_links_are_never_followed(store: Runs, tmp_path: Path) -> None:
    """A run that is a link is refused; a link inside a run, or beside it, goes without what it points to."""
    run, elsewhere = only(store), tmp_path / "elsewhere"
    shutil.copytree(run.folder, elsewhere)
    (elsewhere / ".removing-me").mkdir()
    link = run.folder.with_name("2026-01-01-smoke-1111")
    link.symlink_to(elsewhere)
    before = files_under(elsewhere)
    with pytest.raises(UsageError, match="link"):
        remove(store, Run(link), "nothing")
    link.rename(link.with_name(".removing-link"))
    (run.folder / "step-0000099").symlink_to(elsewhere)
    (run.folder / "damaged-link").symlink_to(elsewhere)
    remove(store, run, "log")
    assert not run.checkpoint_steps() and not os.path.lexists(run.folder / "damaged-link")
    assert not os.path.lexists(link.with_name(".removing-link"))
    assert files_under(elsewhere) == before and (elsewhere / ".removing-me").is_dir()


def test_a_stage_folder_that_is_a_link_is_left_alone(store: Runs, tmp_path: Path) -> None:
    (store.folder / "pretrain").rename(tmp_path / "elsewhere")
    (store.folder / "pretrain").symlink_to(tmp_path / "elsewhere")
    before = files_under(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="by hand"):
        remove(store, only(store), "nothing")
    assert files_under(tmp_path / "elsewhere") == before


# ---------------------------------------------------------------- killed in between


class Killed(BaseException):
    """Stands for a kill: no handler of ours takes it."""


@contextmanager
def killed_after(calls: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process dies at its next call that changes the disk, once it has made so many."""
    left = calls

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return function(*given, **more)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "unlink", "rmdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        yield


@pytest.mark.parametrize("keep", ["nothing", "last", "log"])
def test_killed_at_any_call_leaves_a_whole_run_or_leftovers(
    store: Runs, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever still counts as a run or a checkpoint is whole, and the next removal sweeps the rest away."""
    original = only(store)
    template = store.root.parent / "template"
    shutil.copytree(original.folder, template)
    for calls in range(200):
        shutil.rmtree(original.folder, ignore_errors=True)
        shutil.copytree(template, original.folder)
        try:
            with killed_after(calls, monkeypatch):
                remove(store, original, keep)
        except Killed:
            pass
        else:
            break
        assert not original.is_held()
        if original in store.all():
            assert files_under(original.folder)["events.jsonl"] == files_under(template)["events.jsonl"]
            for step in original.checkpoint_steps():
                checkpoint.verify(original.checkpoint_folder(step))
        sweep(store)
        assert not [p for p in store.folder.rglob("*") if p.name.startswith(".removing")]
    assert calls > 5, "the kill never came"


def test_what_cannot_be_deleted_is_said_and_tried_again(store: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    run = only(store)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(BbtuiError, match="not all of its files"):
            remove(store, run, "nothing")
    assert store.all("pretrain") == []
    remove(store, only(store, "baseball-finetune"), "last")
    assert [path.name for path in (store.folder / "pretrain").iterdir()] == []


def test_a_watcher_of_a_removed_run_does_not_make_its_folder_again(store: Runs) -> None:
    run = only(store)
    remove(store, run, "nothing")
    assert not run.is_held() and run.summary().state == "new" and bytes_of(run).total == 0
    for attempt in (lambda: list(train(run.config, run)), lambda: resume(store, run.name)):
        with pytest.raises(UsageError):
            attempt()
    assert not run.folder.exists()


def test_the_word_to_type_ends_the_id_and_can_always_be_typed(tmp_path: Path) -> None:
    words = {name: word_of(Run(tmp_path / name)) for name in ("2026-11-22-smoke-7f3a", "x\x1b[2J", "ball⚾a")}
    assert list(words.values()) == ["7f3a", "remove", "remove"]


# ---------------------------------------------------------------- notes


def test_a_note_on_a_finished_run_stands_at_its_end_and_makes_it_no_newer(store: Runs) -> None:
    run = only(store)
    before = run.summary()
    assert not add_note(run, "  the rate\n was too high ")
    note = list(run.events())[-1]
    assert note == NoteAdded(step=12, tokens=before.tokens, text="the rate was too high")
    assert run.summary() == before
    series = RunSeries()
    for event in run.events():
        series.feed(event)
    assert [(mark.step, mark.label) for mark in series.marks] == [(12, "the rate was too high")]


def test_a_note_on_an_interrupted_run_is_kept_by_its_resume(store: Runs) -> None:
    """The steps after the checkpoint are taken again, and the note is made again in its place."""
    run = trained(store, until=6)
    with run.events_file.open("ab") as log:
        log.write(b'{"event":"TrainMeas')  # a kill has cut this line
    assert not add_note(run, "look here")
    list(train(run.config, run))
    held = [event for event in run.present_events() if isinstance(event, (NoteAdded, TrainMeasured))]
    at = next(i for i, event in enumerate(held) if isinstance(event, NoteAdded))
    assert held[at].step == 7 and isinstance(held[at - 1], TrainMeasured) and held[at - 1].step == 6
    assert sum(isinstance(event, NoteAdded) for event in held) == 1
    assert run.summary().state == "completed"


def test_a_note_on_a_live_run_or_one_that_has_not_begun_is_left_to_its_trainer(store: Runs) -> None:
    live, new = only(store), a_child_without_checkpoint(store)
    before = live.events_file.read_bytes()
    with live.held():
        assert add_note(live, "now")
    assert told(live)[-1] == AddNote(text="now") and live.events_file.read_bytes() == before
    assert add_note(new, "to begin with")
    assert not new.events_file.exists()
    notes = [event.text for event in train(new.config, new) if isinstance(event, NoteAdded)]
    assert notes == ["to begin with"]


@pytest.mark.parametrize("text", ["", " \n\t "])
def test_an_empty_note_is_refused(store: Runs, text: str) -> None:
    before = only(store).events_file.read_bytes()
    with pytest.raises(UsageError, match="empty"):
        add_note(only(store), text)
    assert only(store).events_file.read_bytes() == before


def test_a_note_of_any_text_reads_back_as_one_line(store: Runs) -> None:
    run = only(store)
    add_note(run, "[@click=app.quit]\x1b[2J" + "x" * 5000)
    note = list(run.events())[-1]
    assert isinstance(note, NoteAdded) and len(note.text) == 200
    assert isinstance(list(run.events())[-2], RunEnded)
