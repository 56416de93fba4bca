"""The page of tools/attention_editor.py in a real browser: Debian's chromium, driven by playwright."""

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile

import cv2
import numpy as np
import pytest

from mmresattn.datasets.attention_maps import read_attention_map
from tests.conftest import ROOT, environment
from tests.test_apis.test_attention_editor import NETS, write

CHROMIUM = shutil.which('chromium')
if CHROMIUM is None:
    pytest.skip('There is no chromium: apt-get install chromium.', allow_module_level=True)
pytest.importorskip('gradio', reason='The page needs gradio: pip install -r requirements/editor.txt.')
sync_api = pytest.importorskip('playwright.sync_api', reason='No playwright: pip install playwright.')

CHANGED = (
    "[...document.querySelectorAll('.editor tbody tr')].some(r => r.cells[1].textContent !== r.cells[2].textContent)"
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    write(folder, NETS['abn'])
    rng = np.random.default_rng(0)
    for name in ('bee/0', 'bee/1', 'cat/2', 'ant/3'):
        file = folder / 'images' / f'{name}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), rng.integers(0, 256, (32, 32, 3), np.uint8))
    return folder


def serve(folder):
    """A server as a person starts it, and its address."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    args = ['--config', folder / 'net.py', '--checkpoint', folder / 'net.pth', '--images', folder / 'images']
    command = [sys.executable, ROOT / 'tools/attention_editor.py', *args, '--out', folder / 'out', '--port', str(port)]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    address = f'http://127.0.0.1:{port}'
    for _ in range(900):
        try:
            urllib.request.urlopen(address, timeout=5)
            return process, address
        except OSError:
            assert process.poll() is None, process.stdout.read().decode()[-2000:]
            time.sleep(0.1)
    raise TimeoutError(address)


@pytest.fixture(scope='module')
def address(folder):
    process, address = serve(folder)
    yield address
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope='module')
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu'])
        yield browser
        browser.close()


def visit(context, address):
    """A page that has shown its first image, and the other hosts that it asked for something."""
    page, others = context.new_page(), []
    page.on('request', lambda request: others.append(request.url))
    page.goto(address)
    page.wait_for_selector('.editor tbody tr', timeout=60_000)
    return page, [url for url in others if not url.startswith((address, 'data:', 'blob:'))]


def stroke(page, start, end, wait=True):
    """Paint from one place to another, given as shares of the picture; milliseconds until the scores were there."""
    canvas = page.locator('.editor canvas')
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    at = [(box['x'] + x * box['width'], box['y'] + y * box['height']) for x, y in (start, end)]
    root = page.locator(':has(> .editor)').last
    asked = answered(page)
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=4)
    page.mouse.up()
    if wait:
        page.wait_for_function(f'{ANSWERED} > {asked}', polling=10)
    return int(root.get_attribute('data-milliseconds'))


ANSWERED = "Number(document.querySelector(':has(> .editor)[data-answered]')?.dataset.answered ?? 0)"


def answered(page):
    return page.evaluate(ANSWERED)


def scores(page):
    return page.locator('.editor tbody').inner_text()


def choose(page, name):
    asked = answered(page)
    page.locator('.editor .name').fill(name)
    page.locator('.editor .name').press('Enter')
    page.wait_for_function(f'{ANSWERED} > {asked}')


def test_paint_save_reload_export(browser, address, folder, tmp_path):
    context = browser.new_context(viewport=dict(width=1000, height=800), accept_downloads=True)
    page, others = visit(context, address)
    assert not others, 'the page asks other hosts'
    before = scores(page)
    page.locator('.editor .size').fill('50')
    milliseconds = stroke(page, (0.2, 0.2), (0.8, 0.2))
    page.wait_for_function(CHANGED)
    painted = scores(page)
    print(f'{milliseconds} ms from the end of a stroke to its scores')
    assert painted != before
    page.locator('.editor .out').check()
    stroke(page, (0.2, 0.8), (0.8, 0.8))
    both = scores(page)
    assert both != painted
    page.screenshot(path=tmp_path / 'wide.png')

    page.keyboard.press('z')  # undo
    page.wait_for_function(f'document.querySelector(".editor tbody").innerText === {json.dumps(painted)}')
    page.reload()  # before it was saved: the tab keeps it
    page.wait_for_selector('.editor tbody tr')
    assert scores(page) == painted
    page.locator('.editor .save').click()
    page.wait_for_function("document.querySelector('.editor .status').textContent.startsWith('Saved')")
    (entry,) = [json.loads(line) for line in (folder / 'out/manifest.jsonl').read_text().splitlines()]
    assert (entry['image'], entry['layer'], entry['label']) == ('ant/3.png', 'neck.map', 0) and len(
        entry['strokes']
    ) == 1
    saved = read_attention_map(folder / 'out' / entry['map'])
    assert saved.shape == (16, 16) and saved[3, 4:12].min() > 0.99  # where it was painted
    page.reload()
    page.wait_for_selector('.editor tbody tr')
    assert scores(page) == painted

    with page.expect_download() as download:
        page.locator('.editor .export').click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert sorted(archive.namelist()) == ['manifest.jsonl', entry['map']]
    page.locator('.editor .reset').click()
    page.wait_for_function(f'document.querySelector(".editor tbody").innerText === {json.dumps(before)}')

    page.set_viewport_size(dict(width=390, height=844))
    assert page.evaluate('document.documentElement.scrollWidth') <= 390  # nothing to scroll sideways
    page.screenshot(path=tmp_path / 'narrow.png')
    context.close()

    # Somebody else finds what was saved, not what the first one did since.
    context = browser.new_context()
    page, _ = visit(context, address)
    assert scores(page) == painted
    context.close()


def test_two_people_do_not_mix(browser, address):
    pages = [visit(browser.new_context(), address)[0] for _ in range(2)]
    for page in pages:
        choose(page, 'bee/0.png')
    plain = [scores(page) for page in pages]
    assert plain[0] == plain[1]
    places = [((0.1, 0.1), (0.9, 0.1)), ((0.1, 0.9), (0.9, 0.9))]
    pages[1].locator('.editor .out').check()
    for page, place in zip(pages, places):  # without waiting for the first
        asked = answered(page)
        stroke(page, *place, wait=False)
        page.asked = asked
    for page in pages:
        page.wait_for_function(f'{ANSWERED} > {page.asked}')
    together = [scores(page) for page in pages]
    assert together[0] != together[1] and plain[0] not in together
    for page, expected in zip(pages, together):  # each alone
        page.reload()
        page.wait_for_selector('.editor tbody tr')
        assert scores(page) == expected
    for page in pages:
        page.context.close()


def test_keyboard_walks_through_mistakes(browser, address):
    context = browser.new_context()
    page, _ = visit(context, address)
    names = ['ant/3.png', 'bee/0.png', 'bee/1.png', 'cat/2.png']
    for name in [*names[1:], names[0]]:
        page.keyboard.press('ArrowRight')
        page.wait_for_function(f"document.querySelector('.editor .name').value === '{name}'")
    page.keyboard.press('ArrowLeft')
    page.wait_for_function(f"document.querySelector('.editor .name').value === '{names[-1]}'")
    page.locator('.editor .mistakes').check()
    page.wait_for_function("document.querySelector('.editor .status').textContent.includes('are wrong')")
    wrong = page.evaluate("[...document.querySelectorAll('.editor datalist option')].map(o => o.value)")
    assert 0 < len(wrong) < 4
    page.locator('.editor').focus()
    walked = []
    for _ in wrong:
        asked = answered(page)
        page.keyboard.press('ArrowRight')
        page.wait_for_function(f'{ANSWERED} > {asked}')
        walked.append(page.locator('.editor .name').input_value())
        label = page.locator('.editor .said').inner_text().removeprefix('This is: ')
        assert label == walked[-1].split('/')[0] != page.locator('.editor tbody tr td').first.inner_text()
    assert sorted(walked) == wrong
    context.close()


def test_large_requests_and_uploads_are_refused(address):
    def post(path, body=b'', **headers):
        connection = http.client.HTTPConnection(address.removeprefix('http://'), timeout=20)
        connection.request('POST', path, body, {key.replace('_', '-'): value for key, value in headers.items()})
        return connection.getresponse().status

    # Refused by what it announces, before it comes.
    assert post('/gradio_api/component_server', Content_Length='2000001') == 413
    assert post('/gradio_api/component_server', Transfer_Encoding='chunked') == 411
    part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc\r\n--x--\r\n'
    assert post('/gradio_api/upload', part, Content_Type='multipart/form-data; boundary=x') == 413
    for path in ('/gradio_api/file=/etc/hostname', '/gradio_api/file=../../net.pth'):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(address + path)
        assert error.value.code in (403, 404)
