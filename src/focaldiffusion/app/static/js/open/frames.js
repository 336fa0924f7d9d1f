// Thumbnails in focus order: move, leave out, and correct the focus of each frame.

import { attempt } from "../announce.js";
import { element } from "../dom.js";
import { lengthOf, numberOf, plain } from "../format.js";
import { icon } from "../icons.js";

/** Text of a length in an input; empty if unknown. */
function written(value) {
  const number = numberOf(value);
  if (number === null || number === undefined) return "";
  return Number.isFinite(number) ? String(Number(number.toPrecision(6))) : "inf";
}

/** Origin of a frame's focus, if it has one. */
function sourceOf({ focus_source: source, focus_distance_m: distance, position_mm: position }) {
  return source && (distance ?? position) !== null ? `from ${source}` : null;
}

function focusField(frame, place, draft, change) {
  const isStage = draft.grade === "stage positions";
  const what = isStage ? "Position, mm" : "Focus, m";
  const value = isStage ? written(frame.position_mm) : written(frame.focus_distance_m);
  const save = (event) => attempt(async () => {
    const metres = lengthOf(event.target.value, isStage ? "mm" : "m");
    if (isStage) {
      const positions = draft.frames.map((other) => other.position_mm ?? null);
      positions[place] = metres === null ? null : metres * 1e3;
      await change({ positions_mm: positions });
    } else {
      const distances = draft.frames.map((other) => other.focus_distance_m ?? null);
      distances[place] = plain(metres);
      await change({ focus_distances_m: distances });
    }
  });
  return element("label", { class: "focus-field" },
    element("span", {}, what),
    element("input", {
      id: `focus-${frame.id}`, type: "text", inputmode: "decimal", value, placeholder: "unknown",
      "aria-label": `${what} of ${frame.name}`, on: { change: save },
    }));
}

function card(frame, place, draft, change) {
  const ids = draft.frames.map(({ id }) => id);
  const moved = (by) => {
    const to = Math.min(ids.length - 1, Math.max(0, place + by));
    const order = ids.filter((id) => id !== frame.id);
    order.splice(to, 0, frame.id);
    return change({ order });
  };
  const out = draft.frames.filter((other) => other.left_out).map(({ id }) => id);
  const toggle = () => change({
    left_out: frame.left_out ? out.filter((id) => id !== frame.id) : [...out, frame.id],
  });
  const mover = (name, text, by) => element("button", {
    class: "plain", id: `${name}-${frame.id}`, "aria-label": `Move ${frame.name} ${text}`,
    title: `Move ${text}`, disabled: by < 0 ? place === 0 : place === ids.length - 1,
    on: { click: () => moved(by) },
  }, icon(name));
  const node = element("li", { class: `frame-card${frame.left_out ? " out" : ""}`, draggable: "true" },
    element("div", { class: "frame-picture" },
      element("img", { src: frame.thumbnail, alt: `Frame ${place + 1}: ${frame.name}`, draggable: "false" }),
      element("span", { class: "frame-place" }, String(place + 1))),
    element("div", { class: "frame-facts" },
      element("span", { class: "frame-name", title: frame.name }, frame.name),
      focusField(frame, place, draft, change),
      element("span", { class: "muted small-text" },
        [sourceOf(frame), frame.exposure].filter(Boolean).join(" · ")),
      frame.error ? element("span", { class: "error-text small-text" }, frame.error) : null,
      element("div", { class: "row" },
        mover("back", "earlier", -1),
        mover("forth", "later", 1),
        element("label", { class: "check", for: `use-${frame.id}` },
          element("input", { type: "checkbox", id: `use-${frame.id}`, set: { checked: !frame.left_out }, on: { change: toggle } }),
          element("span", {}, "use")))));
  node.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData("text/plain", frame.id);
    event.dataTransfer.effectAllowed = "move";
  });
  node.addEventListener("dragover", (event) => event.preventDefault());
  node.addEventListener("drop", (event) => {
    event.preventDefault();
    const dragged = event.dataTransfer.getData("text/plain");
    if (!ids.includes(dragged) || dragged === frame.id) return;
    const order = ids.filter((id) => id !== dragged);
    order.splice(place, 0, dragged);
    change({ order });
  });
  return node;
}

/** The frames as a list of cards. */
export function frameCards(draft, change) {
  return element("ol", { class: "frames", "aria-label": "Frames in focus order" },
    ...draft.frames.map((frame, place) => card(frame, place, draft, change)));
}
