// What readers find, by scan: kept in the browser under the run's name. Of two marks of a scan the later one holds. What is
// no mark, or of another run, is passed over.
//
// Some browsers share storage between pages on disk (Chromium), some give each page its own (Firefox), some refuse it. A link
// carries a token that lies in the storage of its page; the page that it opens looks whether it finds it there. If so, storage
// is shared, and no address holds a mark. If not, that page goes back, and the page before follows the link again, now with the
// marks in the address, as all links do from then on.
const marks = (() => {
  "use strict";
  const MARKS = ["", "ok", "correct", "reject"];
  const LINKS = "a[href$='.html'], a[href*='.html#']";
  // as nnunet_nacl.utilities.files
  const FORMULA = /(?:^|(?<=[;|\t\r\n]))(?=[\s"']*[=+\-@\t\uff1d\uff0b\uff0d\uff20])/g;
  const bar = document.getElementById("marks");
  const { run } = bar.dataset;
  const name = `nnunet_nacl ${run}`;
  const all = new Map();
  let storage = "unknown"; // whether pages share it: or shared, apart, refused
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
      storage = "refused";
    }
  };
  const load = () => stored((kept) => take(kept.getItem(name)));
  const save = () => stored((kept) => kept.setItem(name, text()));
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
  const STORAGE = "nnunet_nacl storage";
  const TOKEN = "nnunet_nacl token";
  const SETTLED_MS = 200;
  const say = () => {
    for (const hint of document.querySelectorAll("[data-storage]")) {
      hint.hidden = hint.dataset.storage !== storage;
    }
  };
  const pathOf = (link) => link.href.split("#")[0];
  const recall = () => {
    storage = stored((kept) => kept.getItem(STORAGE)) ?? storage;
  };
  const learn = (what) => {
    storage = what;
    stored((kept) => kept.setItem(STORAGE, what));
  };
  const token = () => stored((kept) => {
    if (!kept.getItem(TOKEN)) {
      kept.setItem(TOKEN, Math.random().toString(36).slice(2));
    }
    return kept.getItem(TOKEN);
  });
  const arrive = () => {
    const given = new URLSearchParams(location.hash.slice(1)); // decodes whatever is there
    take(given.get("marks"));
    load();
    save();
    recall();
    if (storage === "refused" || !given.get("token")) {
      return;
    }
    learn(given.get("token") === token() ? "shared" : "apart");
    if (storage === "apart" && !given.has("marks") && !history.state) {
      history.replaceState({ looked: true }, ""); // once is enough
      history.back();
    }
  };
  // Follows a link again that the next page went back from; where storage is shared, the reader went back.
  const resume = async () => {
    const { following } = Object(history.state);
    if (!following) {
      return;
    }
    history.replaceState(null, "");
    await new Promise((next) => setTimeout(next, SETTLED_MS)); // another process may just have written
    recall();
    if (storage !== "shared") {
      learn("apart");
      [...document.querySelectorAll(LINKS)].find((link) => pathOf(link) === following)?.click();
    }
    say();
  };
  arrive();
  say();
  window.addEventListener("pageshow", resume);
  bar.hidden = false;
  bar.querySelector("button").addEventListener("click", () => {
    load();
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = `marks_${run}.csv`;
    link.click();
  });
  document.addEventListener("click", (event) => {
    const link = event.target.closest(LINKS);
    if (!link) {
      return;
    }
    const carried = new URLSearchParams({ token: token() ?? "" });
    if (storage === "apart" || storage === "refused") {
      carried.set("marks", text());
    } else if (storage !== "shared" && !event.ctrlKey && !event.metaKey && !event.shiftKey) { // else the page stays, in another tab or window
      learn("unknown"); // the page that opens says so if it is shared
      history.replaceState({ following: pathOf(link) }, "");
    }
    link.hash = carried;
  }, true);
  return { of, set, load };
})();
