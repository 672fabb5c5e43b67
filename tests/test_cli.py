"""The commands that scripts rely on: what they print, where, with which exit code, and never a traceback."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from commanding import SMOKE, Command, finish, only_run, refused, root_of_tests, spawn
from core.commands import Stop
from core.config import STAGES, preset_file, preset_names
from core.data.sources import sandlot_pairs
from core.errors import RetryLaterError
from core.events import RunEnded, TrainMeasured
from core.launch import start
from core.runs import Run, Runs
from tui.commands import training


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


# ---------------------------------------------------------------- the command itself


def test_without_a_terminal_the_app_does_not_open(tmp_path: Path) -> None:
    refused(finish(spawn(cwd=tmp_path)), "no terminal", "bbtui quickstart")


def test_help_names_every_command(bbtui: Command) -> None:
    result = bbtui("--help")
    assert result.code == 0
    for name in ("quickstart", "train", "eval", "chat", "runs", "config"):
        assert name in result.out
    for name in ("--preset", "--from", "--set", "--resume", "--detach", "--json", "--root"):
        assert name in bbtui("train", "--help").out


def test_version(bbtui: Command) -> None:
    result = bbtui("--version")
    assert (result.code, result.out.split()[0]) == (0, "bbtui")


@pytest.mark.parametrize(
    "words",
    [
        ["trian"],
        ["train"],
        ["train", "pretrain", "--nonsense"],
        ["chat"],
        ["runs", "show"],
        ["eval", "surplus"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_exits_2(bbtui: Command, words: list[str]) -> None:
    refused(bbtui(*words))


# ---------------------------------------------------------------- where things lie


def test_root_stands_before_or_after_or_in_the_environment(
    bbtui: Command, trained_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bbtui("--root", trained_root, "runs", "list", "--json").document
    assert len(before) == 4
    assert bbtui("runs", "--root", trained_root, "list", "--json").document == before
    assert bbtui("runs", "list", "--json", "--root", trained_root).document == before
    # The nearest one holds.
    assert bbtui("--root", "/nowhere", "runs", "list", "--json", "--root", trained_root).document == before
    assert bbtui("runs", "list", "--json").document == []
    monkeypatch.setenv("BBTUI_ROOT", str(trained_root))
    assert bbtui("runs", "list", "--json").document == before
    assert bbtui("--root", "/nowhere", "runs", "list", "--json").document == []


def test_train_writes_under_the_root_only(
    bbtui: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert bbtui(*SMOKE, "--set", "steps=1", "--root", tmp_path / "there").code == 0
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == [".data", "checkpoints"]
    assert list((tmp_path / "here").iterdir()) == [] and not root_of_tests().exists()


def test_prepared_data_lies_where_the_environment_says(
    bbtui: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BBTUI_DATA", str(tmp_path / "shards"))
    assert bbtui(*SMOKE, "--set", "steps=1").code == 0
    assert any(path.name.startswith("sandlot-") for path in (tmp_path / "shards").iterdir())
    assert [path.name for path in root_of_tests().iterdir()] == ["checkpoints"]


# ---------------------------------------------------------------- train


def test_train_json_prints_the_runs_events(bbtui: Command) -> None:
    result = bbtui(*SMOKE, "--json")
    assert (result.code, result.err) == (0, "")
    run = only_run()
    logged = [json.loads(line) for line in run.events_file.read_text().splitlines()]
    # The instant is taken when a line is written.
    assert [row | {"at": ""} for row in result.lines] == [row | {"at": ""} for row in logged]
    kinds = [row["event"] for row in result.lines]
    assert kinds[-1] == "RunEnded" and result.lines[-1]["reason"] == "completed"
    assert [row["step"] for row in result.lines if row["event"] == "TrainMeasured"] == list(range(1, 13))
    started = result.lines[kinds.index("RunStarted")]
    assert (started["run"], started["stage"], started["parent"]) == (run.name, "pretrain", "")
    assert started["resumed_from_step"] == 0 and started["parameters"] > 1000
    assert {"step", "tokens", "loss", "learning_rate", "grad_norm", "tokens_per_s", "at"} <= result.lines[
        kinds.index("TrainMeasured")
    ].keys()
    validated = [row for row in result.lines if row["event"] == "Validated"]
    assert [row["step"] for row in validated] == [0, 4, 8, 12]
    assert all(row["bits_per_byte"] > 0 for row in validated)
    saved = [row for row in result.lines if row["event"] == "CheckpointSaved"]
    assert [row["step"] for row in saved] == [4, 8, 12]
    assert (run.folder / saved[-1]["path"]).is_dir()


def test_train_in_words(bbtui: Command) -> None:
    result = bbtui(*SMOKE, "--set", "steps=2", "--set", "optim.learning_rate=1e-3")
    assert result.code == 0
    assert "validation" in result.out and "completed at step 2" in result.out
    config = only_run().config
    assert (config.steps, config.optim.learning_rate) == (2, 1e-3)


def test_a_child_starts_from_the_newest_finished_parent(bbtui: Command, trained_copy: Path) -> None:
    parent = only_run()
    result = bbtui("train", "finetune", "--preset", "smoke", "--set", "steps=1", "--json")
    started = next(row for row in result.lines if row["event"] == "RunStarted")
    assert started["parent"] == f"{parent.name}@12"
    words = ["train", "finetune", "--preset", "smoke", "--set", "steps=1", "--json", "--root", trained_copy]
    result = bbtui(*words, "--from", f"{parent.id[-4:]}@8")
    assert next(row for row in result.lines if row["event"] == "RunStarted")["parent"] == f"{parent.name}@8"


def test_resume_goes_on_from_the_last_checkpoint(bbtui: Command) -> None:
    from core.train import train

    run = start(Runs(root_of_tests()), "smoke", "pretrain")
    for event in (events := train(run.config, run)):
        if isinstance(event, TrainMeasured) and event.step == 6:
            events.close()
    refused(bbtui("train", "pretrain", "--resume", "latest", "--set", "steps=3"), "--resume", "--set")
    result = bbtui("train", "pretrain", "--resume", "latest", "--json")
    assert result.code == 0
    started = next(row for row in result.lines if row["event"] == "RunStarted")
    assert (started["run"], started["resumed_from_step"]) == (run.name, 4)
    assert result.lines[-1]["reason"] == "completed" and result.lines[-1]["step"] == 12
    refused(
        bbtui("train", "pretrain", "--resume", "latest"), "no unfinished pretrain run", "bbtui train pretrain"
    )
    refused(bbtui("train", "pretrain", "--resume", run.id), run.name, "already completed")
    refused(bbtui("train", "finetune", "--resume", run.id), "not a finetune run", "bbtui train pretrain")


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_saves_the_last_finished_step(name: str, code: int) -> None:
    process = spawn(
        *SMOKE,
        "--set",
        "steps=1000000",
        "--set",
        "samples.every=0",
        "--json",
        # A shell may have started the tests with signals ignored.
        preexec_fn=lambda: [signal.signal(kind, signal.SIG_DFL) for kind in (signal.SIGINT, signal.SIGHUP)],
    )
    assert process.stdout
    for line in process.stdout:
        if json.loads(line)["event"] == "TrainMeasured":
            break
    told_at = time.monotonic()
    process.send_signal(getattr(signal, name))
    result = finish(process)
    assert time.monotonic() - told_at < 10
    assert (result.code, result.err) == (code, "")
    ended = result.lines[-1]
    assert (ended["event"], ended["reason"]) == ("RunEnded", name)
    run = only_run()
    events = list(run.events())
    last_step = max(event.step for event in events if isinstance(event, TrainMeasured))
    assert isinstance(events[-1], RunEnded) and (events[-1].reason, events[-1].step) == (name, last_step)
    assert run.checkpoint_steps()[-1] == last_step
    assert run.summary().state == name and not run.is_held()
    from core.checkpoint import load_at

    assert load_at(run).state.step == last_step


def test_a_hangup_that_the_shell_ignores_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `nohup` starts must outlive its terminal."""
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = start(Runs(root_of_tests()), "smoke", "pretrain", None, ["steps=2", "samples.every=0"])

        class HangsUp:
            def __init__(self, _: Run) -> None:
                pass

            def take(self, event: object) -> None:
                if isinstance(event, TrainMeasured):
                    os.kill(os.getpid(), signal.SIGHUP)

        monkeypatch.setattr("tui.plain.Progress", HangsUp)
        assert training.train_here(run, as_json=False) == 0
        assert run.summary().state == "completed"
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, earlier)


def test_detach_returns_at_once_and_the_run_completes(bbtui: Command) -> None:
    result = bbtui(*SMOKE, "--set", "steps=3", "--detach", "--json")
    assert result.code == 0 and result.document.keys() == {"run"}
    run = only_run()
    assert result.document["run"] == run.name and run.summary().step == 0
    wait_until(lambda: run.summary().state == "completed", f"the end of {run.name}")
    assert run.summary().step == run.checkpoint_steps()[-1] == 3
    assert "Traceback" not in (run.folder / "stderr.log").read_text()


def test_a_run_that_fails_exits_1_and_keeps_its_traceback_to_itself(
    bbtui: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("core.model.GPT.loss_sum", broken)
    result = bbtui(*SMOKE)
    assert result.code == 1
    run = only_run()
    assert "failed unexpectedly" in result.err and str(run.folder / "stderr.log") in result.err
    assert "a bug" in (run.folder / "stderr.log").read_text()
    assert run.summary().state == "failed"


def test_a_full_disk_pauses_and_a_stop_then_exits_3(bbtui: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said what is in the way; whoever does not make room and stops the run is told that it was not saved."""

    def full(run: Run, *_: object) -> None:
        run.tell(Stop())
        raise RetryLaterError("Cannot write the checkpoint: no space left.", "Free disk space.")

    monkeypatch.setattr("core.checkpoint.save", full)
    result = bbtui(*SMOKE)
    assert result.code == 3 and "Free disk space" in result.err
    assert "paused at step" in result.out and "no space left" in result.out
    assert only_run().summary().state == "failed"


def test_a_root_that_cannot_be_written_exits_3(bbtui: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(bbtui(*SMOKE, "--root", tmp_path / "file"), str(tmp_path / "file"), "--root", code=3)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--set", "optim.learning_rat=1e-3"], ["optim.learning_rat", "Did you mean learning_rate"]),
        (["--set", "no.such=1"], ["no", "unknown key"]),
        (["--set", "\x1b[2Jsteps"], ["[2Jsteps", "key=value"]),
        (["--set", "steps=many"], ["steps", "many", "valid integer"]),
        (["--set", "seed=true"], ["seed", "valid integer"]),
        (["--set", "optim.learning_rate=nan"], ["optim.learning_rate", "nan"]),
        (["--set", "optim.learning_rate=1e400"], ["optim.learning_rate", "finite"]),
        (["--set", "optim.learning_rate=-1"], ["optim.learning_rate", "greater than 0"]),
        (["--set", "steps"], ["steps", "key=value"]),
        (["--set", "a.b.c=1"], ["a.b.c", "key=value"]),
        (["--set", "model.width=30", "--set", "model.heads=4"], ["width 30", "4 heads", "would fit"]),
        (["--set", "model.layers=0"], ["model.layers", "greater than or equal to 1"]),
        (["--set", "batch.tokens=100"], ["batch.tokens", "multiple of the context"]),
        (["--set", "steps=0"], ["steps", "epochs"]),
        (
            ["--set", "model.width=16384", "--set", "model.heads=1", "--set", "model.layers=200"],
            ["model", "GB", "Lower model.layers"],
        ),
        (["--set", "device=cuda9"], ["device", "cuda9"]),
        (["--from", "somewhere"], ["takes no parent", "--from"]),
    ],
    ids=lambda value: " ".join(value[:2]),
)
def test_a_setting_that_cannot_be_is_named_with_its_fix(
    bbtui: Command, words: list[str], named: list[str]
) -> None:
    refused(bbtui(*SMOKE, *words, "--json"), *named)
    assert not root_of_tests().exists()


def test_every_problem_is_reported_at_once(bbtui: Command) -> None:
    result = bbtui(*SMOKE, "--set", "seed=-1", "--set", "model.layers=0", "--set", "optim.beta1=2")
    refused(result, "seed", "model.layers", "optim.beta1")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["train", "pretrian"], ["'pretrian'", "Did you mean pretrain"]),
        (["train", "../etc"], ["'../etc'", "Stages:"]),
        (["train", "pretrain", "--preset", "smoek"], ["'smoek'", "Did you mean smoke"]),
        (["train", "pretrain", "--preset", "../../etc"], ["no preset", "Presets:"]),
        (["quickstart", "--preset", "smoek"], ["'smoek'", "Did you mean smoke"]),
        (["quickstart", "--steps-scale", "0"], ["--steps-scale 0.0", "--steps-scale 0.5"]),
        (["quickstart", "--steps-scale", "nan"], ["--steps-scale nan"]),
        (["train", "finetune", "--preset", "smoke"], ["No finished pretrain run", "bbtui train pretrain"]),
        (["train", "baseball-finetune"], ["No finished baseball-pretrain run", "quickstart"]),
        (["train", "finetune", "--from", "pretrain/gone"], ["'pretrain/gone'", "bbtui runs list"]),
        (["train", "finetune", "--from", "../../../etc/passwd"], ["does not name a run", "bbtui runs list"]),
        (["train", "pretrain", "--resume", "gone"], ["'gone'", "bbtui runs list"]),
        (["train", "pretrain", "--resume", "latest"], ["no unfinished pretrain run", "bbtui train"]),
        (["eval"], ["no pair of models", "bbtui quickstart"]),
        (["eval", "--json"], ["no pair of models", "bbtui quickstart"]),
        (["eval", "--general", "gone", "--baseball", "gone"], ["'gone'", "bbtui runs list"]),
        (["chat", "--prompt", "Hello"], ["no pair of models", "bbtui quickstart"]),
        (["chat", "--prompt", "Hello", "--json"], ["no pair of models", "bbtui quickstart"]),
        (["chat", "--prompt", ""], ["--prompt is empty", "--prompt '"]),
        (["chat", "--prompt", " \n\t "], ["--prompt is empty"]),
        (["runs", "show", "gone"], ["'gone'", "bbtui runs list"]),
        (["runs", "show", "a" * 5000], ["no run", "bbtui runs list"]),
        (["runs", "show", "\x1b[31m/../x"], ["does not name a run"]),
        (["runs", "replay", "gone", "--json"], ["'gone'", "bbtui runs list"]),
    ],
    ids=lambda value: " ".join(value)[:50].encode("unicode_escape").decode(),
)
def test_what_is_not_there_is_named_with_its_fix(bbtui: Command, words: list[str], named: list[str]) -> None:
    result = bbtui(*words)
    refused(result, *named)
    assert not root_of_tests().exists()


def test_a_root_name_that_no_system_takes_is_said(bbtui: Command) -> None:
    result = bbtui("runs", "list", "--root", "x" * 5000)
    assert result.code == 3 and "name too long" in result.err


def test_half_a_pair_is_no_pair(bbtui: Command, trained_copy: Path) -> None:
    only_run("baseball-finetune").folder.rename(trained_copy / "elsewhere")
    refused(bbtui("eval"), "no pair of models", "baseball-finetune")
    refused(bbtui("eval", "--general", only_run("finetune").id), only_run("finetune").name, "--baseball")


def _random_bytes() -> bytes:
    return random.Random(4).randbytes(4096)


QA_FILES = {
    "question without answer.jsonl": (
        b'{"question": "Who?", "answer": "I."}\n{"question": "What?"}\n',
        "line 2",
    ),
    "question without answer.txt": (b"Q: Who?\nA: I.\nQ: What?\n", "no answer"),
    "two questions.txt": (b"Q: Who?\nQ: What?\nA: This.\n", "line 1"),
    "answer without question.txt": (b"A: I.\n", "no question"),
    "empty answer.jsonl": (b'{"question": "Who?", "answer": "  "}\n', "empty"),
    "numbers.jsonl": (b'{"question": 1, "answer": 2}\n', "not text"),
    "broken.jsonl": (b'{"question": "Who?", "answer"\n', "not valid JSON"),
    "deep.jsonl": (b"[" * 100_000, "not valid JSON"),
    "empty.jsonl": (b"", "no question-answer pairs"),
    "prose.txt": (b"It was a dark and stormy night.\n", "line 1"),
    "random.jsonl": (_random_bytes(), "line 1"),
    "random.txt": (_random_bytes(), "line 1"),
    "random.parquet": (_random_bytes(), "Parquet"),
    "too long.txt": (b"Q: " + b"why " * 5000 + b"\nA: Because.\n", "longer than a model's context"),
}


@pytest.mark.parametrize("name", QA_FILES)
def test_a_file_of_questions_that_cannot_be_used_is_named(
    bbtui: Command, trained_root: Path, tmp_path: Path, name: str
) -> None:
    content, word = QA_FILES[name]
    (tmp_path / name).write_bytes(content)
    refused(bbtui("eval", "--qa", tmp_path / name, "--json", "--root", trained_root), Path(name).stem, word)


def test_a_file_of_questions_that_is_not_there_is_named(
    bbtui: Command, trained_root: Path, tmp_path: Path
) -> None:
    refused(bbtui("eval", "--qa", tmp_path / "gone.jsonl", "--root", trained_root), "gone.jsonl", "path")
    refused(bbtui("eval", "--qa", tmp_path, "--root", trained_root), "folder", str(tmp_path))
    refused(bbtui("eval", "--qa", "x" * 5000, "--root", trained_root), "path")


def test_training_data_that_is_not_there_fails_the_run_with_its_name(bbtui: Command, tmp_path: Path) -> None:
    gone = tmp_path / "gone.txt"
    result = bbtui(*SMOKE, "--set", "data.source=files", "--set", f"data.path={gone}")
    assert result.code == 2 and str(gone) in result.err and "data.path" in result.err
    assert only_run().summary().state == "failed"


# ---------------------------------------------------------------- quickstart


def test_quickstart_trains_all_four_stages_and_ends_with_the_table(bbtui: Command) -> None:
    result = bbtui("quickstart", "--preset", "smoke", "--steps-scale", "0.5")
    assert (result.code, result.err) == (0, "")
    store = Runs(root_of_tests())
    assert [run.summary().state for run in store.all()] == ["completed"] * 4
    assert [run.summary().steps for run in store.all()] == [6, 3, 3, 3]
    assert [run.stage for run in store.lineage(only_run("baseball-finetune"))] == list(reversed(STAGES))
    table = result.out[result.out.index("Mean probability of the correct next token") :]
    for word in ("baseball-heldout", "general-heldout", "ratio", only_run("finetune").id, "bbtui chat"):
        assert word in table
    assert result.out.count("completed at step") == 4


# ---------------------------------------------------------------- eval


def test_eval_json_has_the_shape_that_scripts_rely_on(bbtui: Command, trained_root: Path) -> None:
    result = bbtui("eval", "--json", "--root", trained_root)
    assert (result.code, result.err) == (0, "")
    document, store = result.document, Runs(trained_root)
    assert document.keys() == {"sets", "models"}
    assert list(document["sets"]) == ["baseball-heldout", "general-heldout"]
    for name, row in document["sets"].items():
        assert row["items"] == len(sandlot_pairs(name.partition("-")[0], "heldout"))
        assert row["tokens"] > row["items"]
        assert row["by_model"].keys() == {"general", "baseball"}
        for label in ("general", "baseball"):
            assert row[label] == row["by_model"][label]
            assert 0 < row[label]["mean_probability"] < 1 and row[label]["nats_per_byte"] > 0
            low, high = row[label]["ci95"]
            assert low <= row[label]["mean_probability"] <= high
        means = [row[label]["mean_probability"] for label in ("general", "baseball")]
        assert row["ratio"] == pytest.approx(means[1] / means[0])
        low, high = row["ratio_ci95"]
        assert low <= row["ratio"] <= high
    for label, stage in (("general", "finetune"), ("baseball", "baseball-finetune")):
        info, run = document["models"][label], store.all(stage)[0]
        assert (info["run"], info["step"], len(info["sha256"])) == (run.name, 6, 64)


def test_eval_of_named_models_and_files(bbtui: Command, trained_root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"question": "What is a bat?", "answer": "A club."}\n')
    (tmp_path / "other.txt").write_text("Q: What is a ball?\nA: A sphere\nof leather.\nQ: Who?\nA: We.\n")
    store = Runs(trained_root)
    first, second = store.all("pretrain")[0], store.all("baseball-pretrain")[0]
    words = ["--qa", tmp_path / "mine.jsonl", "--qa", tmp_path / "other.txt", "--root", trained_root]
    words += ["--general", f"{first.name}@8", "--baseball", f"{second.id}@best"]
    document = bbtui("eval", *words, "--json").document
    assert {name: row["items"] for name, row in document["sets"].items()} == {"mine": 1, "other": 2}
    assert (document["models"]["general"]["run"], document["models"]["general"]["step"]) == (first.name, 8)
    assert document["models"]["baseball"]["run"] == second.name
    table = bbtui("eval", *words).out
    assert "mine" in table and "other" in table and first.id in table
    assert max(map(len, table.splitlines())) <= 80


def test_eval_takes_no_damaged_checkpoint(bbtui: Command, trained_copy: Path) -> None:
    run = only_run("finetune")
    for step in run.checkpoint_steps():
        path = run.checkpoint_folder(step) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-4])
    refused(bbtui("eval", "--json", "--root", trained_copy), run.name, "Train this stage again")
    refused(bbtui("eval", "--general", f"{run.id}@6"), "step-0000006", "bytes")


# ---------------------------------------------------------------- chat


def test_chat_json_holds_both_answers(bbtui: Command, trained_root: Path) -> None:
    words = [
        "chat",
        "--prompt",
        "What is a fastball? \U0001f9e2",
        "--max-tokens",
        "12",
        "--root",
        trained_root,
    ]
    result = bbtui(*words, "--json")
    assert (result.code, result.err) == (0, "")
    assert result.document.keys() == {"prompt", "general", "baseball"}
    assert result.document["prompt"] == "What is a fastball? \U0001f9e2"
    for label, stage in (("general", "finetune"), ("baseball", "baseball-finetune")):
        answer = result.document[label]
        assert answer["run"] == Runs(trained_root).all(stage)[0].name and answer["step"] == 6
        assert answer["reason"] in ("end", "length") and answer["tokens"] <= 12
        assert isinstance(answer["text"], str) and len(answer["sha256"]) == 64
    assert bbtui(*words, "--json").document == result.document
    assert bbtui(*words, "--json", "--seed", "8").document != result.document


def test_chat_in_words_shows_who_answers(bbtui: Command, trained_root: Path) -> None:
    result = bbtui("chat", "--prompt", "What is a fastball?", "--max-tokens", "5", "--root", trained_root)
    assert result.code == 0
    assert "GENERAL  finetune/" in result.out and "BASEBALL  baseball-finetune/" in result.out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--prompt", "why " * 2500], ["tokens long", "Shorten"]),
        (["--prompt", "Hello", "--temperature", "nan"], ["temperature", "between 0 and 10"]),
        (["--prompt", "Hello", "--top-p", "0"], ["top-p"]),
        (["--prompt", "Hello", "--top-k", "-1"], ["top-k"]),
        (["--prompt", "Hello", "--max-tokens", "0"], ["longest answer"]),
        (["--prompt", "Hello", "--seed", "9" * 30], ["seed"]),
        (["--prompt", "Hello", "--general", "finetune@7"], ["finetune@7"]),
    ],
    ids=lambda value: " ".join(value)[-30:],
)
def test_a_question_that_cannot_be_asked_is_refused(
    bbtui: Command, trained_root: Path, words: list[str], named: list[str]
) -> None:
    result = bbtui("chat", *words, "--json", "--root", trained_root)
    assert (result.code, result.out) == (2, "")
    assert all(word in result.err for word in named), result.err


# ---------------------------------------------------------------- config check


def test_every_preset_is_sound(bbtui: Command) -> None:
    result = bbtui("config", "check")
    assert result.code == 0
    assert result.out.count(": ok") == len(preset_names()) * len(STAGES) >= 12
    rows = bbtui("config", "check", "--json").document
    assert all(row["problems"] == [] for row in rows)


def test_each_problem_of_a_file_is_named_with_its_line(bbtui: Command, tmp_path: Path) -> None:
    path = tmp_path / "pretrain.toml"
    sound = preset_file("smoke", "pretrain").read_text()
    path.write_text(sound.replace("layers = 2", "layrs = 2").replace("seed = 7", 'seed = "x"'))
    result = bbtui("config", "check", path)
    assert (result.code, result.err) == (2, "")
    assert "seed" in result.out and "layrs" in result.out and "Did you mean layers" in result.out
    assert "pretrain.toml line 2" in result.out
    (row,) = bbtui("config", "check", "--json", path).document
    assert row["file"] == str(path) and len(row["problems"]) == 2
    path.write_text(sound)
    assert bbtui("config", "check", path).code == 0


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (_random_bytes(), "UTF-8"),
        (b"steps = \n", "TOML"),
        (b"a = " + b"[" * 50_000, "nested too deeply"),
        (b'[data]\nsource = "files"\npath = "../../../etc/passwd"\n', "outside the root"),
        (b'[data]\nsource = "files"\npath = "/etc/passwd"\n', "outside the root"),
        (b'[data]\nsource = "files"\npath = "a\\u0000b"\n', "NUL"),
        (b"", "is missing"),
    ],
    ids=["random", "torn", "deep", "path out", "absolute path", "NUL", "empty"],
)
def test_a_file_that_is_no_configuration_is_refused(
    bbtui: Command, tmp_path: Path, content: bytes, word: str
) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    result = bbtui("config", "check", path, "--json")
    assert result.code == 2
    assert any(word in problem for problem in result.document[0]["problems"]), result.out


def test_a_configuration_that_is_not_there_is_named(bbtui: Command, tmp_path: Path) -> None:
    for path in (tmp_path / "gone.toml", tmp_path, "x" * 5000):
        result = bbtui("config", "check", path, "--json")
        assert result.code == 2 and "Cannot read" in result.document[0]["problems"][0]
