"use strict";
// What a page without scripts shows once: one slider shows each evaluation, and a table every sample with its maps.
(() => {
  const get = id => document.getElementById(id);
  const make = (tag, text = "", attributes = {}) => {
    const element = Object.assign(document.createElement(tag), { textContent: `${text}`.replace(/\p{C}/gu, escape) });
    for (const pair of Object.entries(attributes)) element.setAttribute(...pair);
    return element;
  };
  const average = values => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : null);
  const data = id => (get(id) ? JSON.parse(get(id).textContent) : []);
  const [steps, sheets, table] = [data("scores"), data("sheets"), get("browser")];
  const whose = ({ run }) => (steps.every(step => step.run === run) ? "" : `${run}: `);
  const called = step => `${whose(step)}${step.stage}, epoch ${step.epoch}, step ${step.step}`;
  const isOf = step => other => ["run", "stage", "epoch", "step"].every(name => `${other[name]}` === `${step[name]}`);
  // For the panels, the cursors of the curves and the rings in the metrics.
  const show = step => {
    get("shown").textContent = called(step);
    const panels = [...document.querySelectorAll(".panel")];
    for (const panel of panels) panel.hidden = !isOf(step)(panel.dataset);
    if (get("absent")) get("absent").hidden = panels.some(panel => !panel.hidden);
    for (const mark of document.querySelectorAll(".cursor, .ring")) {
      const { run, metric, method, low, high } = mark.dataset;
      const scores = (metric && !step.reported && step.values[metric]?.[method]) || [];
      const value = metric ? average(scores.filter(score => score !== null)) : step.step;
      const share = (value - low) / (high - low);
      const isThere = run === step.run && value !== null && (metric || (share >= 0 && share <= 1));
      mark.setAttribute("visibility", isThere ? "visible" : "hidden");
      if (metric) mark.setAttribute("cx", `${100 * Math.min(1, Math.max(0, share))}%`);
      else mark.setAttribute("transform", `translate(${250 * share})`);
    }
  };
  // Sheets are gray, and get their colors here; a part of them is read when one of its samples is shown.
  const pixels = part =>
    (part.pixels ??= (async () => {
      const isHere = part.source.startsWith("data:"); // else a script hands it over: a page from disk may read no more
      const [src, script] = [part.source, make("script")];
      const read = (onload, onerror) => document.head.append(Object.assign(script, { src, onload, onerror }));
      const image = Object.assign(new Image(), { src: isHere ? src : (await new Promise(read)).target.textContent });
      await image.decode();
      const context = make("canvas", "", { width: image.width, height: image.height }).getContext("2d");
      context.drawImage(image, 0, 0);
      return context.getImageData(0, 0, image.width, image.height);
    })());
  const drawn = ({ width, height, parts }, row, block, color) => {
    const [canvas, part] = [make("canvas", "", { width, height }), parts.find(one => one.rows.includes(row))];
    const paint = gray => {
      const [picture, place] = [new ImageData(width, height), part.rows.indexOf(row)];
      const first = Math.floor(place / part.across) * height * gray.width + (place % part.across) * width;
      const below = block * part.across * height * gray.width; // the input's pixel
      for (let i = 0; i < width * height; i++) {
        const at = first + Math.floor(i / width) * gray.width + (i % width);
        picture.data.set([...color(gray.data[4 * (at + below)], gray.data[4 * at]), 255], 4 * i);
      }
      canvas.getContext("2d").putImageData(picture, 0, 0);
    };
    if (part) pixels(part).then(paint);
    return canvas;
  };
  const endOf = name => Math.max(...sheets.map(sheet => sheet.ends[sheet.methods.indexOf(name)] ?? 0)) || 1;
  const map = (sheet, row, method) => {
    const factor = sheet.scales[method] / endOf(sheet.methods[method]) / 127;
    return drawn(sheet, row, method + 1, (gray, input) => {
      const [share, ground] = [(gray - 128) * factor, state.over ? input : 255];
      const mixed = color => ground + Math.min(1, Math.abs(share)) * (color - ground);
      return gray ? (share < 0 ? [33, 102, 172] : [178, 24, 43]).map(mixed) : [153, 153, 153];
    });
  };
  // All samples, sorted and filtered; what is chosen is in the address, so that it can be passed on.
  const { controls, metric, lower, names, shares, labelled } = table ? JSON.parse(table.dataset.told) : {};
  const state = { at: steps.findIndex(step => step.reported), metric, sort: "mean", down: lower ? "1" : "", only: "" };
  Object.assign(state, { label: "", over: "", x: `mean of ${metric}`, y: "disagreement", box: "" });
  const initial = { ...state };
  let most = 12;
  const title = name => name.replace(/^score /, "");
  const columnsOf = (step, of) => {
    const methods = Object.entries(step.values[of] ?? {});
    const own = methods.filter(([name]) => !controls.includes(name)).map(([, values]) => values);
    const rows = step.samples.map((_, row) => own.map(values => values[row]).filter(value => value != null));
    const mean = rows.map(average);
    const variances = rows.map((values, row) => average(values.map(value => (value - mean[row]) ** 2)));
    const disagreement = variances.map(variance => variance && variance ** 0.5);
    const { samples, target, predicted, probability } = step;
    const known = target && { [labelled ? "class" : "explained"]: target, predicted, probability };
    const scores = Object.fromEntries(methods.map(([name, values]) => [`score ${name}`, values]));
    return { sample: samples, ...known, mean, disagreement, ...scores };
  };
  const written = (name, value) => {
    if (value == null || name === "sample") return `${value ?? ""}`;
    if (["class", "explained", "predicted"].includes(name)) return names[value] ?? `${value}`;
    const percent = name !== "probability" && shares.includes(name.split("mean of ")[1] ?? state.metric);
    return (percent ? (100 * value).toFixed(1) : value.toFixed(3)).replace("-", "−");
  };
  const scatter = (columns, rows, chosen) => {
    const [plot, inside, radius] = [get("scatter"), new Set(chosen), rows.length > 1000 ? 0.5 : 1];
    const step = Math.ceil(rows.length / 5000) || 1; // one in so many is drawn
    const axes = [state.x, state.y].map(name => {
      const known = rows.map(row => columns[name][row]).filter(value => value != null).sort((a, b) => a - b);
      return { name, low: known[0] ?? 0, range: known.at(-1) - known[0] || 1 };
    });
    const share = (value, k) => ((100 * (value - axes[k].low)) / axes[k].range).toFixed(1);
    const isDrawn = (row, n) => n % step === 0 && axes.every(({ name }) => columns[name][row] != null);
    const dots = rows.filter(isDrawn).map(row => {
      const [x, y] = axes.map(({ name }, k) => share(columns[name][row], k));
      return `<circle cx="${x}" cy="${100 - y}" r="${radius}" class="${inside.has(row) ? "in" : "out"}"/>`;
    });
    const [x, right, low, y] = state.box.split(",").map((value, place) => share(value, place >> 1));
    const box = `<rect x="${x}" y="${100 - y}" width="${right - x}" height="${y - low}"/>`;
    plot.innerHTML = dots.join("") + (state.box && box); // numbers alone
    const spot = e => {
      const { left, top, width, height } = plot.getBoundingClientRect(); // with margins of 2 of 104
      const parts = [(e.clientX - left) / width, 1 - (e.clientY - top) / height];
      return parts.map((part, k) => axes[k].low + (1.04 * part - 0.02) * axes[k].range);
    };
    plot.onpointerdown = e => plot.setPointerCapture(e.pointerId, (plot.from = spot(e)));
    plot.onpointermove = plot.onpointerup = e => {
      const pairs = spot(e).map((to, k) => [plot.from?.[k], to].sort((a, b) => a - b));
      const wide = pairs.every(([from, to], k) => to - from > axes[k].range / 50);
      if (plot.from) change("box", wide ? pairs.join() : "");
      if (e.type === "pointerup") plot.from = undefined;
    };
    const ends = ({ name, low, range }) => `${title(name)} from ${written(name, low)} to ${written(name, low + range)}`;
    const told = `Across: ${ends(axes[0])}. Up: ${ends(axes[1])}. Draw a rectangle to choose samples.`;
    get("extent").textContent = told + (step > 1 ? ` One dot in ${step} is drawn.` : "");
  };
  const head = (name, sheet) => {
    const sorted = state.sort !== name ? "none" : state.down ? "descending" : "ascending";
    const cell = make("th", "", { scope: "col", class: "number", "aria-sort": sorted });
    cell.append(make("button", title(name), { type: "button", title: "Sort", name }));
    if (sheet?.methods.includes(name.slice(6))) cell.append(make("small", `±${endOf(title(name)).toPrecision(2)}`));
    return cell;
  };
  const line = (columns, row, sheet) => {
    const wrong = labelled && columns.class && columns.class[row] !== columns.predicted[row];
    const found = make("tr", "", wrong ? { class: "wrong" } : {});
    for (const [name, values] of Object.entries(columns)) {
      const text = written(name, values[row]) + (wrong && name === "predicted" ? " ✗" : "");
      const [cell, method] = [make(name === "sample" ? "th" : "td", text, { class: "number" }), name.slice(6)];
      if (sheet && name === "sample") cell.prepend(drawn(sheet, row, 0, gray => [gray, gray, gray]));
      if (sheet?.methods.includes(method)) cell.prepend(map(sheet, row, sheet.methods.indexOf(method)));
      found.append(cell);
    }
    return found;
  };
  const draw = () => {
    const step = steps[state.at] ?? steps[initial.at];
    show(step);
    if (!table) return;
    if (!(state.metric in step.values)) state.metric = metric;
    const [columns, sheet] = [columnsOf(step, state.metric), sheets.find(isOf(step))];
    const all = { ...columns };
    if (!(state.sort in columns)) state.sort = initial.sort;
    for (const axis of ["x", "y"]) {
      if (!(state[axis] in columns || state[axis].slice(8) in step.values)) state[axis] = initial[axis];
      all[state[axis]] ??= columnsOf(step, state[axis].slice(8)).mean;
    }
    const { target, predicted, samples } = step;
    const isOfKind = row => !state.only || (target[row] === predicted[row]) === (state.only === "right");
    const rows = [...samples.keys()].filter(row => isOfKind(row) && ["", `${target?.[row]}`].includes(state.label));
    const [x, y, key] = [state.x, state.y, state.sort].map(name => all[name]);
    const box = state.box.split(",").map(Number);
    const within = (value, [low, high]) => value != null && value >= low && value <= high;
    const found = rows.filter(row => !state.box || (within(x[row], box) && within(y[row], box.slice(2))));
    const less = (a, b) => (key[a] == null) - (key[b] == null) || (state.down ? -1 : 1) * (key[a] - key[b]) || a - b;
    table.tHead.rows[0].replaceChildren(...Object.keys(columns).map(name => head(name, sheet)));
    table.tBodies[0].replaceChildren(...found.sort(less).slice(0, most).map(row => line(columns, row, sheet)));
    scatter(all, rows, found);
    const number = `${Math.min(most, found.length)} of ${found.length} chosen of ${samples.length} samples`;
    const by = state.metric + (shares.includes(state.metric) ? ", in percent" : "");
    get("counted").textContent = `${number}, ${called(step)}, by ${by}`;
    get("further").hidden = found.length <= most;
  };
  const change = (name, value) => {
    state[name] = value;
    draw();
    const query = new URLSearchParams(Object.entries(state).filter(([key, own]) => own !== initial[key]));
    if (table) history.replaceState(null, "", `#samples?${query}`);
  };
  if (table) {
    const asked = location.hash.startsWith("#samples?") ? [...new URLSearchParams(location.hash.slice(9))] : [];
    for (const [name, value] of asked) if (name in state) state[name] = value;
    for (const select of document.querySelectorAll("#controls select"))
      Object.assign(select, { value: state[select.name], onchange: () => change(select.name, select.value) });
    get("further").onclick = () => draw((most += 100));
    table.tHead.onclick = ({ target: { name } }) => {
      if (!name) return;
      state.down = state.sort === name && !state.down ? "1" : "";
      change("sort", name);
      table.tHead.querySelector("[aria-sort$=ending] button").focus();
    };
    for (const id of ["controls", "plot"]) get(id).hidden = false;
    if (asked.length) get("samples").scrollIntoView();
  }
  get("earlier")?.replaceWith(...document.querySelectorAll("#earlier .panel"));
  if (get("panels") && table && sheets.length) get("panels").hidden = true;
  const slider = get("slider").querySelector("input");
  Object.assign(slider, { max: steps.length - 1, value: state.at, oninput: () => change("at", slider.value) });
  get("slider").hidden = steps.length < 2;
  draw();
})();
