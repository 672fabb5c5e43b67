"""What each part loads: the library no screen, the watchers and the first screen no torch."""

import json
import subprocess
import sys

import pytest

SCREEN = {"tui", "textual", "rich", "plotext", "textual_plotext"}
HEAVY = {"torch", "datasets", "tiktoken"}

# That the walk reached the folders inside is checked too, or it would prove little.
_EVERY_CORE_MODULE = """
import importlib, pkgutil, sys, core
for found in pkgutil.walk_packages(core.__path__, "core."):
    importlib.import_module(found.name)
assert {"core.train", "core.data.shards", "core.evals.report", "torch"} <= set(sys.modules)
"""


def loaded_by(code: str) -> set[str]:
    """The top-level names in `sys.modules` after a fresh interpreter has run the code."""
    script = (
        f"{code}\nimport json, sys\nprint(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import core", SCREEN | HEAVY),
        (_EVERY_CORE_MODULE, SCREEN),
        (
            "import core.errors, core.events, core.commands, core.config, core.runs, core.series, core.stage_queue",
            SCREEN | HEAVY,
        ),
        ("import tui.app", HEAVY - {"tiktoken"}),
        ("import tui.cli", {"textual", "plotext", "torch", "datasets"}),
    ],
    ids=["core", "every core module", "what watches a run", "the app", "the command line"],
)
def test_a_part_loads_only_what_it_needs(code: str, forbidden: set[str]) -> None:
    assert not loaded_by(code) & forbidden
