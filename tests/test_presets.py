"""Protects the presets: every file loads, stages fit one another, gpt2-small holds the published figures."""

from pathlib import Path

import pytest

from core.config import (
    DEFAULT_PRESET,
    PARENT_STAGE,
    STAGES,
    ModelConfig,
    StageConfig,
    load_file,
    load_stage,
    preset_file,
    preset_names,
    presets_folder,
    settings_of,
    to_toml,
)
from core.launch import count_parameters, scaled_overrides

PRESETS = ["quickstart", "gpt2-small", "smoke", "speedrun"]
EVERY = [(preset, stage) for preset in PRESETS for stage in STAGES]


def stage_of(preset: str, stage: str) -> StageConfig:
    return load_stage(preset, stage, Path.cwd())


def test_the_presets_are_there_with_the_default_first() -> None:
    assert preset_names()[0] == DEFAULT_PRESET == "quickstart" and set(preset_names()) >= {*PRESETS}
    assert [PARENT_STAGE[stage] for stage in STAGES] == [None, *STAGES[:3]]
    for preset in preset_names():
        assert {path.name for path in (presets_folder() / preset).iterdir()} == {f"{s}.toml" for s in STAGES}


@pytest.mark.parametrize(("preset", "stage"), EVERY)
def test_every_stage_of_every_preset_loads_and_round_trips(preset: str, stage: str, tmp_path: Path) -> None:
    config = stage_of(preset, stage)
    assert (config.preset, config.stage, config.domain, config.parent) == (preset, stage, "baseball", "")
    written = tmp_path / "config.toml"
    written.write_text(to_toml(config), encoding="utf-8")
    assert load_file(written, tmp_path) == config
    assert all(setting.why for setting in settings_of(config))


@pytest.mark.parametrize(("preset", "stage"), EVERY)
def test_every_file_opens_with_a_comment_and_names_the_keys_scripts_edit(preset: str, stage: str) -> None:
    text = preset_file(preset, stage).read_text(encoding="utf-8")
    head = text.partition("[")[0]
    assert text.startswith("# ")
    for key in ("seed =", "validate_every =", "checkpoint_every ="):
        assert f"\n{key}" in head
    assert ("\nsteps =" in head) != ("\nepochs =" in head)
    assert "\nlearning_rate =" in text.partition("[optim]")[2].partition("\n[")[0]


@pytest.mark.parametrize("preset", PRESETS)
def test_the_stages_of_a_preset_fit_one_another(preset: str) -> None:
    first = stage_of(preset, "pretrain")
    assert first.model and first.tokenizer
    for stage in STAGES[1:]:
        config = stage_of(preset, stage)
        named = config.model.model_fields_set if config.model else set()
        assert named <= {"dropout"} and config.tokenizer is None, "later stages inherit the rest"
        shown = {setting.key for setting in settings_of(config) if setting.key.startswith("model.")}
        assert shown == {f"model.{name}" for name in named}, "sizes that are not its own are not shown"
        assert config.prompt_format == first.prompt_format and config.seed == first.seed
        if not config.learns_pairs:
            assert config.batch.tokens % first.model.context == 0
        assert config.samples.max_tokens < first.model.context


@pytest.mark.parametrize("preset", ["quickstart", "smoke"])
def test_the_small_presets_need_no_network(preset: str) -> None:
    for stage in STAGES:
        assert stage_of(preset, stage).data.source == "sandlot"
    tokenizer = stage_of(preset, "pretrain").tokenizer
    assert tokenizer and tokenizer.kind == "trained"


# ---------------------------------------------------------------- the published experiment


def test_gpt2_small_has_the_published_sizes() -> None:
    config = stage_of("gpt2-small", "pretrain")
    assert config.model == ModelConfig(layers=12, heads=12, width=768, context=1024)
    assert config.tokenizer and config.tokenizer.kind == "gpt2"
    assert round(count_parameters(config.model, 50304), -6) == 124_000_000


def test_gpt2_small_pretrains_as_published() -> None:
    config = stage_of("gpt2-small", "pretrain")
    assert config.data.source == "fineweb-edu"
    assert (config.steps, config.epochs, config.validate_every) == (19073, 0, 50)
    assert config.batch.tokens == 2**19
    assert config.model and config.batch.micro_batch * config.model.context == 2**12
    optim = config.optim
    assert (optim.beta1, optim.beta2, optim.weight_decay) == (0.9, 0.95, 0.1)
    assert (optim.learning_rate, optim.warmup_steps) == (6e-4, 300)
    assert (optim.schedule, optim.final_share) == ("cosine", 0.1)


def test_gpt2_small_finetunes_as_published() -> None:
    config = stage_of("gpt2-small", "finetune")
    assert (config.data.source, config.data.validation_share) == ("nectar", 0.1)
    assert (config.epochs, config.optim.learning_rate, config.batch.examples) == (5, 3e-6, 1000)
    assert (config.validate_every, config.validation_rows) == (10, 2000)


def test_gpt2_small_learns_baseball_as_published() -> None:
    rules, pairs = stage_of("gpt2-small", "baseball-pretrain"), stage_of("gpt2-small", "baseball-finetune")
    assert (rules.epochs, rules.optim.learning_rate, rules.optim.schedule) == (5, 1e-5, "constant")
    assert (pairs.epochs, pairs.optim.learning_rate, pairs.optim.schedule) == (50, 3e-5, "constant")
    assert pairs.batch.examples == 0, "all pairs in one step: a full-batch step an epoch"


def test_gpt2_small_asks_and_samples_as_published() -> None:
    for stage in STAGES:
        config = stage_of("gpt2-small", stage)
        assert config.prompt_format == "plain" and config.samples.top_k == 10
        assert config.samples.every and config.samples.prompts


def test_speedrun_is_gpt2_small_by_the_modern_recipe() -> None:
    """The same layers, width, context, vocabulary and batch; the blocks hold as many numbers."""
    ours, published = stage_of("speedrun", "pretrain"), stage_of("gpt2-small", "pretrain")
    assert ours.model and published.model and ours.model.architecture == "nanochat"
    for name in ("layers", "width", "context"):
        assert getattr(ours.model, name) == getattr(published.model, name)
    assert ours.tokenizer == published.tokenizer and ours.batch == published.batch
    assert ours.steps * ours.batch.tokens < ours.data.max_tokens * (1 - ours.data.validation_share)
    assert all(stage_of("speedrun", stage).optim.matrices == "muon" for stage in STAGES)
    assert count_parameters(ours.model, 50304) - 2 * 50304 * 768 == 12 * 12 * 768**2


# ---------------------------------------------------------------- shorter and longer


def test_a_scaled_stage_loads_and_is_as_long_as_asked() -> None:
    for preset, stage in EVERY:
        config = stage_of(preset, stage)
        assert scaled_overrides(preset, stage, Path.cwd(), 1) == []
        for scale in (0.001, 0.5, 3):
            overrides = scaled_overrides(preset, stage, Path.cwd(), scale)
            scaled = load_stage(preset, stage, Path.cwd(), overrides)
            assert (scaled.steps, scaled.epochs) == (
                max(1, round(config.steps * scale)) if config.steps else 0,
                config.epochs * scale,
            )
