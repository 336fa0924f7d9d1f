// Every request of the page. A refusal is an Error whose message is the sentence of the server.

/** A refusal of the server, in a sentence that can be shown. */
export class Refusal extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

async function answer(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (failure) {
    if (failure.name === "AbortError") throw failure;
    throw new Refusal(0, "The server does not answer. Start `focaldiffusion app` again.");
  }
  if (response.ok) return response;
  let sentence = response.status >= 500
    ? "The server failed here. The window that it was started in says why."
    : `The server answered ${response.status}.`;
  try {
    sentence = (await response.json()).error ?? sentence;
  } catch {
    // The answer is not JSON: the status has to do.
  }
  throw new Refusal(response.status, sentence);
}

const json = async (path, options) => (await answer(path, options)).json();

const sent = (method, body) => ({
  method,
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

const part = encodeURIComponent;
const of = (job) => `/api/jobs/${part(job)}`;

function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

export const about = () => json("/api/about");
export const folders = (root, path) => json(`/api/folders${query({ root, path })}`);

export const draft = (id) => json(`/api/drafts/${part(id)}`);
export const draftOf = (source) => json("/api/drafts", sent("POST", source));
export const corrected = (id, changes) => json(`/api/drafts/${part(id)}`, sent("PATCH", changes));

/**
 * Upload files; `progress` receives the share that is sent, 0 to 1. `fetch` does not report it.
 * @returns {Promise<object>} the draft
 */
export function uploaded(files, progress) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", "/api/drafts");
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      if (request.status < 300) resolve(request.response);
      else {
        const sentence = request.response?.error ?? `The server answered ${request.status}.`;
        reject(new Refusal(request.status, sentence));
      }
    });
    request.addEventListener("error", () => {
      reject(new Refusal(0, "The upload broke off. The server may have refused the size."));
    });
    request.send(form);
  });
}

export const jobs = () => json("/api/jobs");
export const job = (id) => json(of(id));
export const started = (draftId, options) =>
  json("/api/jobs", sent("POST", { draft: draftId, options }));
export const cancelled = (id) => answer(`${of(id)}/cancel`, { method: "POST" });
export const retried = (id) => answer(`${of(id)}/retry`, { method: "POST" });
export const removed = (id) => answer(of(id), { method: "DELETE" });

export const result = (id) => json(`${of(id)}/result`);
export const probed = (id, x, y, which, signal) =>
  json(`${of(id)}/probe${query({ x, y, of: which })}`, { signal });
export const measured = (id, [x0, y0], [x1, y1], which) =>
  json(`${of(id)}/measure${query({ x0, y0, x1, y1, of: which })}`);

/** The picture of a virtual lens, as a blob. */
export const refocused = async (id, lens, signal) =>
  (await answer(`${of(id)}/refocus`, { ...sent("POST", lens), signal })).blob();

/** A film (`pull` or `parallax`), as a blob. */
export const film = async (id, kind, settings) =>
  (await answer(`${of(id)}/${kind}`, sent("POST", settings))).blob();

export const mesh = async (id, settings, signal) =>
  (await answer(`${of(id)}/mesh${query(settings)}`, { signal })).arrayBuffer();

export const retouch = (id) => json(`${of(id)}/retouch`);
/** Replace the strokes of a revision; refused if another tab has changed them meanwhile. */
export const retouched = (id, strokes, revision) =>
  json(`${of(id)}/retouch`, sent("PUT", { strokes, revision }));

export const exportUrl = (id, name) => `${of(id)}/export/${part(name)}`;

/** A file to take away, as a blob and the name that the server gives it. */
export async function exported(id, name) {
  const found = await answer(exportUrl(id, name));
  const said = found.headers.get("Content-Disposition") ?? "";
  const [, encoded] = /filename\*=utf-8''([^;]+)/i.exec(said) ?? [];
  const [, plain] = /filename="([^"]+)"/.exec(said) ?? [];
  return { blob: await found.blob(), name: encoded ? decodeURIComponent(encoded) : plain ?? name };
}

/** Address of a tile; `settings` are the colours and the range of a layer of numbers. */
export const tileUrl = (id, layer, level, x, y, settings) =>
  `${of(id)}/layers/${part(layer)}/tiles/${level}/${x}/${y}${query(settings)}`;

/**
 * Follow the server until the returned function is called.
 * @param {object} listeners by event: `job` and `draft` receive the whole of it, `gone` its id;
 *   `open` and `error` tell of the connection, which the browser makes again unless it is refused
 */
export function follow({ open, error, ...listeners }) {
  const source = new EventSource("/api/events");
  source.addEventListener("open", open);
  source.addEventListener("error", error);
  for (const [event, listener] of Object.entries(listeners)) {
    source.addEventListener(event, (message) => listener(JSON.parse(message.data)));
  }
  return () => source.close();
}
