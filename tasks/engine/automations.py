"""Prefect's automations for these runbooks, made or brought up to date by name.

What `deployments/automations.yaml` says, matched by name, so that a second time changes nothing
and doubles nothing. Where the file has no action of its own but a message, that goes to the block
which `--notify TYPE/NAME` names; without it the operator's action stays. With `--url-file` that
block is made of the URL in a file: Slack's webhook, or any other that Apprise knows, such as
e-mail's.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from apprise import Apprise
from cyclopts import App
from prefect.automations import AutomationCore
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import PrefectClient, get_client
from prefect.events.actions import DoNothing
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from pydantic import SecretStr
from ruamel.yaml import YAML

from tasks.model.errors import Refused

DESIRED = Path(__file__).parents[2] / "deployments" / "automations.yaml"
URL_BLOCK = "slack-webhook"
"""A block that is a URL of Apprise's; Slack's is the best known of them."""
WAY_OUT = "start it with `.venv/bin/prefect server start`, or set PREFECT_API_URL to the team's"


def read_desired(path: Path = DESIRED, block: UUID | None = None) -> tuple[AutomationCore, ...]:
    """Read the automations that shall be; their messages go to a notification block, if any."""
    content = YAML(typ="safe").load(path)
    return tuple(_automation(dict(one), block) for one in content["automations"])


def _automation(content: dict[str, Any], block: UUID | None) -> AutomationCore:
    message = content.pop("message", None)
    if message is not None:
        sent = {"type": "send-notification", "block_document_id": block, **message}
        content["actions"] = [sent if block else {"type": "do-nothing"}]
    return AutomationCore.model_validate(content)


async def apply(client: PrefectClient, desired: AutomationCore) -> str:
    """Make one automation what it shall be, and the only one of its name; returns a sentence."""
    found = await client.read_automations_by_name(desired.name)
    if not found:
        await client.create_automation(desired)
        return f"{desired.name}: created"
    kept, *doubles = sorted(found, key=lambda one: str(one.id))
    for double in doubles:
        await client.delete_automation(double.id)
    placeholder = all(isinstance(action, DoNothing) for action in desired.actions)
    actions = kept.actions if placeholder else desired.actions
    wanted = desired.model_copy(update={"enabled": kept.enabled, "actions": actions})
    await client.update_automation(kept.id, wanted)
    return f"{desired.name}: up to date" + (f", {len(doubles)} doubles deleted" if doubles else "")


async def apply_all(notify: str | None = None, url_file: Path | None = None) -> list[str]:
    """Apply all of them; raises Refused, with nothing changed, when no server answers.

    `notify` is a notification block, as TYPE/NAME (`slack-webhook/oncall`), which is made of the
    URL in `url_file` where that is given.
    """
    url = get_current_settings().api.url
    if url is None:
        raise Refused(f"automations are a server's, and none is set: {WAY_OUT}")
    async with get_client() as client:
        if await client.api_healthcheck() is not None:
            raise Refused(f"no Prefect server answers at {url}: {WAY_OUT}")
        if url_file is not None:
            await _make_block(notify, url_file)
        block = await _find_block(client, notify) if notify else None
        return [await apply(client, desired) for desired in read_desired(block=block)]


async def _make_block(place: str | None, file: Path) -> None:
    kind, _, name = (place or "").partition("/")
    if kind != URL_BLOCK or not name:
        raise Refused(
            f"--url-file makes a block of the type {URL_BLOCK}: --notify {URL_BLOCK}/oncall"
        )
    url = await asyncio.to_thread(_read_url, file)
    if not Apprise().add(url):
        raise Refused(
            f"--url-file: what {file} has is no URL that Apprise knows; e-mail is "
            "mailtos://USER:PASSWORD@SERVER?from=ADDRESS&to=ADDRESS,ADDRESS. Nothing was changed"
        )
    saving: Any = SlackWebhook(url=SecretStr(url)).save(name, overwrite=True)
    await saving


def _read_url(file: Path) -> str:
    if not file.is_file() or file.stat().st_mode & 0o077:
        raise Refused(
            f"--url-file: {file} must be a file that its owner alone can read (chmod 600), with "
            "the URL in it, for there may be a password in that. Nothing was changed"
        )
    return file.read_text().strip()


async def _find_block(client: PrefectClient, place: str) -> UUID:
    kind, _, name = place.partition("/")
    try:
        found = await client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound as error:
        raise Refused(
            f"--notify: there is no block {place} on the server; make one under Blocks in its UI "
            "(Slack Webhook, Custom Webhook, ...) and name it as TYPE/NAME, or give its URL with "
            "--url-file. Nothing was changed"
        ) from error
    return found.id


def main(*, notify: str | None = None, url_file: Path | None = None) -> int:
    """Create Prefect's automations of these runbooks, or bring them up to date.

    Args:
        notify: the notification block that tells people, as TYPE/NAME (slack-webhook/oncall);
            without it an automation's action stays as it is
        url_file: make that block, of the type slack-webhook, of the URL in this file of mode 0600:
            Slack's, or mailtos://USER:PASSWORD@SERVER?from=ADDRESS&to=ADDRESS for e-mail
    """
    try:
        told = asyncio.run(apply_all(notify, url_file))
        sys.stdout.write("\n".join([*told, "done"]) + "\n")
    except Refused as error:
        sys.stderr.write(f"refused: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    app = App(version_flags=(), result_action="return_value")
    app.default(main)
    sys.exit(app())
