"""A page on which a person corrects where a network looks. It needs gradio: requirements/editor.txt; docs/tutorial.md.

    python tools/attention_editor.py --config CONFIG --checkpoint CHECKPOINT --images FOLDER

The page runs without any other host: fonts and scripts come with gradio, and nothing is reported to anybody.
"""

import base64
import os
from functools import lru_cache
from pathlib import Path

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # before gradio is imported

import cv2
import numpy as np

from mmresattn.apis.attention_editor import AttentionEditor, paint
from mmresattn.apis.command_line import ArgumentParser, run_tool
from mmresattn.datasets.broken_images import BrokenImage
from mmresattn.visualization import overlay

SIDE = 480  # pixels on the longer side of the picture
REQUEST = 2_000_000  # bytes of the longest request: some thousand points

HTML = """
<div class="editor" tabindex="0">
  <div class="row">
    <button class="previous" title="left arrow key">&larr;</button>
    <input class="name" list="attention-editor-names" aria-label="image" spellcheck="false">
    <datalist id="attention-editor-names"></datalist>
    <button class="next" title="right arrow key">&rarr;</button>
    <span class="place"></span>
    <label><input type="checkbox" class="mistakes"> only mistakes</label>
  </div>
  <div class="row"><label>layer <select class="layer"></select></label>
    <label><input type="checkbox" class="shown" checked> show the map</label></div>
  <div class="columns">
    <div class="picture"><img class="plain" alt=""><img class="map" alt=""><canvas></canvas></div>
    <div class="side">
      <div class="said"></div>
      <table><thead><tr><th>class</th><th>before</th><th>after</th></tr></thead><tbody></tbody></table>
      <div class="row">
        <label><input type="radio" name="attention-editor-brush" class="in" checked> attend here</label>
        <label><input type="radio" name="attention-editor-brush" class="out"> look away</label>
      </div>
      <label class="wide">size <input type="range" class="size" min="2" max="100" value="20"></label>
      <label class="wide">strength <input type="range" class="strength" min="5" max="100" value="100"></label>
      <div class="row">
        <button class="undo" title="z">Undo</button><button class="reset">Reset</button>
        <button class="save" title="s">Save</button><button class="export">Export</button>
      </div>
      <div class="status" role="status"></div>
    </div>
  </div>
</div>
"""

CSS = """
.editor { outline: none; font-size: 15px; }
.row, .columns { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin-bottom: 8px; }
.columns { gap: 20px; align-items: flex-start; }
.picture { position: relative; flex: 1 1 300px; max-width: 480px; line-height: 0; touch-action: none; }
.picture img { width: 100%; margin: 0; }
.picture .map { position: absolute; inset: 0; }
.picture canvas { position: absolute; inset: 0; width: 100%; height: 100%; cursor: crosshair; }
.side { flex: 1 1 260px; max-width: 420px; }
.said { min-height: 1.5em; margin-bottom: 4px; }
table { width: 100%; border-collapse: collapse; margin-bottom: 8px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 2px 6px; border-bottom: 1px solid #8884; }
td + td { width: 34%; background: linear-gradient(#f97316aa, #f97316aa) no-repeat 0 100% / var(--share, 0%) 3px; }
button { border: 1px solid #8888; border-radius: 6px; padding: 3px 12px; cursor: pointer; }
button:disabled { opacity: 0.4; cursor: default; }
.name, .layer { border: 1px solid #8888; border-radius: 6px; padding: 3px 6px; background: transparent; }
.wide { display: flex; gap: 8px; align-items: center; margin-bottom: 6px; }
.wide input { flex: 1; }
.status { min-height: 3em; opacity: 0.85; overflow-wrap: anywhere; }
"""

JS = r"""
const at = (selector) => element.querySelector(selector);
const canvas = at('canvas'), context = canvas.getContext('2d');
// What was painted but not saved is kept by the browser, for this tab alone: it survives a reload and a killed server.
const kept = (key, fallback) => JSON.parse(sessionStorage.getItem(key) ?? 'null') ?? fallback;
const keep = (key, value) => sessionStorage.setItem(key, JSON.stringify(value));
let names = [], all = [], name = null, strokes = null, stroke = null, answered = 0, busy = null, waiting = false;

const say = (text) => { at('.status').textContent = text; };
const draft = () => `strokes ${at('.layer').value} ${name}`;

async function call(what, ...args) {
  const answer = await server[what](args);
  if (answer.error) throw new Error(answer.error);
  return answer;
}

function list(values) {
  names = values;
  at('datalist').replaceChildren(...values.map((one) => new Option('', one)));
}

async function open(wanted) {
  name = wanted;
  keep('name', name);
  at('.name').value = name;
  at('.place').textContent = `${names.indexOf(name) + 1} of ${names.length}`;
  strokes = kept(draft(), null);
  at('.map').removeAttribute('src');
  await look();
}

// One request at a time, and after it the newest state: of strokes that came meanwhile, none is lost or late.
async function look() {
  if (busy) { waiting = true; return busy; }
  busy = (async () => {
    do {
      waiting = false;
      const shown = name, layer = at('.layer').value;
      const start = performance.now();
      try {
        const answer = await call('look', shown, layer, strokes);  // null for what was saved
        if (shown !== name || layer !== at('.layer').value) { waiting = true; continue; }
        if (strokes === null) strokes = answer.strokes;
        draw(answer);
        if (!waiting) say(`${answer.saved ? `Saved ${answer.saved}. ` : ''}${answer.note}`);
        element.dataset.milliseconds = Math.round(performance.now() - start);
      } catch (error) {
        strokes ??= [];
        at('tbody').replaceChildren();
        at('.plain').removeAttribute('src');
        at('.said').textContent = '';
        say(error.message);
      }
    } while (waiting);
    busy = null;
    element.dataset.answered = ++answered;
  })();
  return busy;
}

function draw(answer) {
  at('.plain').src = answer.image;
  at('.map').src = answer.map;
  canvas.width = answer.size[0]; canvas.height = answer.size[1];  // also clears it
  if (stroke) trace(stroke);
  at('.said').textContent = answer.said;
  at('tbody').replaceChildren(...answer.scores.map(([label, ...scores]) => {
    const row = document.createElement('tr');
    row.append(...[label, ...scores].map((value, i) => {
      const cell = document.createElement('td');
      cell.textContent = i ? `${(100 * value).toFixed(1)} %` : value;
      if (i) cell.style.setProperty('--share', `${100 * value}%`);
      return cell;
    }));
    return row;
  }));
  at('.undo').disabled = at('.reset').disabled = !strokes.length;
}

function painted() { keep(draft(), strokes); look(); }

function trace(one) {
  const side = Math.max(canvas.width, canvas.height);
  context.strokeStyle = one.value ? '#ffffffb0' : '#000000b0';
  context.lineWidth = one.size * side;
  context.lineCap = context.lineJoin = 'round';
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.beginPath();
  one.points.forEach(([x, y]) => context.lineTo(x * canvas.width, y * canvas.height));
  if (one.points.length === 1) context.lineTo(one.points[0][0] * canvas.width + 0.01, one.points[0][1] * canvas.height);
  context.stroke();
}

function point(event) {
  const box = canvas.getBoundingClientRect();
  const share = (value) => Math.round(1e4 * Math.min(1.5, Math.max(-0.5, value))) / 1e4;
  return [share((event.clientX - box.left) / box.width), share((event.clientY - box.top) / box.height)];
}

canvas.addEventListener('pointerdown', (event) => {
  if (strokes === null || !at('.plain').hasAttribute('src')) return;
  canvas.setPointerCapture(event.pointerId);
  at('.editor').focus({ preventScroll: true });
  stroke = { points: [point(event)], size: at('.size').value / 100, value: at('.in').checked ? 1 : 0,
             strength: at('.strength').value / 100 };
  trace(stroke);
});
canvas.addEventListener('pointermove', (event) => {
  if (stroke) { stroke.points.push(point(event)); trace(stroke); }
});
for (const end of ['pointerup', 'pointercancel']) canvas.addEventListener(end, () => {
  if (!stroke) return;
  strokes = [...strokes, stroke];
  stroke = null;
  painted();
});

function step(by) {
  if (names.length) open(names[(Math.max(0, names.indexOf(name)) + by + names.length) % names.length]);
}
const undo = () => { if (strokes?.length) { strokes = strokes.slice(0, -1); painted(); } };
const reset = () => { strokes = []; painted(); };
async function save() {
  if (strokes === null) return;
  const key = draft();
  try {
    say(`Saved ${(await call('save', name, at('.layer').value, strokes)).saved}.`);
    sessionStorage.removeItem(key);
  } catch (error) { say(error.message); }
}

at('.previous').onclick = () => step(-1);
at('.next').onclick = () => step(1);
at('.undo').onclick = undo;
at('.reset').onclick = reset;
at('.save').onclick = save;
at('.layer').onchange = () => { keep('layer', at('.layer').value); open(name); };
at('.name').onchange = () => { open(all.includes(at('.name').value) ? at('.name').value : name); };
at('.shown').onchange = () => { at('.map').style.visibility = at('.shown').checked ? '' : 'hidden'; };
at('.mistakes').onchange = async () => {
  if (!at('.mistakes').checked) { list(all); return open(name); }
  say('Predicting all images ...');
  try {
    const answer = await call('mistakes');
    if (!answer.names.length) throw new Error(answer.note);
    list(answer.names);
    await open(names.includes(name) ? name : names[0]);
    say(answer.note);
  } catch (error) { at('.mistakes').checked = false; say(error.message); }
};
at('.export').onclick = async () => {
  try {
    const link = document.createElement('a');
    link.href = (await call('export')).zip;
    link.download = 'attention_maps.zip';
    link.click();
  } catch (error) { say(error.message); }
};
at('.editor').addEventListener('keydown', (event) => {
  if (event.metaKey || event.altKey || event.target.matches('input:not([type=checkbox]), select')) return;
  const action = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), z: undo, s: save }[event.key];
  if (action) { event.preventDefault(); action(); }
});

(async () => {
  try {
    const answer = await call('start');
    all = answer.names;
    list(all);
    at('.layer').replaceChildren(...answer.layers.map((one) => new Option(one, one)));
    if (answer.layers.includes(kept('layer'))) at('.layer').value = kept('layer');
    at('.editor').focus({ preventScroll: true });
    await open(all.includes(kept('name')) ? kept('name') : all[0]);
  } catch (error) { say(error.message); }
})();
"""


class LimitRequests:
    """ASGI middleware that refuses requests which say no length, or one above ``REQUEST``, before they are read."""

    def __init__(self, app) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope['type'] == 'http' and scope['method'] not in ('GET', 'HEAD', 'OPTIONS'):
            length = dict(scope['headers']).get(b'content-length', b'')
            if not length.isdigit() or int(length) > REQUEST:
                status = 413 if length.isdigit() else 411
                await send({'type': 'http.response.start', 'status': status, 'headers': [(b'content-length', b'0')]})
                await send({'type': 'http.response.body', 'body': b''})
                return
        await self.app(scope, receive, send)


def data_url(content: bytes, kind: str) -> str:
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def png(image: np.ndarray) -> str:
    """An image (H, W, 3) in BGR as the address of a picture."""
    return data_url(cv2.imencode('.png', image)[1].tobytes(), 'image/png')


def actions(editor: AttentionEditor) -> list:
    """What the page asks for. Each takes the list of its arguments and keeps nothing: all state is the page's."""
    before = lru_cache(16)(editor.predict)

    def start(_) -> dict:
        # Maps of the last layers come first: there a stroke says most.
        return dict(names=editor.names, layers=editor.layers[::-1])

    def look(args) -> dict:
        name, layer, strokes = args
        image = editor.load(name)
        saved = {entry['layer']: entry for entry in editor.saved(name)}.get(layer)
        if strokes is None:
            strokes = saved['strokes'] if saved else []
        first = before(name)
        after = editor.edit(name, layer, paint(strokes, image.shape[:2])) if strokes else first
        zoom = SIDE / max(image.shape[:2])
        size = tuple(max(1, round(side * zoom)) for side in image.shape[1::-1])
        image = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST if zoom > 1 else cv2.INTER_AREA)
        over = editor.map_over_image(after, layer, image.shape[:2])
        picture = overlay(np.ascontiguousarray(image[..., ::-1]), over, low=0, high=1)
        both = np.stack([first.scores.cpu().numpy(), after.scores.cpu().numpy()])
        top = np.argsort(-both.max(0), kind='stable')[:5].tolist()
        label = editor.label(name)
        return dict(
            image=png(image),
            map=png(picture[..., ::-1]),
            size=size,
            strokes=strokes,
            said='' if label is None else f'This is: {editor.class_name(label)}',
            scores=[[editor.class_name(i), *both[:, i].astype(float).round(6).tolist()] for i in top],
            saved=saved and saved['time'][:19].replace('T', ' ') + ' UTC',
            note=f'Attention from {after.maps[layer].min():.3f} (dark) to {after.maps[layer].max():.3f} (bright).',
        )

    def save(args) -> dict:
        name, layer, strokes = args
        entry = editor.save(name, layer, paint(strokes, editor.load(name).shape[:2]), strokes)
        return dict(saved=entry['time'][:19].replace('T', ' ') + f' UTC: {entry["map"]}')

    def mistakes(_) -> dict:
        wrong, broken = editor.mistakes()
        known = sum(editor.label(name) is not None for name in editor.names)
        note = f'{len(wrong)} of {known} images with a known label are wrong.'
        if broken:
            note += f' {len(broken)} are broken: {"; ".join(list(broken.values())[:3])}'
        return dict(names=wrong, note=note)

    def export(_) -> dict:
        return dict(zip=data_url(editor.export(), 'application/zip'))

    def guarded(action):
        def answer(args) -> dict:
            try:
                return action(args)
            except (BrokenImage, KeyError, ValueError, TypeError, OSError) as error:
                return dict(error=str(error.args[0]) if isinstance(error, KeyError) else str(error))

        answer.__name__ = action.__name__
        return answer

    return [guarded(action) for action in (start, look, save, mistakes, export)]


def build_page(editor: AttentionEditor):
    """The page, a ``gradio.Blocks``."""
    import gradio

    with gradio.Blocks(title='Attention editor', analytics_enabled=False) as page:
        gradio.HTML(html_template=HTML, css_template=CSS, js_on_load=JS, server_functions=actions(editor))
    return page


def main(argv=None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', required=True)
    parser.add_argument('--checkpoint', required=True)
    parser.add_argument('--images', required=True, help='folder of images; best one folder a class within it')
    parser.add_argument('--out', help='folder for maps and manifest; default: work_dirs/attention_editor/<images>')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen on; the default is this machine alone')
    parser.add_argument('--port', type=int, default=7860)
    parser.add_argument('--device', help='default: the accelerator if there is one')
    args = parser.parse_args(argv)
    try:
        import gradio  # noqa: F401
        from starlette.middleware import Middleware
    except ImportError as error:
        parser.error(f'The page needs gradio ({error}): pip install -r requirements/editor.txt')
    out = args.out or Path('work_dirs/attention_editor', Path(args.images).resolve().name)
    editor = AttentionEditor(args.config, args.checkpoint, args.images, out, args.device)
    print(f'{len(editor.names)} images, {len(editor.saved())} saved maps in {editor.out}.', flush=True)
    build_page(editor).launch(
        server_name=args.host,
        server_port=args.port,
        share=False,
        footer_links=[],
        max_file_size=1,
        app_kwargs=dict(middleware=[Middleware(LimitRequests)]),
    )


if __name__ == '__main__':
    run_tool(main)
