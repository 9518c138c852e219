// What readers find, by scan: kept in the browser under the run's name, and taken along by links where pages on disk
// share no storage; of two marks of a scan the later one holds. What is no mark, or of another run, is passed over.
const marks = (() => {
  "use strict";
  const MARKS = ["", "ok", "correct", "reject"];
  // as nnunet_nacl.files
  const FORMULA = /(?:^|(?<=[;|\t\r\n]))(?=[\s"']*[=+\-@\t\uff1d\uff0b\uff0d\uff20])/g;
  const bar = document.getElementById("marks");
  const { run } = bar.dataset;
  const name = `nnunet_nacl ${run}`;
  const all = new Map();
  const text = () => JSON.stringify({ run, marks: Object.fromEntries(all) });
  const take = (given) => {
    let data;
    try {
      data = JSON.parse(given);
    } catch {
      // a place on this page, or damaged
    }
    for (const [scan, entry] of Object.entries(Object(data?.run === run && data.marks))) {
      const { mark, note, time } = Object(entry);
      const isPast = new Date(time).toJSON() === time && Date.parse(time) <= Date.now();
      if (MARKS.includes(mark) && typeof note === "string" && isPast && of(scan).time < time) {
        all.set(scan, { mark, note, time });
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
    const quoted = (cell) => `"${cell.replace(FORMULA, "'").replaceAll('"', '""')}"`;
    return [["run", "case", "mark", "note", "time"], ...cells].map((row) => `${row.map(quoted).join(",")}\n`).join("");
  };
  take(new URLSearchParams(`marks=${location.hash.slice(1)}`).get("marks")); // decodes whatever is there
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
