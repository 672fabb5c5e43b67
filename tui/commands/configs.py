"""`bbtui config`: check configurations."""

import json
from pathlib import Path
from typing import Annotated

import typer

from core.config import STAGES
from core.errors import UsageError
from tui.commands.options import AsJson, Root, keep_root, store_of

config_app = typer.Typer(help="Check configurations.", rich_markup_mode=None)
config_app.callback()(keep_root)


@config_app.command("check")
def check_configs(
    context: typer.Context,
    files: Annotated[list[Path] | None, typer.Argument(help="TOML files; default: every preset.")] = None,
    as_json: AsJson = False,
    root: Root = None,
) -> None:
    """Report every problem of every file; exit code 2 if there is one."""
    from core.config import load_file, preset_file, preset_names

    wanted = [(path, {}) for path in files or []] or [
        (preset_file(preset, stage), {"preset": preset, "stage": stage})
        for preset in preset_names()
        for stage in STAGES
    ]
    base, results = store_of(context, root).root, []
    for path, given in wanted:
        given = given or {"stage": path.stem if path.stem in STAGES else STAGES[0]}
        try:
            load_file(path, base, **given)
            problems: list[str] = []
        except UsageError as error:
            problems = getattr(error, "problems", [error.what])
        results.append({"file": str(path), "problems": problems})
        if not as_json:
            name = f"{path.parent.name}/{path.name}"
            print(
                "\n".join([f"{name}: {'ok' if not problems else ''}".rstrip(), *(f"  {p}" for p in problems)])
            )
    if as_json:
        print(json.dumps(results))
    raise typer.Exit(2 if any(result["problems"] for result in results) else 0)
