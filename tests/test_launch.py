"""A wish becomes a run folder: parents are found, sizes inherited, mistakes named before anything is made."""

from pathlib import Path

import psutil
import pytest

from core.config import ModelConfig, load_file, load_stage
from core.errors import MissingError, UsageError
from core.launch import count_parameters, parent_folder, resume, scaled_overrides, start
from core.runs import Runs


def test_the_first_stage_stands_on_nothing(tmp_path: Path) -> None:
    run = start(Runs(tmp_path), "smoke", "pretrain")
    assert run.config.parent == ""
    assert run.config == load_stage("smoke", "pretrain", tmp_path)
    assert "smoke" in run.id
    assert run.summary().state == "new"


def test_the_folder_holds_the_configuration_as_resolved(tmp_path: Path) -> None:
    run = start(Runs(tmp_path), "smoke", "pretrain", None, ["steps=3", "optim.learning_rate=1e-3"])
    again = load_file(run.folder / "config.toml", run.folder, trusted=True)
    assert again == run.config
    assert (again.steps, again.optim.learning_rate) == (3, 1e-3)


def test_a_child_inherits_sizes_vocabulary_and_parent(trained_root: Path) -> None:
    store = Runs(trained_root)
    for child, parent in zip(["finetune", "baseball-pretrain"], ["pretrain", "finetune"], strict=True):
        ours, theirs = store.all(child)[0].config, store.all(parent)[0]
        assert ours.parent == f"{theirs.name}@{theirs.summary().step}"
        assert (ours.model, ours.tokenizer) == (theirs.config.model, theirs.config.tokenizer)
        found, folder = parent_folder(store, ours)
        assert found == theirs and folder.is_dir()


def test_a_child_may_start_from_a_named_checkpoint(trained_copy: Path) -> None:
    store = Runs(trained_copy)
    parent = store.all("pretrain")[0]
    earliest = parent.checkpoint_steps()[0]
    assert (
        start(store, "smoke", "finetune", f"{parent.id}@{earliest}").config.parent
        == f"{parent.name}@{earliest}"
    )
    assert start(store, "smoke", "finetune", f"{parent.id}@best").config.parent.startswith(f"{parent.name}@")


def test_dropout_alone_may_differ_from_the_parent(trained_copy: Path) -> None:
    store = Runs(trained_copy)
    run = start(store, "smoke", "finetune", None, ["model.dropout=0.3"])
    assert run.config.model and run.config.model.dropout == 0.3 and run.config.model.width == 32
    with pytest.raises(UsageError, match=r"model\.width.*inherits"):
        start(store, "smoke", "finetune", None, ["model.width=64", "model.heads=2"])


@pytest.mark.parametrize(
    ("stage", "from_run", "overrides", "message"),
    [
        ("finetune", None, [], "No finished pretrain run of preset smoke"),
        ("finetune", "pretrain/nowhere", [], "no run 'pretrain/nowhere'"),
        ("finetune", "../../etc", [], "does not name a run"),
        ("pretrain", "whatever", [], "takes no parent"),
        ("pretrian", None, [], "Did you mean pretrain"),
        ("pretrain", None, ["model.width=16384", "model.heads=1", "model.layers=200"], "this machine has"),
    ],
)
def test_a_mistake_is_named_and_leaves_no_folder(
    tmp_path: Path, stage: str, from_run: str | None, overrides: list[str], message: str
) -> None:
    if "this machine has" in message and psutil.virtual_memory().total > 9e12:
        pytest.skip("a model of that size fits here")
    with pytest.raises(UsageError, match=message) as caught:
        start(Runs(tmp_path), "smoke", stage, from_run, overrides)
    assert caught.value.fix
    assert not (tmp_path / "checkpoints").exists()


def test_a_parent_that_has_gone_is_said_so(trained_copy: Path) -> None:
    store = Runs(trained_copy)
    child = store.all("finetune")[0]
    store.all("pretrain")[0].folder.rename(trained_copy / "elsewhere")
    with pytest.raises(MissingError, match="no longer there"):
        parent_folder(store, child.config)


def test_only_unfinished_runs_are_gone_on_with(trained_copy: Path) -> None:
    store = Runs(trained_copy)
    with pytest.raises(MissingError, match="no unfinished pretrain run"):
        resume(store, "latest", "pretrain")
    finished = store.all("pretrain")[0]
    with pytest.raises(UsageError, match="already completed"):
        resume(store, finished.id)
    with pytest.raises(UsageError, match="not a finetune run"):
        resume(store, finished.id, "finetune")
    fresh = start(store, "smoke", "pretrain")
    with pytest.raises(UsageError, match="@ cannot choose"):
        resume(store, f"{fresh.id}@4")
    assert resume(store, "latest", "pretrain") == resume(store, fresh.id) == fresh


def test_a_scale_changes_length_and_warm_up(tmp_path: Path) -> None:
    assert scaled_overrides("smoke", "pretrain", tmp_path, 1) == []
    assert scaled_overrides("smoke", "pretrain", tmp_path, 0.5) == ["steps=6", "optim.warmup_steps=1"]
    scaled = load_stage("smoke", "pretrain", tmp_path, scaled_overrides("smoke", "pretrain", tmp_path, 1e-3))
    assert scaled.steps == 1
    by_epochs = load_stage("gpt2-small", "finetune", tmp_path)
    halved = load_stage(
        "gpt2-small", "finetune", tmp_path, scaled_overrides("gpt2-small", "finetune", tmp_path, 0.5)
    )
    assert halved.epochs == by_epochs.epochs / 2 or halved.steps == by_epochs.steps / 2


def test_parameters_are_counted_as_the_model_counts_them() -> None:
    from core.model import GPT

    sizes = ModelConfig(layers=3, heads=2, width=48, context=64)
    assert count_parameters(sizes, 512) == GPT(sizes, 512).num_parameters()
