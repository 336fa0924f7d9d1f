// Sorts tables by the column whose heading is clicked; missing values stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const sort = () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const key = row => row.cells[column].dataset.value ?? "";
      const order = (a, b) => key(a) === "" ? 1 : key(b) === "" ? -1 :
        (isNaN(key(a)) ? key(a).localeCompare(key(b)) : key(a) - key(b)) * (falling ? -1 : 1);
      body.append(...[...body.rows].sort(order));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
}

// Paper shows everything.
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
});
