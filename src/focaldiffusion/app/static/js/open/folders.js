// Choose a folder of this machine, below the roots that the server was started with.

import * as api from "../api.js";
import { attempt } from "../announce.js";
import { element, fill } from "../dom.js";
import { counted } from "../format.js";
import { icon } from "../icons.js";

function entry(name, action) {
  return element("li", {}, element("button", { class: "folder", on: { click: action } }, icon("folder"), name));
}

/** Show the folders; `chosen` receives `{root, path}`. */
export function chooseFolder(roots, chosen) {
  const list = element("ul", { class: "folders" });
  const path = element("p", { class: "muted" });
  const take = element("button", { class: "primary", disabled: true }, "Open this folder");
  const dialog = element("dialog", { class: "sheet", "aria-labelledby": "folders-title" },
    element("header", {},
      element("h2", { id: "folders-title" }, "Folders of this machine"),
      element("button", { class: "plain", "aria-label": "Close", on: { click: () => dialog.close() } }, "×"),
    ),
    path, list, element("footer", {}, take));

  const showRoots = () => {
    path.textContent = "The folders that the app was started with";
    take.disabled = true;
    fill(list, ...roots.map((root) => entry(root.name, () => show(root, ""))));
  };
  const show = async (root, relative) => {
    const folder = await attempt(() => api.folders(root.id, relative));
    if (!folder) return;
    path.textContent = `${[root.name, relative].filter(Boolean).join("/")} · ${counted(folder.images, "image")}`;
    const up = relative.split("/").slice(0, -1).join("/");
    fill(list,
      entry("..", () => (relative ? show(root, up) : showRoots())),
      ...folder.folders.map((name) => entry(name, () => show(root, relative ? `${relative}/${name}` : name))));
    take.disabled = folder.images === 0;
    take.onclick = () => {
      dialog.close();
      chosen({ root: root.id, path: relative });
    };
    list.querySelector("button")?.focus();
  };

  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  if (roots.length === 1) show(roots[0], "");
  else showRoots();
  dialog.showModal();
}
