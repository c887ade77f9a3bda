"""What becomes of a client whose streams are cut. The network in between is ../network-program.mjs."""

import json
import subprocess
import urllib.request
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
from anyio.streams.text import TextReceiveStream
from peers import Peer

COUNT = {"steps": 5, "delay_ms": 50}
WATCHED = "test://watched-resource"
UPDATED = ("notifications/resources/updated", WATCHED)
PROGRAM = Path(__file__).parent.parent / "network-program.mjs"


def why_not(args: Namespace) -> str:
    """Why this client has nothing to tell of cut streams; empty if it has."""
    if args.transport in ("modern", "pinned"):
        return "2026-07-28 has no resumption: a call whose stream is cut is sent again"
    if args.transport == "sse":
        return "sse_client of this SDK ends when its stream is cut"
    if tuple(int(part) for part in version("mcp").split(".")) < (1, 30):
        return "this SDK comes back for a call only when its caller does it"
    return ""


class Network:
    """The running program."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.received = TextReceiveStream(process.stdout)
        self.buffered = ""

    async def line(self) -> str:
        while "\n" not in self.buffered:
            self.buffered += await self.received.receive()
        line, self.buffered = self.buffered.split("\n", 1)
        return line

    async def command(self, name: str) -> dict[str, int]:
        await self.process.stdin.send(f"{name}\n".encode())
        return json.loads(await self.line())


@asynccontextmanager
async def network_before(node: str, url: str) -> AsyncIterator[tuple[Network, str]]:
    """A network and the address to connect to in place of `url`."""
    async with await anyio.open_process([node, str(PROGRAM), url], stderr=subprocess.DEVNULL) as process:
        network = Network(process)
        yield network, f"{await network.line()}{urlsplit(url).path}"
        await process.stdin.aclose()


class Interruptions:
    """The steps, on one connected peer behind a network."""

    def __init__(self, peer: Peer, network: Network, args: Namespace) -> None:
        self.peer = peer
        self.network = network
        self.args = args

    async def alone(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """One request of its own, beside the client: up to 2025-11-25 a single call needs no session."""
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        headers = {
            "Authorization": f"Bearer {self.args.key}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        request = urllib.request.Request(self.args.url, data=body, headers=headers)

        def send() -> dict[str, Any]:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.load(response)["result"]

        return await anyio.to_thread.run_sync(send)

    async def watched(self) -> str:
        return (await self.alone("resources/read", {"uri": WATCHED}))["contents"][0]["text"]

    async def cut(self, how: str) -> int:
        return (await self.network.command(how))["cut"]

    async def cut_while_counting(
        self, how: str, go_on: Callable[[], Awaitable[None]] | None = None
    ) -> dict[str, Any]:
        """Starts to count, cuts every stream after the first number, and sees the rest arrive, in order and once."""
        seen: list[float] = []
        begun = anyio.Event()
        results: list[Any] = []

        async def on_progress(progress: float, *_: Any) -> None:
            seen.append(progress)
            begun.set()

        async def count() -> None:
            results.append(await self.peer.call("slow_count", COUNT, on_progress))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count)
            await begun.wait()
            cut = await self.cut(how)
            if go_on:
                await go_on()
        text = results[0].content[0].text
        if text != "Counted to 5." or seen != [1, 2, 3, 4, 5]:
            raise RuntimeError(f"the cut call said {text}, its progress was {seen}")
        return {"cut": cut, "progress": seen}

    async def notices_in_the_gap(self) -> dict[str, Any]:
        """Every stream is cut, and stays cut until a resource has changed. Told first: these SDKs open their GET stream
        again only once."""
        async with self.peer.watching(WATCHED) as next_update:
            cut = await self.cut("hold")
            before = await self.watched()
            await self.peer.call("test_trigger_resource_change", {})
            if await self.watched() == before:
                raise RuntimeError("the resource did not change")
            await self.network.command("release")
            if await next_update() != WATCHED:
                raise RuntimeError("another resource changed")
        # Nothing more was told of the resource: it would come before this.
        await self.peer.call("test_trigger_tool_change", {})
        heard = await self.peer.notices.next()
        if heard == UPDATED:
            raise RuntimeError("the change was told twice")
        return {"cut": cut}

    async def answers_in_the_gap(self) -> dict[str, Any]:
        """Every stream is cut in the middle of a call, and stays cut until the call has ended."""

        async def go_on() -> None:
            # A count that began later and takes as long has ended: so has the one whose stream was cut.
            await self.alone("tools/call", {"name": "slow_count", "arguments": COUNT})
            await self.network.command("release")

        return await self.cut_while_counting("hold", go_on)

    async def cut_unnoticed(self) -> dict[str, Any]:
        """The client is cut off in the middle of a call and the server does not notice: it goes on talking to nobody.
        When the client is back, it hears all of that."""
        return await self.cut_while_counting("part")

    def steps(self) -> list[Callable[[], Awaitable[dict[str, Any]]]]:
        return [self.notices_in_the_gap, self.answers_in_the_gap, self.cut_unnoticed]
