// The page's parts: buttons, faders, keyboard, table and keys; and how it starts.

const NUDGE_S = 0.01;
const HEADS_PX = 40; // of the table, which stay in view
const ROW_MS = 150; // between looks at which row of the table is played
const ORDERS = {
  onset: (one, other) => one.onset - other.onset || one.midi - other.midi,
  midi: (one, other) => one.midi - other.midi || one.onset - other.onset,
  level: (one, other) => other.level - one.level,
  confidence: (one, other) => one.confidence - other.confidence || one.onset - other.onset,
};
const table = { order: "onset", rows: new WeakMap(), looked: 0, current: null };

// --- What is shown ------------------------------------------------------------------------------

/** Show in buttons, faders and keys what is heard. */
function showState() {
  const playing = Boolean(run), { mix, solo, muted, loop, hand } = view;
  element("play").textContent = playing ? "Pause" : "Play";
  element("play").setAttribute("aria-pressed", playing);
  for (const mode of MODES) {
    const only = mix[mode] > 0 && MODES.every((other) => other === mode || !mix[other]);
    const button = element(`only-${mode}`), fader = element(`mix-${mode}`);
    button.setAttribute("aria-pressed", only);
    button.disabled = fader.disabled = !hasSound(mode);
    setRange(fader, 100 * mix[mode]);
  }
  setRange(element("speed"), 100 * view.speed);
  setRange(element("volume"), 100 * view.volume);
  for (const id of ["speed", "volume"]) element(`${id}-text`).textContent = element(id).getAttribute("aria-valuetext");
  element("loop").setAttribute("aria-pressed", Boolean(loop));
  element("loop-wav").disabled = element("loop-midi").disabled = !loop || !sounds.length;
  element("all").disabled = !solo.size && !muted.size;
  element("muting").setAttribute("aria-pressed", shown.muting);
  element("pencil").setAttribute("aria-pressed", shown.pencil);
  element("roll").classList.toggle("pencil", shown.pencil);
  for (const button of document.querySelectorAll("[data-hand]"))
    button.setAttribute("aria-pressed", `${hand?.which} ${hand?.how}` === button.dataset.hand);
  const grip = element("split");
  const limits = { valuemin: shown.rows.at(-1) + 1, valuemax: shown.rows[0], valuenow: view.split };
  for (const [name, value] of Object.entries(limits)) grip.setAttribute(`aria-${name}`, value);
  grip.setAttribute("aria-valuetext", noteName(view.split));
  for (const text of document.querySelectorAll(".split-text")) text.textContent = noteName(view.split);
  element("follow").setAttribute("aria-pressed", shown.follow);
  showKeys();
  showSelected();
}

function setRange(input, percent) {
  input.value = Math.round(percent);
  input.setAttribute("aria-valuetext", `${Math.round(percent)} %`);
}

function showKeys() {
  const listed = new Set(page.notes.map(({ midi }) => midi));
  for (const key of element("keys").children) {
    const midi = Number(key.value), muted = view.muted.has(midi);
    key.setAttribute("aria-pressed", view.solo.has(midi));
    key.setAttribute("aria-label", noteName(midi) + (muted ? ", muted" : ""));
    key.classList.toggle("muted", muted);
    key.classList.toggle("listed", listed.has(midi));
    key.textContent = listed.has(midi) || midi % 12 === 0 ? noteName(midi) : "";
  }
}

/** The bar with all that can be done to the selected note. */
function showSelected() {
  const note = shown.selected;
  element("edit").hidden = !note;
  element("undo").disabled = !list.past.length;
  element("redo").disabled = !list.future.length;
  if (!note) return;
  element("edit-text").textContent = wordsOf(note).join(" \u00b7 ");
  element("edit-source").textContent = sounds.length ? `You hear ${SOURCES[sourceOf(note)]}.` : "";
  element("accept").disabled = !note.doubtful && note.confidence === 1;
}

/** Everything that depends on the list, after an edit. */
function listChanged(selected, words) {
  shown.selected = list.notes.includes(selected) ? selected : null;
  shown.hovered = null;
  keep();
  transcribe();
  openRows();
  fillTable();
  if (view.mix.transcription) refresh();
  showState();
  showKept();
  say(`${words}.`);
  draw();
}

function showKept() {
  const count = list.past.length, changes = count === 1 ? "1 change" : `${count} changes`;
  const refused = "This browser does not keep them: download them before you leave.";
  const kept = list.kept ? "Kept in this browser: a reload finds them." : refused;
  element("kept").textContent = count ? `${changes}. ${kept}` : "Nothing is changed yet.";
  element("changes").textContent = count ? changes : "";
  const doubts = page.notes.filter(({ doubtful }) => doubtful).length;
  element("review").disabled = !doubts;
  element("doubts").textContent = doubts ? `${doubts} of ${page.notes.length}` : "There is none.";
  const { earlier } = list;
  element("earlier").hidden = !earlier;
  if (earlier) {
    const when = new Date(earlier.when).toLocaleString();
    const what = `your corrections of another list of this recording, of ${when}`;
    element("earlier-text").textContent = `This browser has ${what}.`;
  }
  const file = fileName("corrected_notes.csv");
  element("command").value = page.command ? `${page.command} --score ${file}` : `--score ${file}`;
  element("command-text").textContent = page.command
    ? "Save the table where you run commands, then run this. It makes stems and page anew, from your list:"
    : "Save the table, and add this to the command that made the page. It makes stems and page anew, from your list:";
  element("summary").textContent = summary();
}

function summary() {
  const { notes } = page, pitches = new Set(notes.map(({ midi }) => midi)).size;
  const span = page.offset ? `${timeText(0)} to ${timeText(page.seconds)} min` : `${timeText(page.seconds, 0)} min`;
  const counted = (count, one, more) => `${count} ${count === 1 ? one : more}`;
  const of = `${counted(notes.length, "note", "notes")} of ${counted(pitches, "pitch", "pitches")}`;
  const parts = [span, notes.length ? of : "no notes were found in it", `${page.code} inside`, page.inside];
  return parts.filter(Boolean).join(" \u00b7 ");
}

function readoutAtRest() {
  const some = page.notes.length;
  return some ? "Point at a note, click it to hear it alone." : "No notes were found: what you hear is the recording.";
}

// --- Keyboard and table -------------------------------------------------------------------------

function fillKeyboard() {
  const title = "Click: only this note. Shift: one more. Alt: without it. Drag: a range.";
  const keys = shown.rows.map((midi, i) => {
    const className = isSharp(midi) ? "key sharp" : "key";
    const key = make("button", { type: "button", value: midi, title, className });
    key.tabIndex = i ? -1 : 0;
    key.onclick = (event) => event.detail === 0 && pressKeys(midi, midi, event); // pointers: see keysUp
    return key;
  });
  element("keys").replaceChildren(...keys);
  showKeys();
  const options = [];
  for (let midi = HIGHEST; midi >= LOWEST; midi--) options.push(make("option", { value: midi }, noteName(midi)));
  const chosen = element("row").value || 60;
  element("row").replaceChildren(...options);
  element("row").value = chosen;
}

/** The table in its order; the row of a note is made once, for notes never change. */
function fillTable() {
  const order = ORDERS[table.order];
  table.current?.removeAttribute("aria-current");
  table.current = null;
  element("rows").replaceChildren(...page.notes.toSorted(order).map(rowFor));
  for (const head of element("heads").children) {
    const button = head.querySelector("button");
    if (!button) continue;
    const way = table.order === "level" ? "descending" : "ascending";
    if (button.value === table.order) head.setAttribute("aria-sort", way);
    else head.removeAttribute("aria-sort");
  }
}

function rowFor(note) {
  if (table.rows.has(note)) return table.rows.get(note);
  const button = make("button", { type: "button" }, `\u25b8 ${note.name}`);
  button.onclick = () => {
    select(note);
    playNote(note);
    reveal(note.onset);
  };
  button.setAttribute("aria-label", `Play ${note.name} at ${timeText(note.onset, 2)}`);
  const head = make("th", { scope: "row" }, button), times = [note.onset, note.offset].map((time) => timeText(time, 2));
  const state = note.edited ? " yours" : note.silent ? " silent" : note.doubtful ? " doubtful" : "";
  const cells = [...times, decibels(note.level), note.confidence.toFixed(2) + state];
  const row = make("tr", {}, head, ...cells.map((text) => make("td", {}, text)));
  table.rows.set(note, row);
  return row;
}

/** Mark the row of the note that was struck last, and keep it in sight. */
function showRow(position) {
  const now = performance.now();
  if (run && now - table.looked < ROW_MS) return;
  table.looked = now;
  const note = run?.heard.note ?? page.notes[firstFrom(position + 1e-6) - 1] ?? null;
  const row = note ? (table.rows.get(note) ?? null) : null;
  if (row === table.current) return;
  table.current?.removeAttribute("aria-current");
  table.current = row;
  row?.setAttribute("aria-current", "true");
  const box = element("list");
  if (!row || !shown.follow || box.matches(":hover, :focus-within")) return;
  const { offsetTop, offsetHeight } = row, { scrollTop, clientHeight } = box;
  const isSeen = offsetTop >= scrollTop + HEADS_PX && offsetTop + offsetHeight <= scrollTop + clientHeight;
  if (!isSeen) box.scrollTop = offsetTop - clientHeight / 3;
}

// --- Keys ---------------------------------------------------------------------------------------

const KEY_ACTIONS = {
  " ": toggle,
  ArrowLeft: (event) => seek(here() - (event.shiftKey ? 0.1 : 1)),
  ArrowRight: (event) => seek(here() + (event.shiftKey ? 0.1 : 1)),
  Home: () => seek(0),
  End: () => seek(page.seconds),
  Escape: () => (shown.selected ? select(null) : hearAll()),
  l: toggleLoop,
  i: () => loopEnd("from"), "[": () => loopEnd("from"),
  o: () => loopEnd("until"), "]": () => loopEnd("until"),
  "<": () => setSpeed(Math.max(0.5, Math.round(20 * view.speed - 1) / 20)),
  ">": () => setSpeed(Math.min(1, Math.round(20 * view.speed + 1) / 20)),
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => zoom(0),
  v: () => setFollow(true),
  m: () => document.activeElement.closest("#keys button") && mute([Number(document.activeElement.value)]),
  b: () => selectNext(-1), f: () => selectNext(1),
  d: (event) => selectNext(event.shiftKey ? -1 : 1, (note) => note.doubtful),
  h: () => shown.selected && playNote(shown.selected),
  n: addHere,
  p: () => setPencil(!shown.pencil),
};

/** Keys for the selected note; without one they are left alone. */
const NOTE_KEYS = {
  Delete: deleteNote, Backspace: deleteNote,
  ArrowUp: (event) => transpose(event.shiftKey ? 12 : 1),
  ArrowDown: (event) => transpose(event.shiftKey ? -12 : -1),
  ",": () => nudge(["onset", "offset"], -NUDGE_S), ".": () => nudge(["onset", "offset"], NUDGE_S),
  q: () => nudge(["onset"], -NUDGE_S), w: () => nudge(["onset"], NUDGE_S),
  e: () => nudge(["offset"], -NUDGE_S), r: () => nudge(["offset"], NUDGE_S),
  s: split, j: merge, a: accept,
};

function keyDown(event) {
  const { target, ctrlKey, metaKey, altKey, shiftKey } = event;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (target.matches("input:not([type=range]), select, textarea")) return;
  const back = (ctrlKey || metaKey) && !altKey && { z: shiftKey ? redo : undo, y: redo }[key];
  if (!back && (ctrlKey || metaKey || altKey)) return;
  if (target.matches("input") && /^(Arrow|Home|End|Page)/.test(key)) return; // it moves the fader
  if (key === " " && target.matches("button, summary")) return; // it presses what has the focus
  const mode = MODES[Number(key) - 1];
  const action = back || (mode ? () => setMode(mode) : ((shown.selected && NOTE_KEYS[key]) ?? KEY_ACTIONS[key]));
  if (!action) return;
  event.preventDefault();
  action(event);
}

function setPencil(on) {
  shown.pencil = on;
  showState();
  say(on ? "Click on energy that no note covers, or drag: that adds a note." : "");
}

// --- The start ----------------------------------------------------------------------------------

function fillPage() {
  const { title, code, roll } = page;
  document.title = `${title} \u00b7 note by note`;
  element("title").textContent = title;
  element("code").textContent = code === "FLAC"
    ? "The sounds in this page are FLAC, 16 bit: nothing is lost that can be heard."
    : "The sounds in this page are MP3, as FLAC would be too large: they are a little coarser than the stems.";
  element("quietest").textContent = `\u2212${roll.range}`;
  element("readout").textContent = readoutAtRest();
  const drawn = `Energy heard at each pitch, with ${page.notes.length} notes outlined`;
  element("picture").setAttribute("aria-label", `${drawn}. They are listed in the table below.`);
  MODES.forEach((mode, i) => element("modes").append(faderFor(mode, i + 1)));
  const sorted = page.notes.map(({ midi }) => midi).sort((one, other) => one - other);
  if (sorted.length) view.split = clamp(60, sorted[0] + 1, Math.max(sorted.at(-1), sorted[0] + 1));
}

function faderFor(mode, digit) {
  const words = mode[0].toUpperCase() + mode.slice(1), title = `Only the ${mode}`;
  const button = make("button", { id: `only-${mode}`, type: "button", value: mode, title });
  button.append(make("kbd", {}, String(digit)), words);
  button.onclick = () => setMode(mode);
  const fader = make("input", { id: `mix-${mode}`, type: "range", min: 0, max: 100, value: 0 });
  fader.setAttribute("aria-label", `Level of the ${mode}`);
  fader.oninput = () => {
    view.mix[mode] = fader.value / 100;
    viewChanged();
  };
  return make("div", { className: "fader" }, button, fader);
}

const CLICKS = {
  play: toggle, loop: toggleLoop, all: hearAll, undo, redo,
  "loop-a": () => loopEnd("from"), "loop-b": () => loopEnd("until"),
  in: () => zoom(1.5), out: () => zoom(1 / 1.5), fit: () => zoom(0), follow: () => setFollow(!shown.follow),
  pencil: () => setPencil(!shown.pencil),
  muting: () => { shown.muting = !shown.muting; showState(); },
  hear: () => playNote(shown.selected), delete: deleteNote, accept, cut: split, join: merge,
  up: () => transpose(1), "octave-up": () => transpose(12),
  down: () => transpose(-1), "octave-down": () => transpose(-12),
  earlier10: () => nudge(["onset", "offset"], -NUDGE_S), later10: () => nudge(["onset", "offset"], NUDGE_S),
  "start-earlier": () => nudge(["onset"], -NUDGE_S), "start-later": () => nudge(["onset"], NUDGE_S),
  "end-earlier": () => nudge(["offset"], -NUDGE_S), "end-later": () => nudge(["offset"], NUDGE_S),
  close: () => select(null),
  review: () => selectNext(1, (note) => note.doubtful),
  previous: () => selectNext(-1), next: () => selectNext(1), doubtful: () => selectNext(1, (note) => note.doubtful),
  add: addHere, open: () => openRows([Number(element("row").value)]),
  csv: () => download(fileName("corrected_notes.csv"), csvOf(list.notes), "text/csv"),
  midi: () => download(fileName("corrected_notes.mid"), midiOf(list.notes), "audio/midi"),
  "loop-wav": downloadLoop, "loop-midi": downloadLoopMidi, copy: copyCommand,
  "take-earlier": () => { const words = takeKept(list.earlier); list.earlier = null; listChanged(null, words); },
  "forget-earlier": () => { forgetEarlier(); showKept(); },
};

/** The loop as it is heard: faders, keys and speed. */
async function downloadLoop() {
  const sound = await render({ ...view.loop, loop: null, volume: 1 });
  download(loopName("wav"), wavOf(sound), "audio/wav");
}

function downloadLoopMidi() {
  const { from, until } = view.loop;
  const cut = notesIn(from, until).filter(({ midi }) => isHeard(view, midi)).map((note) => {
    return { ...note, onset: Math.max(note.onset, from), offset: Math.min(note.offset, until) };
  });
  const notes = cut.filter(({ onset, offset }) => offset > onset);
  download(loopName("mid"), midiOf(notes, -from, view.speed), "audio/midi");
}

const loopName = (ending) => fileName(`loop_${timeText(view.loop.from).replace(":", "m")}.${ending}`);

async function copyCommand() {
  const command = element("command");
  try {
    await navigator.clipboard.writeText(command.value);
  } catch {
    command.select();
    if (!document.execCommand("copy")) return say("This browser does not let the page copy: do it by hand.");
  }
  say("The command is copied.");
}

function listenToUser() {
  const roll = element("roll");
  for (const [id, action] of Object.entries(CLICKS)) element(id).onclick = () => action();
  element("volume").oninput = ({ target }) => {
    view.volume = target.value / 100;
    if (run) run.heard.volume = view.volume;
    viewChanged();
  };
  element("speed").onchange = ({ target }) => setSpeed(target.value / 100);
  element("speed").oninput = ({ target }) => (element("speed-text").textContent = `${target.value} %`);
  for (const button of document.querySelectorAll("[data-hand]"))
    button.onclick = () => setHand(...button.dataset.hand.split(" "));
  for (const button of document.querySelectorAll("#heads button"))
    button.onclick = () => { table.order = button.value; fillTable(); showPlayhead(); };
  const cancel = letGoUnchanged;
  const gestures = {
    picture: [pointerDown, pointerMove, pointerUp, pointerGone], selected: [grab, pull, letGo, cancel],
    ruler: [rulerDown, rulerMove, rulerUp, cancel], keys: [keysDown, keysMove, keysUp, cancel],
    split: [splitDown, splitMove, splitUp, cancel],
  };
  for (const [id, [onpointerdown, onpointermove, onpointerup, onpointercancel]] of Object.entries(gestures))
    Object.assign(element(id), { onpointerdown, onpointermove, onpointerup, onpointercancel });
  Object.assign(element("picture"), { onpointerleave: pointerGone, ondblclick: doubleClick });
  element("keys").onkeydown = keysKeyDown;
  element("split").onkeydown = splitKeyDown;
  roll.onscroll = scrolled;
  for (const area of [roll, element("ruler")]) {
    area.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, place(event).x);
    }, { passive: false });
  }
  document.onkeydown = keyDown;
  // a click with the mouse leaves the focus where it is, so that the space key goes on playing
  document.onmousedown = (event) => event.target.closest("button") && event.preventDefault();
  dark.onchange = readColours;
  coarse.onchange = layOut;
  addEventListener("beforeunload", (event) => {
    if (list.past.length && !list.kept) event.preventDefault();
  });
  const watch = new ResizeObserver(layOut);
  for (const id of ["roll", "tools"]) watch.observe(element(id));
  window.onresize = layOut;
  setInterval(advance, 250);
}

async function start() {
  openList();
  fillPage();
  openRows();
  listenToUser();
  fillTable();
  showState();
  showKept();
  if (list.past.length) say(`Here are ${list.past[0].words} again. Undo takes you back to the list as it came.`, true);
  await loadPicture();
  readColours();
  element("play").textContent = "Reading\u2026";
  try {
    await loadSounds();
    element("play").disabled = false;
    fillTable();
    showState();
    showKept();
    draw();
  } catch (error) {
    const { message } = error;
    const what = `the sounds in this page, which are ${page.code} (${message})`;
    say(`This browser cannot read ${what}. Try a newer one. ${STILL}`, true);
  }
}

// what a test may see and hear
window.listen = { page, view, shown, list, render, xOf, rowTop, clockPosition, playing: () => run, ready: start() };
