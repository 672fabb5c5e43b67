"""Protects the report: the JSON that scripts rely on, the table's words and width, which models it is of."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.config import BatchConfig, DataConfig, OptimConfig, StageConfig
from core.errors import DataError, MissingError
from core.evals.report import Entry, default_entries, report_lines, report_markdown
from core.evals.results import ModelInfo, ModelResult, QuestionResult, Report, SetResult
from core.events import RunEnded
from core.runs import Run, Runs


def model_result(mean: float, half: float) -> ModelResult:
    return ModelResult(mean, (mean - half, mean + half), 1.234, mean + 0.01, mean / 2, mean - 0.02, 12.34)


def pair_report(general_id: str = "2026-11-22-quickstart-7f3a") -> Report:
    return Report(
        models={
            "general": ModelInfo(f"finetune/{general_id}", 900, "5c01e9" + "0" * 58),
            "baseball": ModelInfo("baseball-finetune/2026-11-22-quickstart-b21c", 240, "a94f12" + "0" * 58),
        },
        sets={
            "baseball-heldout": SetResult(
                200,
                5312,
                0,
                {"general": model_result(0.203, 0.013), "baseball": model_result(0.381, 0.018)},
                0.381 / 0.203,
                (1.71, 2.05),
            ),
            "general-heldout": SetResult(
                100,
                3021,
                2,
                {"general": model_result(0.262, 0.017), "baseball": model_result(0.2595, 0.017)},
                0.2595 / 0.262,
                (0.96, 1.02),
            ),
        },
        questions=[
            QuestionResult(
                "baseball-heldout", "b1", "What is a balk?", "A move.", {"general": 0.2, "baseball": 0.6}
            )
        ],
    )


def four_stage_report() -> Report:
    labels = ["pretrain", "general", "rules", "baseball"]
    by_model = {label: model_result(0.1 + 0.05 * i, 0.01) for i, label in enumerate(labels)}
    models = {label: ModelInfo(f"finetune/{label}-7f3a", 1, "ab" * 32) for label in labels}
    name = "a-set-with-an-uncommonly-long-name-of-its-own"
    sets = {f"{name}-{i}": SetResult(5, 50, 0, by_model, 1.67, (1.5, 1.9)) for i in range(3)}
    return Report(models, sets)


# ---------------------------------------------------------------- JSON


def test_json_is_the_document_that_scripts_rely_on() -> None:
    document = pair_report().to_json()
    assert set(document) == {"sets", "models"}
    row = document["sets"]["baseball-heldout"]
    assert set(row) == {
        "items", "tokens", "skipped", "by_model", "general", "baseball", "ratio", "ratio_ci95",
    }  # fmt: skip
    assert (row["items"], row["tokens"], row["ratio_ci95"]) == (200, 5312, [1.71, 2.05])
    assert row["general"] == row["by_model"]["general"]
    assert row["baseball"] == row["by_model"]["baseball"]
    assert set(row["general"]) == {
        "mean_probability", "ci95", "nats_per_byte", "per_question_mean", "geometric_mean",
        "mean_probability_without_end", "perplexity",
    }  # fmt: skip
    assert document["models"]["general"] == {
        "run": "finetune/2026-11-22-quickstart-7f3a", "step": 900, "sha256": "5c01e9" + "0" * 58,
    }  # fmt: skip
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@pytest.mark.parametrize("report", [pair_report(), four_stage_report()], ids=["pair", "four stages"])
def test_json_round_trip(report: Report) -> None:
    whole = json.loads(json.dumps(report.to_json(questions=True)))
    assert Report.from_json(whole) == report
    without = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert without == Report(report.models, report.sets)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: None,
        lambda _: [],
        lambda _: {},
        lambda document: {**document, "models": {}},
        lambda document: {**document, "models": {"general": "x"}},
        lambda document: {**document, "sets": {"a": {}}},
        lambda document: {**document, "sets": 3},
        lambda document: {**document, "questions": [{}]},
        lambda document: {
            **document, "sets": {"a": {**document["sets"]["baseball-heldout"], "ratio": "much"}}
        },
        lambda document: {
            **document, "sets": {"a": {**document["sets"]["baseball-heldout"], "ratio_ci95": [1]}}
        },
        lambda document: {
            **document, "sets": {"a": {**document["sets"]["baseball-heldout"], "items": float("inf")}}
        },
    ],
)  # fmt: skip
def test_anything_else_is_refused(damage: Any) -> None:
    with pytest.raises(DataError, match="not a report"):
        Report.from_json(damage(pair_report().to_json()))


def test_a_kept_report_is_shown_without_torch() -> None:
    code = (
        "import sys, core.evals.report; assert 'torch' not in sys.modules and 'datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- text


def test_the_table_says_gain_and_loss() -> None:
    lines = report_lines(pair_report(), "baseball")
    at = {line.split()[0]: line for line in lines[:6] if line}
    assert "baseball-heldout 200" in at["model"] and "general-heldout 100" in at["model"]
    assert ".203 ±.013" in at["general"] and ".262 ±.017" in at["general"]
    assert ".381 ±.018  ▲ .178" in at["baseball"] and "▼ .003" in at["baseball"]
    assert "×1.88 [1.71, 2.05]" in at["ratio"] and "×.99 [.96, 1.02]  kept 99 %" in at["ratio"]
    text = "\n".join(lines)
    assert "Left out of general-heldout: 2 of 102" in text
    assert "finetune/2026-11-22-quickstart-7f3a  step 900  5c01e9" in text
    assert "baseball-finetune/2026-11-22-quickstart-b21c  step 240  a94f12" in text
    assert "1.234" in text and "12.3" in text


def test_the_tables_columns_stand_under_each_other() -> None:
    _, head, general, baseball, ratio, *_ = report_lines(pair_report(), "baseball")
    first, second = head.index("baseball-heldout"), head.index("general-heldout")
    assert [line[first : first + 4] for line in (general, baseball, ratio)] == [".203", ".381", "×1.8"]
    assert [line[second : second + 4] for line in (general, baseball, ratio)] == [".262", ".260", "×.99"]


def test_a_general_set_that_improved_is_shown_whole() -> None:
    report = pair_report()
    improved = replace(report.sets["general-heldout"], ratio=1.107, ratio_ci95=(1.102, 1.114))
    report = Report(report.models, {"general-heldout": improved, "mine": improved})
    ratio = next(line for line in report_lines(report, "baseball") if line.startswith("ratio"))
    assert "×1.11 [1.10, 1.11]  kept 111 % ×1.11 [1.10, 1.11]" in ratio


@pytest.mark.parametrize(
    "report",
    [pair_report(), pair_report("x" * 90 + "-7f3a"), four_stage_report()],
    ids=["pair", "long", "four"],
)
def test_no_line_is_wider_than_78_columns(report: Report) -> None:
    lines = report_lines(report, "a domain of 24 letters..")
    assert max(map(len, lines)) <= 78
    text = "\n".join(lines)
    assert all(info.run[-4:] in text for info in report.models.values())


def test_the_domain_gives_its_name() -> None:
    for text in ("\n".join(report_lines(pair_report(), "chess")), report_markdown(pair_report(), "chess")):
        assert "chess" in text
        assert "\nbaseball  " not in text and "| baseball |" not in text


def test_four_stages_in_a_row_and_three_sets() -> None:
    lines = report_lines(four_stage_report(), "baseball")
    heads = [line for line in lines if line.startswith("model")]
    assert [head.count(" 5") for head in heads] == [2, 1]
    assert sum(line.startswith("rules") for line in lines) == 3


def test_markdown_tables_are_whole() -> None:
    report = pair_report()
    report.sets["odd | name"] = report.sets["general-heldout"]
    text = report_markdown(report)
    assert "kept 99 %" in text and "odd \\| name" in text
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert len({line.replace("\\|", "").count("|") for line in table}) == 1
        assert set(table[1]) <= set("| -")


# ---------------------------------------------------------------- which models


def make_run(
    store: Runs, stage: str, parent: Run | None = None, reason: str = "completed", hour: int = 12
) -> Run:
    """A run that ended for this reason at this hour."""
    pairs = stage.endswith("finetune")
    config = StageConfig(
        preset="tiny",
        stage=stage,  # type: ignore[arg-type]
        parent=f"{parent.name}@3" if parent else "",
        steps=3,
        data=DataConfig(source="sandlot"),
        batch=BatchConfig(examples=4) if pairs else BatchConfig(tokens=64),
        optim=OptimConfig(learning_rate=1e-3),
    )
    run = store.create(config)
    ended = RunEnded(step=3, reason=reason, message="", elapsed_s=1.0)
    run.events_file.write_text(ended.to_line(f"2026-11-22T{hour}:00:00.000+00:00") + "\n", encoding="utf-8")
    # One of which only the log is left is no model.
    run.checkpoint_folder(3).mkdir()
    return run


def make_line(store: Runs, assistant: Run, reason: str = "completed", hour: int = 12) -> Run:
    return make_run(store, "baseball-finetune", make_run(store, "baseball-pretrain", assistant), reason, hour)


@pytest.fixture
def store(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_without_a_pair_the_error_says_what_to_do(store: Runs) -> None:
    with pytest.raises(MissingError) as caught:
        default_entries(store)
    assert "bbtui quickstart" in caught.value.fix and "bbtui train" in caught.value.fix
    make_line(store, make_run(store, "finetune"), "stopped")
    with pytest.raises(MissingError):
        default_entries(store)


def test_the_newest_pair_is_the_default(store: Runs) -> None:
    assistant = make_run(store, "finetune")
    make_line(store, assistant, hour=13)
    baseball = make_line(store, assistant, hour=14)
    make_run(store, "finetune", hour=15)
    assert default_entries(store) == (Entry("general", assistant), Entry("baseball", baseball))


def test_a_named_baseball_model_brings_its_own_assistant(store: Runs) -> None:
    first, second = make_run(store, "finetune"), make_run(store, "finetune")
    older = make_line(store, first, hour=13)
    make_line(store, second, hour=14)
    found = default_entries(store, baseball=f"{older.name}@best")
    assert found == (Entry("general", first), Entry("baseball", older, "best"))


def test_a_named_assistant_brings_its_newest_finished_child(store: Runs) -> None:
    first, second = make_run(store, "finetune"), make_run(store, "finetune")
    make_line(store, first, hour=13)
    child = make_line(store, first, hour=14)
    make_line(store, first, hour=15, reason="stopped")
    make_line(store, second, hour=16)
    broken = make_line(store, first, hour=17)
    (broken.folder / "config.toml").write_text("not = [toml", encoding="utf-8")
    assert default_entries(store, general=first.id) == (Entry("general", first), Entry("baseball", child))


def test_both_named_are_taken_as_they_are(store: Runs) -> None:
    first, second = make_run(store, "finetune"), make_run(store, "finetune")
    found = default_entries(store, general=f"{second.id}@2", baseball=first.id)
    assert found == (Entry("general", second, "2"), Entry("baseball", first))


def test_a_line_without_the_other_model_is_an_error_that_names_the_option(store: Runs) -> None:
    assistant = make_run(store, "finetune")
    with pytest.raises(MissingError) as caught:
        default_entries(store, general=assistant.id)
    assert assistant.name in caught.value.what and "--baseball" in caught.value.fix
    orphan = make_run(store, "baseball-finetune")
    for given in (None, orphan.id):
        with pytest.raises(MissingError) as caught:
            default_entries(store, baseball=given)
        assert orphan.name in caught.value.what and "--general" in caught.value.fix
    with pytest.raises(MissingError, match="absent"):
        default_entries(store, general="absent")
