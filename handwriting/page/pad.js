// The pad that is written on. `element`, `props` (value: a PNG as a data URL, or ""; pen: the pen's width in pixels;
// width and height: those of the pad) and `trigger` are gradio's. Strokes are kept as points, so that the last of them
// can be taken back.
const canvas = element.querySelector("canvas");
const paper = canvas.getContext("2d");
const strokes = [];
let size = [canvas.width, canvas.height];
let writing = false;
let waiting = null; // the timer of a prediction that is due

function redraw() {
  paper.fillStyle = "white";
  paper.fillRect(0, 0, canvas.width, canvas.height);
  paper.lineCap = paper.lineJoin = "round";
  paper.lineWidth = props.pen;
  for (const stroke of strokes) {
    paper.beginPath();
    const [x, y] = stroke[0];
    paper.moveTo(x - 0.1, y); // a touch leaves a dot; a line without any length would leave nothing
    stroke.forEach((point) => paper.lineTo(...point));
    paper.stroke();
  }
}

function read() {
  waiting = null;
  props.value = strokes.length ? canvas.toDataURL("image/png") : "";
  trigger("input");
}

function changed(delay = 0) {
  redraw();
  if (delay === 0) {
    clearTimeout(waiting);
    read();
  } else if (waiting === null) {
    waiting = setTimeout(read, delay); // while a stroke goes on, some ten predictions a second
  }
}

function place(event) {
  const frame = canvas.getBoundingClientRect();
  const scale = canvas.width / frame.width;
  return [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
}

// Another model may need a pad of another shape: gradio changes the canvas, which erases it. The drawing moves along.
function reshaped() {
  const [width, height] = size;
  size = [canvas.width, canvas.height];
  const scale = Math.min(size[0] / width, size[1] / height);
  const move = ([x, y]) => [size[0] / 2 + scale * (x - width / 2), size[1] / 2 + scale * (y - height / 2)];
  strokes.forEach((stroke, number) => (strokes[number] = stroke.map(move)));
  canvas.dataset.ready = "";
  changed();
}

function lift() {
  if (writing) {
    writing = false;
    changed();
  }
}

canvas.addEventListener("pointerdown", (event) => {
  if (event.button === 0 && !writing) {
    canvas.setPointerCapture(event.pointerId); // a stroke may leave the pad and come back
    writing = true;
    strokes.push([place(event)]);
    changed(100);
  }
});
canvas.addEventListener("pointermove", (event) => {
  if (writing) {
    strokes[strokes.length - 1].push(place(event));
    changed(100);
  }
});
canvas.addEventListener("pointerup", lift);
canvas.addEventListener("pointercancel", lift);
element.querySelector(".undo").addEventListener("click", () => {
  strokes.pop();
  changed();
});
element.querySelector(".clear").addEventListener("click", () => {
  strokes.length = 0;
  changed();
});
new MutationObserver(reshaped).observe(canvas, { attributeFilter: ["width", "height"] });
redraw();
canvas.dataset.ready = "";
