(() => {
  "use strict";
  const rows = [...document.querySelectorAll("tr[data-case]")];
  const chosen = document.querySelector("tr[data-chosen]");
  const [flagged, unseen] = document.querySelectorAll("#filter input");
  const show = () => {
    marks.load();
    const left = { flagged: 0, chosen: 0, all: 0 };
    for (const row of rows) {
      const { mark, note } = marks.of(row.dataset.case);
      const isFlagged = "flagged" in row.dataset;
      row.querySelector("select").value = mark;
      row.querySelector(".note").textContent = note;
      row.hidden = (flagged.checked && !isFlagged) || (unseen.checked && mark !== "");
      left.flagged += isFlagged && mark === "";
      left.chosen += "chosen" in row.dataset && mark === "";
      left.all += mark === "";
    }
    document.getElementById("left").textContent = `Not seen yet: ${left.flagged} flagged, ${chosen ? `${left.chosen} chosen by chance, ` : ""}${left.all} of ${rows.length} in all.`;
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
