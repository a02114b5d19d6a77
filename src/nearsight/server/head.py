"""HEAD requests, by which monitors and proxies ask whether something is there."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Their answers have no end that HEAD could wait for.
_STREAMS = "/events"


class HeadRequests:
    """Answers HEAD as GET, without the body; FastAPI's routes know only the methods that they name.

    Parameters
    ----------
    app : ASGI application
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or scope["path"].endswith(_STREAMS):
            await self.app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if "body" in message else message)

        await self.app({**scope, "method": "GET"}, receive, send_head)
