// Line icons on a grid of 24.

import { drawn } from "./dom.js";

const PATHS = {
  look: "M2 12s3.6-6.5 10-6.5S22 12 22 12s-3.6 6.5-10 6.5S2 12 2 12z M12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
  measure: "M3 16.5 16.5 3 21 7.5 7.5 21z M7 12.5l2 2 M10 9.5l3 3 M13 6.5l2 2",
  refocus: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z M12 8.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7z M12 1v4 M12 19v4 M1 12h4 M19 12h4",
  three_d: "M12 2.5 20.5 7v10L12 21.5 3.5 17V7z M3.5 7 12 11.8 20.5 7 M12 11.8v9.7",
  retouch: "M20.5 3.5c-4 1-9 6-11 9.5l2 2c3.5-2 8.5-7 9-11.5z M8.5 14c-2.5 0-3 2-3.2 3.5C5 19 3.5 20 3.5 20c4 1 7.5 0 7-4z",
  take: "M12 3v12 M7 10.5l5 5 5-5 M4 20.5h16",
  queue: "M4 6h16 M4 12h16 M4 18h10",
  help: "M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4 M12 17.5v.5",
  theme: "M12 3a9 9 0 1 0 0 18z M12 3a9 9 0 0 1 0 18",
  folder: "M3 6h6l2 2.5h10V19H3z",
  plus: "M12 5v14 M5 12h14",
  close: "M6 6l12 12 M18 6 6 18",
  back: "M14 5l-7 7 7 7",
  forth: "M10 5l7 7-7 7",
  warning: "M12 4 22 20H2z M12 10v5 M12 17.5v.5",
  undo: "M8 5 3.5 9.5 8 14 M4 9.5h10a6 6 0 0 1 0 12h-3",
  redo: "M16 5l4.5 4.5L16 14 M20 9.5H10a6 6 0 0 0 0 12h3",
  play: "M7 4.5v15l12-7.5z",
  wipe: "M3 5h18v14H3z M12 3v18 M9 12l-2.5 0 M17.5 12 15 12",
  fit: "M4 9V4h5 M15 4h5v5 M20 15v5h-5 M9 20H4v-5",
};

/** An icon, hidden from assistive technology: the control around it has the name. */
export function icon(name) {
  return drawn(
    "svg",
    { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    drawn("path", { d: PATHS[name] }),
  );
}
