// The editor's page: npx eslint@10 and npx prettier@3 --check mmresattn/editor/static. There is no build step.
const browser = [
  'CustomEvent', 'Event', 'EventTarget', 'FormData', 'Image', 'OffscreenCanvas', 'Option', 'ResizeObserver', 'URLSearchParams',
  'addEventListener', 'atob', 'document', 'fetch', 'getComputedStyle', 'localStorage', 'location', 'matchMedia', 'performance',
  'sessionStorage', 'setTimeout',
]; // prettier-ignore

export default [
  { ignores: ['**/vendor/**', 'site/**'] },
  {
    files: ['mmresattn/editor/static/*.js'],
    languageOptions: { globals: Object.fromEntries(browser.map((name) => [name, 'readonly'])) },
    rules: {
      eqeqeq: ['error', 'always', { null: 'ignore' }],
      'no-undef': 'error',
      'no-unused-vars': 'error',
      'no-shadow': 'error',
      'no-var': 'error',
      'prefer-const': 'error',
      'no-implicit-globals': 'error',
      'require-await': 'error',
      'no-use-before-define': ['error', { functions: false }],
    },
  },
];
