// The page: a drawing in strokes, the input of the network made from it, and the outputs.

const SIDE = 28, BOX = 20, PEN = 2.2; // pixels of the network; the box that training digits fill; a stroke's width
const element = (id) => document.getElementById(id);
const networks = NETWORKS.map(decode);
const strokes = []; // each a list of lines, as it may leave the sheet and come back; a line is a list of points
let pen = [SIDE / 2, SIDE / 2], keyDown = false; // the keyboard's, in pixels of the network as all points [x, y]
let pointer = null, beyond = null; // the pointer that draws, and where it is while off the sheet
let waiting = false;

function current() {
  return networks[element("network").selectedIndex];
}

function drawStrokes(context, scale, width, shiftX = 0, shiftY = 0) {
  context.setTransform(scale, 0, 0, scale, shiftX, shiftY);
  context.lineWidth = width / scale;
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = "white";
  for (const points of strokes.flat()) {
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

// Preprocessed as in MNIST: the longer side fills the box, and the center of mass is in the middle, or as near to
// it as possible without cutting off the digit.
function centered() {
  let [left, top, right, bottom] = [SIDE, SIDE, 0, 0];
  for (const [x, y] of strokes.flat(2)) {
    [left, right] = [Math.min(left, x), Math.max(right, x)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
  }
  const longer = Math.max(right - left, bottom - top);
  const scale = Math.min((BOX - PEN) / Math.max(longer, 1), 3);
  const shiftX = SIDE / 2 - (scale * (left + right)) / 2;
  const shiftY = SIDE / 2 - (scale * (top + bottom)) / 2;
  const ink = pixels(scale, shiftX, shiftY);
  let total = 0, x = 0, y = 0;
  ink.forEach((value, i) => {
    total += value;
    x += value * ((i % SIDE) + 0.5);
    y += value * (Math.floor(i / SIDE) + 0.5);
  });
  const room = (SIDE - BOX) / 2, within = (shift) => Math.max(-room, Math.min(room, shift));
  return pixels(scale, shiftX + within(SIDE / 2 - x / total), shiftY + within(SIDE / 2 - y / total));
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

const gray = (fraction) => Array(3).fill(Math.round(255 * fraction));

// Blue for above zero, red for below, white for zero: colors that color-blind people can distinguish.
function signed(fraction) {
  const end = fraction > 0 ? [33, 102, 172] : [178, 24, 43];
  return end.map((channel) => Math.round(255 + (channel - 255) * Math.abs(fraction)));
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

// Each unit's value as a fraction of the range of its activation; of the range of the layer if that is infinite.
function fractions(values, activation) {
  const { low, high } = ACTIVATIONS[activation];
  return Number.isFinite(high - low) ? values.map((v) => (v - low) / (high - low)) : rescale(values, 0, 1);
}

function showHidden(layers) {
  const canvases = element("hidden").children;
  const shown = layers.map((values, i) => fractions(values, current().layers[i].activation));
  shown.forEach((values, i) => paint(canvases[i], [...values].map(gray)));
  const counts = shown.map((values) => `${values.filter((v) => v > 0.5).length} of ${values.length}`);
  say("active", `In the upper half: ${counts.join(", then ")}.`);
}

// Unchanged text is not written again, since a screen reader would read it again.
function say(id, text) {
  if (element(id).textContent !== text) element(id).textContent = text;
}

function show() {
  waiting = false;
  showDrawing();
  const network = current(), x = seen(), values = query(network, x);
  const outputs = values[values.length - 1];
  const best = outputs.indexOf(Math.max(...outputs));
  const drawn = strokes.length > 0;
  say("answer", drawn ? `${best}` : "draw something");
  showOutputs(outputs, drawn ? best : -1);
  paint(element("seen"), [...x].map(gray));
  const digit = element("asked").value === "" ? best : Number(element("asked").value);
  say("back-title", `Back query of a ${digit}`);
  const label = Float64Array.from(outputs, (_, k) => (k === digit ? 0.99 : 0.01));
  paint(element("back"), [...backquery(network, label)].map(gray));
  say("typical-title", `Typical ${digit}`);
  paint(element("typical"), [...typical(network, digit)].map(gray));
  const gradient = drawn ? saliency(network, values, best) : new Float64Array(SIDE * SIDE);
  const steepest = Math.max(...gradient.map(Math.abs));
  say("why-title", drawn ? `Saliency of a ${best}` : "Saliency");
  say("steepest", steepest.toPrecision(2));
  paint(element("why"), [...gradient].map((g) => signed(steepest > 0 ? g / steepest : 0)));
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
    canvas.style.maxWidth = `${2.5 * canvas.width}rem`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${outputs} hidden units`);
    return canvas;
  }));
  element("hidden-units").hidden = network.layers.length === 1;
  later();
}

function lift() {
  keyDown = false;
  pointer = beyond = null;
  later();
}

function clear() {
  strokes.length = 0;
  say("said", "Cleared.");
  lift();
}

function undo() {
  strokes.pop();
  say("said", strokes.length === 0 ? "Undone: the sheet is empty." : "Undone.");
  lift();
}

function place(event) {
  const { left, top, width, height } = element("drawing").getBoundingClientRect();
  return [((event.clientX - left) / width) * SIDE, ((event.clientY - top) / height) * SIDE];
}

function begin(point) {
  strokes.push([[point, [point[0] + 0.01, point[1]]]]); // a dot, until it moves
  later();
}

// The intersection of the edge of the sheet with the line from a point inside to one outside.
function edge(inside, outside) {
  const fractions = inside.map((at, axis) => {
    const way = outside[axis] - at;
    return way === 0 ? 1 : ((way > 0 ? SIDE : 0) - at) / way;
  });
  return inside.map((at, axis) => at + Math.min(1, ...fractions) * (outside[axis] - at));
}

// A stroke ends at the edge of the sheet, and continues where the pointer returns.
function move(point) {
  const lines = strokes[strokes.length - 1], line = lines[lines.length - 1];
  if (point.some((at) => at < 0 || at > SIDE)) {
    if (beyond === null) line.push(edge(line[line.length - 1], point));
    beyond = point;
  } else {
    if (beyond === null) line.push(point);
    else lines.push([edge(point, beyond), point]);
    beyond = null;
  }
  later();
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (event.repeat && " cun".includes(key)) event.preventDefault(); // a repeated key counts once
  else if (event.key in MOVES) {
    pen = pen.map((at, axis) => Math.min(SIDE - 1, Math.max(1, at + MOVES[event.key][axis])));
    if (keyDown) move(pen);
  } else if (key === " ") {
    keyDown = !keyDown;
    if (keyDown) begin(pen);
    say("said", `Pen ${keyDown ? "down" : "up"}, at ${pen[0]} from the left and ${pen[1]} from the top, of ${SIDE}.`);
  } else if (key === "c") clear();
  else if (key === "u") undo();
  else if (key === "n") {
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
    if ((pointer ?? event.pointerId) !== event.pointerId || event.button !== 0) return; // a second finger, another button
    canvas.setPointerCapture(event.pointerId);
    lift();
    pointer = event.pointerId;
    say("said", "");
    begin(place(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length > 0 ? all : [event]) move(place(each));
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId === pointer) lift();
    });
  }
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
