// The list of notes: what was listed, what a person made of it, and the files it leaves the page in. A note never
// changes: an edit puts another in its place, so that to undo is to take the list of before.

const KEYS_OF_RECORDING = `listen ${page.key} `; // of what the browser keeps
const KEY = KEYS_OF_RECORDING + page.base; // of this list of it
const BEAT_MS = 500; // and a tick a millisecond, as piano/notes.py writes MIDI
const TEXT = "120 beats a minute are a convention: the tempo of the recording is not known";

const list = { notes: [], past: [], future: [], kept: null, earlier: null };

function noteOf([midi, f0, onset, offset, level, confidence, doubtful, edited = 0]) {
  const times = { onset: onset - page.offset, offset: offset - page.offset };
  return { midi, name: noteName(midi), f0, ...times, level, confidence, doubtful: !!doubtful, edited: !!edited };
}

/** The reverse of noteOf, with times and numbers as they are written. */
function rowOf({ midi, f0, onset, offset, level, confidence, doubtful, edited }) {
  const times = [onset, offset].map((seconds) => Number((seconds + page.offset).toFixed(3)));
  return [midi, f0, ...times, level, confidence, Number(doubtful), Number(edited)];
}

/** Take a list: all of it goes into files, what lies in the page's range is seen and heard. */
function setNotes(notes) {
  list.notes = notes.toSorted((one, other) => one.onset - other.onset || one.midi - other.midi);
  page.notes = list.notes.filter(({ onset, offset }) => offset > 0 && onset < page.seconds);
  page.byKey = byKey(page.notes);
  page.longest = page.notes.reduce((most, { onset, offset }) => Math.max(most, offset - onset), 0);
}

/** Put notes in the place of others; `words` say what was done. */
function edit(gone, come, words) {
  list.past.push({ notes: list.notes, selected: shown.selected, words });
  list.future = [];
  setNotes([...list.notes.filter((note) => !gone.includes(note)), ...come]);
  listChanged(come[0] ?? null, words);
}

function undo() {
  travel(list.past, list.future, "Undone");
}

function redo() {
  travel(list.future, list.past, "Done again");
}

function travel(from, to, what) {
  const { notes, selected, words } = from.pop() ?? {};
  if (!notes) return;
  to.push({ notes: list.notes, selected: shown.selected, words });
  setNotes(notes);
  listChanged(selected, `${what}: ${words}`);
}

// --- What the browser keeps -----------------------------------------------------------------------

/** Keep the list, so that a reload finds it again; nothing where it is as it came. */
function keep() {
  try {
    const rows = list.notes.map(rowOf);
    if (list.past.length) localStorage.setItem(KEY, JSON.stringify({ rows, when: Date.now() }));
    else localStorage.removeItem(KEY);
    list.kept = true;
  } catch {
    list.kept = false;
  }
}

/** Take the list as it came, or as it was left; corrections of another run's list are only offered. */
function openList() {
  setNotes(page.list.map(noteOf));
  try {
    const kept = Object.keys(localStorage).filter((key) => key.startsWith(KEYS_OF_RECORDING));
    const found = kept.map((key) => ({ key, ...JSON.parse(localStorage.getItem(key)) }));
    found.sort((one, other) => one.when - other.when);
    const own = found.find(({ key }) => key === KEY);
    if (own) takeKept(own);
    else list.earlier = found.at(-1) ?? null;
    list.kept = true;
  } catch {
    list.kept = false;
  }
}

/** Put kept corrections in the place of the list; says what they are. */
function takeKept({ rows, when }) {
  const words = `your corrections of ${new Date(when).toLocaleString()}`, notes = rows.map(noteOf);
  list.past.push({ notes: list.notes, selected: null, words });
  list.future = [];
  setNotes(notes);
  return words;
}

function forgetEarlier() {
  localStorage.removeItem(list.earlier.key);
  list.earlier = null;
}

// --- Files ----------------------------------------------------------------------------------------

/** As `write_notes_csv` in piano/notes.py. */
function csvOf(notes) {
  const rows = notes.map(({ name, midi, f0, onset, offset, level, confidence }) => {
    const times = [onset, offset].map((seconds) => (seconds + page.offset).toFixed(3));
    return [name, midi, f0.toFixed(3), ...times, level.toFixed(1), confidence.toFixed(2)];
  });
  return [["note,midi,f0,onset,offset,level_db,confidence"], ...rows].map((row) => `${row.join(",")}\n`).join("");
}

/** As `write_midi` in piano/notes.py, byte for byte; times of the notes plus `shift`, divided by `speed`. */
function midiOf(notes, shift = page.offset, speed = 1) {
  const events = notes.flatMap(({ midi, onset, offset, level }) => {
    const velocity = clamp(Math.round(127 * 10 ** (level / 40)), 1, 127);
    const [start, end] = [onset, offset].map((seconds) => Math.max(Math.round((1000 * (seconds + shift)) / speed), 0));
    return [[end, 0x80, midi, 64], [start, 0x90, midi, velocity]];
  });
  events.sort((a, b) => a[0] - b[0] || a[1] - b[1] || a[2] - b[2] || a[3] - b[3]);
  const track = [0, 0xff, 0x01, ...variable(TEXT.length), ...new TextEncoder().encode(TEXT)];
  track.push(0, 0xff, 0x51, 3, ...bytes(1000 * BEAT_MS, 3), 0, 0xc0, 0);
  let now = 0, running = 0;
  for (const [tick, status, ...message] of events) {
    track.push(...variable(tick - now), ...(status === running ? [] : [status]), ...message);
    [now, running] = [tick, status];
  }
  track.push(0, 0xff, 0x2f, 0);
  const header = [...letters("MThd"), ...bytes(6, 4), ...bytes(0, 2), ...bytes(1, 2), ...bytes(BEAT_MS, 2)];
  return Uint8Array.from([...header, ...letters("MTrk"), ...bytes(track.length, 4), ...track]);
}

const letters = (text) => [...text].map((letter) => letter.charCodeAt(0));
const bytes = (number, count) => Array.from({ length: count }, (_, i) => (number >> (8 * (count - 1 - i))) & 255);

/** A number as MIDI writes delays: seven bits a byte. */
function variable(number) {
  const found = [number & 127];
  for (let rest = number >> 7; rest; rest >>= 7) found.unshift((rest & 127) | 128);
  return found;
}

/** Samples as a WAV file of 16 bits. */
function wavOf(samples) {
  const data = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, words) => letters(words).forEach((letter, i) => data.setUint8(at + i, letter));
  text(0, "RIFF");
  data.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  [[16, 16, 4], [20, 1, 2], [22, 1, 2], [24, page.rate, 4], [28, 2 * page.rate, 4], [32, 2, 2], [34, 16, 2]].forEach(
    ([at, number, size]) => (size === 4 ? data.setUint32(at, number, true) : data.setUint16(at, number, true)),
  );
  text(36, "data");
  data.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => data.setInt16(44 + 2 * i, clamp(Math.round(32768 * x), -32768, 32767), true));
  return data;
}

/** A name that no run gives to a file. */
function fileName(ending) {
  const stem = page.title.replace(/\.[^.]{1,5}$/, "").replace(/[^\p{L}\p{N}.-]+/gu, "_").replace(/^[_.-]+|_+$/g, "");
  return `${stem.slice(0, 80) || "recording"}_${ending}`;
}

function download(name, content, type) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
}
