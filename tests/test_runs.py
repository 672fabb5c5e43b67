"""Protects run folders: references, states, what still holds after a resume, lineage, pairs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import StageConfig, load_stage, to_toml
from core.errors import BbtuiError, MissingError, RetryLaterError, RunBusyError, UsageError
from core.events import (
    Event,
    LearningRateChanged,
    RunContinued,
    RunEnded,
    RunPaused,
    RunStarted,
    TrainMeasured,
    Validated,
    Warned,
)
from core.runs import Run, Runs, data_folder, find_root


@pytest.fixture
def store(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def config_of(stage: str = "pretrain", preset: str = "smoke", parent: str = "") -> StageConfig:
    config = load_stage("smoke", stage, Path.cwd())
    return config.model_copy(update={"parent": parent, "preset": preset})


def run_named(store: Runs, name: str, parent: str = "", preset: str = "smoke") -> Run:
    run = Run(store.folder / name)
    run.folder.mkdir(parents=True)
    config = config_of(run.stage, preset, parent)
    (run.folder / "config.toml").write_text(to_toml(config), encoding="utf-8")
    return run


def started(run: Run, resumed_from_step: int = 0, parent: str = "") -> RunStarted:
    return RunStarted(
        run=run.id,
        stage=run.stage,
        parent=parent,
        parameters=1,
        resumed_from_step=resumed_from_step,
        steps=40,
        device="cpu",
        precision="float32",
        process_id=1,
    )


def measured(step: int, loss: float = 2.0) -> TrainMeasured:
    return TrainMeasured(
        step=step, tokens=step * 8, loss=loss, learning_rate=1e-3, grad_norm=1.0, tokens_per_s=5.0
    )


def validated(step: int, loss: float = 3.0) -> Validated:
    return Validated(step=step, tokens=step * 8, loss=loss, bits_per_byte=1.0, elapsed_s=0.1)


def ended(step: int, reason: str, message: str = "") -> RunEnded:
    return RunEnded(step=step, reason=reason, message=message, elapsed_s=1.0)


def write(run: Run, *events: Event) -> Run:
    for event in events:
        run.append(event)
    return run


def finish(run: Run, at: str) -> Run:
    with run.events_file.open("a", encoding="utf-8") as log:
        log.write(started(run).to_line(at) + "\n" + ended(40, "completed").to_line(at) + "\n")
    run.checkpoint_folder(40).mkdir()
    return run


# ---------------------------------------------------------------- making and naming


def test_a_new_run_is_a_folder_with_its_configuration(store: Runs) -> None:
    run = store.create(config_of())
    assert run.folder.parent == store.folder / "pretrain" and run.name == f"pretrain/{run.id}"
    assert Run(run.folder).config == config_of()
    assert "-smoke-" in run.id and store.all() == [run] and store.all("finetune") == []
    assert len({store.create(config_of()).id for _ in range(20)}) == 20


@pytest.mark.parametrize("preset", ["../../x", "a/b", "\n", "é", ""])
def test_a_presets_name_cannot_lead_a_run_elsewhere(store: Runs, preset: str) -> None:
    run = store.create(config_of(preset=preset))
    assert run.folder.resolve().parent == (store.folder / "pretrain").resolve()
    assert store.find(run.id)[0] == run


def test_a_folder_that_cannot_be_written_is_worth_another_try(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file in the way")
    with pytest.raises(RetryLaterError) as caught:
        Runs(tmp_path).create(config_of())
    assert caught.value.exit_code == 3 and "--root" in caught.value.fix


def test_the_root_is_the_one_given_then_the_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BBTUI_ROOT", str(tmp_path / "env"))
    monkeypatch.delenv("BBTUI_DATA", raising=False)
    assert find_root(tmp_path) == tmp_path and find_root() == tmp_path / "env"
    assert data_folder(tmp_path) == tmp_path / ".data"
    monkeypatch.setenv("BBTUI_DATA", str(tmp_path / "d"))
    assert data_folder(tmp_path) == tmp_path / "d"


# ---------------------------------------------------------------- references


@pytest.fixture
def shelf(store: Runs) -> Runs:
    for name in (
        "pretrain/2026-01-01-smoke-aaaa",
        "pretrain/2026-01-01-smoke-aabb",
        "finetune/2026-01-02-smoke-cccc",
    ):
        run_named(store, name)
    return store


@pytest.mark.parametrize(
    ("reference", "found", "at"),
    [
        ("2026-01-01-smoke-aaaa", "aaaa", "last"),
        ("2026-01-01-smoke-aaaa@best", "aaaa", "best"),
        ("2026-01-01-smoke-aaaa@last", "aaaa", "last"),
        ("2026-01-01-smoke-aaaa@120", "aaaa", "120"),
        ("pretrain/2026-01-01-smoke-aabb@0000120", "aabb", "0000120"),
        ("2026-01-02", "cccc", "last"),
        ("finetune/2026", "cccc", "last"),
        ("cccc", "cccc", "last"),
        ("aabb@best", "aabb", "best"),
    ],
)
def test_a_reference_is_an_id_a_prefix_an_end_or_stage_and_id(
    shelf: Runs, reference: str, found: str, at: str
) -> None:
    run, where = shelf.find(reference)
    assert run.id.endswith(found) and where == at and run.short_name == f"{run.stage}/{found}"


def test_an_exact_id_wins_over_one_that_it_begins(shelf: Runs) -> None:
    run = run_named(shelf, "pretrain/2026-01-01-smoke-aa")
    assert shelf.find(run.id)[0] == run


def test_an_ambiguous_reference_lists_what_it_could_be(shelf: Runs) -> None:
    with pytest.raises(UsageError) as caught:
        shelf.find("2026-01-01")
    assert "aaaa" in caught.value.what and "aabb" in caught.value.what and caught.value.fix


@pytest.mark.parametrize("reference", ["nothing", "finetune/2026-01-01-smoke-aaaa", "aaa", "smoke"])
def test_a_reference_to_no_run_is_missing(shelf: Runs, reference: str) -> None:
    with pytest.raises(MissingError) as caught:
        shelf.find(reference)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "..",
        "../pretrain",
        "pretrain/../finetune/2026-01-02-smoke-cccc",
        "pretrain/..",
        "/etc/passwd",
        "cccc\0",
        "cccc\n",
        "cccc@",
        "cccc@-1",
        "cccc@first",
        "cccc@1.5",
        "cccc@" + "9" * 5000,
        "cccc@best@best",
        "nostage/cccc",
        "finetune//cccc",
        "finetune/",
        "-rf",
        "*",
        "cccc\u0661",
        "x" * 100_000 + "/",
    ],
    ids=lambda text: repr(text)[:40],
)
def test_a_hostile_reference_is_refused_in_words(shelf: Runs, reference: str) -> None:
    with pytest.raises(UsageError) as caught:
        shelf.find(reference)
    assert len(str(caught.value)) < 1000


@settings(max_examples=200, deadline=None)
@given(st.text() | st.from_regex(r"[a-z./@-]{0,20}"))
def test_any_reference_is_answered_or_refused(
    tmp_path_factory: pytest.TempPathFactory, reference: str
) -> None:
    store = Runs(tmp_path_factory.getbasetemp() / "fuzzed")
    if not store.folder.exists():
        run_named(store, "pretrain/2026-01-01-smoke-aaaa")
    try:
        run, _ = store.find(reference)
    except BbtuiError:
        return
    assert run.folder.is_relative_to(store.folder)


# ---------------------------------------------------------------- states


def test_a_run_that_never_started_is_new(store: Runs) -> None:
    summary = store.create(config_of()).summary()
    assert (summary.state, summary.step, summary.train_loss, summary.is_live) == ("new", 0, None, False)


def test_a_run_whose_lock_is_held_is_running_or_paused(store: Runs) -> None:
    run = write(store.create(config_of()), started(Run(store.folder / "pretrain" / "x")), measured(1))
    with run.held():
        assert run.is_held() and run.summary().state == "running" and run.summary().is_live
        assert write(run, RunPaused(step=1)).summary().state == "paused"
        assert write(run, RunContinued(step=1)).summary().state == "running"
        with pytest.raises(RunBusyError), run.held():
            pass
    assert not run.is_held() and run.summary().state == "interrupted"


@pytest.mark.parametrize("reason", ["completed", "stopped", "failed", "SIGTERM"])
def test_a_run_that_ended_says_how(store: Runs, reason: str) -> None:
    run = store.create(config_of())
    write(run, started(run, parent="x/y@3"), measured(4, 1.5), validated(4, 1.75), ended(4, reason, "why"))
    summary = run.summary()
    assert (summary.state, summary.message, summary.parent) == (reason, "why", "x/y@3")
    assert (summary.step, summary.steps, summary.tokens) == (4, 40, 32)
    assert (summary.train_loss, summary.validation_loss, summary.tokens_per_s) == (1.5, 1.75, 5.0)
    assert summary.started_at and summary.last_at >= summary.started_at


def test_a_killed_process_leaves_an_interrupted_run_and_no_stale_lock(store: Runs) -> None:
    run = store.create(config_of())
    write(run, started(run), measured(3))
    code = (
        "import sys, pathlib\n"
        "from core.runs import Run\n"
        "with Run(pathlib.Path(sys.argv[1])).held():\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout and child.stdout.readline() == "held\n"
        assert run.summary().state == "running"
        child.kill()
    assert run.summary().state == "interrupted" and run.summary().step == 3
    with run.held():
        assert run.is_held()


def test_a_run_resumed_after_its_end_is_judged_by_the_later_process(store: Runs) -> None:
    run = store.create(config_of())
    write(run, started(run), measured(4), ended(4, "stopped", "why"), started(run, 4))
    assert run.summary().state == "interrupted" and run.summary().message == ""


def test_a_summary_counts_no_steps_that_a_resume_takes_again(store: Runs) -> None:
    run = store.create(config_of())
    write(run, started(run), measured(4, 1.0), validated(4, 1.5), measured(8, 0.5), validated(8, 0.6))
    summary = write(run, started(run, resumed_from_step=4)).summary()
    assert (summary.step, summary.train_loss, summary.validation_loss) == (4, 1.0, 1.5)
    assert write(run, measured(5, 0.9)).summary().step == 5


def test_a_summary_reads_a_long_log_from_its_end(store: Runs) -> None:
    run = store.create(config_of())
    lines = [started(run).to_line("first"), *(measured(step).to_line("later") for step in range(1, 5000))]
    run.events_file.write_text("\n".join(lines) + "\n")
    assert run.events_file.stat().st_size > 1 << 19
    summary = run.summary()
    assert (summary.step, summary.steps, summary.started_at, summary.last_at) == (4999, 40, "first", "later")


# ---------------------------------------------------------------- what holds after a resume


def test_a_resume_drops_the_steps_that_are_taken_again(store: Runs) -> None:
    run = store.create(config_of())
    change = LearningRateChanged(step=4, tokens=24, before=1e-3, after=5e-4, multiplier=0.5)
    first = [started(run), validated(0), measured(1), measured(2), validated(2), Warned(message="kept")]
    write(run, *first, measured(3), change, measured(4))
    again = [started(run, 2), measured(3), ended(3, "stopped")]
    write(run, *again)
    assert run.present_events() == first + again
    assert len(list(run.events())) == len(first) + 3 + len(again)


def test_a_run_that_begins_again_measures_step_0_once(store: Runs) -> None:
    run = store.create(config_of())
    write(run, started(run), validated(0, 9.0), measured(1), started(run), validated(0, 9.0), measured(1))
    assert [type(e) for e in run.present_events()] == [RunStarted, RunStarted, Validated, TrainMeasured]


# ---------------------------------------------------------------- lineage, newest, pairs


def test_lineage_goes_up_to_the_first_ancestor_that_is_gone(store: Runs) -> None:
    first = run_named(store, "pretrain/a-1")
    second = run_named(store, "finetune/a-2", parent="pretrain/a-1@12")
    third = run_named(store, "baseball-pretrain/a-3", parent="finetune/a-2@6")
    assert store.lineage(third) == [third, second, first]
    shutil.rmtree(first.folder)
    assert store.lineage(third) == [third, second]


@pytest.mark.parametrize("parent", ["finetune/a-2@6", "../..@1", "nostage/x@1", "@", "\n"])
def test_lineage_of_an_odd_parent_ends_there(store: Runs, parent: str) -> None:
    run = run_named(store, "finetune/a-2", parent=parent)
    assert store.lineage(run) == [run]


def test_the_newest_run_is_the_one_that_finished_last_in_its_preset(store: Runs) -> None:
    assert store.newest("pretrain") is None
    early = finish(run_named(store, "pretrain/b-1"), "2026-01-03")
    late = finish(run_named(store, "pretrain/a-2"), "2026-01-05")
    other = finish(run_named(store, "pretrain/c-3", preset="quickstart"), "2026-01-07")
    unfinished = write(run_named(store, "pretrain/d-4"), measured(1))
    assert store.newest("pretrain") == other
    assert store.newest("pretrain", preset="smoke") == late
    assert store.newest("pretrain", preset="smoke", finished=False) == unfinished
    assert store.newest("finetune") is None and early in store.all("pretrain")


def test_a_run_whose_configuration_is_damaged_is_not_taken_for_the_newest(store: Runs) -> None:
    good = finish(run_named(store, "pretrain/a-1"), "2026-01-03")
    bad = finish(run_named(store, "pretrain/a-2"), "2026-01-05")
    (bad.folder / "config.toml").write_text("seed = [")
    assert store.newest("pretrain", preset="smoke") == good


def test_the_newest_pair_is_the_last_stage_and_the_assistant_it_came_from(store: Runs) -> None:
    assert store.newest_pair() is None
    for n in "12":
        finish(run_named(store, f"finetune/g-{n}"), f"2026-01-0{n}")
        finish(run_named(store, f"baseball-pretrain/p-{n}", parent=f"finetune/g-{n}@6"), f"2026-01-0{n}")
        finish(
            run_named(store, f"baseball-finetune/b-{n}", parent=f"baseball-pretrain/p-{n}@6"), f"2026-02-0{n}"
        )
    # A newer assistant that is not in the lineage must not be compared with it.
    finish(run_named(store, "finetune/g-9"), "2026-03-01")
    assert [run.name for run in store.newest_pair() or ()] == ["finetune/g-2", "baseball-finetune/b-2"]
    shutil.rmtree(store.folder / "finetune" / "g-2")
    assert store.newest_pair() is None


# ---------------------------------------------------------------- checkpoints


def test_checkpoints_are_told_from_what_only_looks_like_one(tmp_path: Path) -> None:
    run = Run(tmp_path / "pretrain" / "x")
    assert run.checkpoint_steps() == []
    for name in (
        "step-0000012",
        "step-0000004",
        "step-12345678",
        "step-12",
        "tmp-step-0000001",
        "step-0000009x",
    ):
        (run.folder / name).mkdir(parents=True)
    assert run.checkpoint_steps() == [4, 12, 12345678]
    assert run.checkpoint_folder(4).name == "step-0000004"
