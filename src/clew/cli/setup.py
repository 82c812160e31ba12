"""`clew setup`: points an agent at the gateway for good, and takes that back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from clew.agents.bases import is_of_gateway
from clew.agents.changes import Change, ChangeError, change, present, undo
from clew.agents.forms import FORMS
from clew.agents.plan import PlanError, Situation
from clew.agents.table import AGENTS, BY_NAME
from clew.agents.targets import Target, targets_of
from clew.cli.options import CONFIG, DATA, JSON, Refusal, read_config
from clew.cli.run_plan import read_files
from clew.cli.setup_files import (
    Note,
    missing_directories,
    note_path,
    read_note,
    read_text,
    remove_empty,
    remove_note,
    restore,
    write_note,
    write_text,
)
from clew.cli.started import find_running, listen_url
from clew.cli.text import safe, say, say_json
from clew.config.schema import Config

EPILOG: Final = f"""\b
Examples:
  clew setup claude
  clew setup codex --dry-run
  clew setup claude --undo
\b
Agents: {", ".join(agent.name for agent in AGENTS)}.
docker-agent, copilot, openai and anthropic are told by a line in your shell's profile.
--undo restores every file as it was; where you changed one in between, only Clew's lines go.
"""


class Step(msgspec.Struct, frozen=True):
    """One file's next text (None: it goes), with what leads there."""

    change: Change
    text: str | None


@click.command(epilog=EPILOG)
@click.argument("agent", metavar="AGENT", type=click.Choice(list(BY_NAME)))
@click.option("--undo", "is_undo", is_flag=True, help="Take back what setup did.")
@click.option(
    "--replace", is_flag=True, help="Also where another base url is set; --undo restores it."
)
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@CONFIG
@DATA
@JSON
def setup(
    *,
    agent: str,
    is_undo: bool,
    replace: bool,
    dry_run: bool,
    config_path: Path | None,
    data: Path | None,
    as_json: bool,
) -> None:
    """Point an agent at the gateway for good, in its own settings; --undo takes it back."""
    config = read_config(config_path, {"data": str(data) if data else None}, os.environ)
    try:
        if is_undo:
            found = _take_back(Path(config.data), agent, dry_run=dry_run)
        else:
            found = _set_up(config, agent, replace=replace, dry_run=dry_run)
    except (PlanError, ChangeError, ValueError) as error:
        raise Refusal(str(error)) from None
    except OSError as error:
        raise Refusal(f"{error.filename or agent}: {error.strerror}") from None
    if as_json:
        say_json(found)
    else:
        _tell(agent, found, dry_run=dry_run)


def _set_up(config: Config, agent: str, *, replace: bool, dry_run: bool) -> dict[str, Any]:
    """Write what is not there yet; what was done, for printing."""
    data = Path(config.data)
    earlier = read_note(data, agent)
    running = find_running(config)
    url = running.url if running is not None else listen_url(config)
    if not url:
        raise PlanError("server.listen has no fixed port and no gateway runs; give it one")
    situation = Situation(
        agent=BY_NAME[agent],
        environ=os.environ,
        home=str(Path.home()),
        directory=str(Path.home()),
        gateways=(url, earlier.gateway) if earlier else (url,),
    )
    files = read_files(FORMS[situation.agent.form].reads(situation))
    targets = targets_of(msgspec.structs.replace(situation, files=files), url)
    steps, directories = _steps(targets, earlier, situation.gateways, replace=replace)
    if not dry_run and steps:
        made = (*earlier.directories, *directories) if earlier else directories
        kept = earlier.changes if earlier else ()
        write_note(data, Note(agent, url, (*kept, *(step.change for step in steps)), made))
        for step in steps:
            write_text(step.change.path, step.text or "")
    return _shown(steps, "set") | {"gateway": url, "is_running": running is not None}


def _steps(
    targets: tuple[Target, ...],
    earlier: Note | None,
    gateways: tuple[str, ...],
    *,
    replace: bool,
) -> tuple[list[Step], tuple[str, ...]]:
    """Every file's next text, and the directories that are made. Raises ChangeError."""
    texts: dict[str, str | None] = {}
    steps: list[Step] = []
    directories: dict[str, None] = {}
    done = {(one.path, one.key, one.value) for one in earlier.changes} if earlier else set()
    for target in targets:
        path = next((one for one in target.paths if Path(one).exists()), target.paths[0])
        text = texts[path] if path in texts else read_text(path)
        old = present(target, text)
        if old == target.value or (path, target.key, target.value) in done:
            continue
        if old and not replace and not is_of_gateway(old, gateways):
            raise ChangeError(
                f"{'.'.join(target.key)} in {path} is {old}; make that an upstream first "
                f"(clew serve --upstream {old}), then: clew setup AGENT --replace"
            )
        directories |= dict.fromkeys(missing_directories(path))
        step_change, texts[path] = change(target, path, text)
        steps.append(Step(step_change, texts[path]))
    return steps, tuple(directories)


def _take_back(data: Path, agent: str, *, dry_run: bool) -> dict[str, Any]:
    """Undo the changes in the note, the last first; what was done, for printing."""
    note = read_note(data, agent)
    if note is None:
        raise PlanError(f"{agent} is not set up from {note_path(data, agent).parent}")
    texts: dict[str, str | None] = {}
    steps: list[Step] = []
    left: list[str] = []
    for one in reversed(note.changes):
        text = texts[one.path] if one.path in texts else read_text(one.path)
        undone = undo(one, text)
        texts[one.path] = undone.text
        if undone.is_found:
            steps.append(Step(one, undone.text))
        else:
            left.append(f"{'.'.join(one.key)} in {one.path} is no longer Clew's; left as it is")
    if not dry_run:
        for path in dict.fromkeys(step.change.path for step in steps):
            restore(path, texts[path])
        remove_empty(note.directories)
        remove_note(data, agent)
    return _shown(steps, "removed") | {"left": left}


def _shown(steps: list[Step], verb: str) -> dict[str, Any]:
    changes = [
        {
            "did": verb,
            "path": step.change.path,
            "key": ".".join(step.change.key),
            "value": step.change.value,
            "file": "removed" if step.text is None else "kept" if step.change.before else "new",
        }
        for step in steps
    ]
    return {"changes": changes}


def _tell(agent: str, found: dict[str, Any], *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for one in found["changes"]:
        ending = {"removed": "; the file goes", "new": "; a new file"}.get(one["file"], "")
        what = f"{safe(one['key'])} {would}{one['did']}: {safe(one['value'])}"
        say(f"{safe(one['path'])}: {what}{ending}")
    for text in found.get("left", ()):
        say(safe(text))
    if not found["changes"] and not found.get("left"):
        say(f"{agent} is set up already")
    if found["changes"] and found.get("is_running") is False:
        say("no gateway runs; start it: clew serve")
    note = BY_NAME[agent].note
    if note and "gateway" in found:
        say(note)
