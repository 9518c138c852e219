(() => {
  "use strict";
  const rows = [...document.querySelectorAll("tr[data-case]")];
  const [flagged, unseen] = document.querySelectorAll("#filter input");
  const show = () => {
    marks.load();
    let left = 0;
    for (const row of rows) {
      const { mark, note } = marks.of(row.dataset.case);
      const isFlagged = "flagged" in row.dataset;
      row.querySelector("select").value = mark;
      row.querySelector(".note").textContent = note;
      row.hidden = (flagged.checked && !isFlagged) || (unseen.checked && mark !== "");
      left += isFlagged && mark === "";
    }
    document.getElementById("left").textContent = `${left} flagged ${left === 1 ? "scan is" : "scans are"} not seen yet.`;
  };
  for (const row of rows) {
    const select = row.querySelector("select");
    select.hidden = false;
    select.addEventListener("change", () => {
      marks.set(row.dataset.case, { mark: select.value });
      show();
    });
  }
  document.getElementById("filter").hidden = false;
  document.getElementById("filter").addEventListener("change", show);
  window.addEventListener("pageshow", show); // back from a scan's page
  window.addEventListener("storage", show);
  show();
})();
