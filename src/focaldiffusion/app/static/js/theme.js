// Dark and light. Without a choice the page follows the system.

const KEY = "focaldiffusion-theme";

/** Apply the theme of the last visit, if one was chosen. */
export function recall() {
  const chosen = localStorage.getItem(KEY);
  if (chosen) document.documentElement.dataset.theme = chosen;
}

/** Change between dark and light. */
export function change() {
  const root = document.documentElement;
  const now = root.dataset.theme
    ?? (window.matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
  root.dataset.theme = now === "dark" ? "light" : "dark";
  localStorage.setItem(KEY, root.dataset.theme);
  window.dispatchEvent(new Event("themechange"));
}
