"""Draw the pictures of the editor for README and tutorial: docs/images/editor*.png and editor.gif.

    python .dev_scripts/record_editor.py --config CONFIG --checkpoint CHECKPOINT --images FOLDER

Serves the editor, opens its page in chromium (extra `tests`), paints on a mistake, and writes what is seen. The strokes
are the same for every image: the border is ignored and the middle attended to. The mistake is the one they help most.
"""

import io
import shutil
import tempfile
import threading
import time
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.editor import AttentionEditor, paint
from mmresattn.editor.server import build_app

OUT = Path(__file__).parents[1] / 'docs/images'
SIZE = dict(width=1280, height=800)
IGNORE = [  # the border of the image
    dict(points=[(0.06, 0.06), (0.94, 0.06), (0.94, 0.94), (0.06, 0.94), (0.06, 0.06)], value=0),
]
ATTEND = [
    dict(points=[(0.5, 0.25), (0.5, 0.75)], value=1),
    dict(points=[(0.35, 0.35), (0.65, 0.65)], value=1),
    dict(points=[(0.65, 0.35), (0.35, 0.65)], value=1),
]


def choose(editor: AttentionEditor, layer: str) -> str:
    """The mistake whose right class gains most by the strokes, of those that they turn right if there are any."""
    best = {}
    for name in editor.mistakes():
        before = editor.predict(name)
        shape = before.view.original
        strokes = [dict(size=0.16, strength=1, softness=0.3) | stroke for stroke in IGNORE + ATTEND]
        after = editor.edit(name, layer, paint(strokes, shape))
        label = editor.label(name)
        turned = int(after.scores.argmax()) == label
        best[name] = turned, (after.scores - before.scores)[label].item()
    return max(best, key=best.get)


def drag(page: Page, shape: tuple[int, int], points: list[tuple[float, float]], frames: list[Image.Image]) -> None:
    """Paint through places of an image (H, W), which is in the middle of the canvas, and take pictures on the way."""
    box = page.locator('#canvas').bounding_box()
    scale = 0.97 * min(box['height'] / shape[0], box['width'] / shape[1])

    def at(x: float, y: float) -> tuple[float, float]:
        left, top = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
        return left + (x - 0.5) * scale * shape[1], top + (y - 0.5) * scale * shape[0]

    page.mouse.move(*at(*points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*at(*point), steps=6)
        frames.append(shot(page))
    page.mouse.up()
    page.wait_for_timeout(1500)
    frames += [shot(page)] * 3


def shot(page: Page) -> Image.Image:
    """What is seen."""
    return Image.open(io.BytesIO(page.screenshot())).convert('RGB')


def save(picture: Image.Image, name: str) -> None:
    """Write a picture with 256 colours."""
    picture.quantize(256).save(OUT / f'editor_{name}.png', optimize=True)


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    for name in ('config', 'checkpoint', 'images'):
        parser.add_argument(f'--{name}', required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        editor = AttentionEditor(args.config, args.checkpoint, args.images, folder, annotator='Ann')
        editor.predict_all()
        layer = editor.layers[-1]
        name = choose(editor, layer)
        print(name)
        server = uvicorn.Server(uvicorn.Config(build_app(editor), port=0, lifespan='off', log_level='warning'))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.1)
        address = f'http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}'
        try:
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
                record(browser, address, editor, name)
                browser.close()
        finally:
            server.should_exit = True
            thread.join()


def record(browser, address: str, editor: AttentionEditor, name: str) -> None:
    """Open the page at the image, paint, and write the pictures."""
    context = browser.new_context(viewport=SIZE, bypass_csp=True)
    context.add_init_script(f'localStorage.setItem("place {editor.out}", {name!r})')
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector('#scores tr')
    page.select_option('#filter-answer', 'wrong')
    page.wait_for_timeout(2000)
    frames = [shot(page)] * 4
    save(frames[0], 'before')
    page.locator('#size').fill('16')
    page.keyboard.press('x')
    for stroke in IGNORE:
        drag(page, editor.picture(name).shape, stroke['points'], frames)
    page.keyboard.press('x')
    for stroke in ATTEND:
        drag(page, editor.picture(name).shape, stroke['points'], frames)
    save(shot(page), 'after')
    page.keyboard.press('s')
    page.wait_for_timeout(1000)
    frames += [shot(page)] * 8
    page.keyboard.press('v')
    page.keyboard.press('o')
    page.wait_for_timeout(6000)
    save(shot(page), 'side_by_side')
    small = [frame.resize((960, 600), Image.LANCZOS).quantize(96) for frame in frames]
    small[0].save(OUT / 'editor.gif', save_all=True, append_images=small[1:], duration=220, loop=0, optimize=True)
    phone = dict(viewport=dict(width=390, height=844))
    for picture, options in (('dark', dict(color_scheme='dark')), ('phone', phone)):
        context = browser.new_context(**{'viewport': SIZE, **options})
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector('#scores tr')
        page.wait_for_timeout(2000)
        save(shot(page), picture)


if __name__ == '__main__':
    run_tool(main)
