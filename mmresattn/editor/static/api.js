// Requests to the server. Writes carry the token of the page; after a restart of the server a new one is fetched.

let token = null;

async function refresh() {
  token = (await (await fetch('/api/token')).json()).token;
}

async function read(response) {
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  const answer = isJson ? await response.json() : { error: await response.text() };
  if (response.ok) return answer;
  if (response.status === 401) location.assign('/static/login.html');
  throw Object.assign(new Error(answer.error), { status: response.status });
}

async function request(address, options) {
  try {
    return await fetch(address, options);
  } catch {
    throw new Error('The server does not answer. Is it running? Your strokes are kept in this tab.');
  }
}

export async function get(what, query = {}) {
  return read(await request(`/api/${what}?${new URLSearchParams(query)}`));
}

export async function post(what, body = {}) {
  const send = () =>
    request(`/api/${what}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-editor-token': token },
      body: JSON.stringify(body),
    });
  if (!token) await refresh();
  let response = await send();
  if (response.status === 403) {
    await refresh();
    response = await send();
  }
  return read(response);
}

export const address = (what, name) => `/api/${what}?${new URLSearchParams({ name })}`;

export function decode(base64, Type) {
  return new Type(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer);
}
