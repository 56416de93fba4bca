"""The server by HTTP, also as hostile pages and clients use it."""

import asyncio
import base64
import http.client
import io
import json
import resource
import socket
import threading
import time
import zipfile

import cv2
import numpy as np
import pytest

pytest.importorskip('starlette', reason='The page needs Starlette: pip install -r requirements/editor.txt.')
import httpx2 as httpx
import uvicorn
from starlette.testclient import TestClient

from mmresattn.editor import AttentionEditor, server
from mmresattn.editor.server import PatientProtocol, build_app, serve
from tests.test_editor.test_session import NETS, write

NAME, LAYER = 'bee/0.png', 'neck.map'
STROKE = dict(points=[[0.2, 0.2], [0.8, 0.2]], size=0.4, value=0, strength=1)
HOME = 'http://127.0.0.1:7860'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('server')
    rng = np.random.default_rng(0)
    for name in (NAME, 'bee/1.png', 'cat/2.png'):
        (folder / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / 'images' / name), rng.integers(0, 256, (32, 32, 3), np.uint8))
    return *write(folder, NETS['abn']), folder / 'images'


@pytest.fixture
def editor(files, tmp_path):
    return AttentionEditor(*files, tmp_path / 'out', 'cpu', 'Ann')


@pytest.fixture
def client(editor):
    return connect(build_app(editor))


def connect(app, base=HOME):
    client = TestClient(app, base_url=base, follow_redirects=False)
    token = client.get('/api/token')
    client.headers['x-editor-token'] = token.json()['token'] if token.status_code == 200 else ''
    return client


def edit(**other):
    return dict(name=NAME, layer=LAYER, strokes=[STROKE]) | other


def test_look_save_take_back(client, editor):
    start = client.get('/api/start').json()
    assert (start['names'], start['labels']) == (editor.names, [1, 1, 2])
    assert len(base64.b64decode(start['colours']['inferno'])) == 768
    plain = client.post('/api/look', json=edit(strokes=None)).json()
    assert plain['strokes'] == [] and plain['saved'] is None and plain['rose'] is None
    sent = plain['map']
    numbers = np.frombuffer(base64.b64decode(sent['data']), '<u2').reshape(sent['height'], sent['width']) / 65534
    expected = editor.map_over_image(editor.predict(NAME), LAYER, (128, 128))
    np.testing.assert_allclose(numbers, expected, atol=1e-5)
    painted = client.post('/api/look', json=edit()).json()
    before, after = (dict((row[0], row[i]) for row in painted['scores']) for i in (1, 2))
    assert before == {row[0]: row[1] for row in plain['scores']} and before != after
    assert painted['rose'] == max(after, key=lambda label: after[label] - before[label])

    saved = client.post('/api/save', json=edit(replaces=None)).json()['saved']
    assert saved['annotator'] == 'Ann' and client.post('/api/look', json=edit(strokes=None)).json()['saved'] == saved
    assert client.get('/api/progress').json()['states'] == {'0': 'corrected'}
    refused = client.post('/api/save', json=edit(replaces=None))
    assert refused.status_code == 409 and 'Ann saved this map' in refused.json()['error']
    assert client.post('/api/save', json=edit(replaces=saved['sha256'])).status_code == 200
    archive = zipfile.ZipFile(io.BytesIO(client.get('/api/export').content))
    assert archive.namelist() == ['manifest.jsonl', f'maps/{LAYER}/bee/0.png']
    assert client.post('/api/take_back', json=dict(name=NAME, layer=LAYER)).json() == {}
    assert client.post('/api/look', json=edit(strokes=None)).json()['takenBack']
    assert client.post('/api/bring_back', json=dict(name=NAME, layer=LAYER)).json() == {}
    assert client.post('/api/skip', json=dict(name='cat/2.png', skip=True)).json() == {}
    editor.predict_all()
    progress = client.get('/api/progress?after=1').json()
    assert progress['done'] and progress['states'] == {'0': 'corrected', '2': 'skipped'}
    assert [row[:2] for row in progress['answers']] == [[i, editor.answers[editor.names[i]].label] for i in (1, 2)]


def test_copied_map_and_pictures(client, editor):
    stroke = client.post('/api/copy', json=dict(name='bee/1.png', layer=LAYER)).json()['stroke']
    result = client.post('/api/look', json=edit(strokes=[stroke])).json()
    low, high = editor.predict('bee/1.png').maps[LAYER].aminmax()
    np.testing.assert_allclose(result['range'], [low, high], atol=0.05)
    image = cv2.imdecode(np.frombuffer(client.get('/api/image', params=dict(name=NAME)).content, np.uint8), 1)
    np.testing.assert_array_equal(image, cv2.imread(str(editor.images / NAME)))
    assert client.get('/api/thumbnail', params=dict(name=NAME)).headers['content-type'] == 'image/jpeg'


def test_mistakes_are_told_in_words(client):
    for what, arguments, status, words in (
        ('look', edit(name='../secret'), 404, 'none of the 3 images'),
        ('look', edit(layer='no'), 404, 'no'),
        ('look', edit(strokes=[dict(tool='x')]), 400, 'tool'),
        ('save', edit(strokes=[], replaces=None), 400, 'Nothing is painted'),
        ('look', [], 400, 'JSON object'),
        ('look', dict(nothing=1), 400, 'argument'),
        ('skip', dict(name='x', skip=True), 404, 'none of the images'),
    ):
        answer = client.post(f'/api/{what}', json=arguments)
        assert (answer.status_code, words in answer.json()['error']) == (status, True), answer.text


@pytest.mark.parametrize(
    'headers',
    [
        {'origin': 'http://evil.example'},
        {'origin': 'http://127.0.0.1:3000'},  # another server on this machine
        {'origin': 'null'},
        {'host': 'evil.example'},  # DNS rebinding: the browser believes that the page and this server are one
        {'host': 'evil.example:7860', 'origin': 'http://evil.example:7860'},
        {'host': '10.0.0.1:7860'},
        {'host': '127.0.0.1.evil.example'},
        {'host': '['},
        {'sec-fetch-site': 'cross-site'},
        {'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'no-cors'},
    ],
    ids=str,
)
def test_pages_of_other_origins_neither_read_nor_write(client, editor, headers):
    for answer in (
        client.post('/api/save', json=edit(replaces=True), headers=headers),  # even with the right token
        client.get('/api/token', headers=headers),
        client.get('/api/start', headers=headers),
        client.get('/api/thumbnail', params=dict(name=NAME), headers=headers),
    ):
        assert answer.status_code in (403, 421) and b'token' not in answer.content
        assert 'access-control-allow-origin' not in answer.headers
    assert not editor.log.saved


def test_own_page_may(client, editor):
    own = {'origin': HOME, 'sec-fetch-site': 'same-origin'}
    assert client.post('/api/save', json=edit(replaces=True), headers=own).status_code == 200 and editor.log.saved
    for host in ('localhost:7860', '[::1]:7860', '127.0.0.1'):
        assert client.get('/api/token', headers={'host': host}).status_code == 200
    link = {'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document'}
    page = client.get('/', headers=link)  # a link in a mail
    assert page.status_code == 200 and "default-src 'none'" in page.headers['content-security-policy']


def test_writes_need_the_token(client, editor):
    for token in ('', 'wrong', 'ä'.encode()):
        answer = client.post('/api/save', json=edit(replaces=True), headers={'x-editor-token': token})
        assert answer.status_code == 403
    assert client.put('/api/save').status_code in (405, 411) and not editor.log.saved


def test_paths_stay_inside(client):
    for path in ('/static/../server.py', '/static/%2e%2e/server.py', '/static//etc/hostname', '/..%2f..%2fetc/passwd'):
        assert client.get(path).status_code == 404
    for name in ('../../net.pth', '/etc/hostname', 'bee/../bee/0.png', 'bee/0.png\0'):
        assert client.get('/api/image', params=dict(name=name)).status_code == 404
        assert client.get('/api/thumbnail', params=dict(name=name)).status_code == 404


def test_password(editor, monkeypatch):
    client = connect(build_app(editor, ['editor.example'], False, 'secret'), 'http://editor.example')
    for path in ('/api/token', '/api/start', f'/api/image?name={NAME}', '/api/export'):
        assert client.get(path).status_code == 401
    assert client.get('/').headers['location'] == '/static/login.html'
    waits = []

    async def wait(seconds):
        waits.append(seconds)

    with monkeypatch.context() as patch:
        patch.setattr('mmresattn.editor.security.asyncio.sleep', wait)
        assert 'wrong' in client.post('/login', data=dict(password='guess')).headers['location']
    assert waits == [1] and client.get('/api/start').status_code == 401
    assert client.post('/login', data=dict(password='secret')).headers['location'] == '/'
    assert client.get('/api/start').status_code == 200
    assert client.post('/api/save', json=edit(replaces=True)).status_code == 403  # the cookie is not the token
    assert client.get('/api/start', headers={'host': 'evil.example'}).status_code == 421
    by_link = connect(client.app, 'http://192.168.1.2')
    assert by_link.get('/?token=secret').headers['location'] == '/' and by_link.get('/api/start').status_code == 200
    with pytest.raises(ValueError, match='set a password'):
        serve(editor, '0.0.0.0')


@pytest.fixture
def address(editor, monkeypatch):
    """A real server, as bodies and heads that come slowly need one."""
    monkeypatch.setattr(server, 'HEAD_SECONDS', 0.3)
    monkeypatch.setattr('mmresattn.editor.security.BODY_SECONDS', 0.3)
    config = uvicorn.Config(
        build_app(editor), port=0, http=PatientProtocol, ws='none', lifespan='off', log_level='critical'
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.02)
    yield running.servers[0].sockets[0].getsockname()
    running.should_exit = True
    thread.join()


def test_large_and_slow_requests(address, editor):
    def post(head, body=b''):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(f'POST /api/look HTTP/1.1\r\nHost: 127.0.0.1\r\n{head}'.encode() + body)
            return connection.recv(4096).split(b'\r\n')[0]

    connection = http.client.HTTPConnection(*address)
    connection.request('GET', '/api/token')
    token = 'x-editor-token: ' + json.loads(connection.getresponse().read())['token'] + '\r\n'
    assert b'413' in post(f'{token}content-length: 2000001\r\n\r\n')  # refused by what it announces
    assert b'411' in post(f'{token}transfer-encoding: chunked\r\n\r\n')
    assert b'408' in post(f'{token}content-length: 100\r\n\r\n', b'{"name"')  # and then nothing
    assert post(token) == b''  # a head without an end: closed
    body = json.dumps(edit()).encode()
    assert b'200' in post(f'{token}content-length: {len(body)}\r\n\r\n', body)


def test_memory_over_500_sessions(editor):
    app = build_app(editor)

    async def visit(number):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOME) as client:
            token = (await client.get('/api/token')).json()['token']
            arguments = edit(name=editor.names[number % 3], strokes=[STROKE] * (1 + number % 5))
            answer = await client.post('/api/look', json=arguments, headers={'x-editor-token': token})
            assert answer.status_code == 200

    async def visits(numbers):
        for number in numbers:
            await visit(number)

    asyncio.run(visits(range(20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(visits(range(500)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kilobytes
