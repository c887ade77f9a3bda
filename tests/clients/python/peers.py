"""What differs between the versions of the Python SDK: connecting, progress, cancelling, attribute names."""

import inspect
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Protocol

import anyio
from mcp.client.sse import sse_client

MAJOR = int(version("mcp").split(".")[0])
MAX_PAGES = 50

OnProgress = Callable[..., Awaitable[None]]


def field(value: Any, camel: str) -> Any:
    """An attribute that is camelCase in SDK 1.x and snake_case in SDK 2.x."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in camel)
    return getattr(value, snake, None) if MAJOR >= 2 else getattr(value, camel, None)


def protocol_error(error: BaseException) -> Any:
    """The JSON-RPC error (code, message) that the SDK raised, or None when it raised something else."""
    return getattr(error, "error", None)


class Peer(Protocol):
    """The part of a client that the story needs."""

    revision: str

    async def list_all(self, kind: str) -> tuple[list[Any], int]: ...
    async def read_resource(self, uri: str) -> Any: ...
    async def get_prompt(self, name: str, arguments: dict[str, str]) -> Any: ...
    async def call(self, name: str, arguments: dict[str, Any], on_progress: OnProgress | None = None) -> Any: ...
    async def cancel_after_first_progress(self, name: str, arguments: dict[str, Any]) -> None: ...


async def every_page(kind: str, fetch: Callable[[str | None], Awaitable[Any]]) -> tuple[list[Any], int]:
    """All entries of a paginated list, and the number of pages."""
    attribute = "resourceTemplates" if kind == "resource_templates" else kind
    entries: list[Any] = []
    cursor: str | None = None
    for page in range(1, MAX_PAGES + 1):
        result = await fetch(cursor)
        entries.extend(field(result, attribute))
        cursor = field(result, "nextCursor")
        if not cursor:
            return entries, page
    raise RuntimeError(f"{kind} did not end after {MAX_PAGES} pages")


class Peer1:
    """SDK 1.x: `ClientSession`. It never sends notifications/cancelled by itself, so this class does."""

    def __init__(self, session: Any, revision: str) -> None:
        self.session = session
        self.revision = revision
        self.listeners: dict[str | int, OnProgress] = {}
        self.has_callback = "progress_callback" in inspect.signature(session.call_tool).parameters

    async def list_all(self, kind: str) -> tuple[list[Any], int]:
        method = getattr(self.session, f"list_{kind}")
        if "cursor" not in inspect.signature(method).parameters:  # 1.6.0 cannot turn the page
            return await every_page(kind, lambda _: method())
        return await every_page(kind, lambda cursor: method(cursor) if cursor else method())

    async def read_resource(self, uri: str) -> Any:
        from pydantic import AnyUrl

        return await self.session.read_resource(AnyUrl(uri))

    async def get_prompt(self, name: str, arguments: dict[str, str]) -> Any:
        return await self.session.get_prompt(name, arguments)

    async def call(self, name: str, arguments: dict[str, Any], on_progress: OnProgress | None = None) -> Any:
        if on_progress is None:
            return await self.session.call_tool(name, arguments)
        if self.has_callback:
            return await self.session.call_tool(name, arguments, progress_callback=on_progress)
        return await self.call_with_token(name, arguments, on_progress)

    async def call_with_token(self, name: str, arguments: dict[str, Any], on_progress: OnProgress) -> Any:
        """1.6.0 has no progress callback: send the token ourselves and listen to every notification."""
        from mcp import types

        token = self.session._request_id
        self.listeners[token] = on_progress
        meta = {"_meta": types.RequestParams.Meta(progressToken=token)}
        params = types.CallToolRequestParams(name=name, arguments=arguments, **meta)
        request = types.ClientRequest(types.CallToolRequest(method="tools/call", params=params))
        return await self.session.send_request(request, types.CallToolResult)

    async def on_message(self, message: Any) -> None:
        """Message handler of the session: hands progress to whoever waits for it."""
        root = getattr(message, "root", None)
        if getattr(root, "method", "") == "notifications/progress" and not self.has_callback:
            listener = self.listeners.get(root.params.progressToken)
            if listener:
                await listener(root.params.progress, root.params.total)

    async def cancel_after_first_progress(self, name: str, arguments: dict[str, Any]) -> None:
        from mcp import types

        request_id = self.session._request_id
        progressed = anyio.Event()

        async def on_progress(*_: Any) -> None:
            progressed.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.call, name, arguments, on_progress)
            await progressed.wait()
            params = types.CancelledNotificationParams(requestId=request_id, reason="the story cancels")
            notification = types.CancelledNotification(method="notifications/cancelled", params=params)
            await self.session.send_notification(types.ClientNotification(notification))
            tasks.cancel_scope.cancel()


class Peer2:
    """SDK 2.x: `Client`. Cancelling the task is enough: the SDK tells the server."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.revision = client.protocol_version

    async def list_all(self, kind: str) -> tuple[list[Any], int]:
        method = getattr(self.client, f"list_{kind}")
        return await every_page(kind, lambda cursor: method(cursor=cursor))

    async def read_resource(self, uri: str) -> Any:
        return await self.client.read_resource(uri)

    async def get_prompt(self, name: str, arguments: dict[str, str]) -> Any:
        return await self.client.get_prompt(name, arguments)

    async def call(self, name: str, arguments: dict[str, Any], on_progress: OnProgress | None = None) -> Any:
        return await self.client.call_tool(name, arguments, progress_callback=on_progress)

    async def cancel_after_first_progress(self, name: str, arguments: dict[str, Any]) -> None:
        progressed = anyio.Event()

        async def on_progress(*_: Any) -> None:
            progressed.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.call, name, arguments, on_progress)
            await progressed.wait()
            tasks.cancel_scope.cancel()


def endpoint(args: Namespace) -> tuple[str, dict[str, str]]:
    """The URL to connect to and the headers to send: a URL token replaces every header."""
    url = args.sse_url if args.transport == "sse" else args.url
    if args.token:
        return f"{url}?token={args.token}", {}
    return url, {"Authorization": f"Bearer {args.key}"}


@asynccontextmanager
async def connect(args: Namespace) -> AsyncIterator[Peer]:
    """A connected client of the installed SDK on the wanted transport."""
    async with connect2(args) if MAJOR >= 2 else connect1(args) as peer:
        yield peer


@asynccontextmanager
async def connect1(args: Namespace) -> AsyncIterator[Peer]:
    from mcp import ClientSession

    url, headers = endpoint(args)
    if args.transport == "sse":
        transport = sse_client(url, headers=headers)
    elif args.transport == "streamable":
        from mcp.client.streamable_http import streamablehttp_client

        transport = streamablehttp_client(url, headers=headers)
    else:
        raise SystemExit(f"SDK {version('mcp')} does not speak {args.transport}")
    holder: list[Peer1] = []

    async def on_message(message: Any) -> None:
        if holder:
            await holder[0].on_message(message)

    async with transport as streams, ClientSession(streams[0], streams[1], message_handler=on_message) as session:
        started = await session.initialize()
        holder.append(Peer1(session, str(started.protocolVersion)))
        yield holder[0]


@asynccontextmanager
async def connect2(args: Namespace) -> AsyncIterator[Peer]:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    url, headers = endpoint(args)
    mode = {"modern": "auto", "pinned": "2026-07-28", "sse": "auto", "streamable": "legacy"}[args.transport]
    if args.transport == "sse":
        async with Client(sse_client(url, headers=headers), mode=mode) as client:
            yield Peer2(client)
        return
    timeout = httpx2.Timeout(10, read=60)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            yield Peer2(client)
