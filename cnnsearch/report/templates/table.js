(() => {
  "use strict";
  const number = cell => (cell.dataset.sort === undefined ? NaN : Number(cell.dataset.sort));

  function compare(column, direction) {
    return (a, b) => {
      const x = a.cells[column], y = b.cells[column];
      const m = number(x), n = number(y);
      // Cells without a number come last whichever way the rest is sorted.
      if (Number.isNaN(m) !== Number.isNaN(n)) return Number.isNaN(m) ? 1 : -1;
      return direction * (Number.isNaN(m) ? x.textContent.localeCompare(y.textContent) : m - n);
    };
  }

  function prepare(root) {
    for (const table of root.querySelectorAll("table.sortable")) {
      const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
      heads.forEach((head, column) => {
        const button = document.createElement("button");
        button.type = "button";
        button.append(...head.childNodes);
        head.append(button);
        button.addEventListener("click", () => {
          // Numbers start with the largest: that is what one looks for in accuracies.
          const first = head.classList.contains("num") ? "descending" : "ascending";
          const other = first === "ascending" ? "descending" : "ascending";
          const next = head.getAttribute("aria-sort") === first ? other : first;
          heads.forEach(h => h.removeAttribute("aria-sort"));
          head.setAttribute("aria-sort", next);
          rows.sort(compare(column, next === "ascending" ? 1 : -1));
          body.append(...rows);
        });
      });

      const bar = document.createElement("div"), label = document.createElement("label");
      const input = document.createElement("input"), count = document.createElement("output");
      bar.className = "filter";
      input.type = "search";
      input.placeholder = rows.length ? [...rows[0].cells].slice(0, 2).map(cell => cell.textContent.trim()).join(" ") : "";
      label.append("Show rows with ", input);
      bar.append(label, count);
      input.addEventListener("input", () => {
        const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        let shown = 0;
        for (const row of rows) {
          const cells = [...row.cells].map(cell => cell.textContent.trim().toLowerCase());
          // A number has to match a whole cell: 16 is not 0.16.
          const hit = words.every(w => cells.some(c => (/^[\d.]+$/.test(w) ? c === w : c.includes(w))));
          row.hidden = !hit;
          shown += hit;
        }
        count.textContent = words.length ? `${shown} of ${rows.length}` : "";
      });
      // A short table is seen whole.
      if (rows.length > 12) table.parentElement.before(bar);
    }
  }

  prepare(document);
  // A page that is kept up to date says so when it has put in a new part.
  document.addEventListener("replaced", event => prepare(event.target));
})();
