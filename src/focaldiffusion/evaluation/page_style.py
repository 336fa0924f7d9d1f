"""How the report looks, and the script that sorts its tables and unfolds it for print."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1c1e21; --quiet: #666c73; --line: #d9dce0; --shade: #f5f6f7;
  --alarm: #a3281f; --accent: #0b5cad;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15171a; --ink: #e2e4e7; --quiet: #979da5; --line: #33373d; --shade: #1c1f23;
    --alarm: #f0857c; --accent: #7fb5ea;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 76rem;
  background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
}
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .3rem; font-weight: 650; }
h2 {
  font-size: 1.15rem; margin: 2.6rem 0 .6rem; padding-top: .7rem;
  border-top: 1px solid var(--line); font-weight: 650;
}
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; font-weight: 600; }
p, ul { margin: .4rem 0; max-width: 62rem; }
ul { padding-left: 1.2rem; }
small, .quiet, figcaption { color: var(--quiet); }
small { font-size: .8rem; }
.mark {
  display: inline-block; border: 1px solid var(--alarm); color: var(--alarm); border-radius: 3px;
  padding: 0 .45em; font-size: .8rem; font-weight: 600;
}
.alarm { color: var(--alarm); }
code {
  display: block; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--shade);
  border: 1px solid var(--line); border-radius: 4px; padding: .6rem .8rem; margin: .6rem 0;
  font: .82rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem; margin: .6rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; font-weight: 600; padding: .9rem 0 .3rem; }
th, td { padding: .28rem .75rem; text-align: right; vertical-align: top; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; }
thead th { border-bottom: 1px solid var(--ink); white-space: normal; max-width: 8.5rem; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th.text, td.text { text-align: left; }
tbody { border-bottom: 1px solid var(--line); }
tbody th { font-weight: 400; vertical-align: top; }
td small { display: block; line-height: 1.2; }
td.reason { white-space: normal; min-width: 20rem; }
tr.published, tr.uncounted { color: var(--quiet); }
td b { font-weight: 700; }
table.sortable th { cursor: pointer; }
table.sortable th[aria-sort]::after { content: " ▾"; color: var(--accent); }
table.sortable th[aria-sort="descending"]::after { content: " ▴"; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; }
.charts figure { flex: 0 1 22rem; }
figure { margin: .6rem 0; break-inside: avoid; }
figcaption { font-size: .85rem; }
svg { max-width: 100%; height: auto; }
img { max-width: 100%; height: auto; background: #fff; border-radius: 3px; }
summary { cursor: pointer; font-weight: 600; margin: .6rem 0; }
@media print {
  :root { --paper: #fff; --ink: #000; --quiet: #555; --line: #bbb; --shade: #f4f4f4; }
  body { padding: 0; max-width: none; font-size: 10pt; }
  .wide { overflow: visible; }
  tr { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
}
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const falling = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = row => row.cells[column].dataset.value ?? "";
    const order = (a, b) => key(a) === "" ? 1 : key(b) === "" ? -1 :
      (isNaN(key(a)) ? key(a).localeCompare(key(b)) : key(a) - key(b)) * (falling ? -1 : 1);
    body.append(...[...body.rows].sort(order));
  }));
}
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
});
"""
