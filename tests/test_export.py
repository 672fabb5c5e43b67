"""Protects exports: transformers loads them with the same logits and the same ids; they are written whole or not."""

from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch

from core import export as exporting
from core.checkpoint import load_at
from core.errors import RetryLaterError, UsageError
from core.export import export
from core.launch import start
from core.model import build
from core.runs import Run, Runs
from core.tokenizer import Tokenizer
from core.train import train

TEXTS = [
    "The pitcher's arm, 1,000 throws; it's worn.  Two spaces\n\n\tand a tab ",
    "caf\u00e9 na\u00efve \u4e2d\u6587 \U0001f3bf x\u0301",
    " \n a  b   ",
]


@pytest.fixture(scope="module", params=["gpt2", "nanochat"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A few steps at a high rate, so that no weight is left at its beginning."""
    store = Runs(tmp_path_factory.mktemp(request.param))
    more = ["steps=4", "samples.every=0", "optim.learning_rate=1e-2", "optim.warmup_steps=0"]
    run = start(store, "smoke", "pretrain", None, [f"model.architecture={request.param}", *more])
    deque(train(run.config, run), maxlen=0)
    return run


def test_transformers_loads_the_same_model(run: Run, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    done = export(run, "last", tmp_path / "some" / "model")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(done.folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    weights = load_at(run)
    assert run.config.model
    ours = build(run.config.model, theirs.config.vocab_size).eval()
    ours.load_state_dict(weights.tensors)
    tokens = torch.randint(0, 300, (2, run.config.model.context), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = ours(tokens)
        assert (logits - theirs.eval()(tokens).logits).abs().max() < 1e-4
    assert logits.std() > 0.1 and done.step == 4
    assert theirs.generation_config.eos_token_id == Tokenizer.load(weights.folder).end_of_text


@pytest.mark.parametrize("kind", ["trained", "gpt2"])
def test_the_vocabulary_gives_the_same_ids(kind: str, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    ours = Tokenizer.gpt2() if kind == "gpt2" else Tokenizer.train(["the thing then; another the " * 9], 300)
    document: dict[str, Any] = exporting._vocabulary(ours)  # pyright: ignore[reportPrivateUsage]
    theirs = tokenizers.Tokenizer.from_str(exporting.json.dumps(document))
    for text in TEXTS:
        assert theirs.encode(text).ids == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    assert theirs.encode("<|assistant|>").ids == [ours.assistant]
    assert theirs.get_vocab_size() == ours.size


def test_transformers_finds_the_vocabulary(run: Run, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    export(run, "last", tmp_path / "model")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    ours = Tokenizer.load(load_at(run).folder)
    for text in TEXTS:
        assert theirs.encode(text, add_special_tokens=False) == ours.encode(text)
    assert theirs.eos_token_id == ours.end_of_text


def test_what_transformers_does_not_know_is_refused(trained_root: Path, tmp_path: Path) -> None:
    run = start(Runs(tmp_path), "smoke", "pretrain", None, ["model.architecture=modern"])
    with pytest.raises(UsageError, match="architecture=nanochat"):
        export(run, "last", tmp_path / "model")
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists already"):
        export(Runs(trained_root).all("pretrain")[0], "last", tmp_path / "there")


def test_an_export_that_fails_leaves_nothing(
    trained_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "save_file", full)
    with pytest.raises(RetryLaterError, match="No space left"):
        export(Runs(trained_root).all("pretrain")[0], "last", tmp_path / "out" / "model")
    assert not list((tmp_path / "out").iterdir())


def test_the_command_says_how_to_load_it(bbtui: Any, trained_copy: Path, tmp_path: Path) -> None:
    name = Runs(trained_copy).all("finetune")[0].name
    result = bbtui("export", name, "--to", tmp_path / "model", "--root", trained_copy)
    assert result.code == 0 and "AutoModelForCausalLM.from_pretrained" in result.out
    row = bbtui("export", name, "--to", tmp_path / "again", "--root", trained_copy, "--json").document
    written = sum(path.stat().st_size for path in (tmp_path / "again").iterdir())
    assert row["bytes"] == written and row["notes"]
    again = bbtui("export", name, "--to", tmp_path / "again", "--root", trained_copy)
    assert again.code == 2 and "exists already" in again.err
