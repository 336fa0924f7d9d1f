// Shortcuts: one list, which the help sheet shows. A screen binds its keys and unbinds on leaving.

const bindings = new Set();

/**
 * Bind keys.
 * @param {string} group heading of the help sheet
 * @param {Array<[string, string, function(KeyboardEvent): void]>} entries key, meaning, action
 * @returns {function(): void} unbinds them
 */
export function bind(group, entries) {
  const own = entries.map(([key, meaning, action]) => ({ group, key, meaning, action }));
  own.forEach((entry) => bindings.add(entry));
  return () => own.forEach((entry) => bindings.delete(entry));
}

/** The bindings in force, by group, for the help sheet. */
export function bound() {
  const groups = new Map();
  for (const { group, key, meaning } of bindings) {
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push({ key, meaning });
  }
  return groups;
}

/** Name of a pressed key, such as "w", "Mod+z" or "Shift+ArrowLeft". */
function nameOf(event) {
  const parts = [];
  if (event.ctrlKey || event.metaKey) parts.push("Mod");
  if (event.altKey) parts.push("Alt");
  // Shift is part of a printed character already: "?" and "+" mean themselves.
  if (event.shiftKey && (event.key.length > 1 || parts.length)) parts.push("Shift");
  parts.push(event.key.length === 1 ? event.key.toLowerCase() : event.key);
  return parts.join("+");
}

function takesKeys(target, key) {
  if (target.closest("textarea, select")) return true;
  const input = target.closest("input");
  if (!input) return Boolean(target.closest("[role=slider]")) && /Arrow|Home|End|Page/.test(key);
  if (input.type === "range") return /Arrow|Home|End|Page/.test(key);
  if (input.type === "checkbox" || input.type === "radio") return /Arrow| /.test(key);
  return true;
}

function presses(target, key) {
  return (key === "Enter" || key === " ") && Boolean(target.closest("button, a, summary"));
}

/** Listen to the keyboard. */
export function listen() {
  window.addEventListener("keydown", (event) => {
    const key = nameOf(event);
    if (key !== "Escape" && (takesKeys(event.target, event.key) || presses(event.target, event.key))) {
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    // The newest binding of a key has it.
    const match = [...bindings].reverse().find((entry) => entry.key.split(" ").includes(key)
      || (key === " " && entry.key === "Space"));
    if (!match) return;
    event.preventDefault();
    match.action(event);
  });
}
