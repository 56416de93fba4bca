"""The server of the editor's page: what :class:`AttentionEditor` does, by HTTP."""

import atexit
import base64
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..apis.corrections import available_uses
from ..datasets.correction_log import ReplacedMeanwhile
from ..datasets.strokes import paint, raster_shape
from ..visualization import colour_table, short_name
from .security import Guard, is_loopback
from .session import AttentionEditor
from .training import Training

STATIC = Path(__file__).parent / 'static'
THUMBNAIL, THUMBNAILS = 112, 1000  # pixels on the longer side; how many are kept, some kilobytes each
COLOURS = ('inferno', 'viridis', 'cividis', 'gray')
OUTSIDE = 65535  # in a map sent to the page: not seen by the network
CONNECTIONS, HEAD_SECONDS = 200, 10
STATUS = {ReplacedMeanwhile: 409, KeyError: 404, FileNotFoundError: 404, ImportError: 501}


class Api:
    """What the page asks for, by the last part of the address.

    Each method takes the request's arguments by name and returns what becomes JSON, or a response. Nothing is kept of
    who asked: drafts are the page's, and saved maps the folder's.

    Args:
        editor (AttentionEditor): The editor.
    """

    gets = ('start', 'progress', 'image', 'thumbnail', 'superpixels', 'export', 'training', 'training_picture')
    posts = ('look', 'evidence', 'copy', 'save', 'take_back', 'bring_back', 'skip', 'train', 'stop_training')

    def __init__(self, editor: AttentionEditor) -> None:
        self.editor, self._training = editor, Training(editor)
        atexit.register(self._training.stop)
        self._thumbnail = lru_cache(THUMBNAILS)(lambda name, _: _jpeg(editor.picture(name, THUMBNAIL), 85))

    def start(self) -> dict:
        """All that does not change while the server runs, and what does not fit together in the folder."""
        editor = self.editor
        layers = editor.layers[::-1]  # maps of late layers come first: there a stroke says most
        return dict(
            names=editor.names,
            labels=[editor.label(name) for name in editor.names],
            classes=[str(name) for name in editor.classes],
            layers=[dict(name=name, title=short_name(name), kind=editor.kinds[name]) for name in layers],
            annotator=editor.log.annotator,
            images=str(editor.images),
            out=str(editor.out),
            notes=editor.notes(),
            uses=available_uses(editor.inferencer.config.model),
            colours={name: base64.b64encode(colour_table(name).tobytes()).decode() for name in COLOURS},
        )

    def progress(self, after: int = 0) -> dict:
        """Answers of the network from number ``after`` on, as they come, and the state of all images."""
        editor = self.editor
        editor.log.refresh()
        numbers = {name: number for number, name in enumerate(editor.names)}
        answers = list(islice(list(editor.answers.items()), int(after), None))
        states = {numbers[name]: editor.state(name) for name in editor.names}
        return dict(
            answers=[[numbers[name], answer.label, round(answer.score, 4)] for name, answer in answers],
            broken={numbers[name]: text for name, text in list(editor.broken.items())},
            states={number: state for number, state in states.items() if state != 'untouched'},
            done=len(editor.answers) + len(editor.broken) == len(editor.names),
        )

    def image(self, name: str) -> Response:
        """The image, at most 1024 pixels wide or high."""
        picture = self.editor.picture(name)
        if max(picture.shape) > 256:
            return _jpeg_response(_jpeg(picture, 92))
        return Response(cv2.imencode('.png', picture[..., ::-1])[1].tobytes(), media_type='image/png')

    def thumbnail(self, name: str) -> Response:
        """The image in small."""
        return _jpeg_response(self._thumbnail(name, self.editor.version(name)))

    def look(self, name: str, layer: str, strokes: Sequence[Mapping] | None) -> dict:
        """What the network says with these strokes; without, with those that are saved."""
        editor = self.editor
        entry = editor.log.saved.get((name, layer))
        if strokes is None:
            strokes = entry['strokes'] if entry else []
        before = editor.predict(name)
        shape = raster_shape(before.view.original)
        after = editor.edit(name, layer, paint(strokes, before.view.original)) if strokes else before
        scores = torch.stack([before.scores, after.scores], 1).cpu().numpy()  # classes, 2
        top = np.argsort(-scores.max(1), kind='stable')[:5].tolist()
        return dict(
            strokes=strokes,
            saved=entry and {key: entry[key] for key in ('annotator', 'time', 'sha256')},
            takenBack=(name, layer) in editor.log.taken_back,
            skipped=name in editor.log.skipped,
            map=_encode(editor.map_over_image(after, layer, [max(1, side // 2) for side in shape])),
            range=[round(float(after.maps[layer].min()), 4), round(float(after.maps[layer].max()), 4)],
            explanation=editor.explain_layer(before, layer),
            scores=[[label, *scores[label].astype(float).round(5).tolist()] for label in top],
            answers=scores.argmax(0).tolist(),
            rose=int((scores[:, 1] - scores[:, 0]).argmax()) if strokes else None,
            networkSeconds=round(after.seconds, 4) if strokes else None,  # otherwise it is known already
        )

    def evidence(self, name: str, label: int, layer: str, strokes: Sequence[Mapping]) -> dict:
        """Grad-CAM of a class, with these strokes."""
        shape = self.editor.predict(name).view.original
        edit = (layer, paint(strokes, shape)) if strokes else None
        return dict(map=_encode(self.editor.evidence(name, label, edit)))

    def superpixels(self, name: str, count: int = 60) -> dict:
        """Outlines of areas of similar colour."""
        return dict(outlines=self.editor.superpixels(name, int(count)))

    def copy(self, name: str, layer: str) -> dict:
        """The map of an image, as a stroke that can be laid over another one."""
        attention = self.editor.own_map(name, layer)
        side = max(attention.shape)
        if side > 64:
            size = tuple(max(1, round(64 * length / side)) for length in attention.shape[::-1])
            attention = cv2.resize(attention, size, interpolation=cv2.INTER_AREA)
        png = cv2.imencode('.png', np.rint(attention * 65535).astype(np.uint16))[1]
        return dict(stroke=dict(tool='map', png=base64.b64encode(png).decode(), strength=1))

    def save(self, name: str, layer: str, strokes: Sequence[Mapping], replaces: str | None | bool) -> dict:
        """Save the map. ``replaces`` is what the page saw as saved; true replaces anything."""
        painted = paint(strokes, self.editor.predict(name).view.original)
        entry = self.editor.save(name, layer, painted, strokes, replaces)
        return dict(saved={key: entry[key] for key in ('annotator', 'time', 'sha256')}, file=entry['map'])

    def take_back(self, name: str, layer: str) -> dict:
        """Take the saved map back."""
        self.editor.log.take_back(name, layer)
        return {}

    def bring_back(self, name: str, layer: str) -> dict:
        """Bring the map back that was taken back."""
        self.editor.log.bring_back(name, layer)
        return {}

    def skip(self, name: str, skip: bool) -> dict:
        """Note that an image needs no correction."""
        if name not in self.editor.names:
            raise KeyError(f'{name!r} is none of the images.')
        self.editor.log.skip(name, bool(skip))
        return {}

    def export(self) -> Response:
        """Manifest and maps as a zip."""
        headers = {'content-disposition': 'attachment; filename="attention_maps.zip"'}
        return Response(self.editor.export(), media_type='application/zip', headers=headers)

    def train(self, use: str) -> dict:
        """Start a training from the corrections."""
        self._training.start(use)
        return self._training.status()

    def stop_training(self) -> dict:
        """Tell it to stop."""
        self._training.stop()
        return {}

    def training(self) -> dict:
        """How far it is."""
        return self._training.status()

    def training_picture(self, name: str) -> Response:
        """A picture of the comparison that follows it."""
        return FileResponse(self._training.picture(name))


def build_app(
    editor: AttentionEditor, hosts: Sequence[str] = (), loopback: bool = True, password: str | None = None
) -> Guard:
    """The editor as an ASGI application.

    Args:
        editor (AttentionEditor): The editor.
        hosts, loopback, password: Of :class:`~mmresattn.editor.security.Guard`.

    Returns:
        Guard: The application.
    """
    api = Api(editor)

    async def page(_: Request) -> Response:
        return FileResponse(STATIC / 'index.html', headers={'cache-control': 'no-cache'})

    async def token(_: Request) -> Response:
        return JSONResponse(dict(token=guard.token), headers={'cache-control': 'no-store'})

    routes = [Route('/', page), Route('/api/token', token)]
    routes += [Route(f'/api/{name}', _endpoint(getattr(api, name)), methods=['GET']) for name in api.gets]
    routes += [Route(f'/api/{name}', _endpoint(getattr(api, name)), methods=['POST']) for name in api.posts]
    routes.append(Mount('/static', StaticFiles(directory=STATIC)))
    guard = Guard(Starlette(routes=routes), hosts, loopback, password)
    return guard


def _endpoint(action: Callable[..., dict | Response]) -> Callable:
    async def endpoint(request: Request) -> Response:
        try:
            arguments: Any = await request.json() if request.method == 'POST' else dict(request.query_params)
            if not isinstance(arguments, dict):
                raise ValueError('The arguments of a request are a JSON object.')
            answer = await run_in_threadpool(partial(action, **arguments))
        except (KeyError, ValueError, TypeError, OSError, ImportError) as error:
            status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400)
            text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            return JSONResponse(dict(error=text or type(error).__name__), status)
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    return endpoint


def _encode(attention: np.ndarray) -> dict:
    """A map (H, W) in [0, 1] for the page: 16-bit numbers, of which 65535 stands for NaN."""
    numbers = np.where(np.isnan(attention), OUTSIDE, np.rint(np.nan_to_num(attention) * (OUTSIDE - 1)))
    height, width = attention.shape
    return dict(height=height, width=width, data=base64.b64encode(numbers.astype('<u2').tobytes()).decode())


def _jpeg(picture: np.ndarray, quality: int) -> bytes:
    return cv2.imencode('.jpg', picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def _jpeg_response(content: bytes) -> Response:
    return Response(content, media_type='image/jpeg', headers={'cache-control': 'private, max-age=600'})


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that closes connections on which the head of a request takes more than ten seconds to come."""

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._check, None)

    def _check(self, last: object) -> None:
        """Close the connection if no request has come since the last check and none is being answered."""
        if self.transport.is_closing():
            return
        if self.cycle is last and (last is None or last.response_complete):
            self.transport.close()
        else:
            self.loop.call_later(HEAD_SECONDS, self._check, self.cycle)


def serve(
    editor: AttentionEditor,
    host: str = '127.0.0.1',
    port: int = 7860,
    hosts: Sequence[str] = (),
    password: str | None = None,
) -> None:
    """Serve the page until the process is interrupted. Meanwhile the network predicts all images.

    Args:
        editor (AttentionEditor): The editor.
        host (str): Address to listen on. Defaults to the loopback.
        port (int): Port. Defaults to 7860.
        hosts (Sequence[str]): Further names of the host, such as that of a proxy. Defaults to none.
        password (str, optional): What the page asks for. Defaults to none.

    Raises:
        ValueError: If an address other than the loopback has no password.
    """
    if not is_loopback(host) and not password:
        raise ValueError(f'Everybody who reaches {host} could use the page: set a password.')
    app = build_app(editor, hosts, is_loopback(host), password)
    threading.Thread(target=editor.predict_all, daemon=True).start()
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level='warning',
        http=PatientProtocol,
        ws='none',
        lifespan='off',
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=2,
    )
