"""A plan tells before the start what a run will be: counted where data is prepared, marked where estimated."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tui.cli
from core.config import STAGES, ModelConfig
from core.data.forecast import bytes_per_token
from core.errors import DataError, MissingError, UsageError
from core.events import CheckpointSaved, DataPrepared, SampleDrawn, Validated
from core.launch import start
from core.model import build
from core.optim import make_optimizer, optimizer_tensors
from core.plan import Machine, Plan, plan_of
from core.plan_warnings import usual_rate, warnings_of
from core.probe import Pace, estimated_s, last_pace
from core.runs import Runs
from core.train import train
from tui import plan_words

CPU = Machine("cpu", "float32", has_gpu=False, has_bfloat16=True)


def words(plan: Plan) -> str:
    return " ".join(f"{warning.what} {warning.fix}" for warning in warnings_of(plan))


def planned(root: Path, *overrides: str, preset: str = "smoke", stage: str = "pretrain") -> Plan:
    return plan_of(Runs(root), preset, stage, None, list(overrides))


# ---------------------------------------------------------------- what it counts


@pytest.mark.parametrize("stage", STAGES)
def test_a_plan_is_what_the_run_turned_out_to_be(trained_root: Path, stage: str) -> None:
    """Where the data is prepared, every count is the finished run's own: nothing is estimated twice."""
    store = Runs(trained_root)
    run = store.all(stage)[0]
    events = list(run.events())
    prepared = next(event for event in events if isinstance(event, DataPrepared))
    plan = plan_of(store, "smoke", stage)
    assert plan.data and plan.data.is_exact and plan.data.to_write_bytes == 0
    assert plan.data.train_tokens == prepared.train_tokens
    assert plan.epochs == pytest.approx(prepared.epochs)
    assert plan.steps == run.summary().steps
    assert plan.config.parent == run.config.parent
    assert plan.num_validations == len({e.step for e in events if isinstance(e, Validated)})
    assert plan.num_samples == len({e.step for e in events if isinstance(e, SampleDrawn)})
    saved = [event for event in events if isinstance(event, CheckpointSaved)]
    assert plan.num_saves == len(saved)
    # Tokenizer, names and step counts come on top of the tensors.
    assert plan.checkpoint_bytes <= saved[-1].bytes_written < plan.checkpoint_bytes + 40_000
    assert not warnings_of(plan.on(CPU))


def test_an_estimate_comes_near_and_says_that_it_is_one(trained_root: Path, tmp_path: Path) -> None:
    for stage in ("pretrain", "baseball-finetune"):
        exact = plan_of(Runs(trained_root), "smoke", stage).data
        shutil.copytree(trained_root / "checkpoints", tmp_path / stage / "checkpoints")
        about = plan_of(Runs(tmp_path / stage), "smoke", stage)
        assert exact and about.data and exact.is_exact and not about.data.is_exact
        assert about.data.train_tokens == pytest.approx(exact.train_tokens, rel=0.1)
        assert about.data.row_tokens == pytest.approx(exact.row_tokens, rel=0.1)
        assert "about" in dict(plan_words.plan_lines(about))["data"]
        assert about.disk_bytes > about.checkpoint_bytes * about.checkpoints_kept


def test_own_files_are_estimated_and_missing_ones_named(tmp_path: Path) -> None:
    text = tmp_path / "own.txt"
    text.write_text("The river carries sand down to the sea.\n\n" * 2000, encoding="utf-8")
    plan = planned(tmp_path, "data.source=files", f"data.path={text}", "tokenizer.vocabulary=4096")
    assert plan.data and plan.config.tokenizer
    per_token = bytes_per_token(plan.config.tokenizer)
    assert plan.data.train_tokens == pytest.approx(text.stat().st_size * 0.92 / per_token, rel=0.01)
    with pytest.raises(DataError, match="no file or folder"):
        planned(tmp_path, "data.source=files", f"data.path={tmp_path / 'gone'}")


def test_what_is_not_known_before_preparing_is_not_made_up(tmp_path: Path) -> None:
    plan = planned(tmp_path, preset="gpt2-small")
    lines = dict(plan_words.plan_lines(plan))
    assert plan.data is None and plan.epochs is None and plan.steps == 19073
    assert "not known until it is prepared" in lines["data"] and "the prepared data" in lines["disk"]
    by_epochs = replace(plan, config=plan.config.model_copy(update={"steps": 0, "epochs": 1.0}))
    assert by_epochs.steps is None and estimated_s(by_epochs, Pace(1.0)) is None


def test_mistakes_are_those_of_a_start(tmp_path: Path, trained_root: Path) -> None:
    with pytest.raises(MissingError, match="No finished pretrain run"):
        planned(tmp_path, stage="finetune")
    with pytest.raises(UsageError, match="inherits"):
        planned(trained_root, "model.width=64", "model.heads=2", stage="finetune")
    with pytest.raises(MissingError, match="no checkpoint @99"):
        plan_of(Runs(trained_root), "smoke", "finetune", f"{Runs(trained_root).all('pretrain')[0].id}@99")
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "nanochat"])
@pytest.mark.parametrize("matrices", ["adamw", "muon"])
def test_the_optimizer_is_as_large_as_planned(tmp_path: Path, architecture: str, matrices: str) -> None:
    """The bytes of weights and optimizer are those of the tensors that a step makes."""
    plan = planned(tmp_path, f"model.architecture={architecture}", f"optim.matrices={matrices}")
    model = build(plan.model, plan.vocabulary)
    optimizer = make_optimizer(model, plan.config.optim)
    for parameter in model.parameters():
        parameter.grad = parameter.new_zeros(parameter.shape)
    optimizer.step()
    # AdamW counts its steps in a number of its own.
    sizes = [tensor.nbytes for tensor in optimizer_tensors(model, optimizer).values() if tensor.dim()]
    assert sum(sizes) == plan.memory.optimizer_bytes
    assert sum(p.nbytes for p in model.parameters()) == plan.memory.weights_bytes == 4 * plan.parameters


def test_memory_follows_the_micro_batch_and_the_precision(tmp_path: Path) -> None:
    small, large = (
        planned(tmp_path, f"batch.micro_batch={n}", "batch.tokens=8192").on(CPU).memory for n in (8, 64)
    )
    assert large.activation_bytes == 8 * small.activation_bytes
    assert large.optimizer_bytes == small.optimizer_bytes
    on_gpu = planned(tmp_path).on(Machine("cuda", "bfloat16", True, True, gpu_free_bytes=1))
    assert on_gpu.memory.program_bytes == 0 and "free on the GPU" in words(on_gpu)


# ---------------------------------------------------------------- what it warns of


@pytest.mark.parametrize("preset", ["quickstart", "gpt2-small", "smoke", "speedrun"])
def test_presets_are_warned_of_what_is_true_alone(tmp_path: Path, preset: str) -> None:
    plan = planned(tmp_path, preset=preset)
    assert not words(replace(plan, memory_free_bytes=1 << 40, disk_free_bytes=1 << 50).on(CPU))


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["steps=4000"], "is read 5 times"),
        (["optim.learning_rate=0.5"], "above the usual range for AdamW"),
        (["optim.learning_rate=0.5", "optim.matrices=muon"], "above the usual range for Muon"),
        (["batch.tokens=1048576"], "batch is larger than the data"),
        (["validation_rows=1"], "validation set is smaller than one batch: 1 windows"),
        (["model.context=65536", "batch.tokens=65536"], "longer than most documents"),
        (["model.context=65536", "batch.tokens=65536", "batch.micro_batch=1"], "longer than most"),
    ],
)
def test_each_warning_says_what_and_what_to_do(tmp_path: Path, overrides: list[str], what: str) -> None:
    plan = planned(tmp_path, *overrides)
    found = [warning for warning in warnings_of(plan) if what in warning.what]
    assert len(found) == 1 and found[0].fix.endswith(".")


def test_too_little_room_and_the_wrong_device_are_said(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert "Not enough memory" in words(replace(plan, memory_free_bytes=1000))
    assert "Not enough disk" in words(replace(plan, disk_free_bytes=1000))
    assert "device = cpu leaves it idle" in words(plan.on(replace(CPU, has_gpu=True)))
    emulated = replace(CPU, precision="bfloat16", has_bfloat16=False)
    assert "bfloat16 is missing" in words(plan.on(emulated))


def test_five_epochs_on_the_domain_are_said_kindly(trained_root: Path) -> None:
    plan = planned(trained_root, "epochs=5", stage="baseball-pretrain")
    assert "is read 5 times" in words(plan) and "that is meant" in words(plan)


def test_the_usual_rate_falls_with_the_width_and_for_questions(tmp_path: Path) -> None:
    def at(width: int, **more: object) -> float:
        plan = planned(tmp_path)
        model = ModelConfig(layers=2, heads=2, width=width, context=128)
        return usual_rate(replace(plan, config=plan.config.model_copy(update={"model": model, **more})))

    assert at(64) >= at(256) > at(768) > at(1600)
    assert at(768, stage="finetune") < at(768)


# ---------------------------------------------------------------- time, and the command


def test_an_earlier_run_of_the_same_kind_lends_its_pace(trained_root: Path) -> None:
    store = Runs(trained_root)
    plan = plan_of(store, "smoke", "pretrain")
    pace = last_pace(store, plan)
    assert pace and pace.of_run == store.all("pretrain")[0].name
    assert "as in pretrain/" in plan_words.time_words(plan, pace)
    assert last_pace(store, planned(trained_root, "model.width=64")) is None


def test_time_is_made_of_steps_validations_samples_and_checkpoints(tmp_path: Path) -> None:
    plan = planned(tmp_path, "steps=10", "validate_every=4", "checkpoint_every=5", "samples.every=5")
    # Validated at 0, 4, 5, 8 and 10; saved and sampled at 5 and 10.
    assert (plan.num_validations, plan.num_saves, plan.num_samples) == (5, 2, 2)
    assert estimated_s(plan, Pace(2.0)) == pytest.approx(20, abs=0.1)
    assert estimated_s(plan, Pace(2.0, validation_row_s=0.5)) == pytest.approx(20 + 5 * 8 * 0.5, abs=0.1)
    assert estimated_s(plan, Pace(2.0, token_s=0.1)) == pytest.approx(20 + 2 * 2 * 8 * 0.1, abs=0.1)
    assert plan_words.detach_words(599) == "" and "About 3 h 20" in plan_words.detach_words(12_000)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bbtui", "plan", *map(str, arguments)])
    try:
        tui.cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_command_prints_lines_and_warnings(
    trained_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("finetune", "--preset", "smoke", "--no-probe", "--root", trained_root)
    assert command(monkeypatch, *words, "--set", "optim.learning_rate=0.5") == 0
    out = capsys.readouterr().out
    for label in ("model", "from", "steps", "data", "validation", "memory", "disk", "device", "time"):
        assert f" {label}  " in out
    assert "warning: The rate 0.5 is above" in out


def test_the_command_prints_one_json_document(
    trained_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("pretrain", "--preset", "smoke", "--no-probe", "--json", "--root", trained_root)
    assert command(monkeypatch, *words) == 0
    row = json.loads(capsys.readouterr().out)
    assert row["steps"] == 12 and row["data"]["is_exact"] and row["warnings"] == []
    assert row["estimated_s"] > 0 and row["pace_of_run"].startswith("pretrain/")
    assert row["memory"]["total_bytes"] > row["memory"]["program_bytes"] > 0


@pytest.mark.parametrize("words", [("pretrian",), ("finetune",), ("pretrain", "--set", "steps=x")])
def test_the_command_refuses_what_a_start_would_refuse(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    assert command(monkeypatch, *words, "--preset", "smoke", "--root", tmp_path) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_live_run_is_not_measured_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measuring would slow the run and tell too slow a pace: it is said, and nothing is started."""
    run = start(Runs(tmp_path), "smoke", "pretrain")
    monkeypatch.setattr("core.probe.subprocess.Popen", None)
    with run.held():
        assert command(monkeypatch, "pretrain", "--preset", "smoke", "--root", tmp_path) == 0
    assert "is being trained: both would share the cores" in capsys.readouterr().out


def test_planning_makes_and_trains_nothing(tmp_path: Path) -> None:
    planned(tmp_path)
    assert not list(tmp_path.iterdir())
    run = start(Runs(tmp_path), "smoke", "pretrain", None, ["steps=1"])
    next(train(run.config, run))
