"""What the benchmarks against peers add: turns, choices, ratios, when a loss was reached. No peer has to be there."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from core.bench.measurement import Measurement, Sizes
from core.errors import BbtuiError
from core.model import build
from tests.bench import time_to_loss
from tests.bench.contest import Contender, Contest, contests_table
from tests.bench.gguf_file import _name_of
from tests.bench.growth import make_checkpoints
from tests.bench.loss_run import nanogpt_rate
from tests.bench.peers import transformers_generate, transformers_train
from tests.bench.time_to_loss import Curve, train_once, verdict

TINY = Sizes(layers=2, heads=2, width=32, context=64, vocabulary=512, micro_batch=2)


# ---------------------------------------------------------------- contests


class Fake:
    """A contender whose rates are known, and who notes when it was its turn."""

    def __init__(self, turns: list[str], label: str, rates: Iterable[float], problem: str = "") -> None:
        self.turns, self.label, self.rates, self.problem = turns, label, iter(rates), problem

    def contender(self) -> Contender:
        return Contender(self.label, self.measure)

    def measure(self) -> Measurement:
        self.turns.append(self.label)
        if self.problem:
            return Measurement(name="", what="", unit="", problem=self.problem)
        memory = 1_500_000_000
        rate = next(self.rates)
        return Measurement(name="", what="", unit="tokens/s", samples=(rate,), memory_bytes=memory)


def test_contenders_take_turns_and_begin_in_turn() -> None:
    turns: list[str] = []
    fakes = [Fake(turns, "ours", [20, 30, 60]), Fake(turns, "theirs", [10, 10, 10])]
    contest = Contest("x", "pace", [fake.contender() for fake in fakes])
    lines = list(contest.run(3))
    assert turns == ["ours", "theirs", "theirs", "ours", "ours", "theirs"] and len(lines) == 6
    assert contest.ratios("theirs") == [2, 3, 6]
    table = contests_table([contest], [])
    assert "3.00x (2.00 to 6.00)" in table and "1.50 GB" in table
    assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_faster_way_of_a_peer_goes_on_and_one_that_is_missing_is_said() -> None:
    turns: list[str] = []
    fakes = [
        Fake(turns, "ours", [20, 20]),
        Fake(turns, "peer, plain", [10]),
        Fake(turns, "peer, compiled", [12, 12, 12]),
        Fake(turns, "gone", [], problem="No module named 'gone'"),
    ]
    contest = Contest("x", "pace", [fake.contender() for fake in fakes], choices=True)
    lines = list(contest.run(2))
    assert turns.count("peer, plain") == 1 and turns.count("peer, compiled") == 3 and turns.count("gone") == 1
    assert (
        list(contest.found) == ["ours", "peer, compiled"]
        and "No module named 'gone'" in contest.problems["gone"]
    )
    assert any("left out" in line for line in lines)


def test_transformers_does_what_ours_does() -> None:
    """The same sizes train and generate; its speed is not asserted."""
    pytest.importorskip("transformers")
    (trained,) = transformers_train(TINY, 1, "float32", compiled=False)
    assert len(trained.samples) == 1 and trained.samples[0] > 0 and trained.memory_bytes > 0
    (drawn,) = transformers_generate(TINY, 1, 8, 4, "bfloat16")
    assert drawn.samples[0] > 0 and drawn.precision == "bfloat16"


def test_every_weight_has_its_name_in_the_file_of_llama_cpp() -> None:
    config = TINY.config().model
    assert config
    names = [_name_of(name) for name in build(config, 512, device="meta").state_dict()]
    assert len({*names}) == len(names)
    assert {"token_embd.weight", "blk.1.attn_qkv.bias", "blk.0.ffn_down.weight", "output_norm.bias"} <= {
        *names
    }


# ---------------------------------------------------------------- time to a loss


def curve(contender: str, *points: tuple[float, int, float]) -> Curve:
    rows = [{"wall_s": wall_s, "tokens": tokens, "loss": loss} for wall_s, tokens, loss in points]
    return Curve(contender, {"rate": 1e-3} if contender == "peer" else {"settings": []}, rows)


def test_the_verdict_holds_ours_against_the_best_peer() -> None:
    peers = [
        curve("peer", (50, 1000, 6.5), (100, 2000, 6.3)),
        curve("peer", (50, 1000, 6.2), (100, 2000, 6.0)),
    ]
    ours = [curve("ours", (10, 200, 6.2), (20, 400, 5.9), (30, 600, 5.5)), curve("ours", (10, 200, 6.2))]
    table = "\n".join(verdict(peers, ours))
    assert "20 % of its seconds, 20 % of its tokens" in table and "not reached" in table
    assert "not reached" not in "\n".join(verdict([], ours))


def test_what_stands_in_the_file_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def answer(kind: str, arguments: dict[str, Any], *_: object) -> list[Measurement]:
        asked.append(arguments)
        if arguments.get("rate") == 2.0:
            return [Measurement(name=kind, what="", unit="", problem="no nanoGPT")]
        return [Measurement(name="point", what="64", unit="nats", samples=(6.0,), cost=1.5)]

    monkeypatch.setattr(time_to_loss, "measured", answer)
    file = tmp_path / "curves.jsonl"
    for _ in range(2):
        found = train_once("peer", {"rate": 1.0}, tmp_path, None, file)
        assert found.points == [{"wall_s": 1.5, "tokens": 64, "loss": 6.0}]
        with file.open("a") as out:
            out.write('{"contender": "pe')  # cut off by a kill
            out.write("\n")
    assert len(asked) == 1 and asked[0]["root"] == str(tmp_path)
    with pytest.raises(BbtuiError, match="no nanoGPT"):
        train_once("peer", {"rate": 2.0}, tmp_path, None, file)


def test_every_rate_and_batch_is_tried_and_ours_learns_from_fewer_tokens() -> None:
    words = "--text t --out o --work w --rates 1e-3,2e-3 --batches 4096,8192 --tokens 1e6"
    given = time_to_loss.options().parse_args(words.split())
    found = list(time_to_loss.trainings(given))
    assert [contender for contender, _ in found] == ["peer"] * 4 + ["ours"]
    assert {(one["rate"], one["batch_tokens"]) for _, one in found[:4]} == {
        (rate, batch) for rate in (1e-3, 2e-3) for batch in (4096, 8192)
    }
    assert found[4][1]["tokens"] == 300_000 and json.dumps(found)


def test_nanogpt_s_schedule_warms_up_and_ends_at_a_tenth() -> None:
    rates = [nanogpt_rate(step, 100, 1.0, 10) for step in range(101)]
    assert (
        rates[0] == pytest.approx(1 / 11)
        and rates[10] == pytest.approx(1)
        and rates[100] == pytest.approx(0.1)
    )
    assert rates[10:] == sorted(rates[10:], reverse=True)


# ---------------------------------------------------------------- growth


def test_made_checkpoints_are_listed_as_real_ones(tmp_path: Path, bbtui: Any) -> None:
    make_checkpoints(tmp_path, runs=2, checkpoints=3)
    rows = json.loads(bbtui("runs", "list", "--json", "--root", tmp_path).out)
    assert [(row["state"], row["step"]) for row in rows] == [("completed", 300)] * 2
