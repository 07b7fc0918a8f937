// The page: a drawing in strokes, made into what the network sees, and what the network says to it.

const SIDE = 28, BOX = 20, PEN = 2.2; // pixels of the network; the box that training digits fill; a stroke's width
const element = (id) => document.getElementById(id);
const networks = NETWORKS.map(decode);
const strokes = []; // lists of points [x, y], in pixels of the network
let pen = [SIDE / 2, SIDE / 2], keyDown = false, pointerDown = false, waiting = false;

function current() {
  return networks[element("network").selectedIndex];
}

function drawStrokes(context, scale, width, shiftX = 0, shiftY = 0) {
  context.setTransform(scale, 0, 0, scale, shiftX, shiftY);
  context.lineWidth = width / scale;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = "white";
  for (const points of strokes) {
    context.beginPath();
    context.moveTo(...points[0]);
    for (const point of points) context.lineTo(...point);
    context.stroke();
  }
  context.setTransform(1, 0, 0, 1, 0, 0);
}

const sheet = new OffscreenCanvas(SIDE, SIDE).getContext("2d", { willReadFrequently: true });

// The drawing in SIDE x SIDE pixels, from 0 to 1.
function pixels(scale, shiftX, shiftY) {
  sheet.fillStyle = "black";
  sheet.fillRect(0, 0, SIDE, SIDE);
  drawStrokes(sheet, scale, PEN, shiftX, shiftY);
  const { data } = sheet.getImageData(0, 0, SIDE, SIDE);
  return Float64Array.from({ length: SIDE * SIDE }, (_, i) => data[4 * i] / 255);
}

// As MNIST has its digits: their longer side fills the box, their center of mass lies in the middle.
function centered() {
  const points = strokes.flat();
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const left = Math.min(...xs), top = Math.min(...ys);
  const longer = Math.max(Math.max(...xs) - left, Math.max(...ys) - top);
  const scale = Math.min((BOX - PEN) / Math.max(longer, 1), 3);
  let shiftX = SIDE / 2 - scale * (left + (Math.max(...xs) - left) / 2);
  let shiftY = SIDE / 2 - scale * (top + (Math.max(...ys) - top) / 2);
  const ink = pixels(scale, shiftX, shiftY);
  let total = 0, x = 0, y = 0;
  ink.forEach((value, i) => {
    total += value;
    x += value * ((i % SIDE) + 0.5);
    y += value * (Math.floor(i / SIDE) + 0.5);
  });
  return pixels(scale, shiftX + SIDE / 2 - x / total, shiftY + SIDE / 2 - y / total);
}

// The inputs of the network: from 0.01 to 1.
function seen() {
  const ink = strokes.length === 0 ? new Float64Array(SIDE * SIDE) : element("centered").checked ? centered() : pixels(1, 0, 0);
  return ink.map((value) => 0.01 + 0.99 * value);
}

function paint(canvas, colors) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  colors.forEach((color, i) => image.data.set([...color, 255], 4 * i));
  context.putImageData(image, 0, 0);
}

const gray = (share) => Array(3).fill(Math.round(255 * share));

// Blue for above zero, red for below, white for zero: colors that the color-blind tell apart.
function signed(share) {
  const end = share > 0 ? [33, 102, 172] : [178, 24, 43];
  return end.map((channel) => Math.round(255 + (channel - 255) * Math.abs(share)));
}

function showDrawing() {
  const canvas = element("drawing"), context = canvas.getContext("2d"), scale = canvas.width / SIDE;
  context.fillStyle = "black";
  context.fillRect(0, 0, canvas.width, canvas.height);
  drawStrokes(context, scale, PEN * scale);
  if (canvas.matches(":focus-visible")) { // where the keyboard's pen is
    context.strokeStyle = keyDown ? "#e69f00" : "#56b4e9";
    context.lineWidth = 2;
    context.beginPath();
    context.arc(pen[0] * scale, pen[1] * scale, (PEN * scale) / 2, 0, 2 * Math.PI);
    context.stroke();
  }
}

function showOutputs(outputs, best) {
  [...element("outputs").children].forEach((row, digit) => {
    row.classList.toggle("best", digit === best);
    row.querySelector(".bar").style.width = `${100 * outputs[digit]}%`;
    row.querySelector(".value").textContent = outputs[digit].toFixed(2);
  });
  element("outputs").setAttribute("aria-label", [...outputs].map((v, digit) => `${digit}: ${v.toFixed(2)}`).join(", "));
}

function showHidden(layers) {
  const canvases = element("hidden").children;
  layers.forEach((values, i) => paint(canvases[i], [...values].map(gray)));
  const counts = layers.map((values) => `${values.filter((v) => v > 0.5).length} of ${values.length}`);
  element("active").textContent = `Above a half: ${counts.join(", then ")}.`;
}

function show() {
  waiting = false;
  showDrawing();
  const network = current(), x = seen(), values = query(network, x);
  const outputs = values[values.length - 1];
  const best = outputs.indexOf(Math.max(...outputs));
  const drawn = strokes.length > 0;
  element("answer").textContent = drawn ? `${best}` : "draw something";
  showOutputs(outputs, drawn ? best : -1);
  paint(element("seen"), [...x].map(gray));
  const digit = element("asked").value === "" ? best : Number(element("asked").value);
  element("back-title").textContent = `Asked backwards for a ${digit}`;
  const label = Float64Array.from(outputs, (_, k) => (k === digit ? 0.99 : 0.01));
  paint(element("back"), [...backquery(network, label)].map(gray));
  const slopes = saliency(network, values, best);
  const steepest = Math.max(...slopes.map(Math.abs));
  element("why-title").textContent = `Why a ${best}`;
  element("steepest").textContent = steepest.toPrecision(2);
  paint(element("why"), [...slopes].map((s) => signed(steepest > 0 ? s / steepest : 0)));
  showHidden(values.slice(1, -1));
}

function later() {
  if (!waiting) requestAnimationFrame(show);
  waiting = true;
}

function prepare() {
  const network = current();
  element("about").textContent = network.about;
  element("hidden").replaceChildren(...network.layers.slice(0, -1).map(({ outputs }) => {
    const canvas = document.createElement("canvas");
    canvas.width = Math.min(outputs, 50);
    canvas.height = Math.ceil(outputs / canvas.width);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${outputs} hidden units`);
    return canvas;
  }));
  later();
}

function clear() {
  strokes.length = 0;
  keyDown = pointerDown = false;
  later();
}

function undo() {
  strokes.pop();
  keyDown = pointerDown = false;
  later();
}

function place(event) {
  const { left, top, width, height } = element("drawing").getBoundingClientRect();
  return [((event.clientX - left) / width) * SIDE, ((event.clientY - top) / height) * SIDE];
}

function begin(point) {
  strokes.push([point, [point[0] + 0.01, point[1]]]); // a dot, until it moves
  later();
}

function move(point) {
  strokes[strokes.length - 1].push(point);
  later();
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in MOVES) {
    pen = pen.map((at, axis) => Math.min(SIDE - 1, Math.max(1, at + MOVES[event.key][axis])));
    if (keyDown) move(pen);
  } else if (event.key === " ") {
    keyDown = !keyDown;
    if (keyDown) begin(pen);
  } else if (event.key === "c") clear();
  else if (event.key === "u") undo();
  else if (event.key === "n") {
    const select = element("network");
    select.selectedIndex = (select.selectedIndex + 1) % networks.length;
    prepare();
  } else return;
  event.preventDefault();
  later();
}

function listen() {
  const canvas = element("drawing");
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    pointerDown = true;
    keyDown = false;
    begin(place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!pointerDown) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) move(place(each));
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { pointerDown = false; });
  canvas.addEventListener("keydown", onKey);
  for (const kind of ["focus", "blur"]) canvas.addEventListener(kind, later);
  element("clear").addEventListener("click", clear);
  element("undo").addEventListener("click", undo);
  element("network").addEventListener("change", prepare);
  for (const id of ["asked", "centered"]) element(id).addEventListener("change", later);
}

function build() {
  for (const { name } of networks) element("network").add(new Option(name));
  for (let digit = 0; digit < 10; digit++) {
    element("asked").add(new Option(`a ${digit}`, digit));
    const row = document.createElement("div");
    row.className = "row";
    row.innerHTML = `<span>${digit}</span><div class="track"><div class="bar"></div></div><span class="value"></span>`;
    element("outputs").append(row);
  }
  listen();
  prepare();
}

build();
