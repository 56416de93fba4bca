// The images: filters, order and the strip of thumbnails, of which only those in view are in the page.

import { address } from './api.js';
import { at, make } from './elements.js';

const STEP = 98; // pixels from one thumbnail to the next
const BADGES = { corrected: '✓', skipped: '–' };
const percent = (share) => `${Math.round(100 * share)} %`;

export class Images extends EventTarget {
  names = [];
  labels = [];
  classes = [];
  answers = new Map(); // number -> [label, score]
  broken = {};
  states = {};
  list = []; // numbers of the images that the filters leave, in order
  current = -1;

  constructor() {
    super();
    for (const id of ['filter-class', 'filter-answer', 'filter-state', 'sort']) {
      at(id).onchange = () => this.apply(true);
    }
    at('strip').onscroll = () => this.#draw();
    at('strip').onkeydown = (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      this.step(step);
    };
    new ResizeObserver(() => this.#draw()).observe(at('strip'));
  }

  start({ names, labels, classes }) {
    Object.assign(this, { names, labels, classes });
    const known = [...new Set(labels.filter((label) => label !== null))].sort((a, b) => a - b);
    at('filter-class').replaceChildren(
      new Option('all', ''),
      ...known.map((label) => new Option(classes[label], label)),
    );
    at('filter-class').parentElement.hidden = !known.length;
    this.apply();
  }

  isWrong(number) {
    const answer = this.answers.get(number);
    return answer !== undefined && this.labels[number] !== null && answer[0] !== this.labels[number];
  }

  state(number) {
    return this.states[number] ?? 'untouched';
  }

  /** Takes over what the server knows by now. */
  update({ answers, broken, states }) {
    for (const [number, label, score] of answers) this.answers.set(number, [label, score]);
    Object.assign(this, { broken, states });
    this.#fillAnswers();
    this.apply();
  }

  #fillAnswers() {
    const pairs = new Map();
    let wrong = 0;
    for (const [number, [answer]] of this.answers) {
      if (!this.isWrong(number)) continue;
      wrong += 1;
      const pair = `${this.labels[number]} ${answer}`;
      pairs.set(pair, (pairs.get(pair) ?? 0) + 1);
    }
    const select = at('filter-answer');
    const chosen = select.value;
    const isKnown = this.labels.some((label) => label !== null);
    const options = [
      new Option('all', ''),
      ...(isKnown ? [new Option(`mistakes (${wrong})`, 'wrong'), new Option('right', 'right')] : []),
      new Option('less than 50 % sure', 'unsure'),
      new Option('at least 90 % sure', 'sure'),
      ...(Object.keys(this.broken).length ? [new Option('broken images', 'broken')] : []),
    ];
    const frequent = [...pairs].sort((a, b) => b[1] - a[1]);
    for (const [pair, count] of frequent) {
      const [label, answer] = pair.split(' ').map((value) => this.classes[value]);
      options.push(new Option(`${label} taken for ${answer} (${count})`, pair));
    }
    select.replaceChildren(...options);
    select.value = options.some((option) => option.value === chosen) ? chosen : '';
  }

  /** Filters and sorts; by the user's choice, it also leaves an image that is no longer in the list. */
  apply(chosen = false) {
    const [label, answer, state, order] = ['filter-class', 'filter-answer', 'filter-state', 'sort'].map(
      (id) => at(id).value,
    );
    const score = (number) => this.answers.get(number)?.[1] ?? 2;
    const fits = (number) => {
      if (label && this.labels[number] !== Number(label)) return false;
      if (state && this.state(number) !== state) return false;
      if (!answer) return true;
      if (answer === 'broken') return number in this.broken;
      if (!this.answers.has(number)) return false;
      if (answer === 'wrong') return this.isWrong(number);
      if (answer === 'right') return this.labels[number] !== null && !this.isWrong(number);
      if (answer === 'unsure') return score(number) < 0.5;
      if (answer === 'sure') return score(number) >= 0.9;
      return `${this.labels[number]} ${this.answers.get(number)[0]}` === answer;
    };
    this.list = [...this.names.keys()].filter((number) => number === this.kept || fits(number));
    const signs = { unsure: 1, sure: -1 };
    if (order in signs) this.list.sort((a, b) => signs[order] * (score(a) - score(b)));
    const count = this.list.length;
    at('count').textContent = `${count} of ${this.names.length} images`;
    const corrected = this.list.filter((number) => this.state(number) === 'corrected').length;
    const skipped = this.list.filter((number) => this.state(number) === 'skipped').length;
    Object.assign(at('corrected'), { max: Math.max(1, count), value: corrected + skipped });
    at('progress-text').textContent = `${corrected} of ${count} corrected${skipped ? `, ${skipped} skipped` : ''}`;
    if (chosen) {
      this.kept = null;
      this.dispatchEvent(new Event('filter'));
      if (this.list.length && !this.list.includes(this.current)) return this.open(this.list[0]);
    }
    this.#draw();
  }

  open(number) {
    this.current = this.kept = number; // it stays in the list while it is open, whatever happens to its state
    const place = this.list.indexOf(number);
    if (place >= 0) {
      const { scrollLeft, clientWidth } = at('strip');
      if (place * STEP < scrollLeft || (place + 1) * STEP > scrollLeft + clientWidth) {
        at('strip').scrollLeft = place * STEP - clientWidth / 2 + STEP / 2;
      }
    }
    this.#draw();
    this.dispatchEvent(new Event('open'));
  }

  step(by) {
    const { list } = this;
    if (list.length) this.open(list[(Math.max(0, list.indexOf(this.current)) + by + list.length) % list.length]);
  }

  nextUntouched() {
    const { list } = this;
    const place = list.indexOf(this.current);
    const others = [...list.slice(place + 1), ...list.slice(0, place)];
    const found = others.find((number) => this.state(number) === 'untouched');
    if (found !== undefined) this.open(found);
    return found !== undefined;
  }

  #draw() {
    const strip = at('strip');
    const track = strip.firstElementChild;
    track.style.width = `${this.list.length * STEP}px`;
    const first = Math.max(0, Math.floor(strip.scrollLeft / STEP) - 2);
    const last = Math.ceil((strip.scrollLeft + strip.clientWidth) / STEP) + 2;
    const wanted = new Map(this.list.slice(first, last).map((number, i) => [String(number), first + i]));
    for (const element of [...track.children]) {
      if (!wanted.has(element.dataset.number)) element.remove();
    }
    for (const [number, place] of wanted) {
      const selector = `[data-number="${number}"]`;
      this.#fill(track.querySelector(selector) ?? track.appendChild(this.#make(number)), Number(number), place);
    }
  }

  #make(number) {
    const picture = make('img', { alt: '', src: address('thumbnail', this.names[number]) });
    const spans = ['answer', 'sureness', 'badge'].map((className) => make('span', { className }));
    const element = make('div', { className: 'thumbnail', id: `thumbnail-${number}` }, picture, ...spans);
    element.dataset.number = number;
    element.setAttribute('role', 'option');
    element.onclick = () => this.open(Number(number));
    return element;
  }

  #fill(element, number, place) {
    const [, answer, sureness, badge] = element.children;
    const found = this.answers.get(number);
    const label = this.labels[number];
    const state = this.state(number);
    const wrong = this.isWrong(number);
    const truth = label === null ? '' : this.classes[label];
    const said = found ? this.classes[found[0]] : number in this.broken ? 'broken' : '…';
    answer.textContent = wrong ? `✗ ${said}` : said;
    sureness.textContent = found ? `${percent(found[1])}${wrong ? `, is ${truth}` : ''}` : truth;
    badge.textContent = BADGES[state] ?? '';
    element.dataset.state = state;
    element.classList.toggle('wrong', wrong);
    element.style.left = `${place * STEP + 3}px`;
    element.setAttribute('aria-selected', number === this.current);
    element.setAttribute('aria-setsize', this.list.length);
    element.setAttribute('aria-posinset', place + 1);
    const words = [this.names[number], truth && `class ${truth}`, `answer ${said}`, found && percent(found[1]), state];
    element.title = words.filter(Boolean).join(', ');
    element.setAttribute('aria-label', element.title);
    if (number === this.current) at('strip').setAttribute('aria-activedescendant', element.id);
  }
}
