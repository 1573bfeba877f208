"""The server of the drawing page: local by default, without files, without requests to other machines."""

from pathlib import Path

import gradio as gr
from gradio.themes import Default
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handwriting.utils.errors import UserError

MOST_BYTES = 2_000_000  # of a request's body
# The page may load from and send to its own server only.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'"
)


class Guard:
    """Middleware that refuses files and bodies above MOST_BYTES, and sends the content security policy."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it to the page."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if scope["path"].rstrip("/").endswith("/upload"):
            await PlainTextResponse("No files are accepted.", 403)(scope, receive, send)
        elif not length.isdigit() or int(length) > MOST_BYTES:
            await PlainTextResponse(f"At most {MOST_BYTES:,} bytes are accepted.", 413)(scope, receive, send)
        else:
            await self.app(scope, _bounded(receive), _with_policy(send))


def launch(page: gr.Blocks, host: str, port: int, open_browser: bool) -> str:
    """Serve a page in the background and return its address. Raises UserError if the port is in use."""
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            mcp_server=False,
            footer_links=[],
            css_paths=str(Path(__file__).with_name("page.css")),
            theme=Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            app_kwargs={"middleware": [Middleware(Guard)]},
        )
    except OSError as error:
        raise UserError(
            f"Port {port} of {host} cannot be used; it may be in use. Choose another, such as --port=7861."
        ) from error
    return address


def _bounded(receive: Receive) -> Receive:
    """Return a receiver that disconnects if the body is longer than MOST_BYTES, whatever its content-length."""
    taken = 0

    async def read() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        return {"type": "http.disconnect"} if taken > MOST_BYTES else message

    return read


def _with_policy(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
        await send(message)

    return answer
