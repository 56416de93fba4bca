// The page: what is shown of an image, what a stroke did, and what keys and buttons do.

import { address, decode, get, post } from './api.js';
import { Board } from './canvas.js';
import { Draft } from './drafts.js';
import { at, make } from './elements.js';
import { Images } from './images.js';
import { startTraining } from './training.js';

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const FLAT = 0.1; // a map with a smaller range is called flat
const HINTS = {
  brush: 'Paint where the network should look, or with Ignore where it should not.',
  eraser: "Removes paint: the network's own attention comes back.",
  polygon: 'Click the corners. Enter or a double click closes the polygon, Escape cancels it.',
  rectangle: 'Drag from corner to corner, or click both corners.',
  object: 'Click areas of similar colour until the object is covered.',
  hand: 'Drag to move the view. The wheel, + and - or two fingers zoom.',
};

const images = new Images();
const board = new Board(at('canvas'));
let start = null; // what the server said of itself
let draft = null;
let answer = null; // the last one about this image
let busy = null;
let waiting = false;

const name = () => images.names[images.current];
const layer = () => at('layer').value;

function say(text, isError = false) {
  at('status').textContent = text;
  at('status').classList.toggle('error', isError);
}

/** Runs an action; what goes wrong is said in words. */
async function attempt(action) {
  try {
    return await action();
  } catch (error) {
    say(error.message, true);
    return undefined;
  }
}

// Looking

async function open() {
  const wanted = name();
  localStorage.setItem(`place ${start.out}`, wanted);
  answer = null;
  draft = new Draft(`${start.out} ${layer()} ${wanted}`);
  at('name').textContent = wanted;
  at('verdict').textContent = '';
  at('scores').replaceChildren();
  at('why').value = '';
  board.setEvidence(null);
  const image = Object.assign(new Image(), { src: address('image', wanted) });
  try {
    await image.decode();
    if (wanted !== name()) return;
    board.setImage(image);
  } catch {
    board.setImage(new OffscreenCanvas(1, 1));
  }
  if (board.options.tool === 'object') outline();
  await look();
}

// One request at a time, and after it the newest state: no stroke is lost or late.
function look() {
  if (busy) {
    waiting = true;
    return busy;
  }
  busy = (async () => {
    do {
      waiting = false;
      await attempt(lookOnce);
    } while (waiting);
    busy = null;
    document.body.dataset.answered = Number(document.body.dataset.answered ?? 0) + 1;
  })();
  return busy;
}

async function lookOnce() {
  const asked = draft;
  const begin = performance.now();
  const strokes = asked.isKept || answer ? asked.strokes : null; // null for what is saved
  const said = await post('look', { name: name(), layer: layer(), strokes });
  if (asked !== draft) {
    waiting = true;
    return;
  }
  if (strokes === null) asked.begin(said.strokes, said.saved?.sha256 ?? null);
  answer = said;
  answer.milliseconds = Math.round(performance.now() - begin);
  show();
}

function show() {
  board.setMap(answer.map);
  showRange();
  const label = images.labels[images.current];
  const [before, after] = answer.answers;
  const classes = start.classes;
  const scores = new Map(answer.scores.map(([number, ...both]) => [number, both]));
  const verdict = at('verdict');
  verdict.replaceChildren();
  const line = (text, className = '') => {
    verdict.append(make('span', { textContent: text, className }), ' ');
  };
  line(`${classes[after]}, ${percent(scores.get(after)[1])}.`);
  if (label !== null) {
    if (after === label) line('✓ Right.', 'right');
    else line(`✗ Wrong, this is: ${classes[label]}.`, 'wrong-answer');
  }
  if (answer.rose !== null) {
    const rise = scores.get(answer.rose);
    if (before !== after) line(`Before: ${classes[before]}.`);
    if (rise && rise[1] > rise[0])
      line(`${classes[answer.rose]} rose by ${(100 * (rise[1] - rise[0])).toFixed(1)} points.`);
  }
  at('scores').replaceChildren(
    ...answer.scores.map(([number, ...both]) => {
      const cells = both.map((score) =>
        make('td', { textContent: percent(score), title: score, style: `--share: ${100 * score}%` }),
      );
      return make('tr', {}, make('td', { textContent: classes[number] }), ...cells);
    }),
  );
  const network = answer.networkSeconds && Math.round(1000 * answer.networkSeconds);
  at('timing').textContent =
    network === null ? '' : `${answer.milliseconds} ms, of which the network took ${network} ms.`;
  Object.assign(document.body.dataset, { milliseconds: answer.milliseconds, network });
  at('explanation').textContent = answer.explanation;
  showState();
}

function showState() {
  const { saved, takenBack, skipped } = answer;
  const when = saved && new Date(saved.time).toLocaleString();
  const by = saved?.annotator ? ` by ${saved.annotator}` : '';
  at('saved').textContent = [
    draft.isKept ? 'Not saved yet.' : '',
    saved ? `Saved${by}, ${when}.` : takenBack ? 'The saved map was taken back.' : draft.isKept ? '' : 'No saved map.',
    skipped ? 'Skipped.' : '',
  ].join(' ');
  at('take-back').textContent = takenBack ? 'Bring back' : 'Take back';
  at('take-back').disabled = !saved && !takenBack;
  at('skip').textContent = skipped ? 'Do not skip' : 'Skip';
  at('save').disabled = !draft.strokes.length;
  at('undo').disabled = !draft.canUndo;
  at('redo').disabled = !draft.canRedo;
  at('clear').disabled = !draft.strokes.length;
}

function showRange() {
  if (!answer) return;
  const [low, high] = answer.range;
  const stretched = at('stretch').ariaPressed === 'true';
  board.shown.range = stretched ? [low, high] : [0, 1];
  board.draw();
  const [left, right] = board.shown.range;
  at('low').textContent = left.toFixed(2);
  at('high').textContent = right.toFixed(2);
  const range = `${low.toFixed(2)} to ${high.toFixed(2)}`;
  if (stretched) at('contrast').textContent = `Colours span ${range}.`;
  else at('contrast').textContent = high - low < FLAT ? `Flat map: only ${range}.` : `Map: ${range}.`;
}

// Changing

board.addEventListener('stroke', ({ detail }) => change({ add: detail }));

function change(operation) {
  if (!answer) return;
  draft.do(operation);
  showState();
  look();
}

function move(by) {
  if (!answer || !(by < 0 ? draft.canUndo : draft.canRedo)) return;
  draft.move(by);
  showState();
  look();
}

async function save(replaces = draft.base) {
  if (!answer || !draft.strokes.length) return say('Nothing is painted, so there is nothing to save.');
  const saving = draft;
  const arguments_ = { name: name(), layer: layer(), strokes: draft.strokes, replaces };
  try {
    const { saved, file } = await post('save', arguments_);
    saving.saved(saved.sha256);
    say(`Saved as ${file}.`);
    if (saving === draft) {
      Object.assign(answer, { saved, takenBack: false });
      showState();
    }
    await progress();
  } catch (error) {
    if (error.status !== 409) return say(error.message, true);
    at('conflict-text').textContent = error.message;
    const choice = await ask('conflict');
    if (choice === 'replace') await save(true);
    if (choice === 'theirs') {
      saving.forget();
      await open();
    }
  }
  return undefined;
}

async function takeBack() {
  if (!answer || at('take-back').disabled) return;
  const what = answer.takenBack ? 'bring_back' : 'take_back';
  await attempt(async () => {
    await post(what, { name: name(), layer: layer() });
    draft.forget();
    say(what === 'take_back' ? 'Taken back. It can be brought back.' : 'Brought back.');
    await progress();
    await open();
  });
}

async function skip() {
  if (!answer) return;
  await attempt(async () => {
    answer.skipped = !answer.skipped;
    await post('skip', { name: name(), skip: answer.skipped });
    showState();
    await progress();
    if (answer.skipped) images.nextUntouched();
  });
}

function ask(id) {
  const dialog = at(id);
  dialog.returnValue = '';
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener('close', () => resolve(dialog.returnValue), { once: true }));
}

async function copy() {
  if (!answer) return;
  at('copy-name').value = '';
  if ((await ask('copy-dialog')) !== 'copy') return;
  await attempt(async () => {
    const { stroke } = await post('copy', { name: at('copy-name').value, layer: layer() });
    change({ add: stroke });
  });
}

// Showing

async function outline() {
  await attempt(async () => {
    const asked = name();
    const { outlines } = await get('superpixels', { name: asked, count: at('detail').value });
    if (asked === name()) board.setOutlines(outlines);
  });
}

function choose(tool) {
  board.options.tool = tool;
  board.cancel();
  for (const button of document.querySelectorAll('[data-tool]')) {
    button.setAttribute('aria-pressed', button.dataset.tool === tool);
  }
  at('hint').textContent = HINTS[tool];
  at('detail-option').hidden = tool !== 'object';
  at('canvas').classList.toggle('moves', tool === 'hand');
  if (tool === 'object' && answer) outline();
}

function setValue(value) {
  document.querySelector(`[name="value"][value="${value}"]`).checked = true;
  board.options.value = value;
}

function nudge(id, by) {
  at(id).value = Number(at(id).value) + by;
  at(id).dispatchEvent(new Event('input'));
}

function toggle(id, key) {
  const button = at(id);
  button.ariaPressed = button.ariaPressed === 'true' ? 'false' : 'true';
  if (key) {
    board.shown[key] = button.ariaPressed === 'true';
    board.fit();
  } else {
    showRange();
  }
}

function cycle(id) {
  const select = at(id);
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  select.dispatchEvent(new Event('change'));
}

function colour() {
  const table = decode(start.colours[at('colours').value], Uint8Array);
  board.shown.table = table;
  const context = at('legend').getContext('2d');
  const picture = context.createImageData(256, 1);
  for (let i = 0; i < 256; i++) picture.data.set([...table.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  context.putImageData(picture, 0, 0);
  board.draw();
}

async function explain() {
  const label = at('why').value;
  if (label === '' || !answer) return board.setEvidence(null);
  await attempt(async () => {
    const asked = draft;
    const arguments_ = { name: name(), label: Number(label), layer: layer(), strokes: draft.strokes };
    const { map } = await post('evidence', arguments_);
    if (asked === draft) board.setEvidence(map);
  });
  return undefined;
}

function toggleTheme() {
  const root = document.documentElement;
  const isDark = getComputedStyle(root).colorScheme.includes('dark');
  const dark = root.dataset.theme
    ? root.dataset.theme === 'dark'
    : isDark && matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
  localStorage.setItem('theme', root.dataset.theme);
}

// Keys: what they are, what they do, their action, its button, and their sign. The help shows the same list.
const KEYS = [
  ['j', 'next image', () => images.step(1)],
  ['k', 'previous image', () => images.step(-1)],
  ['ArrowRight', 'next image', () => images.step(1), null, '→'],
  ['ArrowLeft', 'previous image', () => images.step(-1), null, '←'],
  ['n', 'next untouched image', () => nextUntouched(), 'next-untouched'],
  ['f', 'to the filters', () => at('filter-answer').focus()],
  ['b', 'brush', () => choose('brush')],
  ['e', 'eraser', () => choose('eraser')],
  ['p', 'polygon', () => choose('polygon')],
  ['r', 'rectangle', () => choose('rectangle')],
  ['o', 'object', () => choose('object')],
  ['h', 'move the view', () => choose('hand')],
  ['x', 'attend or ignore', () => setValue(1 - board.options.value)],
  ['[', 'smaller brush', () => nudge('size', -3)],
  [']', 'larger brush', () => nudge('size', 3)],
  [',', 'weaker', () => nudge('strength', -10)],
  ['.', 'stronger', () => nudge('strength', 10)],
  ['g', 'to the canvas: arrow keys move, Enter paints', () => at('canvas').focus()],
  ['i', 'copy the map of another image', copy, 'open-copy'],
  ['z', 'undo', () => move(-1), 'undo'],
  ['y', 'redo', () => move(1), 'redo'],
  ['Delete', 'remove all strokes', () => draft?.strokes.length && change({ clear: true }), 'clear', 'Del'],
  ['s', 'save the map', () => save(), 'save'],
  ['t', 'take the saved map back, or bring it back', takeBack, 'take-back'],
  ['d', 'skip: needs no correction', skip, 'skip'],
  ['m', 'show or hide the map', () => toggle('toggle-map', 'map'), 'toggle-map'],
  ['v', 'image and map side by side', () => toggle('toggle-split', 'split'), 'toggle-split'],
  ['c', 'stretch the contrast', () => toggle('stretch'), 'stretch'],
  ['w', 'show me why, class by class', () => cycle('why')],
  ['l', 'next layer', () => cycle('layer')],
  ['+', 'zoom in', () => board.zoom(1.3)],
  ['-', 'zoom out', () => board.zoom(1 / 1.3)],
  ['0', 'fit into the window', () => board.fit(), 'fit'],
  ['?', 'these keys', () => at('help').showModal(), 'open-help'],
];

function nextUntouched() {
  if (!images.nextUntouched()) say('No image of this list is untouched.');
}

document.addEventListener('keydown', (event) => {
  if (document.querySelector('dialog[open]') || event.altKey) return;
  if (event.target.matches('input:not([type=range]):not([type=radio]), select')) return;
  if (event.target.matches('input') && event.key.startsWith('Arrow')) return;
  if (event.key === ' ' && event.target === at('canvas')) {
    board.holdsSpace = true;
    event.preventDefault();
  }
  let key = event.key;
  if (event.ctrlKey || event.metaKey) {
    key = { z: event.shiftKey ? 'y' : 'z', Z: 'y', y: 'y', s: 's' }[key];
  } else if (key === 'Enter') {
    board.finish();
  } else if (key === 'Escape') {
    board.cancel();
  }
  const found = KEYS.find(([pressed]) => pressed === key);
  if (!found) return;
  event.preventDefault();
  found[2]();
});
document.addEventListener('keyup', (event) => {
  if (event.key === ' ') board.holdsSpace = false;
});

function wire() {
  for (const [, , action, id] of KEYS) if (id) at(id).onclick = () => action();
  at('toggle-theme').onclick = toggleTheme;
  for (const button of document.querySelectorAll('[data-tool]')) button.onclick = () => choose(button.dataset.tool);
  for (const input of document.querySelectorAll('[name="value"]')) input.onchange = () => setValue(Number(input.value));
  for (const id of ['size', 'strength', 'softness']) {
    at(id).oninput = () => {
      board.options[id] = at(id).value / 100;
    };
    at(id).oninput();
  }
  at('opacity').oninput = () => {
    board.shown.opacity = at('opacity').value / 100;
    board.draw();
  };
  at('detail').onchange = outline;
  at('colours').onchange = colour;
  at('why').onchange = explain;
  at('layer').onchange = () => {
    localStorage.setItem('layer', layer());
    open();
  };
  at('keys').replaceChildren(
    ...KEYS.map(([key, what, , , sign = key]) =>
      make('div', {}, make('dt', {}, make('kbd', { textContent: sign })), make('dd', { textContent: what })),
    ),
  );
  images.addEventListener('open', open);
  addEventListener('beforeunload', () => images.current >= 0 && localStorage.setItem(`place ${start.out}`, name()));
}

// Answers come while the network predicts all images, and states when others save.
async function progress() {
  const found = await get('progress', { after: images.answers.size });
  images.update(found);
  return found.done;
}

async function follow() {
  let done = true;
  try {
    done = await progress();
  } catch (error) {
    say(error.message, true);
  }
  setTimeout(follow, done ? 8000 : 1500);
}

async function main() {
  if (localStorage.getItem('theme')) document.documentElement.dataset.theme = localStorage.getItem('theme');
  start = await get('start');
  wire();
  choose('brush');
  at('layer').replaceChildren(...start.layers.map(({ name: path, title }) => new Option(title, path)));
  const chosen = localStorage.getItem('layer');
  if (start.layers.some(({ name: path }) => path === chosen)) at('layer').value = chosen;
  at('colours').replaceChildren(...Object.keys(start.colours).map((map) => new Option(map)));
  at('why').replaceChildren(new Option('off', ''), ...start.classes.map((label, i) => new Option(label, i)));
  at('names').replaceChildren(...start.names.map((file) => new Option(file)));
  colour();
  startTraining(start);
  images.start(start);
  const place = start.names.indexOf(localStorage.getItem(`place ${start.out}`));
  images.open(Math.max(0, place));
  if (start.notes.length) say(start.notes.join(' '), true);
  await follow();
}

attempt(main);
