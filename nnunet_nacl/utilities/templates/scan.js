(() => {
  "use strict";
  const element = (id) => document.getElementById(id);
  const { scan } = element("mark").dataset;
  const fields = [...element("mark").querySelectorAll("select, textarea")];
  const show = () => {
    marks.load();
    fields.forEach((field) => (field.value = marks.of(scan)[field.name]));
  };
  for (const field of fields) {
    field.addEventListener("input", () => marks.set(scan, { [field.name]: field.value }));
  }
  element("mark").hidden = false;
  window.addEventListener("pageshow", show);
  window.addEventListener("storage", show);
  show();
  const go = (way) => () => document.querySelector(`a[rel=${way}]`)?.click();
  const keys = { n: go("next"), ArrowRight: go("next"), p: go("prev"), ArrowLeft: go("prev") };
  const viewer = element("viewer");
  if (viewer) {
    const { slices, first, ring, of, axis } = JSON.parse(element("slices").textContent);
    const slider = element("slider");
    const mark = viewer.querySelector(".ring");
    const { width, height } = viewer.querySelector("img.grey").attributes;
    viewer.style.setProperty("--aspect", width.value / height.value);
    [mark.style.left, mark.style.top] = ring.map((share) => `${100 * share}%`);
    const layers = ["grey", "outlines", "confidence"].map((name) => viewer.querySelector(`img.${name}`));
    const draw = () => {
      const [number, ...pictures] = slices[slider.value];
      layers.forEach((layer, i) => (layer.src = `data:image/${i ? "png" : "jpeg"};base64,${pictures[i]}`));
      mark.hidden = number !== first;
      element("slice").textContent = `${axis} slice ${number} of ${of}`.trim();
      slider.setAttribute("aria-valuetext", element("slice").textContent);
    };
    const move = (steps) => {
      slider.value = Number(slider.value) + steps;
      draw();
    };
    slider.max = slices.length - 1;
    slider.value = slices.findIndex(([number]) => number === first);
    slider.addEventListener("input", draw);
    let turned = 0; // touchpads send many small steps
    viewer.querySelector(".layers").addEventListener("wheel", (event) => {
      event.preventDefault();
      turned += event.deltaMode ? 40 * event.deltaY : event.deltaY;
      const steps = Math.trunc(turned / 40);
      turned -= 40 * steps;
      move(-Math.sign(steps));
    }, { passive: false });
    for (const name of ["outlines", "confidence"]) {
      const box = element(`show-${name}`);
      const toggle = () => (viewer.querySelector(`img.${name}`).hidden = !box.checked);
      box.addEventListener("change", toggle);
      keys[name[0]] = () => box.click();
      toggle();
    }
    Object.assign(keys, { ArrowUp: () => move(1), ArrowDown: () => move(-1) });
    viewer.hidden = false;
    draw();
  }
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    const own = target.matches("textarea, select") || (target.matches("input[type=range]") && /Left|Right/.test(key));
    if (key in keys && !own && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      keys[key]();
    }
  });
})();
