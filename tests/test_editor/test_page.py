"""The page in a real browser: Debian's chromium, driven by Playwright."""

import hashlib
import json
import re
import shutil
import threading
import time

import cv2
import numpy as np
import pytest

from mmresattn.datasets.attention_maps import read_attention_map
from mmresattn.editor import AttentionEditor, training
from tests.test_editor.test_session import NETS, write

CHROMIUM = shutil.which('chromium')
if CHROMIUM is None:
    pytest.skip('There is no chromium: apt-get install chromium.', allow_module_level=True)
sync_api = pytest.importorskip('playwright.sync_api', reason='No playwright: pip install playwright.')
uvicorn = pytest.importorskip('uvicorn', reason='The page needs uvicorn: pip install -r requirements/editor.txt.')
server = pytest.importorskip('mmresattn.editor.server')

STROKES = """() => {
    const key = Object.keys(sessionStorage).find((name) => name.startsWith('draft'));
    const { operations, place } = JSON.parse(sessionStorage.getItem(key));
    return operations.slice(0, place);
}"""


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    rng = np.random.default_rng(0)
    for name in ('ant/0', 'bee/1', 'bee/2', 'cat/3'):
        file = folder / 'images' / f'{name}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        blocks = rng.integers(0, 256, (4, 4, 3), np.uint8)  # with areas for the object tool
        cv2.imwrite(str(file), cv2.resize(blocks, (32, 32), interpolation=cv2.INTER_NEAREST))
    return *write(folder, NETS['abn']), folder / 'images'


class Running:
    """A server in a thread, which can be stopped and started again at its address."""

    def __init__(self, files, out, port=0):
        self.editor = AttentionEditor(*files, out, 'cpu', 'Ann')
        self.editor.predict_all()
        app = server.build_app(self.editor)
        self.server = uvicorn.Server(
            uvicorn.Config(app, port=port, http=server.PatientProtocol, ws='none', lifespan='off', log_level='critical')
        )
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        self.address = f'http://127.0.0.1:{self.port}'

    def stop(self):
        self.server.force_exit = self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def running(files, tmp_path):
    running = Running(files, tmp_path / 'out')
    yield running
    running.stop()


@pytest.fixture(scope='module')
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu'])
        yield browser
        browser.close()


class Page:
    """A page that has shown its first image."""

    def __init__(self, browser, address, **options):
        self.context = browser.new_context(**{'viewport': dict(width=1200, height=800), **options})
        self.page, self.errors, self.others = self.context.new_page(), [], []
        self.page.on('pageerror', lambda error: self.errors.append(error))
        self.page.on('request', lambda request: self.others.append(request.url))
        self.page.goto(address)
        self.wait()

    def wait(self, after='nothing'):
        """Wait for an answer after the one of this number. (The page's policy forbids wait_for_function.)"""
        pattern = re.compile(rf'^(?!{after}$)\d+$')
        sync_api.expect(self.page.locator('body')).to_have_attribute('data-answered', pattern, timeout=20_000)

    def answered(self):
        return self.page.locator('body').get_attribute('data-answered')

    def after(self, action):
        """Act, wait for the answer, and return the scores."""
        before = self.answered()
        action()
        self.wait(before)
        return self.scores()

    def scores(self):
        cells = self.page.locator('#scores td')
        return cells.evaluate_all('cells => cells.map((cell) => cell.title || cell.textContent).join(" ")')

    def at(self, x, y):
        """A place of the image on the screen: 32x32 images fill the height of the canvas."""
        box = self.page.locator('#canvas').bounding_box()
        side = 0.97 * min(box['width'], box['height'])
        return box['x'] + box['width'] / 2 + (x - 0.5) * side, box['y'] + box['height'] / 2 + (y - 0.5) * side

    def drag(self, start, end):
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.at(*end), steps=4)
        self.page.mouse.up()

    def press(self, key):
        self.page.keyboard.press(key)

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def says(self, selector, words):
        sync_api.expect(self.page.locator(selector)).to_contain_text(words)

    def close(self):
        assert not self.errors
        self.context.close()


def test_the_canvas_library_is_the_one_that_was_vendored():
    record = json.loads((server.STATIC / 'vendor/konva.json').read_text())
    library = server.STATIC / 'vendor/konva.min.js'
    assert hashlib.sha256(library.read_bytes()).hexdigest() == record['sha256']
    assert record['version'] in library.read_text() and 'MIT' in (server.STATIC / 'vendor/konva.LICENSE').read_text()


def test_every_tool_then_save_reload_and_take_back(browser, running):
    page = Page(browser, running.address)
    plain = page.scores()
    page.press('x')  # ignore
    states = [plain, page.after(lambda: page.drag((0.1, 0.2), (0.9, 0.2)))]
    page.press('x')
    page.press('r')
    states.append(page.after(lambda: page.drag((0.1, 0.5), (0.5, 0.9))))
    page.press('p')
    for corner in ((0.6, 0.4), (0.9, 0.4), (0.9, 0.7)):
        page.page.mouse.click(*page.at(*corner))
    states.append(page.after(lambda: page.press('Enter')))
    page.press('o')
    with page.page.expect_response('**/api/superpixels*'):
        pass
    page.page.wait_for_timeout(100)
    states.append(page.after(lambda: page.page.mouse.click(*page.at(0.95, 0.95))))
    page.press('e')
    states.append(page.after(lambda: page.drag((0.1, 0.2), (0.4, 0.2))))
    page.press('i')
    page.page.locator('#copy-name').fill('cat/3.png')
    states.append(page.after(lambda: page.press('Enter')))
    assert len(set(states)) == len(states)
    tools = [operation['add']['tool'] for operation in page.page.evaluate(STROKES)]
    assert tools == ['brush', 'polygon', 'polygon', 'polygon', 'eraser', 'map']
    for expected in states[-2::-1]:
        assert page.after(lambda: page.press('z')) == expected
    assert page.page.locator('#undo').is_disabled() and page.page.locator('#save').is_disabled()
    assert page.after(lambda: page.press('y')) == states[1]
    assert page.after(lambda: page.press('Delete')) == plain
    assert page.after(lambda: page.press('Control+z')) == states[1]
    page.page.reload()  # before it is saved: the tab keeps it
    page.wait()
    assert page.scores() == states[1]

    page.press('s')
    page.says('#saved', 'Saved by Ann')
    page.says('#progress-text', '1 of 4 corrected')
    (entry,) = running.editor.log.saved.values()
    assert (entry['image'], entry['layer'], entry['label'], len(entry['strokes'])) == ('ant/0.png', 'neck.map', 0, 1)
    saved = read_attention_map(running.editor.out / entry['map'])
    assert saved.shape == (16, 16) and saved[3, 4:12].max() < 0.01  # where it was painted
    page.press('t')
    page.says('#take-back', 'Bring back')
    page.says('#progress-text', '0 of 4 corrected')
    assert page.scores() == plain
    page.press('t')
    page.says('#take-back', 'Take back')
    sync_api.expect(page.page.locator('#scores tr')).to_have_count(3)
    assert page.scores() == states[1]
    assert page.others and all(url.startswith((running.address, 'data:', 'blob:')) for url in page.others)
    page.close()


def test_two_browsers_on_one_image(browser, running):
    ann, ben = (Page(browser, running.address) for _ in range(2))
    ann.after(lambda: ann.drag((0.1, 0.2), (0.9, 0.2)))
    plain = ben.scores()
    ben.after(lambda: ben.drag((0.1, 0.8), (0.9, 0.8)))
    assert len({plain, ann.scores(), ben.scores()}) == 3  # each sees its own strokes
    ann.press('s')
    ann.says('#saved', 'Saved')
    ben.press('s')
    ben.says('#conflict-text', 'Ann saved this map while you were editing it')
    ben.after(lambda: ben.page.get_by_role('button', name='Show theirs').click())
    assert ben.scores() == ann.scores() and len(running.editor.log.saved) == 1
    for page in (ann, ben):
        page.close()


def test_restarted_server(browser, files, tmp_path):
    running = Running(files, tmp_path / 'out')
    page = Page(browser, running.address)
    page.after(lambda: page.drag((0.1, 0.2), (0.9, 0.2)))
    running.stop()
    page.after(lambda: page.drag((0.1, 0.8), (0.9, 0.8)))
    page.says('#status', 'Your strokes are kept')
    running = Running(files, tmp_path / 'out', running.port)
    try:
        page.press('s')  # with a new token
        page.says('#saved', 'Saved by Ann')
        assert len(running.editor.log.saved['ant/0.png', 'neck.map']['strokes']) == 2
        page.close()
    finally:
        running.stop()


TRAIN = """
import pathlib, sys, time
for step in range(1, 5):
    print(f'INFO - Epoch(train) [1][{step}/4]  loss: 1', flush=True)
    time.sleep(0.3)
pathlib.Path(sys.argv[-1], 'epoch_1.pth').touch()
"""
COMPARE = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[-1])
out.mkdir()
result = dict(images=6, accuracy=[0.5, 1 / 3], to_right=[], to_wrong=['ant/0.png'], examples=[])
(out / 'before_after.json').write_text(json.dumps(result))
"""


def test_training_from_the_page(browser, project, tmp_path, monkeypatch):
    """The buttons and what they show, with short scripts in place of tools/train.py and the comparison."""
    folder, config, checkpoint = project
    for name, script in (('train.py', TRAIN), ('before_after.py', COMPARE)):
        (tmp_path / name).write_text(script)
    monkeypatch.setattr(training, '_tool', lambda name: str(tmp_path / name.split('/')[-1]))
    running = Running((config, checkpoint, folder / 'edit'), tmp_path / 'out')
    page = Page(browser, running.address)
    start = page.page.locator('#start-training')
    page.page.locator('#open-training').click()
    start.click()
    page.says('#training-state', 'manifest')  # nothing was corrected yet
    page.press('Escape')
    page.after(lambda: page.drag((0.1, 0.2), (0.9, 0.2)))
    page.press('s')
    page.says('#saved', 'Saved by Ann')
    page.page.locator('#open-training').click()
    use = page.page.locator('input[name=use]:checked').get_attribute('value')
    start.click()
    page.says('#training-state', 'Training')
    sync_api.expect(start).to_be_disabled()
    sync_api.expect(page.page.locator('#stop-training')).to_be_enabled()
    sync_api.expect(page.page.locator('#training-state')).to_have_text('Done.', timeout=30_000)
    page.says(
        '#training-result', '6 held-out images: 50.00 % before, 33.33 % after. 0 answers turned right, 1 turned wrong.'
    )
    page.says('#training-command', f'training/1_{use}/config.py')
    assert (running.editor.out / f'training/1_{use}/config.py').is_file()
    running.stop()
    page.close()


def test_filters_and_resume(browser, running):
    page = Page(browser, running.address)
    editor = running.editor
    wrong = editor.mistakes()
    page.page.select_option('#filter-answer', 'wrong')
    assert 0 < len(wrong) < 4
    page.says('#count', f'{len(wrong)} of 4 images')
    walked = {page.after(lambda: page.press('j')) and page.text('#name') for _ in wrong}
    assert walked == set(wrong)
    page.says('#verdict', '✗ Wrong, this is: ')
    pair = f'{editor.label(wrong[0])} {editor.answers[wrong[0]].label}'
    page.page.select_option('#filter-answer', pair)
    page.page.select_option('#filter-answer', '')
    page.page.select_option('#sort', 'unsure')
    names = [page.after(lambda: page.press('j')) and page.text('#name') for _ in editor.names]
    place = names.index(min(editor.names, key=lambda name: editor.answers[name].score))
    scores = [editor.answers[name].score for name in names[place:] + names[:place]]
    assert scores == sorted(scores)
    page.press('d')  # skip: goes on with the next untouched image
    page.says('#progress-text', '1 skipped')
    page.page.select_option('#filter-state', 'untouched')
    page.says('#count', '3 of 4 images')
    shown = page.text('#name')
    page.page.reload()
    page.wait()
    assert page.text('#name') == shown
    page.close()


def test_keyboard_alone(browser, running):
    page = Page(browser, running.address)
    page.press('?')
    assert page.page.locator('#help').is_visible() and 'save the map' in page.text('#keys')
    page.press('Escape')
    plain = page.scores()
    page.press('g')
    for key in ('Shift+ArrowLeft', 'ArrowUp', *(']' * 9)):
        page.press(key)
    painted = page.after(lambda: page.press('Enter'))
    assert painted != plain
    assert page.page.evaluate(STROKES)[0]['add']['points'] == [[0.4, 0.48]]
    page.press('s')
    page.says('#progress-text', '1 of 4 corrected')
    page.press('n')
    page.says('#name', 'bee/1.png')
    for key, selector in (('m', '#toggle-map'), ('v', '#toggle-split'), ('c', '#stretch')):
        before = page.page.locator(selector).get_attribute('aria-pressed')
        page.press(key)
        assert page.page.locator(selector).get_attribute('aria-pressed') != before
    page.says('#contrast', 'Colours span')
    page.close()


def test_pen_and_phone(browser, running):
    page = Page(browser, running.address, viewport=dict(width=390, height=844), has_touch=True)
    assert page.page.evaluate('document.documentElement.scrollWidth') <= 390  # nothing to scroll sideways
    plain = page.scores()
    page.page.locator('#canvas').scroll_into_view_if_needed()
    assert page.after(lambda: page.page.touchscreen.tap(*page.at(0.5, 0.5))) != plain
    page.press('z')
    page.after(
        lambda: page.page.evaluate(
            """([x, y]) => {
                const canvas = document.getElementById('canvas');
                canvas.setPointerCapture = () => {};
                [['down', 0.2, 0], ['move', 0.9, 30], ['up', 0, 30]].forEach(([name, pressure, by]) => {
                    const clientX = x + by;
                    const event = { pointerId: 7, pointerType: 'pen', pressure, clientX, clientY: y, bubbles: true };
                    canvas.dispatchEvent(new PointerEvent(`pointer${name}`, event));
                });
            }""",
            page.at(0.5, 0.5),
        )
    )
    (operation,) = page.page.evaluate(STROKES)
    assert [point[2] for point in operation['add']['points']] == [0.2, 0.9]
    page.close()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_accessible(browser, running, scheme):
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='pip install axe-playwright-python')
    page = Page(browser, running.address, color_scheme=scheme, bypass_csp=True)
    page.after(lambda: page.drag((0.1, 0.2), (0.9, 0.2)))
    for key, dialog in ((None, None), ('?', '#help'), ('i', '#copy-dialog'), (None, '#training')):
        if key:
            page.press(key)
        elif dialog:
            page.page.locator('#open-training').click()
        found = axe.Axe().run(page.page).response['violations']
        assert not found, [(rule['id'], [node['html'] for node in rule['nodes']]) for rule in found]
        page.press('Escape')
    page.close()
