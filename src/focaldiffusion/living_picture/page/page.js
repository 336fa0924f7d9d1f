"use strict";
(async () => {
  const facts = JSON.parse(document.getElementById("facts").textContent);
  const [rows, columns] = facts.size;
  const count = rows * columns;

  // Nearness (16 bits) of every pixel, of both ends of its interval, and confidence (8 bits),
  // deflated.
  const packed = Uint8Array.from(atob(facts.bytes), (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(unpacked).arrayBuffer();
  const values = (facts.has_interval ? 3 : 1) * count;
  const steps = new Uint16Array(bytes, 0, values);
  const sure = new Uint8Array(bytes, 2 * values, count);
  const nearnessOf = (step) => facts.low + (step / 65535) * (facts.high - facts.low);

  const stage = document.getElementById("stage");
  const focused = [...stage.querySelectorAll("img.focused")];
  const sharp = document.getElementById("sharp");
  const canvas = document.getElementById("depth");
  const mark = document.getElementById("point");
  const slider = document.getElementById("focus");
  const readout = document.getElementById("probe");
  const buttons = [...document.querySelectorAll("[data-view]")];
  const point = { x: 0.5, y: 0.5 };

  const length = (metres) => {
    if (!Number.isFinite(metres)) return "∞";
    const size = Math.abs(metres);
    const [unit, factor] = size >= 0.1 ? ["m", 1] : size >= 1e-4 ? ["mm", 1e3] : ["µm", 1e6];
    return `${Number((metres * factor).toPrecision(3))} ${unit}`;
  };
  const inWords = (nearness) => {
    if (facts.field === "depth_m") return length(nearness > 0 ? 1 / nearness : Infinity);
    if (facts.field === "height_m") return length(nearness);
    return `${(100 * (1 - nearness)).toFixed(0)} % of the sweep`;
  };

  function probe() {
    const row = Math.min(rows - 1, Math.floor(point.y * rows));
    const column = Math.min(columns - 1, Math.floor(point.x * columns));
    const at = row * columns + column;
    const nearness = nearnessOf(steps[at]);
    let text = `${facts.field === "height_m" ? "Height" : "Depth"} ${inWords(nearness)}`;
    if (facts.has_interval) {
      const ends = [1, 2].map((map) => nearnessOf(steps[map * count + at]));
      text += `, between ${inWords(Math.max(...ends))} and ${inWords(Math.min(...ends))}`;
    }
    readout.value = `${text}; confidence ${Math.round(sure[at] / 2.55)} %`;
    mark.hidden = false;
    mark.style.left = `${100 * point.x}%`;
    mark.style.top = `${100 * point.y}%`;
    return nearness;
  }

  // The two pictures around a focus fade into each other.
  function focusAt(nearness) {
    const first = facts.focus[0];
    const last = facts.focus[facts.focus.length - 1];
    const share = Math.min(1, Math.max(0, (nearness - first) / (last - first)));
    const place = share * (focused.length - 1);
    const below = Math.min(focused.length - 2, Math.floor(place));
    focused.forEach((picture, index) => {
      const over = index === below + 1 ? place - below : 0;
      picture.style.opacity = index === below ? 1 : over;
    });
    slider.value = share;
    const words = inWords(first + share * (last - first));
    document.getElementById("at").textContent = words;
    slider.setAttribute("aria-valuetext", words);
  }

  function show(view) {
    sharp.hidden = view !== "sharp";
    canvas.hidden = view !== "depth";
    document.getElementById("scale").hidden = view !== "depth";
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    }
  }

  function drawDepth() {
    canvas.width = columns;
    canvas.height = rows;
    const context = canvas.getContext("2d");
    const image = context.createImageData(columns, rows);
    const [far, near] = facts.shown;
    for (let at = 0; at < count; at++) {
      const share = (nearnessOf(steps[at]) - far) / (near - far);
      const colour = facts.colours[Math.min(255, Math.max(0, Math.floor(256 * share)))];
      image.data.set(colour, 4 * at);
      image.data[4 * at + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    const [low, bar, high] = document.getElementById("scale").children;
    [low.textContent, high.textContent] = [inWords(near), inWords(far)];
    const stops = facts.colours.filter((_, index) => index % 15 === 0).reverse();
    bar.style.background = `linear-gradient(to right, ${stops.map((c) => `rgb(${c})`).join()})`;
  }

  const move = (event) => {
    const box = stage.getBoundingClientRect();
    point.x = Math.min(0.9999, Math.max(0, (event.clientX - box.left) / box.width));
    point.y = Math.min(0.9999, Math.max(0, (event.clientY - box.top) / box.height));
    return probe();
  };
  const pull = (event) => {
    focusAt(move(event));
    if (!canvas.hidden) return;
    show("focused");
  };
  stage.addEventListener("pointermove", (event) => (event.buttons ? pull(event) : move(event)));
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    pull(event);
  });
  stage.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 0.1 : 0.02;
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key === "Enter" || event.key === " ") {
      focusAt(probe());
      show("focused");
    } else if (moves[event.key]) {
      const [dx, dy] = moves[event.key];
      point.x = Math.min(0.9999, Math.max(0, point.x + dx));
      point.y = Math.min(0.9999, Math.max(0, point.y + dy));
      probe();
    } else {
      return;
    }
    event.preventDefault();
  });
  slider.addEventListener("input", () => {
    const first = facts.focus[0];
    const last = facts.focus[facts.focus.length - 1];
    focusAt(first + slider.value * (last - first));
    show("focused");
  });
  for (const button of buttons) button.addEventListener("click", () => show(button.dataset.view));
  drawDepth();
  focusAt(facts.focus[facts.focus.length - 1]);
  document.body.dataset.ready = "yes";
})();
