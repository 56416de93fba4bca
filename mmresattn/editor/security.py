"""Who may ask the server for what: hosts, origins, tokens, passwords, and the size and pace of requests."""

import asyncio
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY = 2_000_000  # bytes of the longest request: some ten thousand points
BODY_SECONDS = 20  # in which a request must have come
COOKIE = 'attention_editor'
TOKEN = 'x-editor-token'
HEADERS = {
    'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'referrer-policy': 'no-referrer',
    'cross-origin-resource-policy': 'same-origin',
    'cross-origin-opener-policy': 'same-origin',
}


def is_loopback(host: str) -> bool:
    """Whether a server on this address is reached from its own machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


class Guard:
    """ASGI middleware around the editor's server.

    - The Host of every request must be an IP address, ``localhost`` or a name of this machine. A name that an attacker
      points to this address (DNS rebinding) is refused.
    - The Origin, where a browser sends one, must be that host, and a browser that says that another site asks is
      refused: no other page reads or writes anything.
    - Requests that change something need the token that the page got from the server.
    - With a password, everything else needs the cookie that it gives. It can be tried once a second.
    - Bodies are read here, with a limit of size and time.

    Args:
        app (ASGIApp): What is guarded.
        hosts (Sequence[str]): Further names of the host, such as that of a proxy. Defaults to none.
        loopback (bool): Whether only addresses of the loopback are hosts. Defaults to True.
        password (str, optional): Defaults to none.

    Attributes:
        token (str): Of the page.
    """

    def __init__(
        self, app: ASGIApp, hosts: Sequence[str] = (), loopback: bool = True, password: str | None = None
    ) -> None:
        self.app, self.loopback, self.password = app, loopback, password
        names = [] if loopback else [socket.gethostname(), socket.getfqdn()]
        self.hosts = {name.lower() for name in ('localhost', *names, *hosts)}
        self.token, self.cookie = secrets.token_urlsafe(), secrets.token_urlsafe()
        self.attempts = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] != 'http':
            if scope['type'] == 'lifespan':
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                message['headers'] += [(key.encode(), value.encode()) for key, value in HEADERS.items()]
            await send(message)

        request = Request(scope, receive)
        refusal = self._foreign(request.headers) or await self._unknown(request)
        if refusal is None and request.method not in ('GET', 'HEAD'):
            given = request.headers.get(TOKEN, '')
            if request.url.path != '/login' and not hmac.compare_digest(given.encode(), self.token.encode()):
                refusal = PlainTextResponse('The page is from before a restart of the server. Reload it.', 403)
            else:
                body = await self._read(request)
                if isinstance(body, bytes):
                    receive = _replay(body)
                    if request.url.path == '/login':
                        refusal = await self._log_in(parse_qs(body.decode(errors='replace')).get('password', [''])[0])
                else:
                    refusal = body
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)

    def _foreign(self, headers: Headers) -> Response | None:
        host = headers.get('host', '')
        try:
            name = (urlsplit(f'//{host}').hostname or '').lower()
        except ValueError:
            name = ''
        if name not in self.hosts and not self._is_address(name):
            return PlainTextResponse(
                f'{name!r} is not a name of this server. Open it by its address, or start it with --allow-host.', 421
            )
        origin = headers.get('origin')
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return PlainTextResponse('Pages of other origins may not use this server.', 403)
        if headers.get('sec-fetch-site', 'none') not in ('none', 'same-origin'):
            if headers.get('sec-fetch-mode') != 'navigate' or headers.get('sec-fetch-dest') != 'document':
                return PlainTextResponse('Pages of other sites may not use this server.', 403)
        return None

    def _is_address(self, name: str) -> bool:
        try:
            return ipaddress.ip_address(name).is_loopback or not self.loopback
        except ValueError:
            return False

    async def _unknown(self, request: Request) -> Response | None:
        """Ask who has not yet logged in for the password. The printed link has it as ``?token=``."""
        if self.password is None:
            return None
        if hmac.compare_digest(request.cookies.get(COOKIE, '').encode(), self.cookie.encode()):
            return None
        if request.url.path == '/login' or request.url.path.startswith('/static/'):
            return None
        if request.method == 'GET' and 'token' in request.query_params:
            return await self._log_in(request.query_params['token'])
        if request.method == 'GET' and request.url.path == '/':
            return RedirectResponse('/static/login.html', 303)
        return PlainTextResponse('Log in first.', 401)

    async def _log_in(self, password: str) -> Response:
        if self.password is None or not hmac.compare_digest(password.encode(), self.password.encode()):
            async with self.attempts:  # one after the other, whoever asks
                await asyncio.sleep(1)
            return RedirectResponse('/static/login.html?wrong', 303)
        response = RedirectResponse('/', 303)
        response.set_cookie(COOKIE, self.cookie, httponly=True, samesite='strict')
        return response

    async def _read(self, request: Request) -> bytes | Response:
        length = request.headers.get('content-length', '')
        if not length.isdigit():
            return PlainTextResponse('A request must say its length.', 411)
        if int(length) > BODY:
            return PlainTextResponse(f'A request has at most {BODY} bytes. Use fewer strokes.', 413)
        try:
            return await asyncio.wait_for(request.body(), BODY_SECONDS)  # no longer than it says
        except asyncio.TimeoutError:
            return PlainTextResponse('The request came too slowly.', 408, {'connection': 'close'})


def _replay(body: bytes) -> Receive:
    async def receive() -> Message:
        return {'type': 'http.request', 'body': body, 'more_body': False}

    return receive
