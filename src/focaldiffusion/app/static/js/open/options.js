// Options of a run: those of `infer` that are worth a decision here.

import { element } from "../dom.js";

const ALIGN = [["auto", "If they moved"], ["on", "Always"], ["off", "Never"]];

function check(id, text) {
  const input = element("input", { type: "checkbox", id });
  return { input, node: element("label", { class: "check", for: id }, input, element("span", {}, text)) };
}

/** The form, and `chosen()` with the options that differ from the defaults. */
export function optionsForm() {
  const imageOnly = check("image-only", "Image alone, without depth (faster)");
  const drop = check("drop-unaligned", "Leave out frames that match no other");
  const blur = check("find-blur", "Find the blur from the frames, even if the lens is known");
  const align = element("select", { id: "align" },
    ...ALIGN.map(([value, text]) => element("option", { value }, text)));
  const node = element("div", { class: "options" },
    imageOnly.node,
    element("details", {},
      element("summary", {}, "More options"),
      element("label", { class: "field", for: "align" }, element("span", {}, "Align the frames"), align),
      drop.node, blur.node));
  const chosen = () => ({
    ...(imageOnly.input.checked ? { image_only: true } : {}),
    ...(drop.input.checked ? { drop_unaligned: true } : {}),
    ...(blur.input.checked ? { find_blur: true } : {}),
    ...(align.value === "auto" ? {} : { align: align.value }),
  });
  return { node, chosen };
}
