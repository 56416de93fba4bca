// The dialog that starts a training from the corrections, follows it and shows what it changed.

import { address, get, post } from './api.js';
import { at, make } from './elements.js';

const STATES = {
  idle: '',
  training: 'Training …',
  comparing: 'Trained. Comparing both networks on the held-out images …',
  done: 'Done.',
  stopped: 'Stopped. Its checkpoint is saved; the command below with --resume goes on.',
  failed: 'Failed: the log says why.',
};
const CHANGES = { to_right: 'Turned right', to_wrong: 'Turned wrong' };

let following = false;

export function startTraining({ uses }) {
  at('uses').append(
    ...Object.entries(uses).map(([name, text], i) =>
      make(
        'label',
        {},
        make('input', { type: 'radio', name: 'use', value: name, checked: i === 0 }),
        make('span', {}, make('strong', { textContent: name.replaceAll('_', ' ') }), `: ${text}`),
      ),
    ),
  );
  at('open-training').onclick = () => {
    at('training').showModal();
    follow();
  };
  at('training-form').onsubmit = async (event) => {
    event.preventDefault();
    try {
      show(await post('train', { use: new FormData(event.target).get('use') }));
      follow();
    } catch (error) {
      at('training-state').textContent = error.message;
    }
  };
  at('stop-training').onclick = () => post('stop_training');
}

async function follow() {
  if (following) return;
  following = true;
  try {
    let status = await get('training');
    show(status);
    while (at('training').open && ['training', 'comparing'].includes(status.state)) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      status = await get('training');
      show(status);
    }
  } catch (error) {
    at('training-state').textContent = error.message;
  }
  following = false;
}

function show({ state, progress, log, command, result }) {
  const runs = ['training', 'comparing'].includes(state);
  at('training-state').textContent = STATES[state];
  at('start-training').disabled = runs;
  at('stop-training').disabled = !runs;
  at('training-progress').hidden = !runs;
  if (state === 'training' && progress) at('training-progress').value = progress;
  else at('training-progress').removeAttribute('value');
  at('training-details').hidden = !log;
  at('training-command').textContent = command ? `The same from the command line: ${command}` : '';
  const box = at('training-log');
  if (box.textContent !== log) {
    box.textContent = log ?? '';
    box.scrollTop = box.scrollHeight;
  }
  at('training-result').replaceChildren(...(result ? describe(result) : []));
}

function describe({ images, accuracy, to_right: right, to_wrong: wrong, examples }) {
  const [before, after] = accuracy.map((share) => `${(100 * share).toFixed(2)} %`);
  const summary =
    `${images} held-out images: ${before} before, ${after} after. ` +
    `${right.length} answers turned right, ${wrong.length} turned wrong.`;
  const groups = Object.entries(CHANGES).flatMap(([change, title]) => {
    const found = examples.filter((example) => example.change === change);
    if (!found.length) return [];
    const figures = found.map(({ label, answers, pictures }) =>
      make(
        'figure',
        {},
        make(
          'div',
          {},
          ...pictures.map((name, i) =>
            make('img', { src: address('training_picture', name), alt: `${i ? 'after' : 'before'}: ${answers[i]}` }),
          ),
        ),
        make('figcaption', { textContent: `${label}: ${answers.join(' → ')}` }),
      ),
    );
    return [make('h3', { textContent: title }), make('div', { className: 'examples' }, ...figures)];
  });
  return [make('p', { textContent: summary }), ...groups];
}
