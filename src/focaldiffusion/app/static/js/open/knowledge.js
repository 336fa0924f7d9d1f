// What is known of focus and lens, with fields to correct it.

import { attempt } from "../announce.js";
import { element } from "../dom.js";
import { lengthOf } from "../format.js";

const LENS = [
  ["focal_length_mm", "Focal length, mm", "for example 50"],
  ["f_number", "f-number", "for example 2.8"],
  ["pixel_pitch_um", "Pixel pitch, µm", "for example 3.9"],
];

/** Facts of a lens that have no field of their own. */
const LENS_IN_WORDS = [
  ["focal_length_px", "focal length", "px"],
  ["aperture_diameter_mm", "aperture", "mm wide"],
  ["sensor_width_mm", "sensor", "mm wide"],
];

const CHOICES = [
  ["distances", "Distances"],
  ["positions", "Stage positions"],
];

const kindOf = (draft) => (draft.grade === "stage positions" ? "positions" : "distances");

function numberField(id, text, value, placeholder, save) {
  return element("label", { class: "field", for: id },
    element("span", {}, text),
    element("input", {
      id, type: "text", inputmode: "decimal", placeholder, value: value ?? "",
      on: { change: (event) => attempt(() => save(event.target.value)) },
    }));
}

function stepField(draft, change) {
  return numberField("stage-step", "Step between frames, µm", "", "for example 2.5", (text) => {
    const step = lengthOf(text, "µm");
    if (step === null) return change({ positions_mm: null });
    return change({ positions_mm: draft.frames.map((_, place) => place * step * 1e3) });
  });
}

function listField(draft, change) {
  return numberField("distance-list", "All distances, m, near to far", "", "for example 0.3, 0.8, inf", (text) => {
    const distances = text.split(/[,;\s]+/).filter(Boolean).map((word) => lengthOf(word));
    if (distances.length && distances.length !== draft.frames.length) {
      throw new Error(`${distances.length} distances for ${draft.frames.length} frames. Give one for each.`);
    }
    return change({
      focus_distances_m: distances.length
        ? distances.map((value) => (value === Infinity ? "inf" : value)) : null,
    });
  });
}

function focusPart(draft, change) {
  const kind = kindOf(draft);
  const fields = { distances: listField(draft, change), positions: stepField(draft, change) };
  const showField = (value) => {
    for (const [name, field] of Object.entries(fields)) field.hidden = name !== value;
  };
  showField(kind);
  const choice = element("div", { class: "choices", role: "radiogroup", "aria-label": "Known of the focus" },
    ...CHOICES.map(([value, text]) => element("label", { for: `known-${value}` },
      element("input", {
        type: "radio", name: "known", id: `known-${value}`, set: { checked: value === kind },
        on: { change: () => showField(value) },
      }),
      element("span", {}, text))));
  return element("section", {},
    element("h2", {}, "Focus"),
    choice, fields.distances, fields.positions,
    element("div", { class: "row" },
      element("button", {
        class: "small", on: { click: () => change({ order: draft.frames.map(({ id }) => id).reverse() }) },
      }, "Reverse the order"),
      element("button", {
        class: "small", on: { click: () => change({ focus_distances_m: null, positions_mm: null }) },
      }, "As the files say")));
}

function lensPart(draft, change) {
  const lens = draft.lens ?? {};
  const known = LENS_IN_WORDS.filter(([key]) => lens[key] !== undefined && lens[key] !== null)
    .map(([key, text, unit]) => `${text} ${Number(lens[key].toPrecision(4))} ${unit}`);
  return element("section", {},
    element("h2", {}, "Lens"),
    ...LENS.map(([key, text, placeholder]) => numberField(`lens-${key}`, text, lens[key], placeholder, (value) => {
      const number = value.trim() ? Number(value.replace(",", ".")) : null;
      if (Number.isNaN(number)) throw new Error(`${text}: "${value}" is not a number.`);
      const others = LENS.filter(([name]) => name !== key && lens[name]).map(([name]) => [name, lens[name]]);
      return change({ lens: Object.fromEntries(number === null ? others : [...others, [key, number]]) });
    })),
    element("p", { class: "muted small-text" }, known.length
      ? `Known: ${known.join(", ")}.` : "Without a lens, the blur is found from the frames."));
}

/** The form beside the frames. */
export function knowledgeForm(draft, change) {
  return element("div", {}, focusPart(draft, change), lensPart(draft, change));
}
