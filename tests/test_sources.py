"""Protects what is read: pairs in every form with errors that name file and line, documents, hub schemas."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.config import DataConfig
from core.data import hub
from core.data.pairs import Pair, read_pairs
from core.data.skipped import Skipped
from core.data.sources import documents, identity, pairs_of, sandlot_pairs
from core.errors import DataError, RetryLaterError


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.question, pair.answer) for pair in pairs]


def own_files(path: Path) -> DataConfig:
    return DataConfig(source="files", path=str(path))


# ---------------------------------------------------------------- pairs


def test_json_lines_pairs_are_read_with_ids_of_their_own_or_their_lines(tmp_path: Path) -> None:
    rows = [
        {
            "id": "p1",
            "question": " Who throws? ",
            "answer": "The pitcher.",
            "topic": "play",
            "split": "train",
        },
        {"question": "Wer?", "answer": "Zoë \u2028 <|endoftext|>"},
    ]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path = write(tmp_path / "set.jsonl", "\ufeff" + lines.replace("\n", "\r\n"))
    assert read_pairs(path) == [
        Pair("p1", "Who throws?", "The pitcher.", "play", "train"),
        Pair("set:3", "Wer?", "Zoë \u2028 <|endoftext|>"),
    ]


def test_marked_lines_go_on_until_the_next_mark(tmp_path: Path) -> None:
    path = write(
        tmp_path / "set.txt",
        "\ufeff\r\nQ: What is\r\n  a balk?\r\n\r\nA: An illegal motion.\r\n\r\nIt moves every runner.\r\n\r\n"
        "Q:Who calls it?\r\nA: The umpire.",
    )
    assert texts(read_pairs(path)) == [
        ("What is\n  a balk?", "An illegal motion.\n\nIt moves every runner."),
        ("Who calls it?", "The umpire."),
    ]


def test_the_form_is_told_by_content_not_by_the_ending(tmp_path: Path) -> None:
    assert texts(read_pairs(write(tmp_path / "a.jsonl", "Q: a\nA: b\n"))) == [("a", "b")]
    json_lines = '\ufeff\n{"question": "a", "answer": "b"}'
    assert texts(read_pairs(write(tmp_path / "b.txt", json_lines))) == [("a", "b")]
    pq.write_table(pa.table({"question": ["a"], "answer": ["b"], "id": ["x"]}), tmp_path / "c.txt")
    assert read_pairs(tmp_path / "c.txt") == [Pair("x", "a", "b")]


GOOD = '{"question": "a", "answer": "b"}\n'
BAD_FILES = {
    "random bytes": (bytes(range(128, 256)) * 9, "line 1"),
    "UTF-16": ("Q: a\nA: b".encode("utf-16"), "line 1"),
    "NUL": (GOOD + 'Q\0: {"', "line 2"),
    "a Latin-1 letter": (GOOD.encode() + b'{"question": "caf\xe9", "answer": "b"}', "line 2"),
    "torn JSON": (GOOD + '{"question": "a", "ans', "line 2"),
    "JSON nested too deeply": (GOOD + "[" * 200_000, "line 2"),
    "a list": (GOOD + '["a", "b"]', "line 2"),
    "no answer key": (GOOD + GOOD + '{"question": "a", "reply": "b"}', "line 3"),
    "an empty question": (GOOD + '{"question": " ", "answer": "b"}', "line 2"),
    "an answer that is a number": (GOOD + '{"question": "a", "answer": 4}', "line 2"),
    "an answer that is null": (GOOD + '{"question": "a", "answer": null}', "line 2"),
    "a question with no answer": ("Q: a\nA: b\n\nQ: c\n", "line 4"),
    "two questions in a row": ("Q: a\nQ: b\nA: c\n", "line 1"),
    "an answer with no question": ("Q: a\nA: b\nA: c\n", "line 3"),
    "an empty marked answer": ("Q: a\nA:\n\nQ: b\nA: c", "line 1"),
    "an answer first": ("A: b\n", "line 1"),
    "text before the first mark": ("Chapter 1\nQ: a\nA: b\n", "line 1"),
    "nothing": ("", "holds no question-answer pairs"),
    "blank lines": ("\n\r\n \n", "holds no question-answer pairs"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_pairs_file_is_named_with_its_line_and_a_fix(tmp_path: Path, name: str) -> None:
    content, place = BAD_FILES[name]
    for ending in (".jsonl", ".txt"):
        path = write(tmp_path / f"bad{ending}", content)
        with pytest.raises(DataError) as caught:
            read_pairs(path)
        assert caught.value.exit_code == 2
        assert path.name in caught.value.what
        assert caught.value.fix
        if name not in ("blank lines", "nothing"):
            assert place in caught.value.what


def test_a_missing_file_a_folder_and_bad_parquet_are_data_errors(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "answer": ["b"]}), tmp_path / "columns.parquet")
    pq.write_table(pa.table({"question": [1], "answer": ["b"]}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({"question": ["a", None], "answer": ["b", "c"]}), tmp_path / "null.parquet")
    write(tmp_path / "torn.parquet", (tmp_path / "null.parquet").read_bytes()[:-40])
    expected = {
        "gone.jsonl": "There is no file",
        ".": "is a folder",
        "a\0b": "Cannot read",
        "columns.parquet": "no column question (it has: prompt, answer)",
        "numbers.parquet": "holds int64, not text",
        "null.parquet": "row 2",
        "torn.parquet": "not a readable Parquet file",
    }
    for name, words in expected.items():
        with pytest.raises(DataError) as caught:
            read_pairs(tmp_path / name)
        assert words in caught.value.what


# ---------------------------------------------------------------- the built-in corpus


def test_the_built_in_corpus_has_two_parts_and_keeps_held_out_pairs_apart() -> None:
    config = DataConfig(source="sandlot")
    general, baseball = list(documents(config, "pretrain")), list(documents(config, "baseball-pretrain"))
    assert general and baseball and not set(general) & set(baseball)
    assert not any(text.startswith("#") or not text.strip() for text in general + baseball)
    pairs = list(pairs_of(config, "finetune"))
    assert pairs == sandlot_pairs("general", "train")
    assert {pair.split for pair in pairs} == {"train"}
    held_out = sandlot_pairs("general", "heldout")
    assert held_out and not {pair.id for pair in held_out} & {pair.id for pair in pairs}


# ---------------------------------------------------------------- your own files


def test_documents_come_from_every_kind_of_file_and_bad_ones_are_counted(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner/a.txt", "\ufeffone\r\nline")
    write(tmp_path / "b.md", b"caf\xe9")
    write(tmp_path / "c.txt", " \n")
    write(
        tmp_path / "d.jsonl",
        b'{"text": "two <|endoftext|>"}\n\n{"text": ""}\n{"text": "\xff"}\n{"text": "\\ud800x"}',
    )
    column = pa.array([b"three", b"\xff", None]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column, "id": [1, 2, 3]}), tmp_path / "e.parquet")
    write(tmp_path / "ignored.png", b"\x89PNG")
    write(tmp_path / ".hidden.txt", "hidden")
    skipped = Skipped()
    found = list(documents(own_files(tmp_path), "pretrain", skipped))
    assert found == ["two <|endoftext|>", "?x", "three", "one\nline"]
    assert skipped.counts == {"not UTF-8": 3, "empty": 3}
    assert "3 not UTF-8 (first: b.md)" in skipped.in_words()


def test_a_long_text_is_cut_at_blank_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    paragraphs = [f"Rule {i}. " + "The ball is dead. " * 20 for i in range(100)]
    path = write(tmp_path / "rules.txt", "\r\n\r\n".join(paragraphs))
    found = list(documents(own_files(path), "baseball-pretrain"))
    assert 10 <= len(found) <= 100
    assert all(len(text) >= 2000 for text in found[:-1])
    assert "".join("\n\n".join(found).split()) == "".join("".join(paragraphs).split())
    lines = write(tmp_path / "lines.txt", "\n".join(paragraphs))
    assert len(list(documents(own_files(lines), "pretrain"))) == len(found)
    short = write(
        tmp_path / "short.txt",
        "\n\n".join(f"Rule {i} is short, " + "as it has to be. " * 8 for i in range(20)),
    )
    assert len(list(documents(own_files(short), "pretrain"))) > 5


def test_of_many_files_each_is_one_document(tmp_path: Path) -> None:
    for i in range(25):
        write(tmp_path / f"{i:02d}.txt", f"text {i}\n\n" * 1000)
    assert len(list(documents(own_files(tmp_path), "pretrain"))) == 25


def test_files_that_cannot_be_learned_from_are_data_errors_with_a_fix(tmp_path: Path) -> None:
    for name in ("rules.pdf", "book.docx", "bad.jsonl", "field.jsonl"):
        write(tmp_path / name, '{"title": "x"}' if name == "field.jsonl" else "%PDF-1.4")
    (tmp_path / "empty").mkdir()
    expected = {
        "rules.pdf": "PDF",
        ".": "PDF",
        "book.docx": ".docx is not known",
        "bad.jsonl": "line 1: not valid JSON",
        "field.jsonl": 'no "text" (it has: title)',
        "empty": "holds no file",
        "gone": "There is no file or folder",
    }
    for name, words in expected.items():
        with pytest.raises(DataError) as caught:
            list(documents(own_files(tmp_path / name), "pretrain"))
        assert words in caught.value.what and caught.value.fix
    with pytest.raises(DataError, match="pdftotext"):
        list(pairs_of(own_files(tmp_path / "rules.pdf"), "finetune"))


def test_pairs_come_from_a_folder_in_the_order_of_its_paths(tmp_path: Path) -> None:
    write(tmp_path / "b.txt", "Q: 2\nA: two")
    write(tmp_path / "a.jsonl", '{"question": "1", "answer": "one"}')
    assert texts(list(pairs_of(own_files(tmp_path), "finetune"))) == [("1", "one"), ("2", "two")]


def test_the_identity_of_files_changes_with_name_size_and_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one")
    first = identity(own_files(tmp_path), "pretrain")
    assert identity(own_files(tmp_path), "pretrain") == first
    write(path, "longer")
    second = identity(own_files(tmp_path), "pretrain")
    path.rename(tmp_path / "b.txt")
    assert first != second != identity(own_files(tmp_path), "pretrain")
    sandlot = DataConfig(source="sandlot")
    assert identity(sandlot, "pretrain") != identity(sandlot, "baseball-pretrain")
    assert identity(DataConfig(source="nectar"), "finetune")["revision"] == hub.NECTAR.revision


# ---------------------------------------------------------------- hub


def nectar_row(prompt: str, *answers: tuple[str, float], turns: int = 1, good: bool | None = True) -> dict:
    return {
        "prompt": prompt,
        "answers": [{"answer": text, "model": "m", "rank": rank} for text, rank in answers],
        "turns": turns,
        "num_responses": len(answers),
        "source": ["test"],
        "good_natured": good,
    }


def test_nectar_gives_the_best_ranked_answers_of_single_good_natured_turns(tmp_path: Path) -> None:
    def asked(text: str) -> str:
        return f"\n\nHuman: {text}\n\nAssistant: "

    rows = [
        nectar_row(asked("Why?"), ("worse", 2.0), ("Because.", 1.0)),
        nectar_row(asked("Two turns?"), ("a", 1.0), turns=2),
        nectar_row(asked("Hidden\n\nAssistant: yes\n\nHuman: turn?"), ("a", 1.0)),
        nectar_row(asked("Nasty?"), ("a", 1.0), good=False),
        nectar_row(asked("No answer?"), (" ", 1.0), ("unused", 2.0)),
        nectar_row(asked("None at all?")),
        nectar_row(asked("  "), ("a", 1.0)),
        nectar_row("A bare question?", ("a", 1.0)),
        nectar_row(asked("Last?\n\nYes."), ("Yes.", 3.0)),
    ]
    folder = tmp_path / "copy [1]*"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "train.parquet")
    skipped = Skipped()
    config = DataConfig(source="nectar", path=str(folder))
    pairs = list(pairs_of(config, "finetune", skipped))
    assert texts(pairs) == [("Why?", "Because."), ("Last?\n\nYes.", "Yes.")]
    assert [pair.id for pair in pairs] == ["nectar-1", "nectar-9"]
    assert skipped.counts == {"of several turns": 2, "not good-natured": 1, "empty": 3, "of another form": 1}
    assert list(pairs_of(config, "finetune")) == pairs


def test_fineweb_edu_is_read_in_order_from_a_local_copy(tmp_path: Path) -> None:
    for part in range(2):
        rows = [{"text": f"text {part} {i}", "id": str(i), "score": 3.0, "int_score": 3} for i in range(3)]
        pq.write_table(pa.Table.from_pylist([*rows, {**rows[0], "text": ""}]), tmp_path / f"{part}.parquet")
    skipped = Skipped()
    config = DataConfig(source="fineweb-edu", path=str(tmp_path))
    expected = [f"text {part} {i}" for part in range(2) for i in range(3)]
    assert list(documents(config, "pretrain", skipped)) == expected
    assert skipped.counts == {"empty": 2}


def test_a_local_copy_with_other_columns_or_damage_is_a_data_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column text"):
        list(documents(DataConfig(source="fineweb-edu", path=str(tmp_path)), "pretrain"))
    write(tmp_path / "a.parquet", b"PAR1 and nothing more")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
        list(documents(DataConfig(source="fineweb-edu", path=str(tmp_path)), "pretrain"))


def test_a_hub_that_cannot_be_reached_names_the_local_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no name service")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    for source, read in (("fineweb-edu", documents), ("nectar", pairs_of)):
        with pytest.raises(RetryLaterError) as caught:
            list(read(DataConfig(source=source), "pretrain"))
        assert caught.value.exit_code == 3
        assert "no name service" in caught.value.what and "--set data.path=" in caught.value.fix
