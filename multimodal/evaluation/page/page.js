"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");
  const media = read("media") ?? [];
  const seen = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting) { fill(target); seen.unobserve(target); }
  }, { rootMargin: "600px" });
  function fill(element) { element.src = media[Number(element.dataset.media)]; }
  for (const element of document.querySelectorAll("[data-media]")) seen.observe(element);
  addEventListener("beforeprint", () => document.querySelectorAll("[data-media]").forEach(fill));

  // searches: filter by pair, by the first hit, and by words
  for (const list of document.querySelectorAll(".searches")) {
    const form = list.querySelector("form"), articles = [...list.querySelectorAll("article")];
    const texts = articles.map((article) => article.textContent.toLowerCase());
    const show = () => {
      const pair = form.pair.value, verdict = form.verdict.value, words = form.words.value.trim().toLowerCase();
      let count = 0;
      articles.forEach((article, n) => {
        article.hidden = !((!pair || article.dataset.pair === pair) && (!verdict || article.dataset.verdict === verdict)
          && (!words || texts[n].includes(words)));
        count += article.hidden ? 0 : 1;
      });
      form.querySelector("output").textContent = `${count} of ${articles.length} queries`;
    };
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    show();
  }

  // the map
  const data = read("map-data");
  if (!data) return;
  const PALETTE = ["#2b7bba", "#d9730d", "#2e9e5b", "#c0417e", "#8a63d2", "#9a7b1f", "#1d9aa6", "#d1453b", "#5f8f1e", "#b06bd6",
    "#7a8794"], OTHER = "#9aa5b1", PAD = 24, NEAR = 14;
  const canvas = document.querySelector(".map canvas"), tip = document.querySelector(".tip"), pen = canvas.getContext("2d");
  const form = canvas.closest("section").querySelector("form"), legend = document.querySelector("[data-legend]");
  const count = data.row.length, all = [...Array(count).keys()];
  let xs, ys, box, view, colours, chosen = -1, order;
  const ofRow = new Map();
  data.row.forEach((row, n) => ofRow.set(row, [...(ofRow.get(row) ?? []), n]));

  function layout() {
    ({ x: xs, y: ys } = data.layouts[form.layout.value]);
    const low = (v) => v.reduce((a, b) => Math.min(a, b), Infinity), high = (v) => v.reduce((a, b) => Math.max(a, b), -Infinity);
    box = [low(xs), high(xs), low(ys), high(ys)];
    order = all.toSorted ? all.toSorted((a, b) => xs[a] - xs[b]) : [...all].sort((a, b) => xs[a] - xs[b]);
    view = { zoom: 1, x: 0, y: 0 };
  }
  function place(n) {
    const w = canvas.clientWidth, h = canvas.clientHeight;
    const scale = Math.min((w - 2 * PAD) / (box[1] - box[0] || 1), (h - 2 * PAD) / (box[3] - box[2] || 1)) * view.zoom;
    return [w / 2 + (xs[n] - (box[0] + box[1]) / 2) * scale + view.x, h / 2 - (ys[n] - (box[2] + box[3]) / 2) * scale + view.y];
  }
  function colour() {
    const column = data.columns[form.colour.value], entries = [];
    if (!column) {
      colours = data.modality.map((m) => PALETTE[m % PALETTE.length]);
      data.modalities.forEach((name, m) => entries.push([name, PALETTE[m % PALETTE.length]]));
    } else if (column.names) {
      colours = data.row.map((row) => PALETTE[column.of[row]] ?? OTHER);
      column.names.forEach((name, n) => entries.push([name, PALETTE[n]]));
      if (column.of.includes(-1)) entries.push(["others", OTHER]);
    } else {
      const known = column.numbers.filter((v) => v !== null);
      const low = known.reduce((a, b) => Math.min(a, b), Infinity), high = known.reduce((a, b) => Math.max(a, b), -Infinity);
      const shade = (v) => `hsl(${Math.round(250 - 210 * (v - low) / (high - low || 1))} 75% 50%)`;
      colours = data.row.map((row) => column.numbers[row] === null ? OTHER : shade(column.numbers[row]));
      for (const part of [0, 0.25, 0.5, 0.75, 1]) {
        const v = low + part * (high - low);
        entries.push([Number(v.toPrecision(4)).toString(), shade(v)]);
      }
    }
    legend.replaceChildren(...entries.map(([name, shade]) => {
      const entry = document.createElement("span"), dot = document.createElement("i");
      dot.style.background = shade;
      entry.append(dot, name);
      return entry;
    }));
  }
  function draw() {
    const ratio = devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
    const size = count > 1500 ? 2.4 : count > 500 ? 3 : 4;
    pen.globalAlpha = 0.75;
    for (const n of all) {
      const [x, y] = place(n);
      pen.fillStyle = colours[n];
      pen.beginPath();
      pen.arc(x, y, size, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
    if (chosen < 0) return;
    pen.strokeStyle = style.getPropertyValue("--ink");
    pen.lineWidth = 1.5;
    const [x, y] = place(chosen);
    for (const other of ofRow.get(data.row[chosen])) {
      const [a, b] = place(other);
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(a, b);
      pen.arc(a, b, size + 3, 0, 7);
      pen.stroke();
    }
  }
  function choose(n) {
    chosen = n;
    tip.hidden = n < 0;
    draw();
    if (n < 0) return;
    const row = data.rows[data.row[n]], modality = data.modalities[data.modality[n]], parts = [];
    const add = (tag, words) => {
      const element = document.createElement(tag);
      element.dir = "auto";
      element.textContent = words;
      parts.push(element);
    };
    add("b", row.key);
    add("small", modality);
    for (const [name, words] of Object.entries(row.texts)) if (row.media[name] === undefined || name === modality) add("div", words);
    for (const name of Object.keys(row.media).sort((a, b) => (b === modality) - (a === modality)).slice(0, 2)) {
      const image = document.createElement("img");
      image.src = media[row.media[name]];
      image.alt = name;
      parts.push(image);
    }
    const column = data.columns[form.colour.value];
    if (column) {
      const value = column.names ? column.names[column.of[data.row[n]]] ?? "others" : column.numbers[data.row[n]] ?? "missing";
      add("small", `${form.colour.value}: ${value}`);
    }
    tip.replaceChildren(...parts);
    const [x, y] = place(n), right = x + 14 + tip.offsetWidth < canvas.clientWidth;
    tip.style.left = `${Math.max(0, right ? x + 14 : x - 14 - tip.offsetWidth)}px`;
    tip.style.top = `${Math.min(Math.max(0, y - 20), Math.max(0, canvas.clientHeight - tip.offsetHeight))}px`;
  }
  function nearest(event) {
    const around = canvas.getBoundingClientRect(), x = event.clientX - around.left, y = event.clientY - around.top;
    let best = -1, least = NEAR * NEAR;
    for (const n of all) {
      const [a, b] = place(n), distance = (a - x) ** 2 + (b - y) ** 2;
      if (distance < least) [best, least] = [n, distance];
    }
    return best;
  }
  function zoom(factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) {
    if (!factor) view = { zoom: 1, x: 0, y: 0 };
    else {
      const next = Math.min(60, Math.max(0.5, view.zoom * factor)), by = next / view.zoom;
      const [a, b] = [x - canvas.clientWidth / 2, y - canvas.clientHeight / 2];
      view = { zoom: next, x: a - (a - view.x) * by, y: b - (b - view.y) * by };
    }
    choose(chosen);
  }
  let held = null;
  canvas.addEventListener("pointerdown", (event) => { held = [event.clientX, event.clientY]; choose(nearest(event)); });
  canvas.addEventListener("pointermove", (event) => {
    if (held && event.buttons) {
      view.x += event.clientX - held[0];
      view.y += event.clientY - held[1];
      held = [event.clientX, event.clientY];
      draw();
      tip.hidden = true;
    } else {
      const n = nearest(event);
      if (n !== chosen) choose(n);
    }
  });
  addEventListener("pointerup", () => { held = null; });
  canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && !event.buttons) choose(-1); });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    const around = canvas.getBoundingClientRect();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, event.clientX - around.left, event.clientY - around.top);
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (step) choose(order[(order.indexOf(chosen) + step + count) % count]);
    else if (event.key === "Escape") choose(-1);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("blur", () => choose(-1));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => { if (event.target.name === "layout") layout(); colour(); choose(-1); });
  for (const button of form.querySelectorAll("[data-zoom]"))
    button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  layout();
  colour();
  draw();
})();
