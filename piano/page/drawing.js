// What is seen: energy and notes on one canvas, drawn when they or the view change; marks of the moment on another; the
// playhead, the selected note and the ends of the loop are elements that are only moved.

const BELOW_PX = 40; // the line under the roll that says what lies under the pointer
const RULER_PX = 28, MOST_PX_PER_S = 1000;
const RELATED = [[12, "octave above"], [19, "twelfth above"], [-12, "octave below"], [-19, "twelfth below"]];
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300];
const LEAST_ROW_PX = { fine: 12, coarse: 22 }, MOST_ROW_PX = 26;
const DASHED_PX = 8; // shorter outlines are open at the sides instead
const CROWD = 1000; // notes in view; edges around them would hide what lies behind
const LOOKS = [[false, false], [true, false], [false, true]].map(([doubtful, edited]) => ({ doubtful, edited }));
const EXTENT = 127; // levels of the picture, 20 dB, below which the energy of an added note is over

const coarse = matchMedia("(pointer: coarse)"), dark = matchMedia("(prefers-color-scheme: dark)");
const energy = { levels: null, width: 0, pictures: [] };
let colours = {}; // of the style sheet, as this theme has them
let waiting = false; // for the next frame, to draw

const rowTop = (midi) => (shown.rowOf.get(midi) ?? -1) * shown.rowHeight;
const xOf = (seconds) => seconds * shown.scale - element("roll").scrollLeft;
const secondsAt = (x) => (x + element("roll").scrollLeft) / shown.scale;

// --- Energy -------------------------------------------------------------------------------------

/** Read the picture's levels. */
async function loadPicture() {
  const image = new Image();
  image.src = page.roll.png;
  await image.decode();
  const canvas = make("canvas", { width: image.width, height: image.height });
  const paint = canvas.getContext("2d");
  paint.drawImage(image, 0, 0);
  const { data } = paint.getImageData(0, 0, image.width, image.height);
  energy.levels = Uint8Array.from({ length: image.width * image.height }, (_, i) => data[4 * i]);
  energy.width = image.width;
}

/** Colour the levels, at full width and at halves of it: where columns share pixels, the loudest is seen. */
function colourPictures() {
  if (!energy.levels) return;
  const table = page.roll.colours.map((colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)));
  if (dark.matches) table.reverse();
  let { levels, width } = energy;
  energy.pictures = [];
  while (true) {
    const canvas = make("canvas", { width, height: page.roll.rows }), paint = canvas.getContext("2d");
    const pixels = paint.createImageData(width, page.roll.rows);
    levels.forEach((level, i) => pixels.data.set([...table[level], level ? 255 : 0], 4 * i));
    paint.putImageData(pixels, 0, 0);
    energy.pictures.push(canvas);
    if (width < 256) return;
    [levels, width] = halved(levels, width);
  }
}

function halved(levels, width) {
  const half = Math.ceil(width / 2), found = new Uint8Array(half * page.roll.rows);
  levels.forEach((level, i) => {
    const at = Math.floor(i / width) * half + ((i % width) >> 1);
    found[at] = Math.max(found[at], level);
  });
  return [found, half];
}

/** Levels of a row from one time to another, 0 to 255; empty where the row is not in the picture. */
function levelsOf(midi, from, until) {
  const { start, column, lowest, rows } = page.roll, row = lowest + rows - 1 - midi;
  if (!energy.levels || row < 0 || row >= rows) return new Uint8Array(0);
  const at = (seconds) => clamp(Math.floor((seconds - start) / column), 0, energy.width - 1);
  return energy.levels.subarray(row * energy.width + at(from), row * energy.width + at(until) + 1);
}

/** Level in dB of the loudest energy of a row from one time to another, or null where there is none. */
function energyIn(midi, from, until) {
  const level = Math.max(0, ...levelsOf(midi, from, until));
  return level ? (level / 255 - 1) * page.roll.range : null;
}

/** From where to where the energy around a place lasts, as far as no note covers it. */
function extentOf(midi, seconds) {
  const { start, column: step } = page.roll, levelAt = (at) => levelsOf(midi, at, at)[0] ?? 0, here = levelAt(seconds);
  if (!here) return { onset: seconds, offset: Math.min(seconds + 0.5, page.seconds) };
  const least = Math.max(1, here - EXTENT);
  const free = (at) => at >= 0 && at <= page.seconds && !coveredBy(midi, at) && levelAt(at) >= least;
  let [onset, offset] = [seconds, seconds].map((at) => start + (Math.floor((at - start) / step) + 0.5) * step);
  while (free(onset - step)) onset -= step;
  while (free(offset + step)) offset += step;
  return { onset: Math.max(onset, 0), offset: Math.min(Math.max(offset, onset + 0.1), page.seconds) };
}

function coveredBy(midi, seconds) {
  return page.notes.find((note) => note.midi === midi && note.onset <= seconds && seconds < note.offset);
}

// --- Layers -------------------------------------------------------------------------------------

/** Draw before the next frame, however often it is asked for. */
function draw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawRoll();
    drawRuler();
    drawMarks();
  });
}

/** A canvas of a size in px of the page, sharp on any screen, and empty. */
function prepared(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1, size = [width, height].map((px) => Math.max(Math.round(px * ratio), 1));
  if (canvas.width !== size[0] || canvas.height !== size[1]) {
    [canvas.width, canvas.height] = size;
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  }
  const paint = canvas.getContext("2d");
  paint.setTransform(ratio, 0, 0, ratio, 0, 0);
  paint.clearRect(0, 0, width, height);
  paint.textBaseline = "middle";
  return paint;
}

function drawRoll() {
  const width = element("roll").clientWidth, height = shown.rows.length * shown.rowHeight;
  const paint = prepared(element("picture"), width, height);
  drawEnergy(paint, width);
  drawRows(paint, width);
  drawTimes(paint, width, height);
  drawNotes(paint, width);
}

/** The columns in view, all rows at once. */
function drawEnergy(paint, width) {
  const { start, column, rows, lowest } = page.roll, { scale, rowHeight } = shown;
  if (!energy.pictures.length) return;
  const halvings = clamp(Math.floor(Math.log2(1 / (column * scale))), 0, energy.pictures.length - 1);
  const picture = energy.pictures[halvings], step = column * 2 ** halvings;
  const first = Math.max(0, Math.floor((secondsAt(0) - start) / step) - 1);
  const count = Math.min(picture.width, Math.ceil((secondsAt(width) - start) / step) + 1) - first;
  if (count <= 0) return;
  paint.imageSmoothingEnabled = false;
  const left = xOf(start + first * step), top = rowTop(lowest + rows - 1);
  paint.drawImage(picture, first, 0, count, rows, left, top, count * step * scale, rows * rowHeight);
}

/** A line under each C, and a tint on the rows of black keys, as on a keyboard; a line where rows are left out. */
function drawRows(paint, width) {
  paint.fillStyle = colours.tint;
  for (const midi of shown.rows) if (isSharp(midi)) paint.fillRect(0, rowTop(midi), width, shown.rowHeight);
  shown.rows.forEach((midi, i) => {
    const gap = i + 1 < shown.rows.length && shown.rows[i + 1] !== midi - 1;
    paint.fillStyle = gap ? colours.soft : colours.line;
    if (gap || midi % 12 === 0) paint.fillRect(0, (i + 1) * shown.rowHeight - (gap ? 1 : 0.5), width, gap ? 2 : 1);
  });
}

const ticks = () => STEPS_S.find((step) => step * shown.scale >= 64) ?? 600;

function timesInView(width) {
  const step = ticks(), first = Math.ceil((secondsAt(0) + page.offset) / step - 1e-9);
  const last = Math.floor((Math.min(secondsAt(width), page.seconds) + page.offset) / step + 1e-9);
  return Array.from({ length: Math.max(last - first + 1, 0) }, (_, i) => (first + i) * step - page.offset);
}

function drawTimes(paint, width, height) {
  paint.fillStyle = colours.grid;
  for (const seconds of timesInView(width)) paint.fillRect(xOf(seconds), 0, 1, height);
}

function drawRuler() {
  const width = element("roll").clientWidth, paint = prepared(element("times"), width, RULER_PX);
  paint.font = "11px system-ui, sans-serif";
  const digits = ticks() < 1 ? 1 : 0;
  for (const seconds of timesInView(width)) {
    const x = xOf(seconds);
    paint.fillStyle = colours.line;
    paint.fillRect(x, RULER_PX - 8, 1, 8);
    paint.fillStyle = colours.soft;
    if (x < width - 40) paint.fillText(timeText(seconds, digits), x + 4, RULER_PX / 2 - 1);
  }
}

/** The notes from one time to another; page.notes is in order of onset. */
function notesIn(from, until) {
  const { notes, longest } = page;
  return notes.slice(firstFrom(from - longest), firstFrom(until)).filter(({ offset }) => offset >= from);
}

/** The number of the first note that begins at a time or later. */
function firstFrom(seconds) {
  let [low, high] = [0, page.notes.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (page.notes[middle].onset < seconds) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Outlines with an edge, to be seen on light and dark; dashed where notes are doubtful. */
function drawNotes(paint, width) {
  const line = Math.min(1.6, 0.7 + shown.scale / 40); // thin where notes are small, or it would hide them
  const notes = notesIn(secondsAt(0), secondsAt(width)), boxes = notes.map(boxOf);
  // one path of all notes would take five times as long
  const stroke = ({ left, top, wide, high }) => paint.strokeRect(left, top, wide, high);
  const faint = notes.map(({ midi }) => !isHeard(view, midi));
  paint.strokeStyle = colours.halo;
  paint.lineWidth = line + 1.5;
  if (notes.length < CROWD) boxes.forEach((box, i) => faint[i] || stroke(box));
  paint.lineWidth = line;
  for (const look of LOOKS) {
    paint.strokeStyle = paint.fillStyle = look.edited ? colours.edited : colours.note;
    paint.setLineDash(look.doubtful ? [3, 3] : []);
    notes.forEach(({ doubtful, edited }, i) => {
      if (doubtful !== look.doubtful || edited !== look.edited) return;
      paint.globalAlpha = faint[i] ? 0.3 : 1;
      const { left, top, wide, high } = boxes[i];
      if (!doubtful || wide > DASHED_PX) stroke(boxes[i]);
      else for (const edge of [top, top + high]) paint.fillRect(left, edge - line / 2, wide, line); // dashes take long
      if (!doubtful && wide > 9) paint.fillRect(left, top, 3, high);
    });
  }
  paint.setLineDash([]);
  paint.globalAlpha = 1;
}

/** Where a note is drawn, on the picture. */
function boxOf({ midi, onset, offset }) {
  const left = xOf(onset);
  return { left, top: rowTop(midi) + 1, wide: Math.max(xOf(offset) - left, 3), high: shown.rowHeight - 2 };
}

function drawMarks() {
  const width = element("roll").clientWidth, height = shown.rows.length * shown.rowHeight;
  const paint = prepared(element("marks"), width, height), { hovered, selected, drag } = shown;
  if (hovered ?? selected) drawRelated(paint, hovered ?? selected, width);
  const loop = drag?.loop ?? view.loop;
  if (loop) drawLoop(paint, loop, width, height);
  for (const note of [hovered, run?.heard.note]) if (note) outline(paint, note, 2.6);
  if (drag?.note) outline(paint, drag.note, 2.6);
  placeElements();
}

function outline(paint, note, line) {
  const { left, top, wide, high } = boxOf(note);
  paint.strokeStyle = colours.halo;
  paint.lineWidth = line + 2;
  paint.strokeRect(left, top, wide, high);
  paint.strokeStyle = colours.note;
  paint.lineWidth = line;
  paint.strokeRect(left, top, wide, high);
}

/** Mark the rows where a note's octave and twelfth lie: what is wrong is often there. */
function drawRelated(paint, note, width) {
  paint.font = "600 11px system-ui, sans-serif";
  for (const [distance, name] of RELATED) {
    const midi = note.midi + distance, top = rowTop(midi), high = shown.rowHeight;
    if (!shown.rows.includes(midi)) continue;
    paint.fillStyle = colours.related;
    paint.fillRect(0, top, width, high);
    const x = clamp(xOf(note.offset) + 8, 6, Math.max(width - 96, 6));
    paint.lineWidth = 3;
    paint.strokeStyle = colours.halo;
    paint.strokeText(name, x, top + high / 2);
    paint.fillStyle = colours.note;
    paint.fillText(name, x, top + high / 2);
  }
}

/** What lies outside the loop is veiled. */
function drawLoop(paint, { from, until }, width, height) {
  paint.fillStyle = colours.veil;
  paint.fillRect(0, 0, Math.max(xOf(from), 0), height);
  paint.fillRect(xOf(until), 0, Math.max(width - xOf(until), 0), height);
}

// --- What is only moved -------------------------------------------------------------------------

/** The playhead and the clock: all that changes from frame to frame. */
function showPlayhead() {
  const position = clockPosition();
  element("playhead").style.transform = `translateX(${position * shown.scale}px)`;
  element("marker").style.transform = `translateX(${xOf(position)}px)`;
  const text = `${timeText(position)} / ${timeText(page.seconds)}`;
  if (element("clock").textContent !== text) element("clock").textContent = text;
  showRow(position);
  element("limited").hidden = !isLimited();
}

/** The selected note's handles, the loop's ends, and the split between hands. */
function placeElements() {
  const { scale, rowHeight, selected, drag } = shown, box = element("selected"), note = drag?.note ?? selected;
  box.hidden = !note || !shown.rows.includes(note.midi) || note.offset <= 0 || note.onset >= page.seconds;
  if (!box.hidden) {
    const left = Math.max(note.onset, 0) * scale, right = Math.min(note.offset, page.seconds) * scale;
    const [top, width] = [rowTop(note.midi), Math.max(right - left, 3)];
    Object.assign(box.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${rowHeight}px` });
  }
  const loop = drag?.loop ?? view.loop;
  for (const [id, seconds] of [["loop-from", loop?.from], ["loop-until", loop?.until]]) {
    element(id).hidden = !loop;
    if (loop) element(id).style.transform = `translateX(${xOf(seconds)}px)`;
  }
  const { style } = element("loop-bar");
  element("loop-bar").hidden = !loop;
  if (loop) [style.left, style.width] = [`${xOf(loop.from)}px`, `${(loop.until - loop.from) * scale}px`];
  const below = shown.rows.findIndex((midi) => midi < view.split);
  element("split").style.top = `${(below < 0 ? shown.rows.length : below) * rowHeight}px`;
  showPlayhead();
}

// --- The view -----------------------------------------------------------------------------------

/** Zoom so that one time stays where it is: that under the pointer, or the playhead, or what is in the middle. */
function zoom(factor, x) {
  const roll = element("roll"), width = roll.clientWidth, playhead = xOf(clockPosition());
  x ??= playhead >= 0 && playhead <= width ? playhead : width / 2;
  const seconds = secondsAt(x), fit = width / page.seconds;
  shown.scale = clamp(shown.scale * factor, fit, Math.max(MOST_PX_PER_S, fit));
  element("stretch").style.width = `${page.seconds * shown.scale}px`;
  scrollRoll(seconds * shown.scale - x);
  draw();
}

/** Scroll, and know that it was not by hand. */
function scrollRoll(left) {
  const roll = element("roll");
  roll.scrollLeft = left;
  shown.scrolled = roll.scrollLeft;
}

function scrolled() {
  const { scrollLeft } = element("roll");
  if (Math.abs(scrollLeft - shown.scrolled) > 1) setFollow(false);
  shown.scrolled = scrollLeft;
  draw();
}

function setFollow(on) {
  shown.follow = on;
  element("follow").setAttribute("aria-pressed", on);
  if (on) reveal(clockPosition());
}

/** Bring a time into view; where it is in view, nothing moves. */
function reveal(seconds) {
  const { clientWidth, scrollLeft } = element("roll"), x = xOf(seconds);
  if (x < 0 || x > clientWidth - 12) scrollRoll(scrollLeft + x - 0.08 * clientWidth);
}

/** Bring a row into view, between the ruler and the bar of the selected note. */
function revealRow(midi) {
  const top = element("picture").getBoundingClientRect().top + rowTop(midi);
  const first = element("ruler").getBoundingClientRect().bottom, last = element("dock").getBoundingClientRect().top;
  if (top < first || top + shown.rowHeight > last) scrollBy({ top: top - (first + last) / 2 });
}

function follow(position) {
  if (shown.follow && !shown.drag) reveal(position);
}

/** Rows as high as there is room for, and never too low for a finger. */
function layOut() {
  const least = coarse.matches ? LEAST_ROW_PX.coarse : LEAST_ROW_PX.fine;
  const room = innerHeight - element("score").offsetTop - RULER_PX - BELOW_PX;
  shown.rowHeight = clamp(Math.floor(room / shown.rows.length), least, Math.max(MOST_ROW_PX, least));
  element("stretch").style.height = `${shown.rows.length * shown.rowHeight}px`;
  document.documentElement.style.setProperty("--bar", `${element("tools").offsetHeight}px`);
  [...element("keys").children].forEach((key, i) => {
    Object.assign(key.style, { top: `${i * shown.rowHeight}px`, height: `${shown.rowHeight}px` });
  });
  zoom(1, 0);
}

/** The rows of the picture, and those that were opened beside them. */
function openRows(more = []) {
  const { lowest, rows } = page.roll, all = new Set([...shown.rows, ...more, ...page.notes.map(({ midi }) => midi)]);
  for (let i = 0; i < rows; i++) all.add(lowest + i);
  const sorted = [...all].sort((one, other) => other - one);
  if (sorted.join() === shown.rows.join()) return;
  shown.rows = sorted;
  shown.rowOf = new Map(sorted.map((midi, i) => [midi, i]));
  fillKeyboard();
  layOut();
}

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["tint", "line", "soft", "grid", "note", "halo", "edited", "related", "veil"];
  colours = Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  colourPictures();
  const some = page.roll.colours.filter((_, i) => i % 15 === 0);
  if (dark.matches) some.reverse();
  element("colours").style.background = `linear-gradient(to right, ${some.join(", ")})`;
  draw();
}
