"""What differs between the versions of the Python SDK: connecting, progress, cancelling, questions, subscriptions,
attribute names."""

import inspect
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any, Protocol

import anyio
from mcp import types
from mcp.client.sse import sse_client

MAJOR = int(version("mcp").split(".")[0])
MAX_PAGES = 50
MAX_NOTICES = 100

OnProgress = Callable[..., Awaitable[None]]
NextUpdate = Callable[[], Awaitable[str]]


def field(value: Any, camel: str) -> Any:
    """An attribute that is camelCase in SDK 1.x and snake_case in SDK 2.x."""
    snake = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in camel)
    return getattr(value, snake, None) if MAJOR >= 2 else getattr(value, camel, None)


def protocol_error(error: BaseException) -> Any:
    """The JSON-RPC error (code, message) that the SDK raised, or None when it raised something else."""
    return getattr(error, "error", None)


class Respondent:
    """Who sits in front of the client: answers what the server asks, and remembers what it was asked."""

    FIELDS = {"username": "story", "email": "story@example.test", "name": "Ada", "color": "blue", "ok": True}
    SAMPLE = "Paris"
    ROOT = "file:///srv/story"

    def __init__(self) -> None:
        self.accepts = True
        self.asked: list[str] = []

    async def elicit(self, _: Any, params: Any) -> Any:
        self.asked.append(params.message)
        if not self.accepts:
            return types.ElicitResult(action="decline")
        fields = field(params, "requestedSchema")["properties"]
        return types.ElicitResult(action="accept", content={name: self.FIELDS[name] for name in fields})

    async def sample(self, _: Any, params: Any) -> Any:
        self.asked.append(params.messages[0].content.text)
        content = types.TextContent(type="text", text=self.SAMPLE)
        return types.CreateMessageResult(role="assistant", content=content, model="story")

    async def roots(self, _: Any) -> Any:
        return types.ListRootsResult(roots=[types.Root(uri=self.ROOT, name="story")])

    def callbacks(self, takes: Callable[..., Any]) -> dict[str, Any]:
        """The callbacks that `takes` knows. Each makes the SDK declare its capability."""
        offered = {
            "elicitation_callback": self.elicit,
            "sampling_callback": self.sample,
            "list_roots_callback": self.roots,
        }
        known = inspect.signature(takes).parameters
        return {name: callback for name, callback in offered.items() if name in known}


class Notices:
    """What the server said of its own accord, in order: (method, URI or "")."""

    HEARD = {"notifications/resources/updated", "notifications/tools/list_changed"}

    def __init__(self) -> None:
        self.sender, self.receiver = anyio.create_memory_object_stream[tuple[str, str]](MAX_NOTICES)

    def hear(self, message: Any) -> None:
        root = getattr(message, "root", message)
        if getattr(root, "method", "") in self.HEARD:
            self.sender.send_nowait((root.method, str(getattr(root.params, "uri", ""))))

    async def next(self) -> tuple[str, str]:
        return await self.receiver.receive()


class Peer(Protocol):
    """The part of a client that the story needs."""

    revision: str
    respondent: Respondent
    notices: Notices
    can_elicit: bool

    async def list_all(self, kind: str) -> tuple[list[Any], int]: ...
    async def read_resource(self, uri: str) -> Any: ...
    async def get_prompt(self, name: str, arguments: dict[str, str]) -> Any: ...
    async def call(self, name: str, arguments: dict[str, Any], on_progress: OnProgress | None = None) -> Any: ...
    async def cancel_after_first_progress(self, name: str, arguments: dict[str, Any]) -> None: ...
    def watching(self, uri: str) -> AbstractAsyncContextManager[NextUpdate]: ...


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

    def __init__(self, session: Any, revision: str, respondent: Respondent) -> None:
        self.session = session
        self.revision = revision
        self.respondent = respondent
        self.notices = Notices()
        # Elicitation came with revision 2025-06-18; 1.6.0 and 1.9.4 know nothing of it.
        self.can_elicit = "elicitation_callback" in inspect.signature(type(session)).parameters
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
        token = self.session._request_id
        self.listeners[token] = on_progress
        meta = {"_meta": types.RequestParams.Meta(progressToken=token)}
        params = types.CallToolRequestParams(name=name, arguments=arguments, **meta)
        request = types.ClientRequest(types.CallToolRequest(method="tools/call", params=params))
        return await self.session.send_request(request, types.CallToolResult)

    async def on_message(self, message: Any) -> None:
        """Message handler of the session: hands progress and notices to whoever waits for them."""
        self.notices.hear(message)
        root = getattr(message, "root", None)
        if getattr(root, "method", "") == "notifications/progress" and not self.has_callback:
            listener = self.listeners.get(root.params.progressToken)
            if listener:
                await listener(root.params.progress, root.params.total)

    @asynccontextmanager
    async def watching(self, uri: str) -> AsyncIterator[NextUpdate]:
        from pydantic import AnyUrl

        await self.session.subscribe_resource(AnyUrl(uri))
        yield lambda: next_update(self.notices)
        await self.session.unsubscribe_resource(AnyUrl(uri))

    async def cancel_after_first_progress(self, name: str, arguments: dict[str, Any]) -> None:
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
    """SDK 2.x: `Client`. Cancelling the task is enough: the SDK tells the server. Questions reach the same callbacks in
    both eras, whether they come as requests or as the result `input_required`."""

    can_elicit = True

    def __init__(self, client: Any, respondent: Respondent, notices: Notices) -> None:
        self.client = client
        self.revision = client.protocol_version
        self.respondent = respondent
        self.notices = notices

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

    @asynccontextmanager
    async def watching(self, uri: str) -> AsyncIterator[NextUpdate]:
        if is_modern(self.revision):
            async with self.client.listen(resource_subscriptions=[uri]) as subscription:

                async def next_event() -> str:
                    return (await anext(subscription)).uri

                yield next_event
            return
        await self.client.subscribe_resource(uri)
        yield lambda: next_update(self.notices)
        await self.client.unsubscribe_resource(uri)


def is_modern(revision: str) -> bool:
    return revision >= "2026-07-28"


async def next_update(notices: Notices) -> str:
    """The URI of the next `notifications/resources/updated`."""
    method, uri = await notices.next()
    if method != "notifications/resources/updated":
        raise RuntimeError(f"{method} in place of an update")
    return uri


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
    respondent = Respondent()
    holder: list[Peer1] = []

    async def on_message(message: Any) -> None:
        if holder:
            await holder[0].on_message(message)

    callbacks = {**respondent.callbacks(ClientSession), "message_handler": on_message}
    async with transport as streams, ClientSession(streams[0], streams[1], **callbacks) as session:
        started = await session.initialize()
        holder.append(Peer1(session, str(started.protocolVersion), respondent))
        yield holder[0]


@asynccontextmanager
async def connect2(args: Namespace) -> AsyncIterator[Peer]:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    url, headers = endpoint(args)
    mode = {"modern": "auto", "pinned": "2026-07-28", "sse": "auto", "streamable": "legacy"}[args.transport]
    respondent, notices = Respondent(), Notices()

    async def on_message(message: Any) -> None:
        notices.hear(message)

    options = {"mode": mode, "message_handler": on_message, **respondent.callbacks(Client)}
    if args.transport == "sse":
        async with Client(sse_client(url, headers=headers), **options) as client:
            yield Peer2(client, respondent, notices)
        return
    timeout = httpx2.Timeout(10, read=60)
    async with httpx2.AsyncClient(headers=headers, timeout=timeout) as http:
        async with Client(streamable_http_client(url, http_client=http), **options) as client:
            yield Peer2(client, respondent, notices)
