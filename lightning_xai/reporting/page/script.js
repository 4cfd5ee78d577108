"use strict";
// What a page without scripts has already is made more of: an epoch slider over the maps, and a table of all samples.
(() => {
  const get = id => document.getElementById(id);
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    element.textContent = text ?? "";
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };

  // One slider for the maps and the cursors of the curves.
  const slider = get("slider");
  if (slider) {
    const input = slider.querySelector("input");
    const panels = [...document.querySelectorAll(".panel")].reverse(); // the page has the latest first
    get("panels").append(...panels);
    get("earlier").remove();
    const show = () => {
      const chosen = panels[input.value];
      for (const panel of panels) panel.hidden = panel !== chosen;
      get("shown").textContent = chosen.dataset.name;
      for (const cursor of document.querySelectorAll(".cursor")) {
        const [from, to] = [Number(cursor.dataset.from), Number(cursor.dataset.to)];
        const share = (Number(chosen.dataset.step) - from) / (to - from);
        cursor.setAttribute("visibility", share < 0 || share > 1 ? "hidden" : "visible");
        cursor.setAttribute("x1", 250 * share);
        cursor.setAttribute("x2", 250 * share);
      }
    };
    slider.hidden = false;
    input.addEventListener("input", show);
    show();
  }

  // All samples, sorted and filtered; what is chosen is in the address, so that it can be passed on.
  const table = get("browser");
  if (!table) return;
  const first = table.querySelector("data").dataset.metric;
  const controls = JSON.parse(table.dataset.controls);
  const evaluations = JSON.parse(get("scores").textContent).filter(evaluation => evaluation.reported);
  const state = { run: 0, metric: first, sort: "mean", down: "", only: "", label: "" };
  let most = 40;

  const shares = JSON.parse(table.dataset.shares);
  const written = (value, percent) =>
    value === null || value === undefined ? "" : (percent ? (100 * value).toFixed(1) : value.toFixed(3)).replace("-", "−");
  const rows = () => {
    const evaluation = evaluations[state.run];
    const methods = Object.entries(evaluation.values[state.metric]);
    return evaluation.samples.map((sample, place) => {
      const scores = Object.fromEntries(methods.map(([name, values]) => [`score ${name}`, values[place]]));
      const own = methods.filter(([name, values]) => !controls.includes(name) && values[place] !== null);
      const known = own.map(([, values]) => values[place]);
      const mean = known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
      const spread = known.length ? Math.sqrt(known.reduce((a, b) => a + (b - mean) ** 2, 0) / known.length) : null;
      const row = { sample };
      if (evaluation.target) {
        row.class = evaluation.target[place];
        row.predicted = evaluation.predicted[place];
        row.probability = evaluation.probability[place];
      }
      return { ...row, mean, disagreement: spread, ...scores };
    });
  };
  const kept = row =>
    (state.only === "" || (row.class === row.predicted) === (state.only === "right")) &&
    (state.label === "" || String(row.class) === state.label);
  const sorted = all => {
    const sign = state.down ? -1 : 1;
    const last = value => value === null || value === undefined;
    return all.sort((a, b) => {
      const [one, two] = [a[state.sort], b[state.sort]];
      if (last(one) || last(two)) return last(one) - last(two);
      return sign * (one - two) || a.sample - b.sample;
    });
  };
  const head = (name, all) => {
    const cell = make("th", "", { scope: "col", class: "number" });
    const button = make("button", name.replace(/^score /, ""), { type: "button", title: "Sort" });
    if (state.sort === name) {
      cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      button.append(state.down ? " ↓" : " ↑");
    }
    button.addEventListener("click", () => {
      state.down = state.sort === name && !state.down ? "1" : "";
      state.sort = name;
      draw(`${name}`);
    });
    cell.append(button);
    return cell;
  };
  const body = row => {
    const wrong = row.class !== row.predicted;
    const line = make("tr", "", wrong ? { class: "wrong" } : {});
    for (const [name, value] of Object.entries(row)) {
      const whole = ["sample", "class", "predicted"].includes(name);
      const percent = name !== "probability" && shares.includes(state.metric);
      const text = (whole ? String(value ?? "") : written(value, percent)) + (wrong && name === "predicted" ? " ✗" : "");
      line.append(make(name === "sample" ? "th" : "td", text, { class: "number" }));
    }
    return line;
  };
  const draw = focused => {
    const all = rows();
    if (!(state.sort in all[0])) state.sort = "mean";
    const found = sorted(all.filter(kept));
    const names = Object.keys(all[0]);
    table.tHead.rows[0].replaceChildren(...names.map(name => head(name)));
    table.tBodies[0].replaceChildren(...found.slice(0, most).map(body));
    get("counted").textContent = `${Math.min(most, found.length)} of ${all.length} samples, ${found.length} chosen, by ${state.metric}${shares.includes(state.metric) ? ", in percent" : ""}`;
    get("further").hidden = found.length <= most;
    if (focused) table.tHead.querySelectorAll("button")[names.indexOf(focused)].focus();
    const query = new URLSearchParams(Object.entries(state).filter(([, value]) => value !== "" && value !== 0));
    if (focused !== undefined) history.replaceState(null, "", `#samples?${query}`);
  };
  const choice = (title, name, options) => {
    const label = make("label", `${title} `);
    const select = make("select");
    for (const [value, text] of options) select.append(make("option", text, { value }));
    select.value = state[name];
    select.addEventListener("change", () => {
      state[name] = name === "run" ? Number(select.value) : select.value;
      draw("");
    });
    label.append(select);
    get("controls").append(label);
  };

  if (location.hash.startsWith("#samples?")) {
    for (const [name, value] of new URLSearchParams(location.hash.slice(9))) if (name in state) state[name] = value;
    state.run = evaluations[state.run] ? Number(state.run) : 0;
    if (!(state.metric in evaluations[state.run].values)) state.metric = first;
    get("samples").scrollIntoView();
  }
  if (evaluations.length > 1) choice("Run", "run", evaluations.map((evaluation, place) => [place, evaluation.run]));
  choice("Metric", "metric", Object.keys(evaluations[0].values).map(name => [name, name]));
  if (evaluations[0].target) {
    choice("Show", "only", [["", "all"], ["wrong", "wrong ones"], ["right", "right ones"]]);
    const labels = [...new Set(evaluations[0].target)].sort((a, b) => a - b);
    choice("Class", "label", [["", "all"], ...labels.map(label => [label, label])]);
  }
  get("controls").hidden = false;
  get("further").addEventListener("click", () => {
    most += 200;
    draw();
  });
  draw();
})();
