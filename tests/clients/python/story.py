#!/usr/bin/env python3
"""One story told by a real Python MCP client: connect, list, read, call, fail, see progress, cancel, answer what the
server asks, watch a resource, close.

The installed version of `mcp` decides which client this is; `peers.py` hides what differs between versions.
Prints one JSON line per step and exits with 0 when every step went well, with 1 otherwise. What a client cannot do is
told by a member `skipped` with the reason.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

import anyio
from interruptions import Interruptions, network_before, why_not
from peers import Peer, Respondent, connect, field, is_modern, protocol_error

STEP_SECONDS = 15
STORY_SECONDS = 40
NEEDED_TOOLS = {"dns_resolve", "get_status", "slow_count", "slow_count_cancelled"}
WATCHED = "test://watched-resource"

Steps = list[Callable[[], Awaitable[dict[str, Any] | None]]]


class Failed(Exception):
    """A step saw something else than the story tells."""


def require(condition: object, message: str) -> None:
    """Fail the running step with `message` unless `condition` holds."""
    if not condition:
        raise Failed(message)


class Report:
    """Prints the steps; never prints a credential."""

    def __init__(self, secrets: list[str]) -> None:
        self.secrets = [secret for secret in secrets if secret]

    def line(self, step: str, ok: bool, started: float, **facts: Any) -> None:
        facts = {"step": step, "ok": ok, "ms": round((time.monotonic() - started) * 1000), **facts}
        text = json.dumps(facts, ensure_ascii=False, default=str)
        for secret in self.secrets:
            text = text.replace(secret, "***")
        print(text, flush=True)

    async def step(self, name: str, action: Callable[[], Awaitable[dict[str, Any] | None]]) -> None:
        """Run one step under its time limit; what it returns is printed as facts."""
        started = time.monotonic()
        try:
            with anyio.fail_after(STEP_SECONDS):
                facts = await action() or {}
        except Exception as error:
            self.line(name, False, started, error=describe(error))
            raise Failed(f"step {name}") from None
        self.line(name, True, started, **facts)


def leaves(error: BaseException) -> list[BaseException]:
    """The single errors inside of (nested) exception groups: transports run in task groups."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def describe(error: BaseException) -> str:
    return "; ".join(f"{type(leaf).__name__}: {leaf}" for leaf in leaves(error))[:500]


def text_of(result: Any) -> str:
    return "\n".join(item.text for item in result.content if getattr(item, "text", None) is not None)


class Story:
    """The steps, in the order in which they are told, on one connected peer."""

    def __init__(self, peer: Peer, revisions: list[str]) -> None:
        self.peer = peer
        self.revisions = revisions

    async def revision(self) -> dict[str, Any]:
        seen = self.peer.revision
        require(not self.revisions or seen in self.revisions, f"negotiated {seen}, wanted one of {self.revisions}")
        return {"revision": seen}

    async def list_tools(self) -> dict[str, Any]:
        tools, pages = await self.peer.list_all("tools")
        names = [tool.name for tool in tools]
        require(NEEDED_TOOLS <= set(names), f"missing {sorted(NEEDED_TOOLS - set(names))} in {names}")
        require(len(set(names)) == len(names), f"a tool is listed twice: {names}")
        return {"tools": len(names), "pages": pages}

    async def list_resources(self) -> dict[str, Any]:
        resources, _ = await self.peer.list_all("resources")
        uris = [str(resource.uri) for resource in resources]
        require("config://account/settings" in uris, f"no config://account/settings in {uris}")
        return {"resources": len(uris)}

    async def list_templates(self) -> dict[str, Any]:
        templates, _ = await self.peer.list_all("resource_templates")
        uris = [field(template, "uriTemplate") for template in templates]
        require("logs://calls/{date}" in uris, f"no logs://calls/{{date}} in {uris}")
        return {"templates": len(uris)}

    async def read_settings(self) -> dict[str, Any]:
        result = await self.peer.read_resource("config://account/settings")
        text = result.contents[0].text
        require(text, "the settings are empty")
        return {"bytes": len(text)}

    async def get_prompt(self) -> dict[str, Any]:
        prompts, _ = await self.peer.list_all("prompts")
        require(prompts, "no prompt is listed")
        wanted = {argument.name: "host.test.weir" for argument in prompts[0].arguments or [] if argument.required}
        result = await self.peer.get_prompt(prompts[0].name, wanted)
        require(result.messages, "the prompt has no messages")
        return {"prompt": prompts[0].name, "messages": len(result.messages)}

    async def call_tool(self) -> dict[str, Any]:
        result = await self.peer.call("dns_resolve", {"name": "host.test.weir", "type": "A"})
        require(not field(result, "isError"), f"isError: {text_of(result)}")
        require("192.0.2.7" in text_of(result), f"no 192.0.2.7 in: {text_of(result)}")

    async def business_error(self) -> dict[str, Any]:
        result = await self.peer.call("dns_resolve", {"name": "missing.test.weir", "type": "A"})
        require(field(result, "isError"), f"not isError: {text_of(result)}")
        require(text_of(result), "isError without a text")
        return {"text": text_of(result)[:120]}

    async def wrong_argument(self) -> dict[str, Any]:
        result = await self.peer.call("dns_resolve", {"name": "host.test.weir", "type": 7})
        require(field(result, "isError"), f"not isError: {text_of(result)}")
        require(re.search(r"\btype\b", text_of(result)), f"argument `type` not named in: {text_of(result)}")
        return {"text": text_of(result)[:120]}

    async def progress(self) -> None:
        seen: list[tuple[float, float | None]] = []

        async def on_progress(progress: float, total: float | None, *_: Any) -> None:
            seen.append((progress, total))

        result = await self.peer.call("slow_count", {"steps": 5, "delay_ms": 50}, on_progress)
        require(not field(result, "isError"), f"isError: {text_of(result)}")
        require(seen == [(step, 5) for step in range(1, 6)], f"progress was {seen}")

    async def cancellation(self) -> dict[str, Any]:
        before = await self.cancelled_calls()
        started = time.monotonic()
        await self.peer.cancel_after_first_progress("slow_count", {"steps": 200, "delay_ms": 100})
        after = before
        while after <= before and time.monotonic() - started < STEP_SECONDS - 5:
            after = await self.cancelled_calls()
        require(after == before + 1, f"{before} cancelled calls before, {after} after")
        return {"before": before, "after": after}

    async def cancelled_calls(self) -> int:
        return int(text_of(await self.peer.call("slow_count_cancelled", {})))

    async def unknown_tool(self) -> dict[str, Any]:
        try:
            result = await self.peer.call("no_such_tool", {})
        except Exception as error:
            found = protocol_error(error)
            require(found, f"not a protocol error: {describe(error)}")
            require(found.code == -32602, f"code {found.code}, wanted -32602: {found.message}")
            return {"code": found.code, "message": found.message}
        raise Failed(f"a result instead of a protocol error: {text_of(result)}")

    async def answer(self, tool: str, arguments: dict[str, Any]) -> str:
        """The text of a call that is expected to go well."""
        result = await self.peer.call(tool, arguments)
        require(not field(result, "isError"), f"isError: {text_of(result)}")
        return text_of(result)

    async def sampling(self) -> None:
        question = "What is the capital of France?"
        text = await self.answer("test_sampling", {"prompt": question})
        require(self.peer.respondent.asked[-1:] == [question], f"the client was asked {self.peer.respondent.asked}")
        require(text == f"LLM response: {Respondent.SAMPLE}", f"the tool made of the answer: {text}")

    async def roots(self) -> None:
        text = await self.answer("test_input_required_result_list_roots", {})
        require(text.startswith("1 roots:") and Respondent.ROOT in text, f"the tool made of the answer: {text}")

    async def elicit(self, accepts: bool) -> dict[str, Any] | None:
        """The form that the server sends, filled in or declined."""
        question = f"Who are you? (step {'accepted' if accepts else 'declined'})"
        self.peer.respondent.accepts = accepts
        if not self.peer.can_elicit:
            result = await self.peer.call("test_elicitation", {"message": question})
            require(field(result, "isError"), f"not isError: {text_of(result)}")
            require("elicitation" in text_of(result), f"elicitation is not named as missing: {text_of(result)}")
            return {"skipped": "this SDK has no elicitation; the tool's error says so", "text": text_of(result)[:120]}
        text = await self.answer("test_elicitation", {"message": question})
        require(self.peer.respondent.asked[-1:] == [question], f"the client was asked {self.peer.respondent.asked}")
        found = re.fullmatch(r"User response: action=(\w+), content=(.*)", text)
        require(found, f"the tool made of the answer: {text}")
        wanted = {name: Respondent.FIELDS[name] for name in ("username", "email")} if accepts else {}
        told = (found.group(1), json.loads(found.group(2)))
        require(told == ("accept" if accepts else "decline", wanted), f"the tool made of the answer: {text}")

    async def elicitation_accepted(self) -> dict[str, Any] | None:
        return await self.elicit(accepts=True)

    async def elicitation_declined(self) -> dict[str, Any] | None:
        return await self.elicit(accepts=False)

    async def several_questions(self) -> dict[str, Any] | None:
        """One question after the other, then three at once."""
        if not self.peer.can_elicit:
            return {"skipped": "this SDK has no elicitation"}
        self.peer.respondent.accepts = True
        text = await self.answer("test_input_required_result_multi_round", {})
        require(text == "Ada likes blue.", f"the tool made of two answers: {text}")
        text = await self.answer("test_input_required_result_multiple_inputs", {})
        require(text == f"{Respondent.SAMPLE} Ada has 1 roots.", f"the tool made of three answers: {text}")

    async def subscription(self) -> dict[str, Any]:
        before = (await self.peer.read_resource(WATCHED)).contents[0].text
        async with self.peer.watching(WATCHED) as next_update:
            await self.answer("test_trigger_resource_change", {})
            uri = await next_update()
            require(uri == WATCHED, f"{uri} changed, not {WATCHED}")
        after = (await self.peer.read_resource(WATCHED)).contents[0].text
        require(after != before, f"before and after the change: {after}")
        return {"uri": uri}

    async def unsubscribed(self) -> dict[str, Any] | None:
        """Nothing is heard of a resource any more. A change of the tools, told later on the same stream, shows it."""
        if is_modern(self.peer.revision):
            return {"skipped": "2026-07-28 has no unsubscribe: its subscription ended with its stream"}
        await self.answer("test_trigger_resource_change", {})
        await self.answer("test_trigger_tool_change", {})
        heard = await self.peer.notices.next()
        require(heard == ("notifications/tools/list_changed", ""), f"heard {heard} after unsubscribing")

    def steps(self) -> Steps:
        return [
            self.revision, self.list_tools, self.list_resources, self.list_templates, self.read_settings,
            self.get_prompt, self.call_tool, self.business_error, self.wrong_argument, self.progress,
            self.cancellation, self.unknown_tool, self.subscription, self.unsubscribed, self.sampling, self.roots,
            self.elicitation_accepted, self.elicitation_declined, self.several_questions,
        ]  # fmt: skip


def other_key(key: str) -> str:
    """A key of the same shape that nobody owns."""
    return key[:-1] + ("A" if key[-1] != "A" else "B")


async def refused(args: argparse.Namespace) -> dict[str, Any]:
    """With a wrong credential the connection fails, soon, and says why."""
    wrong = argparse.Namespace(**{**vars(args), "key": other_key(args.key)})
    if args.token:
        wrong.token = other_key(args.token)
    try:
        async with connect(wrong) as peer:
            await peer.list_all("tools")  # a pinned client says nothing before its first request
    except Exception as error:
        # 2.x hands on the JSON-RPC error of the body in place of the status.
        told = describe(error)
        require("401" in told or any(protocol_error(leaf) for leaf in leaves(error)), f"refused with {told}")
        return {"error": told}
    raise Failed("connected with a wrong credential")


async def chapter(report: Report, name: str, args: argparse.Namespace, steps_of: Callable[[Peer], Steps]) -> None:
    """A connection of its own, the steps that are told on it, and its close."""
    started = time.monotonic()
    current = name
    try:
        with anyio.fail_after(STEP_SECONDS) as limit:
            async with connect(args) as peer:
                limit.deadline = anyio.current_time() + STORY_SECONDS
                report.line(name, True, started, sdk=f"python mcp {version('mcp')}")
                current = "story"
                for action in steps_of(peer):
                    await report.step(action.__name__, action)
                started, current = time.monotonic(), "close"
        report.line("close", True, started)
    except Exception as error:
        if not any(isinstance(leaf, Failed) for leaf in leaves(error)):
            report.line(current, False, started, error=describe(error))
        raise SystemExit(1) from None


async def interrupted(report: Report, args: argparse.Namespace) -> None:
    """The chapter of the bad network."""
    if why_not(args):
        report.line("interruptions", True, time.monotonic(), skipped=why_not(args))
        return
    async with network_before(args.node, args.url) as (network, url):
        behind = argparse.Namespace(**{**vars(args), "url": url})
        await chapter(report, "connect_badly", behind, lambda peer: Interruptions(peer, network, args).steps())


async def tell(args: argparse.Namespace) -> None:
    report = Report([args.key, args.token, other_key(args.key), other_key(args.token) if args.token else ""])
    revisions = [one for one in args.revision.split(",") if one]
    await chapter(report, "connect", args, lambda peer: Story(peer, revisions).steps())
    await interrupted(report, args)
    await report.step("wrong_key", lambda: refused(args))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="the /mcp endpoint")
    parser.add_argument("--sse-url", required=True, help="the /sse endpoint")
    parser.add_argument("--key", required=True, help="API key for the Authorization header")
    parser.add_argument("--token", default="", help="URL token: stands in ?token= and no header is sent")
    parser.add_argument("--transport", required=True, choices=["streamable", "sse", "modern", "pinned"])
    parser.add_argument("--node", required=True, help="the program that runs ../network-program.mjs")
    parser.add_argument("--revision", default="", help="accepted revisions, comma separated; empty: any")
    try:
        anyio.run(tell, parser.parse_args())
    except Failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
