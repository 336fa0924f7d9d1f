// Which two layers are compared: a list at each side of the divider.

import { element, fill } from "../dom.js";

/** The two lists over the stage. */
export class WipeChoice {
  constructor(workspace) {
    this.workspace = workspace;
    this.node = element("div", { class: "wipe-choice", hidden: true });
  }

  show() {
    const { active, second, layers } = this.workspace;
    this.node.hidden = !second;
    if (!second) return;
    const titles = layers.list.map(({ name, title }) => [name, title]);
    const list = (label, chosen, change) => {
      const node = element("select", { "aria-label": label, on: { change: () => change(node.value) } },
        ...titles.map(([name, title]) => element("option", { value: name, set: { selected: name === chosen } }, title)));
      return node;
    };
    const focused = this.node.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
    fill(this.node,
      list("Left layer", active, (name) => this.workspace.showLayer(name)),
      list("Right layer", second, (name) => this.workspace.compare(name)));
    if (focused) this.node.querySelector(`[aria-label="${focused}"]`)?.focus();
  }
}
