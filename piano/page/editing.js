// Correcting the list: what is done to notes, and the gestures on the roll that do it.

const SHORTEST_S = 0.03; // of a note
const SHORTEST_LOOP_S = 0.05; // longer than two fades
const ADDED_DB = -20; // of a note where the picture shows no energy
const CLICK_PX = 4, HIT_PX = 3;

/** Hz of a key as this piano is tuned, where the list has it. */
function frequencyOf(midi) {
  return list.notes.find((note) => note.midi === midi)?.f0 ?? 440 * 2 ** ((midi - 69) / 12);
}

/** A note as a person wants it: sure. Times are whole milliseconds of the recording, as they are written. */
function changed(note, changes) {
  const made = { ...note, ...changes, confidence: 1, doubtful: false, silent: false, edited: true };
  made.midi = clamp(made.midi, LOWEST, HIGHEST);
  if (made.midi !== note.midi || !made.f0) made.f0 = frequencyOf(made.midi);
  made.name = noteName(made.midi);
  const rounded = (seconds) => Math.round(1000 * (seconds + page.offset)) / 1000 - page.offset;
  made.onset = rounded(clamp(made.onset, Math.min(0, note.onset), page.seconds - SHORTEST_S));
  made.offset = rounded(clamp(made.offset, made.onset + SHORTEST_S, Math.max(page.seconds, note.offset)));
  return made;
}

function change(note, changes, words) {
  if (!note) return;
  const made = changed(note, changes);
  if (["midi", "onset", "offset", "confidence"].every((field) => made[field] === note[field])) return;
  edit([note], [made], `${note.name} ${words(made)}`);
  playNote(made);
}

function addNote(midi, { onset, offset }) {
  if (coveredBy(midi, onset)) return say(`There is a ${noteName(midi)} at ${timeText(onset, 2)} already.`);
  const level = energyIn(midi, onset, offset) ?? ADDED_DB;
  const made = changed({ midi, onset, offset, level: Number(level.toFixed(1)) }, {});
  const source = sourceOf(made);
  edit([], [made], `${made.name} added at ${timeText(made.onset, 2)}. You hear ${SOURCES[source]}`);
  playNote(made);
}

/** On the row of the key with the focus, of the selected note, or of the list of keys, at the playhead. */
function addHere() {
  const key = document.activeElement.closest("#keys button")?.value ?? shown.selected?.midi ?? element("row").value;
  openRows([Number(key)]);
  addNote(Number(key), extentOf(Number(key), Math.min(here(), page.seconds - SHORTEST_S)));
}

function deleteNote() {
  const { selected } = shown;
  if (selected) edit([selected], [], `${selected.name} at ${timeText(selected.onset, 2)} deleted`);
}

function transpose(steps) {
  change(shown.selected, { midi: (shown.selected?.midi ?? 0) + steps }, ({ name }) => `is now ${name}`);
}

/** Move the onset, the offset, or both. */
function nudge(ends, seconds) {
  const { selected } = shown;
  if (!selected) return;
  const changes = Object.fromEntries(ends.map((end) => [end, selected[end] + seconds]));
  if (ends.length === 2 && changes.onset < 0) return;
  change(selected, changes, (made) => `${timeText(made.onset, 2)} to ${timeText(made.offset, 2)}`);
}

function accept() {
  change(shown.selected, {}, () => "accepted");
}

/** In two: at the playhead, or in the middle where that lies outside. */
function split() {
  const note = shown.selected;
  if (!note || note.offset - note.onset < 2 * SHORTEST_S) return;
  const playhead = here(), inside = playhead > note.onset + SHORTEST_S && playhead < note.offset - SHORTEST_S;
  const at = inside ? playhead : (note.onset + note.offset) / 2;
  const first = changed(note, { offset: at }), second = changed(note, { onset: first.offset });
  edit([note], [first, second], `${note.name} split at ${timeText(at, 2)}`);
  playNote(first);
}

/** One note of this one and the next of its key. */
function merge() {
  const note = shown.selected, next = note && page.byKey.get(note.midi)?.find(({ onset }) => onset > note.onset);
  if (!next) return note && say(`There is no ${note.name} after this one.`);
  const made = changed(note, { offset: Math.max(note.offset, next.offset), level: Math.max(note.level, next.level) });
  edit([note, next], [made], `${note.name} joined with the next`);
  playNote(made);
}

function select(note) {
  shown.selected = note;
  if (note) openRows([note.midi]);
  showSelected();
  draw();
}

/** Select and hear the note `step` further on, of those that `wanted` admits. */
function selectNext(step, wanted = () => true) {
  const notes = page.notes.filter(wanted), { selected } = shown, place = selected ?? { onset: here(), midi: -1 };
  const isLater = (note) => note.onset - place.onset || note.midi - place.midi;
  const others = notes.filter((note) => note !== selected && isLater(note) * step > 0);
  const note = step > 0 ? others[0] : others.at(-1);
  if (!note) return say(notes.length ? "There is no further one." : "There is none.");
  select(note);
  playNote(note);
  reveal(note.onset);
  revealRow(note.midi);
}

// --- Gestures on the roll -----------------------------------------------------------------------

function place(event, id = "picture") {
  const box = element(id).getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

const midiAt = (y) => shown.rows[Math.floor(y / shown.rowHeight)] ?? null;

/** The note at a place; short ones can be hit a little beside them. */
function noteAt({ x, y }) {
  const midi = midiAt(y), near = HIT_PX / shown.scale, seconds = secondsAt(x);
  return notesIn(seconds - 2 * near, seconds + 2 * near).findLast((note) => {
    const last = Math.max(note.offset, note.onset + 2 * near);
    return note.midi === midi && seconds >= note.onset - near && seconds <= last + near;
  }) ?? null;
}

function describe({ x, y }) {
  const midi = midiAt(y), note = noteAt({ x, y }), seconds = secondsAt(x);
  if (note) return `${wordsOf(note).join(", ")}. Click to hear it alone.`;
  const [level] = midi === null ? [] : levelsOf(midi, seconds, seconds);
  if (level === undefined) return [...(midi === null ? [] : [noteName(midi)]), timeText(seconds, 2)].join(", ");
  const { range } = page.roll, words = level ? decibels((level / 255 - 1) * range) : `below ${decibels(-range)}`;
  return `${noteName(midi)}, ${timeText(seconds, 2)}, ${words}${shown.pencil ? ". Click to add a note." : ""}`;
}

function wordsOf(note) {
  const times = `${timeText(note.onset, 2)} to ${timeText(note.offset, 2)}`;
  const state = note.edited ? ["yours"] : note.silent ? ["no sound in its stem"] : note.doubtful ? ["doubtful"] : [];
  return [note.name, times, decibels(note.level), ...state];
}

function pointerDown(event) {
  if (event.button !== 0) return;
  const here = place(event), midi = midiAt(here.y), add = shown.pencil && midi !== null && !noteAt(here);
  shown.drag = { ...here, at: secondsAt(here.x), loop: null, note: null, adds: add ? midi : null };
}

function pointerMove(event) {
  const here = place(event), { drag } = shown, adds = drag && drag.adds !== null;
  const begun = drag && (drag.loop || drag.note || Math.abs(here.x - drag.x) > CLICK_PX);
  if (begun && (adds || event.pointerType !== "touch")) {
    const ends = [drag.at, secondsAt(here.x)].map((seconds) => clamp(seconds, 0, page.seconds));
    const [from, until] = [Math.min(...ends), Math.max(...ends)];
    if (adds) drag.note = { midi: drag.adds, onset: from, offset: until };
    else drag.loop = { from, until };
    element("picture").setPointerCapture(event.pointerId);
  }
  const hovered = noteAt(here), again = hovered !== shown.hovered || begun;
  shown.hovered = hovered;
  element("picture").style.cursor = hovered ? "pointer" : shown.pencil ? "copy" : "crosshair";
  element("readout").textContent = drag?.note ? spanText(drag.note) : describe(here);
  if (again) drawMarksSoon();
}

function pointerUp(event) {
  pointerMove(event);
  const { drag } = shown, here = place(event), note = noteAt(here);
  shown.drag = null;
  if (!drag) return;
  if (drag.note) addNote(drag.adds, drag.note);
  else if (drag.loop) setLoop(drag.loop);
  else if (drag.adds !== null) addNote(drag.adds, extentOf(drag.adds, drag.at));
  else if (note) {
    select(note);
    playNote(note);
  } else {
    select(null);
    seek(secondsAt(here.x));
  }
}

/** A note on energy that none covers, without the pencil. */
function doubleClick(event) {
  const here = place(event), midi = midiAt(here.y);
  if (!shown.pencil && midi !== null && !noteAt(here)) addNote(midi, extentOf(midi, secondsAt(here.x)));
}

function pointerGone() {
  shown.hovered = shown.drag = null;
  element("readout").textContent = readoutAtRest();
  drawMarksSoon();
}

const spanText = ({ midi, onset, offset }) => `${noteName(midi)}, ${timeText(onset, 2)} to ${timeText(offset, 2)}`;

let marksWaiting = false;

/** As draw, where only the marks have changed. */
function drawMarksSoon() {
  if (marksWaiting) return;
  marksWaiting = true;
  requestAnimationFrame(() => {
    marksWaiting = false;
    drawMarks();
  });
}

// --- The selected note, moved and stretched by hand ----------------------------------------------

function grab(event) {
  if (event.button !== 0 || !shown.selected) return;
  const ends = { left: ["onset"], right: ["offset"] }[event.target.dataset.edge] ?? ["onset", "offset"];
  shown.drag = { ...place(event), ends, loop: null, note: null };
  element("selected").setPointerCapture(event.pointerId);
}

function pull(event) {
  const { drag, selected } = shown;
  if (!selected) return;
  if (!drag?.ends) {
    element("readout").textContent = `${wordsOf(selected).join(", ")}. Drag it, or its edges; with Shift in time only.`;
    return;
  }
  const here = place(event), by = (here.x - drag.x) / shown.scale, moves = drag.ends.length === 2;
  if (!drag.note && Math.hypot(here.x - drag.x, here.y - drag.y) <= CLICK_PX) return;
  const changes = Object.fromEntries(drag.ends.map((end) => [end, selected[end] + by]));
  if (moves) {
    const long = selected.offset - selected.onset;
    changes.onset = clamp(changes.onset, 0, Math.max(page.seconds - long, 0));
    changes.offset = changes.onset + long;
    if (!event.shiftKey) changes.midi = midiAt(here.y) ?? selected.midi;
  } else if (changes.onset !== undefined) {
    changes.onset = Math.min(changes.onset, selected.offset - SHORTEST_S);
  }
  drag.note = changed(selected, changes);
  element("readout").textContent = spanText(drag.note);
  drawMarksSoon();
}

function letGo(event) {
  if (shown.drag?.ends) pull(event);
  const { drag, selected } = shown;
  shown.drag = null;
  if (!drag?.ends || !selected) return;
  if (!drag.note) return playNote(selected);
  const { midi, onset, offset } = drag.note;
  change(selected, { midi, onset, offset }, (made) => `is now ${spanText(made)}`);
  draw();
}

function letGoUnchanged() {
  shown.drag = null;
  draw();
}

// --- Gestures on the ruler ----------------------------------------------------------------------

/** Drag: a loop. At one of its ends: move that. Click: go there. By mouse and touch. */
function rulerDown(event) {
  if (event.button !== 0) return;
  const end = event.target.dataset.end, { loop } = view;
  const at = end === "from" ? loop.until : end === "until" ? loop.from : secondsAt(place(event, "ruler").x);
  shown.drag = { x: place(event, "ruler").x, at, loop: null, end, ruler: true };
  element("ruler").setPointerCapture(event.pointerId);
}

function rulerMove(event) {
  const { drag } = shown, { x } = place(event, "ruler");
  if (!drag?.ruler || (!drag.loop && Math.abs(x - drag.x) <= CLICK_PX)) return;
  const ends = [drag.at, secondsAt(x)].map((seconds) => clamp(seconds, 0, page.seconds));
  drag.loop = { from: Math.min(...ends), until: Math.max(...ends) };
  element("readout").textContent = `Loop ${timeText(drag.loop.from, 2)} to ${timeText(drag.loop.until, 2)}`;
  drawMarksSoon();
}

function rulerUp(event) {
  rulerMove(event);
  const { drag } = shown;
  shown.drag = null;
  if (!drag?.ruler) return;
  if (drag.loop) setLoop(drag.loop);
  else if (!drag.end) seek(secondsAt(place(event, "ruler").x));
}

function setLoop(loop) {
  const position = pieceAt(), long = loop && loop.until - loop.from >= SHORTEST_LOOP_S;
  view.loop = long ? { from: grid(loop.from), until: grid(loop.until) } : null;
  if (position !== null) {
    const { follow } = shown;
    stop();
    shown.position = position;
    resume();
    shown.follow = follow;
  }
  showState();
  draw();
}

/** What is in view, or four seconds around the playhead where that is all; or no loop any more. */
function toggleLoop() {
  const from = Math.max(0, secondsAt(0)), until = Math.min(page.seconds, secondsAt(element("roll").clientWidth));
  const start = clamp(here() - 2, 0, Math.max(page.seconds - 4, 0));
  const all = until - from > page.seconds - 0.01;
  setLoop(view.loop ? null : all ? { from: start, until: Math.min(start + 4, page.seconds) } : { from, until });
}

/** Move one end of the loop to where we are. */
function loopEnd(which) {
  const loop = { from: 0, until: page.seconds, ...view.loop, [which]: here() };
  if (loop.from >= loop.until) Object.assign(loop, which === "from" ? { until: page.seconds } : { from: 0 });
  setLoop(loop);
}

// --- Gestures on the keyboard -------------------------------------------------------------------

/** One key, or all from one to another. */
function pressKeys(first, last, { altKey, shiftKey, ctrlKey, metaKey }) {
  const keys = shown.rows.filter((midi) => midi >= Math.min(first, last) && midi <= Math.max(first, last));
  if (altKey || shown.muting) return mute(keys);
  solo(keys, shiftKey || ctrlKey || metaKey);
  if (keys.length === 1 && pieceAt() === null && view.solo.has(first)) playKey(first);
}

const keyAt = (event) => midiAt(clamp(place(event, "keys").y, 0, shown.rows.length * shown.rowHeight - 1));

function keysDown(event) {
  if (event.button !== 0) return;
  shown.drag = { key: keyAt(event), loop: null, note: null };
  element("keys").setPointerCapture(event.pointerId);
}

function keysMove(event) {
  if (shown.drag?.key) markKeys(shown.drag.key, keyAt(event));
}

function keysUp(event) {
  const { drag } = shown;
  shown.drag = null;
  markKeys();
  if (drag?.key) pressKeys(drag.key, keyAt(event), event);
}

function markKeys(first, last) {
  for (const key of element("keys").children) {
    const midi = Number(key.value), inside = midi >= Math.min(first, last) && midi <= Math.max(first, last);
    key.classList.toggle("picked", inside && first !== last);
  }
}

/** Arrow keys go from key to key, which are one stop of the tab key; with Shift they pick them. */
function keysKeyDown(event) {
  const keys = [...element("keys").children], step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  event.stopPropagation();
  const here = document.activeElement, next = keys[clamp(keys.indexOf(here) + step, 0, keys.length - 1)];
  for (const key of keys) key.tabIndex = key === next ? 0 : -1;
  next.focus();
  if (!event.shiftKey) return;
  for (const key of [here, next]) view.solo.add(Number(key.value));
  hearNotes();
}

function splitDown(event) {
  event.stopPropagation();
  shown.drag = { split: true, loop: null, note: null };
  element("split").setPointerCapture(event.pointerId);
}

function splitMove(event) {
  const above = Math.round(place(event, "keys").y / shown.rowHeight) - 1;
  if (shown.drag?.split) setSplit(shown.rows[clamp(above, 0, shown.rows.length - 1)]);
}

function splitUp(event) {
  splitMove(event);
  shown.drag = null;
}

function splitKeyDown(event) {
  const step = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 12, PageDown: -12 }[event.key];
  if (!step) return;
  event.preventDefault();
  event.stopPropagation();
  setSplit(view.split + step);
}
