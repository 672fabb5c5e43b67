"""Measures training, generation and data preparation against nanoGPT, transformers and llama.cpp.

    python -m tests.bench.against_peers [--only NAMES] [--pairs 5] [--nanogpt FOLDER] [--json FILE]

Contenders take turns, each in a fresh process with a warm-up; a peer that is not installed is said and left out. Of a
peer's two ways to train, plain and torch.compile, the faster one in a first round is the one compared with.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.bench.machine import Machine
from core.bench.measurement import FORMULA, GPT2_SMALL, SMALL, Measurement, Sizes
from core.bench.process import OURS, measured
from tests.bench.contest import Contender, Contest, contests_table, heading

NAMES = ("train-small", "train-124m", "decode", "prefill", "prepare")
_PEERS = "tests.bench.peers"


@dataclass(frozen=True, slots=True)
class Settings:
    nanogpt: Path | None
    """Its folder, absolute."""
    precision: str
    """Of training, resolved: float32 or bfloat16."""
    steps: dict[str, int]
    """Measured steps of a process, by contest."""
    text: str
    """A Parquet file or a folder of them, absolute."""
    has_bfloat16: bool = False
    compiles: bool = True
    small: Sizes = SMALL
    large: Sizes = GPT2_SMALL
    new_tokens: int = 256
    prompt_tokens: int = 900


def contests(settings: Settings) -> dict[str, Contest]:
    """All of them by name."""
    training = {"train-small": settings.small, "train-124m": settings.large}
    found = {name: _training(name, sizes, settings) for name, sizes in training.items()}
    found["decode"] = _generation("decode", settings, 16, settings.new_tokens)
    found["prefill"] = _generation("prefill", settings, settings.prompt_tokens, 1)
    found["prepare"] = Contest(
        "prepare",
        "tokenising and writing shards",
        [
            _one("ours", "prepare", {"rounds": 1, "megabytes": 0, "path": settings.text}, OURS),
            _one("nanoGPT's way", "nanogpt_prepare", {"rounds": 1, "path": settings.text}),
        ],
    )
    return found


def _training(name: str, sizes: Sizes, settings: Settings) -> Contest:
    how = {"sizes": asdict(sizes), "rounds": settings.steps[name], "precision": settings.precision}
    contenders = [_one("ours", "train", how, OURS)]
    for who, kind in _with_nanogpt(
        settings, ("nanoGPT", "nanogpt_train"), ("transformers", "transformers_train")
    ):
        for words, compiled in (("plain", False), ("compiled", True))[: 1 + settings.compiles]:
            contenders.append(
                _one(f"{who}, {words}", kind, how | {"compiled": compiled}, folder=settings.nanogpt)
            )
    what = f"training, {sizes.in_words()}, {settings.precision}"
    return Contest(name, what, contenders, choices=settings.compiles)


def _generation(name: str, settings: Settings, prompt_tokens: int, new_tokens: int) -> Contest:
    sizes = asdict(settings.large)
    ours = {"new_tokens": new_tokens} if name == "decode" else {"prompt_tokens": prompt_tokens}
    contenders = [_one("ours", name, {"sizes": sizes, "rounds": 1, **ours}, OURS)]
    if name == "decode":
        in_full = {"sizes": sizes, "rounds": 1, "precision": "float32", **ours}
        contenders.append(_one("ours, float32", name, in_full, OURS))
    how = {"sizes": sizes, "rounds": 1, "prompt_tokens": prompt_tokens, "new_tokens": new_tokens}
    for who, kind in _with_nanogpt(settings, ("nanoGPT, float32", "nanogpt_generate")):
        contenders.append(_one(who, kind, how, folder=settings.nanogpt))
    for precision in ("bfloat16", "float32"):
        label = f"transformers, {precision}"
        contenders.append(_one(label, "transformers_generate", how | {"precision": precision}))
    for precision in ("float16", "float32"):
        contenders.append(
            _one(f"llama.cpp, {precision}", "llama_cpp_generate", how | {"precision": precision})
        )
    what = f"{new_tokens} new tokens" if name == "decode" else f"reading {prompt_tokens} tokens"
    return Contest(name, f"{what}, {settings.large.layers} layers, width {settings.large.width}", contenders)


def _with_nanogpt(settings: Settings, *peers: tuple[str, str]) -> list[tuple[str, str]]:
    return [peer for peer in peers if settings.nanogpt or not peer[1].startswith("nanogpt")]


def _one(
    label: str, kind: str, arguments: dict[str, Any], module: str = _PEERS, folder: Path | None = None
) -> Contender:
    """A contender that is measured in a fresh process, which may import from the folder."""
    return Contender(label, lambda: measured(kind, arguments, module, [folder] if folder else [])[0])


# ---------------------------------------------------------------- the command


def write_text(file: Path, megabytes: float) -> Path:
    """The built-in corpus as a Parquet file with a column `text`, again and again until it is long enough."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from core.config_sections import DataConfig
    from core.data.sources import documents

    texts = list(documents(DataConfig(source="sandlot"), "pretrain"))
    times = max(1, round(megabytes * 1e6 / sum(len(text.encode()) for text in texts)))
    pq.write_table(pa.table({"text": texts * times}), file)
    return file


def limits_of(settings: Settings, rounds: int = 3) -> list[Measurement]:
    """What this machine does at best."""
    found: list[Measurement] = []
    for precision in ["float32", "bfloat16"] if settings.has_bfloat16 else ["float32"]:
        found += measured(
            "matmul", {"sizes": asdict(settings.large), "rounds": rounds, "precision": precision}
        )
    return [*found, *measured("bandwidth", {"rounds": rounds})]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that say how peers are measured."""
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument(
        "--nanogpt", type=Path, default=os.environ.get("NANOGPT") or None, help="folder with model.py"
    )
    parser.add_argument(
        "--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="of training"
    )
    parser.add_argument("--small-steps", type=int, default=10, help="measured in each process")
    parser.add_argument("--large-steps", type=int, default=2, help="the same at 124M parameters")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument(
        "--text", default="", help="Parquet file or folder; default: the built-in corpus, repeated"
    )
    parser.add_argument("--megabytes", type=float, default=20, help="of the built-in corpus")


def settings_of(given: argparse.Namespace, folder: Path) -> Settings:
    """What was asked for, made definite on this machine."""
    machine = measured("precision")[0]
    text = Path(given.text).absolute() if given.text else write_text(folder / "text.parquet", given.megabytes)
    return Settings(
        nanogpt=Path(given.nanogpt).absolute() if given.nanogpt else None,
        precision=machine.precision if given.precision == "auto" else given.precision,
        has_bfloat16="bfloat16" in (machine.precision, given.precision),
        steps={"train-small": given.small_steps, "train-124m": given.large_steps},
        text=str(text),
        compiles=not given.no_compile,
    )


def run(
    names: list[str], settings: Settings, pairs: int, tell: Callable[[str], None]
) -> tuple[list[Contest], Any]:
    """The contests, run, and the machine's limits."""
    if settings.nanogpt is None:
        tell("nanoGPT is left out: name its folder with --nanogpt or the variable NANOGPT.")
    limits = limits_of(settings)
    for each in limits:
        tell(
            f"{each.what:<48} {each.best:8.1f} {each.unit}"
            if each.samples
            else f"{each.what}: {each.problem}"
        )
    every = contests(settings)
    for name in names:
        tell(every[name].what)
        for line in every[name].run(pairs):
            tell(line)
    return [every[name] for name in names], limits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default=",".join(NAMES), help=f"of {', '.join(NAMES)}")
    parser.add_argument("--json", type=Path, help="write everything to this file, too")
    add_options(parser)
    given = parser.parse_args()
    names = [name for name in given.only.split(",") if name]
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"--only: {', '.join(unknown)}: there are {', '.join(NAMES)}")
    machine = Machine.here()
    print(heading(machine), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = settings_of(given, Path(folder))
        done, limits = run(names, settings, given.pairs, lambda line: print(line, flush=True))
    print(f"\n{heading(machine)} Pairs: {given.pairs}.\n\n{contests_table(done, limits)}\n\n{FORMULA}")
    if given.json:
        rows = {
            "machine": asdict(machine),
            "formula": FORMULA,
            "pairs": given.pairs,
            "limits": [each.to_row() for each in limits],
            "contests": [contest.to_row() for contest in done],
        }
        given.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
