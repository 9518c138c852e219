(() => {
  "use strict";
  const status = document.getElementById("sort-status");
  document.getElementById("sort-hint")?.removeAttribute("hidden"); // not every page has tables to sort
  const collator = new Intl.Collator("en", { numeric: true });
  const key = (row, column) => {
    const cell = row.cells[column];
    return "value" in cell.dataset ? Number(cell.dataset.value) : null;
  };
  const compare = (column, numeric, sign) => (a, b) => {
    if (!numeric) {
      const [x, y] = [a, b].map((row) => row.cells[column].textContent.trim());
      return (x === "") - (y === "") || sign * collator.compare(x, y);
    }
    const [x, y] = [key(a, column), key(b, column)];
    if (x === null || y === null) {
      return (x === null) - (y === null); // what has no value stays at the end
    }
    return sign * (x - y);
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headers = [...table.tHead.rows[0].cells].filter((header) => !("unsorted" in header.dataset)); // as of pictures
    headers.forEach((header) => {
      const column = header.cellIndex;
      const numeric = original.some((row) => key(row, column) !== null);
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      header.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const next = { none: "ascending", ascending: "descending", descending: "none" }[header.getAttribute("aria-sort")];
        headers.forEach((other) => other.setAttribute("aria-sort", "none"));
        header.setAttribute("aria-sort", next);
        const rows = [...original];
        if (next !== "none") {
          rows.sort(compare(column, numeric, next === "ascending" ? 1 : -1));
        }
        body.append(...rows);
        const how = next === "none" ? status.dataset.unsorted : `sorted by ${button.textContent.trim()}, ${next}`;
        status.textContent = `${table.caption.textContent.split(":")[0].trim()}: ${how}`;
      });
    });
  }
  // What scrolls must be reachable by keyboard; what does not scroll should not be a stop.
  const update = () => {
    for (const box of document.querySelectorAll(".scroll")) {
      box.classList.toggle("wider", box.scrollWidth > box.clientWidth + 1);
      if (box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1) {
        box.tabIndex = 0;
      } else {
        box.removeAttribute("tabindex");
      }
    }
  };
  document.addEventListener("toggle", update, true); // it does not bubble
  window.addEventListener("load", update);
  window.addEventListener("resize", update);
  // What a link leads to is unfolded.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    const target = link && document.getElementById(link.hash.slice(1));
    for (let part = target?.closest("details"); part; part = part.parentElement.closest("details")) {
      part.open = true;
    }
  });
  // On paper nothing can be unfolded.
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    closed.forEach((one) => (one.open = true));
  });
  window.addEventListener("afterprint", () => closed.forEach((one) => (one.open = false)));
})();
