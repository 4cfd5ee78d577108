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
  const table = get("browser");
  const first = table ? table.querySelector("data").dataset.metric : "";
  const told = name => (table ? JSON.parse(table.dataset[name]) : []);
  const [controls, shares, names] = ["controls", "shares", "names"].map(told);
  const called = label => names[label] ?? label ?? "";
  const everything = JSON.parse(get("scores").textContent);
  const evaluations = everything.filter(evaluation => evaluation.reported);
  const absent = value => value === null || value === undefined;
  const written = (value, percent) =>
    absent(value) ? "" : (percent ? (100 * value).toFixed(1) : value.toFixed(3)).replace("-", "−");
  const rowsOf = (evaluation, metric) => {
    const methods = Object.entries(evaluation.values[metric] ?? {});
    return evaluation.samples.map((sample, place) => {
      const scores = Object.fromEntries(methods.map(([name, values]) => [`score ${name}`, values[place]]));
      const own = methods.filter(([name, values]) => !controls.includes(name) && values[place] !== null);
      const all = own.map(([, values]) => values[place]);
      const average = numbers => (numbers.length ? numbers.reduce((a, b) => a + b, 0) / numbers.length : null);
      const mean = average(all);
      const spread = mean === null ? null : Math.sqrt(average(all.map(value => (value - mean) ** 2)));
      const { target, predicted, probability } = evaluation;
      const known = target && { class: target[place], predicted: predicted[place], probability: probability[place] };
      return { sample, ...known, mean, disagreement: spread, ...scores };
    });
  };

  // One slider for the maps and the cursors of the curves. Sheets are gray, and get their colors here.
  const sheets = get("sheets") ? JSON.parse(get("sheets").textContent) : [];
  const panels = [...document.querySelectorAll(".panel")].reverse(); // the page has the latest first
  const read = async sheet => {
    const image = new Image();
    image.src = sheet.source;
    await image.decode();
    const context = make("canvas", "", { width: image.width, height: image.height }).getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height);
  };
  const drawn = ({ width, height, across, gray }, block, place, color) => {
    const canvas = make("canvas", "", { width, height });
    const picture = new ImageData(width, height);
    const [left, top] = [(place % across) * width, (block * across + Math.floor(place / across)) * height];
    const at = i => 4 * ((top + Math.floor(i / width)) * gray.width + left + (i % width));
    const below = block * across * height * gray.width * 4; // to the input's pixel
    for (let i = 0; i < width * height; i++)
      picture.data.set([...color(gray.data[at(i)], gray.data[at(i) - below]), 255], 4 * i);
    canvas.getContext("2d").putImageData(picture, 0, 0);
    return canvas;
  };
  const colored = (share, ground) => {
    const t = Math.min(1, Math.abs(share));
    return (share < 0 ? [33, 102, 172] : [178, 24, 43]).map(end => ground + t * (end - ground));
  };
  const grid = async sheet => {
    sheet.gray ??= await read(sheet);
    const evaluation = everything.find(e => ["run", "stage", "epoch", "step"].every(name => e[name] === sheet[name]));
    const rows = evaluation ? rowsOf(evaluation, first) : sheet.samples.map(sample => ({ sample }));
    const order = get("ordered").querySelector("select").value;
    const overlaid = get("ordered").querySelector("input").checked;
    const key = row => (order === "last" ? -row.mean : order === "disagreement" ? -row.disagreement : row[order]) ?? 0;
    const sign = table && table.dataset.lower && ["mean", "last"].includes(order) ? -1 : 1;
    const chosen = rows.sort((a, b) => sign * (key(a) - key(b))).slice(0, 12);
    const ends = sheet.methods.map(name => Math.max(...sheets.map(s => s.ends[s.methods.indexOf(name)] ?? 0)) || 1);
    const heads = sheet.methods.map((name, m) => make("th", `${name} ±${ends[m].toPrecision(2)}`, { scope: "col" }));
    get("grid").tHead.rows[0].replaceChildren(make("th", "sample"), make("th", "input"), ...heads);
    const body = chosen.map(row => {
      const [line, place] = [make("tr"), sheet.samples.indexOf(row.sample)];
      if (place < 0) return line;
      const labels = row.class === undefined ? "" : ` (${called(row.class)} → ${called(row.predicted)})`;
      const input = make("td");
      input.append(drawn(sheet, 0, place, gray => [gray, gray, gray]));
      line.append(make("th", `${row.sample}${labels}`, { scope: "row" }), input);
      sheet.methods.forEach((name, m) => {
        const share = gray => ((gray - 128) / 127) * (sheet.scales[m] / ends[m]);
        const color = (gray, input) => (gray ? colored(share(gray), overlaid ? input : 255) : [153, 153, 153]);
        const cell = make("td");
        cell.append(drawn(sheet, m + 1, place, color), written(row[`score ${name}`], shares.includes(first)));
        line.append(cell);
      });
      return line;
    });
    get("grid").tBodies[0].replaceChildren(...body);
  };
  const steps = sheets.length ? sheets : panels.map(panel => ({ panel, step: panel.dataset.step }));
  if (steps.length) {
    const input = get("slider").querySelector("input");
    const show = () => {
      const chosen = steps[input.value];
      const { panel, run, stage, epoch, step } = chosen;
      const whose = evaluations.length > 1 ? `${run}: ` : "";
      get("shown").textContent = panel ? panel.dataset.name : `${whose}${stage}, epoch ${epoch}, step ${step}`;
      for (const one of panels) one.hidden = one !== panel;
      if (!panel) grid(chosen);
      for (const cursor of document.querySelectorAll(".cursor")) {
        const [from, to] = ["from", "to"].map(name => Number(cursor.dataset[name]));
        const share = (step - from) / (to - from);
        cursor.setAttribute("visibility", share < 0 || share > 1 ? "hidden" : "visible");
        for (const end of ["x1", "x2"]) cursor.setAttribute(end, 250 * share);
      }
    };
    get("panels").append(...panels);
    get("earlier")?.remove();
    if (sheets.length) for (const id of ["grid", "ordered", "of-sheets", "of-panels"]) get(id).hidden = id === "of-panels";
    get("slider").hidden = steps.length < 2 && !sheets.length;
    input.max = input.value = steps.length - 1;
    input.addEventListener("input", show);
    get("ordered").addEventListener("change", show);
    show();
  }

  // All samples, sorted and filtered; what is chosen is in the address, so that it can be passed on.
  if (!table) return;
  const state = { run: 0, metric: first, sort: "mean", down: table.dataset.lower, only: "", label: "" };
  let most = 40;
  const kept = row =>
    (state.only === "" || (row.class === row.predicted) === (state.only === "right")) &&
    (state.label === "" || String(row.class) === state.label);
  const inOrder = (a, b) => {
    const [one, two] = [a[state.sort], b[state.sort]];
    if (absent(one) || absent(two)) return absent(one) - absent(two);
    return (state.down ? -1 : 1) * (one - two) || a.sample - b.sample;
  };
  const head = name => {
    const cell = make("th", "", { scope: "col", class: "number" });
    const button = make("button", name.replace(/^score /, ""), { type: "button", title: "Sort" });
    if (state.sort === name) {
      cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      button.append(state.down ? " ↓" : " ↑");
    }
    button.addEventListener("click", () => {
      state.down = state.sort === name && !state.down ? "1" : "";
      state.sort = name;
      draw(name);
    });
    cell.append(button);
    return cell;
  };
  const body = row => {
    const wrong = row.class !== row.predicted;
    const line = make("tr", "", wrong ? { class: "wrong" } : {});
    for (const [name, value] of Object.entries(row)) {
      const whole = name === "sample" ? String : ["class", "predicted"].includes(name) ? called : null;
      const percent = name !== "probability" && shares.includes(state.metric);
      const text = (whole ?? (score => written(score, percent)))(value) + (wrong && name === "predicted" ? " ✗" : "");
      line.append(make(name === "sample" ? "th" : "td", text, { class: "number" }));
    }
    return line;
  };
  const draw = focused => {
    const all = rowsOf(evaluations[state.run], state.metric);
    const columns = Object.keys(all[0]);
    if (!columns.includes(state.sort)) state.sort = "mean";
    const found = all.filter(kept).sort(inOrder);
    table.tHead.rows[0].replaceChildren(...columns.map(head));
    table.tBodies[0].replaceChildren(...found.slice(0, most).map(body));
    const unit = shares.includes(state.metric) ? ", in percent" : "";
    const number = `${Math.min(most, found.length)} of ${found.length} chosen of ${all.length}`;
    get("counted").textContent = `${number} samples, by ${state.metric}${unit}`;
    get("further").hidden = found.length <= most;
    if (focused) table.tHead.querySelectorAll("button")[columns.indexOf(focused)].focus();
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
    choice("Class", "label", [["", "all"], ...labels.map(label => [label, called(label)])]);
  }
  get("controls").hidden = false;
  get("further").addEventListener("click", () => draw(void (most += 200)));
  draw();
})();
