// What readers find, by scan: kept in the browser under the run's name, and taken along by links where pages on disk
// share no storage; of two marks of a scan the later one holds.
const marks = (() => {
  "use strict";
  const bar = document.getElementById("marks");
  const { run } = bar.dataset;
  const name = `nnunet_nacl ${run}`;
  const all = new Map();
  const text = () => JSON.stringify([...all]);
  const take = (stored) => {
    for (const [scan, mark] of JSON.parse(stored || "[]")) {
      if (!all.has(scan) || all.get(scan).time < mark.time) {
        all.set(scan, mark);
      }
    }
  };
  const stored = (use) => {
    try {
      return use(localStorage);
    } catch {
      document.getElementById("no-storage").hidden = false;
    }
  };
  const load = () => stored((storage) => take(storage.getItem(name)));
  const save = () => stored((storage) => storage.setItem(name, text()));
  const of = (scan) => all.get(scan) ?? { mark: "", note: "", time: "" };
  const set = (scan, change) => {
    load(); // another page may have marked since
    all.set(scan, { ...of(scan), ...change, time: new Date().toISOString() });
    save();
  };
  const csv = () => {
    const rows = [...all].filter(([, { mark, note }]) => mark || note);
    const cells = rows.map(([scan, { mark, note, time }]) => [run, scan, mark, note, time]);
    const quoted = (cell) => `"${cell.replaceAll('"', '""')}"`;
    return [["run", "case", "mark", "note", "time"], ...cells].map((row) => `${row.map(quoted).join(",")}\n`).join("");
  };
  try {
    take(decodeURIComponent(location.hash.slice(1)));
  } catch {
    // a place on this page
  }
  load();
  save();
  bar.hidden = false;
  bar.querySelector("button").addEventListener("click", () => {
    load();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = `marks_${run}.csv`;
    link.click();
  });
  document.addEventListener("click", ({ target }) => {
    const link = target.closest("a[href$='.html'], a[href*='.html#']");
    if (link) {
      link.hash = encodeURIComponent(text());
    }
  }, true);
  return { of, set, load };
})();
