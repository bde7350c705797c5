"use strict";
// What the page carries, and what all of its parts share. Times are seconds from the page's first sample, which lies
// `page.offset` into the recording.

const MODES = ["recording", "notes", "residual", "transcription"];
const SAID_MS = 8000; // how long what was done is told
const LOWEST = 21, HIGHEST = 108; // A0 to C8
const NAMES = ["C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B"];

let said = 0; // the timer of what is told

const element = (id) => document.getElementById(id);
const clamp = (x, least, most) => Math.min(Math.max(x, least), most);
const noteName = (midi) => `${NAMES[midi % 12]}${Math.floor(midi / 12) - 1}`;
const isSharp = (midi) => noteName(midi).includes("#");
const fromDecibels = (level) => 10 ** (level / 20);

const page = JSON.parse(element("data").textContent);
page.seconds = page.length / page.rate;
element("data").remove();

/** What is heard, but for notes that are played alone. */
const view = {
  mix: { recording: 1, notes: 0, residual: 0, transcription: 0 }, // gains of the faders
  solo: new Set(), muted: new Set(), // MIDI numbers
  loop: null, speed: 1, volume: 1,
  split: 60, // the lowest key of the upper hand
  hand: null, // { which: "lower" or "upper", how: "solo" or "muted" }
};

/** What is seen. */
const shown = {
  scale: 40, rowHeight: 12, // px a second, px
  rows: [], rowOf: new Map(), // the MIDI number of each row from the top, and back
  position: 0, follow: true,
  selected: null, hovered: null, drag: null, pencil: false, muting: false,
};

/** Minutes and seconds of the recording. */
function timeText(seconds, digits = 1) {
  const unit = 10 ** digits, units = Math.round((seconds + page.offset) * unit);
  const minutes = Math.floor(units / (60 * unit));
  return `${minutes}:${(units / unit - 60 * minutes).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}

const decibels = (level) => `${level.toFixed(1).replace("-", "\u2212")} dB`;

/** Things of each key, by its MIDI number, in their order. */
function byKey(things) {
  const found = new Map();
  for (const thing of things) found.set(thing.midi, [...(found.get(thing.midi) ?? []), thing]);
  return found;
}

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Tell what was done, for a while; what is wrong stays. */
function say(text, stays = false) {
  element("message").textContent = text;
  clearTimeout(said);
  if (!stays) said = setTimeout(say, SAID_MS, "", true);
}
