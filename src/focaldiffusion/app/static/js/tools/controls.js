// Controls of the tools' panels: sliders, choices and buttons, each with a label.

import { element } from "../dom.js";
import { attempt } from "../announce.js";

let last = 0;

/**
 * A slider.
 * @param {string} text its label
 * @param {object} range `{min, max, step, value}`
 * @param {function(number): string} said the value in words
 * @param {function(number, boolean): void} moved value, and whether the slider was released
 */
export function slider(text, range, said, moved) {
  last += 1;
  const id = `slider-${last}`;
  const shown = element("output", { for: id });
  const input = element("input", { id, type: "range", ...range });
  const show = () => {
    const value = Number(input.value);
    shown.textContent = said(value);
    input.setAttribute("aria-valuetext", said(value));
    const share = (value - Number(input.min)) / (Number(input.max) - Number(input.min) || 1);
    input.style.setProperty("--share", `${share * 100}%`);
  };
  const tell = (isReleased) => () => {
    // What is said may depend on what the movement changes.
    moved(Number(input.value), isReleased);
    show();
  };
  input.addEventListener("input", tell(false));
  input.addEventListener("change", tell(true));
  show();
  const node = element("div", { class: "slider" },
    element("label", { for: id }, element("span", {}, text), shown), input);
  return {
    node,
    get value() {
      return Number(input.value);
    },
    set value(value) {
      input.value = value;
      show();
    },
  };
}

/** A group of choices; `options` are `[value, text]`. */
export function choices(text, options, value, chosen) {
  last += 1;
  const name = `choice-${last}`;
  return element("fieldset", { class: "choices-set" },
    element("legend", {}, text),
    element("div", { class: "choices" }, ...options.map(([option, words]) =>
      element("label", { for: `${name}-${option}` },
        element("input", {
          type: "radio", name, id: `${name}-${option}`, value: option, set: { checked: option === value },
          on: { change: () => chosen(option) },
        }),
        element("span", {}, words)))));
}

/** A labelled list to choose from; `options` are `[value, text]`. */
export function select(text, options, value, chosen) {
  last += 1;
  const id = `select-${last}`;
  const node = element("select", { id, on: { change: () => chosen(node.value) } },
    ...options.map(([option, words]) => element("option", { value: option, set: { selected: option === value } }, words)));
  return { node: element("label", { class: "field", for: id }, element("span", {}, text), node), input: node };
}

/** A button that is disabled while its action runs. */
export function actionButton(text, action, attributes = {}) {
  const node = element("button", {
    ...attributes,
    on: {
      click: async () => {
        node.disabled = true;
        node.classList.add("busy");
        await attempt(action);
        node.disabled = false;
        node.classList.remove("busy");
      },
    },
  }, text);
  return node;
}

/** Buttons that make a film: `made(format)` returns its blob. They say so while it takes its time. */
export function filmButtons(name, made) {
  const status = element("p", { class: "muted small-text", role: "status" });
  const button = (format) => actionButton(format.toUpperCase(), async () => {
    status.textContent = "Making the film, up to a minute …";
    try {
      download(await made(format), `${name}.${format}`);
    } finally {
      status.textContent = "";
    }
  });
  return element("div", {}, element("div", { class: "row" }, button("mp4"), button("gif")), status);
}

/** Offer a blob as a download. */
export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = element("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
