"use strict";
// The page to listen to. Times are seconds from the page's first sample, which lies `page.offset` into the recording.

const MODES = ["recording", "notes", "residual", "transcription"];
const RELATED = [[12, "octave above"], [19, "twelfth above"], [-12, "octave below"], [-19, "twelfth below"]];
const AHEAD_S = 2.5; // scheduled ahead of the clock; timers of hidden tabs come once a second
const PATIENCE_MS = 1500; // until a context that does not start counts as silent
const BEFORE_S = 0.03, AFTER_S = 0.4; // heard around a note that is played alone
const FADE_S = 0.005; // of everything that starts or stops
const STILL = "The picture and the list still work.";
const NO_DEVICE = `No sound comes out: this computer seems to have no sound device that the browser may use. ${STILL}`;
const SHORTEST_LOOP_S = 0.05; // longer than two fades
const AXIS_PX = 24, CLICK_PX = 4, MOST_PX_PER_S = 1000;
const START_PX_PER_S = 40; // less shows more at once than can be read; "Fit" shows all
const INK = "#1b2430", ACCENT = "#0b57a4", SOFT = "#4b5768";

const element = (id) => document.getElementById(id);
const page = JSON.parse(element("data").textContent);
page.seconds = page.length / page.rate;
element("data").remove();

const view = { mode: "recording", solo: new Set(), muted: new Set(), loop: null, volume: 1 };
const shown = { scale: START_PX_PER_S, rowHeight: 12, position: 0, hovered: null, drag: null };
Object.assign(shown, { levels: null, picture: null }); // of the energy, see loadPicture
let sounds = []; // what can be heard, see loadSounds
let context = null; // of the loudspeaker
let run = null; // what is playing now
let asked = 0; // counts calls of play, so that the last one wins

// --- Sounds -------------------------------------------------------------------------------------

/** Samples of a coded sound, at the recording's gain. */
async function decode(sound, decoder) {
  const bytes = bytesOf(sound.data);
  sound.data = null;
  const buffer = await decoder.decodeAudioData(bytes.buffer);
  if (buffer.length < sound.length) throw new Error(`decoded ${buffer.length} samples of ${sound.length}`);
  const samples = buffer.getChannelData(0);
  for (let i = 0; i < samples.length; i++) samples[i] *= sound.gain;
  return buffer;
}

function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** Decode all sounds, and take the clips off the recording: what is left is the residual. */
async function loadSounds() {
  const coded = [page.recording, ...page.pitches];
  const decoders = Array.from({ length: 4 }, () => new OfflineAudioContext(1, 1, page.rate)); // each has its own thread
  const [recording, ...stems] = await Promise.all(coded.map((sound, i) => decode(sound, decoders[i % 4])));
  const residual = new AudioBuffer({ length: page.length, sampleRate: page.rate });
  const rest = residual.getChannelData(0);
  rest.set(recording.getChannelData(0).subarray(0, page.length));
  sounds = [whole("recording", recording), whole("residual", residual)];
  stems.forEach((buffer, i) => {
    const { midi, clips } = page.pitches[i], samples = buffer.getChannelData(0);
    let from = 0;
    for (const [start, length] of clips) {
      for (let j = 0; j < length; j++) rest[start + j] -= samples[from + j];
      const end = (start + length) / page.rate;
      sounds.push({ mode: "notes", midi, start: start / page.rate, end, buffer, skip: from / page.rate });
      from += length;
    }
  });
  const gain = toneGain(recording);
  for (const note of page.notes) {
    const level = gain * 10 ** (note.level / 20);
    const end = Math.min(note.offset + page.tone.release, page.seconds);
    sounds.push({ mode: "transcription", midi: note.midi, start: note.onset, end, note, level });
  }
}

function whole(mode, buffer) {
  return { mode, midi: null, start: 0, end: page.seconds, buffer, skip: 0 };
}

/** What makes the loudest moment of the transcription about as loud as that of the recording. */
function toneGain(recording) {
  const peak = recording.getChannelData(0).reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  let together = 0;
  for (const { onset } of page.notes) {
    const heard = page.notes.filter((note) => note.onset <= onset && onset < note.offset);
    together = Math.max(together, heard.reduce((sum, note) => sum + 10 ** (note.level / 20), 0));
  }
  return together ? Math.min(peak, 1) / (1.8 * together) : 0; // 1.8: the partials of a tone, added up
}

// --- From sounds to the loudspeaker, or to a test's ear -----------------------------------------

/** How loud each mode is. The recording without muted notes is the residual and the other notes. */
function modeGains({ mode, muted }) {
  const heard = mode === "recording" && muted.size ? ["notes", "residual"] : [mode];
  return Object.fromEntries(MODES.map((name) => [name, heard.includes(name) ? 1 : 0]));
}

function isHeard({ mode, solo, muted }, midi) {
  return solo.size && mode !== "recording" ? solo.has(midi) : !muted.has(midi);
}

/** A run plays from `from` to `until`; its gains are one for each mode and, within it, one for each pitch. */
function newRun(context, from, until, heard) {
  const master = new GainNode(context), seams = new GainNode(context);
  master.connect(seams).connect(context.destination);
  const modes = {}, pitches = {};
  for (const mode of MODES) {
    modes[mode] = new GainNode(context);
    modes[mode].connect(master);
    pitches[mode] = new Map();
    if (mode === "recording" || mode === "residual") continue;
    for (const { midi } of page.pitches) {
      pitches[mode].set(midi, new GainNode(context));
      pitches[mode].get(midi).connect(modes[mode]);
    }
  }
  const { partials: count, timbre } = page.tone;
  const partials = Float32Array.from({ length: count + 1 }, (_, n) => (n ? timbre ** (n - 1) : 0));
  const wave = context.createPeriodicWave(new Float32Array(partials.length), partials, { disableNormalization: true });
  const clock = grid(context.currentTime + (context.state === "running" ? 0.05 : 0));
  const next = { clock, from, at: from, until };
  const made = { context, master, seams, modes, pitches, wave, heard, sources: new Set(), rounds: [next], done: false };
  setGains(made, 0);
  return made;
}

/** Let a run be heard as its view says, within `fade` seconds. */
function setGains(run, fade = FADE_S) {
  const gains = modeGains(run.heard);
  const set = (node, value) => {
    if (fade) node.gain.setTargetAtTime(value, run.context.currentTime, fade / 3);
    else node.gain.value = value;
  };
  set(run.master, run.heard.volume);
  for (const mode of MODES) {
    set(run.modes[mode], gains[mode]);
    for (const [midi, node] of run.pitches[mode]) set(node, isHeard(run.heard, midi) ? 1 : 0);
  }
}

/** Schedule all that begins before `horizon` on the context's clock, round after round where there is a loop. */
function scheduleUntil(run, horizon) {
  while (!run.done) {
    const round = run.rounds.at(-1);
    const reach = round.from + horizon - round.clock;
    if (reach <= round.at) return;
    const to = Math.min(reach, round.until);
    if (round.at === round.from) fadeEnds(run, round);
    for (const sound of sounds) {
      const begins = sound.start >= round.at && sound.start < to;
      const goesOn = round.at === round.from && sound.start < round.from && sound.end > round.from;
      if (begins || goesOn) startSound(run, sound, round);
    }
    round.at = to;
    if (to < round.until) return;
    const { loop } = run.heard;
    const clock = grid(round.clock + round.until - round.from);
    if (loop) run.rounds.push({ clock, from: loop.from, at: loop.from, until: loop.until });
    else run.done = true;
  }
}

/** Fade where a round cuts into the recording, so that no loop clicks. */
function fadeEnds({ seams: { gain } }, { clock, from, until }) {
  const end = clock + until - from;
  gain.setValueAtTime(from > 0 ? 0 : 1, clock);
  if (from > 0) gain.linearRampToValueAtTime(1, clock + FADE_S);
  if (until === page.seconds) return;
  gain.setValueAtTime(1, Math.max(clock, end - FADE_S));
  gain.linearRampToValueAtTime(0, end);
}

function startSound(run, sound, round) {
  const begin = Math.max(sound.start, round.from), end = Math.min(sound.end, round.until);
  const when = round.clock + begin - round.from;
  const target = run.pitches[sound.mode].get(sound.midi) ?? run.modes[sound.mode];
  let source;
  if (sound.note) {
    source = tone(run, sound, when, begin, end, target);
  } else {
    source = new AudioBufferSourceNode(run.context, { buffer: sound.buffer });
    source.connect(target);
    source.start(when, sound.skip + begin - sound.start, end - begin);
  }
  run.sources.add(source);
  source.onended = () => run.sources.delete(source);
}

/** A transcribed note, from `begin` to `end`: a few partials that decay. */
function tone(run, { note, level, start }, when, begin, end, target) {
  const { attack, release, decay } = page.tone;
  const slowness = decay * 2 ** ((60 - note.midi) / 24); // low strings ring longer
  const source = new OscillatorNode(run.context, { type: "custom", periodicWave: run.wave, frequency: note.f0 });
  const envelope = new GainNode(run.context, { gain: 0 });
  const now = level * Math.exp(-(begin - start) / slowness);
  const letGo = Math.max(when + attack, when + end - begin - release);
  envelope.gain.setValueAtTime(0, when);
  envelope.gain.linearRampToValueAtTime(now, when + attack);
  envelope.gain.setTargetAtTime(0, when + attack, slowness);
  envelope.gain.setTargetAtTime(0, letGo, release / 4);
  source.connect(envelope).connect(target);
  source.start(when);
  source.stop(when + end - begin);
  return source;
}

/** A time on the grid of samples, so that nothing is interpolated. */
function grid(seconds) {
  return Math.round(seconds * page.rate) / page.rate;
}

/** What a run sounds like, as samples: the code that plays, but heard by a test. */
async function render({ from = 0, until = page.seconds, seconds = until - from, ...heard } = {}) {
  const offline = new OfflineAudioContext(1, Math.round(seconds * page.rate), page.rate);
  const as = { ...view, ...heard, solo: new Set(heard.solo ?? view.solo), muted: new Set(heard.muted ?? view.muted) };
  scheduleUntil(newRun(offline, grid(from), grid(until), as), seconds);
  return (await offline.startRendering()).getChannelData(0);
}

// --- Transport ----------------------------------------------------------------------------------

/** Play a part; `heard` stands in for the page's view where a note is played alone. */
async function play(from, until = page.seconds, heard = view) {
  stop();
  const ticket = ++asked;
  if (!sounds.length || !(await wakeUp()) || ticket !== asked) return;
  run = newRun(context, grid(from), grid(until), heard);
  advance();
  showState();
  requestAnimationFrame(animate);
}

/** Play from where we are, round and round where there is a loop. */
function resume() {
  const { loop } = view;
  let from = shown.position;
  if (loop && !(from >= loop.from && from < loop.until)) from = loop.from;
  if (from >= page.seconds - 0.02) from = 0;
  return play(from, loop ? loop.until : page.seconds);
}

/** Hear one note out of its own stem. */
function playNote(note) {
  const { from, until } = spanOf(note);
  shown.position = note.onset;
  return play(from, until, alone(note));
}

function alone(note) {
  return { mode: "notes", solo: new Set([note.midi]), muted: new Set(), loop: null, volume: view.volume, note };
}

/** From just before a note to the end of its sound, or to the next note of its pitch. */
function spanOf(note) {
  const later = page.notes.filter((other) => other.midi === note.midi && other.onset > note.onset);
  const next = Math.min(page.seconds, ...later.map((other) => other.onset - BEFORE_S));
  const from = Math.max(0, note.onset - BEFORE_S);
  return { from, until: Math.max(from + 0.05, Math.min(note.offset + AFTER_S, next)) };
}

function stop() {
  asked++;
  if (!run) return;
  const { context, master, sources, heard } = run;
  shown.position = heard.note ? heard.note.onset : clockPosition();
  master.gain.setTargetAtTime(0, context.currentTime, FADE_S / 3);
  for (const source of sources) source.stop(context.currentTime + 2 * FADE_S);
  setTimeout(() => master.disconnect(), 200);
  run = null;
  showState();
}

function toggle() {
  if (run) stop();
  else resume();
}

function seek(position) {
  const goOn = run && !run.heard.note;
  stop();
  shown.position = Math.min(Math.max(position, 0), page.seconds);
  if (goOn) resume();
  draw();
}

/** Schedule what comes next, again and again while a run lasts. */
function advance() {
  if (run) scheduleUntil(run, run.context.currentTime + AHEAD_S);
}

/** Where the run is now, or where it was left. */
function clockPosition() {
  if (!run) return shown.position;
  const now = run.context.currentTime - (run.context.outputLatency || 0);
  const round = run.rounds.findLast(({ clock }) => clock <= now) ?? run.rounds[0];
  return Math.min(Math.max(round.from + now - round.clock, round.from), round.until);
}

function animate() {
  if (!run) return;
  const last = run.rounds.at(-1);
  if (run.done && run.context.currentTime > last.clock + last.until - last.from + 0.1) {
    const { note } = run.heard;
    stop();
    if (!note) shown.position = 0;
  } else {
    follow(clockPosition());
    requestAnimationFrame(animate);
  }
  draw();
}

/** Start the loudspeaker's clock; without a sound device, or before a click, it may never start. */
async function wakeUp() {
  try {
    context ??= new AudioContext({ sampleRate: page.rate, latencyHint: "interactive" });
  } catch {
    say("This browser cannot play sound at this recording's sampling rate. Try a newer one.");
    return false;
  }
  const patience = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
  await Promise.race([context.resume(), patience]);
  const awake = context.state === "running", clicked = navigator.userActivation?.hasBeenActive ?? true;
  const why = clicked ? NO_DEVICE : "The browser keeps sound off until you click. Click Play.";
  say(awake ? "" : why);
  return awake;
}

function say(text) {
  element("message").textContent = text;
}

// --- What is heard ------------------------------------------------------------------------------

function setMode(mode) {
  if (!page.notes.length && (mode === "notes" || mode === "transcription")) return;
  if (run?.heard.note) stop();
  view.mode = mode;
  viewChanged();
}

/** Only this pitch, or with `more` this one as well; pressed again, all of them. */
function solo(midi, more) {
  const { solo } = view, had = solo.has(midi);
  if (!more) solo.clear();
  if (had) solo.delete(midi);
  else solo.add(midi);
  view.muted.delete(midi);
  if (solo.size && (view.mode === "recording" || view.mode === "residual")) view.mode = "notes";
  viewChanged();
}

function mute(midi) {
  if (!view.muted.delete(midi)) view.muted.add(midi);
  view.solo.delete(midi);
  if (view.mode === "residual") view.mode = "notes";
  viewChanged();
}

function hearAll() {
  view.solo.clear();
  view.muted.clear();
  viewChanged();
}

function setLoop(loop) {
  const position = clockPosition(), goOn = run && !run.heard.note;
  const long = loop && loop.until - loop.from >= SHORTEST_LOOP_S;
  view.loop = long ? { from: grid(loop.from), until: grid(loop.until) } : null;
  if (goOn) {
    stop();
    shown.position = position;
    resume();
  }
  showState();
}

function viewChanged() {
  if (run) setGains(run);
  showState();
}

/** Show in buttons, keys and picture what is heard. */
function showState() {
  const playing = Boolean(run);
  element("play").textContent = playing ? "Pause" : "Play";
  element("play").setAttribute("aria-pressed", playing);
  for (const button of element("modes").children) button.setAttribute("aria-pressed", button.value === view.mode);
  element("loop").setAttribute("aria-pressed", Boolean(view.loop));
  element("all").disabled = !view.solo.size && !view.muted.size;
  for (const key of element("keyboard").querySelectorAll("button")) {
    const midi = Number(key.value), muted = view.muted.has(midi);
    key.setAttribute("aria-pressed", view.solo.has(midi));
    key.setAttribute("aria-label", key.textContent + (muted ? ", muted" : ""));
    key.classList.toggle("muted", muted);
  }
  draw();
}

// --- Picture ------------------------------------------------------------------------------------

/** Read the picture's levels, and colour them. */
async function loadPicture() {
  const image = new Image();
  image.src = page.roll.png;
  await image.decode();
  const canvas = make("canvas", { width: image.width, height: image.height });
  const paint = canvas.getContext("2d");
  paint.drawImage(image, 0, 0);
  const pixels = paint.getImageData(0, 0, image.width, image.height);
  const colours = page.roll.colours.map((colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16)));
  shown.levels = Uint8Array.from({ length: image.width * image.height }, (_, i) => pixels.data[4 * i]);
  shown.levels.forEach((level, i) => pixels.data.set(colours[level], 4 * i));
  paint.putImageData(pixels, 0, 0);
  // rows at their height, so that smoothing along time does not smear one over the next
  const picture = make("canvas", { width: canvas.width, height: canvas.height * shown.rowHeight });
  const stretch = picture.getContext("2d");
  stretch.imageSmoothingEnabled = false;
  stretch.drawImage(canvas, 0, 0, picture.width, picture.height);
  shown.picture = picture;
}

const noteName = (midi) => page.roll.names[midi - page.roll.lowest];
const rowTop = (midi) => AXIS_PX + (page.roll.lowest + page.roll.rows - 1 - midi) * shown.rowHeight;
const xOf = (seconds) => seconds * shown.scale - element("roll").scrollLeft;
const secondsAt = (x) => (x + element("roll").scrollLeft) / shown.scale;

function draw() {
  const canvas = element("picture"), ratio = window.devicePixelRatio || 1;
  const width = element("roll").clientWidth, height = AXIS_PX + page.roll.rows * shown.rowHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const paint = canvas.getContext("2d");
  paint.setTransform(ratio, 0, 0, ratio, 0, 0);
  paint.fillStyle = "#fff";
  paint.fillRect(0, 0, width, height);
  drawEnergy(paint, width);
  drawRows(paint, width);
  drawAxis(paint, width, height);
  for (const note of page.notes) drawNote(paint, note, width);
  if (shown.hovered) drawRelated(paint, shown.hovered, width);
  const loop = shown.drag?.loop ?? view.loop;
  if (loop) drawLoop(paint, loop, width, height);
  const x = xOf(clockPosition());
  paint.fillStyle = INK;
  paint.fillRect(x - 0.75, 0, 1.5, height);
  paint.beginPath();
  paint.moveTo(x - 5, 0);
  paint.lineTo(x + 5, 0);
  paint.lineTo(x, 8);
  paint.fill();
  element("clock").textContent = `${timeText(clockPosition())} / ${timeText(page.seconds)}`;
}

/** The columns in view. */
function drawEnergy(paint, width) {
  const { picture, scale } = shown, { start, column } = page.roll;
  if (!picture) return;
  const first = Math.max(0, Math.floor((secondsAt(0) - start) / column) - 1);
  const count = Math.min(picture.width, Math.ceil((secondsAt(width) - start) / column) + 1) - first;
  if (count <= 0) return;
  paint.imageSmoothingEnabled = column * scale < 1; // where columns share pixels
  paint.imageSmoothingQuality = "high";
  const left = xOf(start + first * column), high = picture.height;
  paint.drawImage(picture, first, 0, count, high, left, AXIS_PX, count * column * scale, high);
}

/** A line under each C, and a tint on the rows of black keys, as on a keyboard. */
function drawRows(paint, width) {
  for (let midi = page.roll.lowest; midi < page.roll.lowest + page.roll.rows; midi++) {
    const sharp = [1, 3, 6, 8, 10].includes(midi % 12);
    paint.fillStyle = "rgb(40 60 90 / 4%)";
    if (sharp) paint.fillRect(0, rowTop(midi), width, shown.rowHeight);
    paint.fillStyle = "rgb(40 60 90 / 22%)";
    if (midi % 12 === 0) paint.fillRect(0, rowTop(midi) + shown.rowHeight - 0.5, width, 1);
  }
}

function drawAxis(paint, width, height) {
  paint.fillStyle = "#f6f7f9";
  paint.fillRect(0, 0, width, AXIS_PX);
  paint.font = "11px system-ui, sans-serif";
  paint.textBaseline = "middle";
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300].find((s) => s * shown.scale >= 64) ?? 600;
  const end = Math.min(secondsAt(width), page.seconds) + page.offset;
  for (let i = Math.ceil((secondsAt(0) + page.offset) / step); i * step <= end; i++) {
    const x = xOf(i * step - page.offset);
    paint.fillStyle = "rgb(40 60 90 / 12%)";
    paint.fillRect(x, AXIS_PX - 5, 1, height);
    paint.fillStyle = SOFT;
    if (x < width - 44) paint.fillText(timeText(i * step - page.offset, step < 1 ? 1 : 0), x + 4, AXIS_PX / 2);
  }
}

/** An outline with a white edge, to be seen on light and dark; dashed where the note is doubtful. */
function drawNote(paint, note, width) {
  const left = xOf(note.onset), right = xOf(note.offset);
  if (right < 0 || left > width) return;
  const heard = isHeard({ ...view, mode: "notes" }, note.midi), sounding = run?.heard.note === note;
  const top = rowTop(note.midi) + 0.5, wide = Math.max(right - left, 3), high = shown.rowHeight - 1;
  const line = Math.min(1.6, 0.7 + shown.scale / START_PX_PER_S); // thin where notes are small, or it would hide them
  paint.globalAlpha = heard || sounding ? 1 : 0.3;
  paint.beginPath();
  paint.roundRect(left, top, wide, high, 2);
  paint.strokeStyle = "#fff";
  paint.lineWidth = 2 * line;
  paint.stroke();
  paint.strokeStyle = paint.fillStyle = ACCENT;
  paint.lineWidth = note === shown.hovered || sounding ? line + 1 : line;
  paint.setLineDash(note.doubtful ? [3, 3] : []);
  paint.stroke();
  paint.setLineDash([]);
  if (!note.doubtful && wide > 9) paint.fillRect(left, top, 3, high);
  paint.globalAlpha = 1;
}

/** Mark the rows where a note's octave and twelfth lie: what is wrong is often there. */
function drawRelated(paint, note, width) {
  paint.font = "600 11px system-ui, sans-serif";
  paint.textBaseline = "middle";
  for (const [distance, name] of RELATED) {
    const midi = note.midi + distance, top = rowTop(midi), high = shown.rowHeight;
    if (midi < page.roll.lowest || midi >= page.roll.lowest + page.roll.rows) continue;
    paint.fillStyle = "rgb(11 87 164 / 14%)";
    paint.fillRect(0, top, width, high);
    const x = Math.min(Math.max(xOf(note.offset) + 8, 6), width - 96);
    paint.lineWidth = 3;
    paint.strokeStyle = "#fff";
    paint.strokeText(name, x, top + high / 2);
    paint.fillStyle = ACCENT;
    paint.fillText(name, x, top + high / 2);
  }
}

function drawLoop(paint, { from, until }, width, height) {
  const left = xOf(from), right = xOf(until);
  paint.fillStyle = "rgb(255 255 255 / 60%)";
  paint.fillRect(0, AXIS_PX, Math.max(left, 0), height);
  paint.fillRect(right, AXIS_PX, Math.max(width - right, 0), height);
  paint.fillStyle = ACCENT;
  paint.fillRect(left, AXIS_PX - 5, right - left, 5);
  paint.fillRect(left - 1, 0, 2, height);
  paint.fillRect(right - 1, 0, 2, height);
}

/** Minutes and seconds of the recording. */
function timeText(seconds, digits = 1) {
  const unit = 10 ** digits, units = Math.round((seconds + page.offset) * unit);
  const minutes = Math.floor(units / (60 * unit));
  return `${minutes}:${(units / unit - 60 * minutes).toFixed(digits).padStart(digits ? 3 + digits : 2, "0")}`;
}

function zoom(factor, x = element("roll").clientWidth / 2) {
  const roll = element("roll"), seconds = secondsAt(x), fit = roll.clientWidth / page.seconds;
  shown.scale = Math.min(Math.max(shown.scale * factor, fit), Math.max(MOST_PX_PER_S, fit));
  element("stretch").style.width = `${page.seconds * shown.scale}px`;
  roll.scrollLeft = seconds * shown.scale - x;
  draw();
}

function follow(position) {
  const roll = element("roll"), x = xOf(position);
  if (!shown.drag && (x < 0 || x > roll.clientWidth - 12)) roll.scrollLeft += x - 0.08 * roll.clientWidth;
}

// --- Pointer and keys ---------------------------------------------------------------------------

function place(event) {
  const box = element("picture").getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}

function midiAt(y) {
  const row = Math.floor((y - AXIS_PX) / shown.rowHeight);
  return row >= 0 && row < page.roll.rows ? page.roll.lowest + page.roll.rows - 1 - row : null;
}

/** The note at a place; short ones can be hit a little beside them. */
function noteAt({ x, y }) {
  const midi = midiAt(y);
  const right = (note) => Math.max(xOf(note.offset), xOf(note.onset) + 6);
  return page.notes.findLast((note) => note.midi === midi && x >= xOf(note.onset) - 3 && x <= right(note)) ?? null;
}

function describe({ x, y }) {
  const midi = midiAt(y), note = noteAt({ x, y });
  if (note) {
    const words = [note.name, `${timeText(note.onset, 2)} to ${timeText(note.offset, 2)}`, decibels(note.level)];
    return `${[...words, ...(note.doubtful ? ["doubtful"] : [])].join(", ")}. Click to hear it alone.`;
  }
  if (midi === null || !shown.levels) return timeText(secondsAt(x), 2);
  const { start, column, lowest, rows, range } = page.roll;
  const m = Math.min(Math.max(Math.floor((secondsAt(x) - start) / column), 0), shown.picture.width - 1);
  const level = shown.levels[(lowest + rows - 1 - midi) * shown.picture.width + m];
  const words = level ? decibels((level / 255 - 1) * range) : `below ${decibels(-range)}`;
  return `${noteName(midi)}, ${timeText(secondsAt(x), 2)}, ${words}`;
}

function decibels(level) {
  return `${level.toFixed(1).replace("-", "\u2212")} dB`;
}

function pointerDown(event) {
  if (event.button === 0) shown.drag = { ...place(event), at: secondsAt(place(event).x), loop: null };
}

function pointerMove(event) {
  const here = place(event), { drag } = shown;
  if (drag && event.pointerType !== "touch" && (drag.loop || Math.abs(here.x - drag.x) > CLICK_PX)) {
    const ends = [drag.at, secondsAt(here.x)].map((seconds) => Math.min(Math.max(seconds, 0), page.seconds));
    drag.loop = { from: Math.min(...ends), until: Math.max(...ends) };
    element("picture").setPointerCapture(event.pointerId);
  }
  shown.hovered = noteAt(here);
  element("picture").style.cursor = shown.hovered ? "pointer" : "crosshair";
  element("readout").textContent = describe(here);
  draw();
}

function pointerUp(event) {
  const { drag } = shown, here = place(event);
  shown.drag = null;
  if (!drag) return;
  if (drag.loop) setLoop(drag.loop);
  else if (noteAt(here)) playNote(noteAt(here));
  else seek(secondsAt(here.x));
}

function pointerGone() {
  shown.hovered = shown.drag = null;
  element("readout").textContent = readoutAtRest();
  draw();
}

function readoutAtRest() {
  const some = page.notes.length;
  return some ? "Point at a note, click it to hear it alone." : "No notes were found: what you hear is the recording.";
}

function loopInView() {
  const from = Math.max(0, secondsAt(0)), until = Math.min(page.seconds, secondsAt(element("roll").clientWidth));
  setLoop(view.loop ? null : { from, until });
}

/** Move one end of the loop to where we are. */
function loopEnd(which) {
  const here = clockPosition(), loop = { from: 0, until: page.seconds, ...view.loop, [which]: here };
  if (loop.from >= loop.until) Object.assign(loop, which === "from" ? { until: page.seconds } : { from: 0 });
  setLoop(loop);
}

const KEYS = {
  " ": toggle,
  ArrowLeft: (event) => seek(clockPosition() - (event.shiftKey ? 0.1 : 1)),
  ArrowRight: (event) => seek(clockPosition() + (event.shiftKey ? 0.1 : 1)),
  Home: () => seek(0),
  End: () => seek(page.seconds),
  Escape: hearAll,
  l: loopInView,
  "[": () => loopEnd("from"),
  "]": () => loopEnd("until"),
  "+": () => zoom(1.5),
  "=": () => zoom(1.5),
  "-": () => zoom(1 / 1.5),
  m: () => document.activeElement.matches("button.key") && mute(Number(document.activeElement.value)),
};

function keyDown(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.matches("input")) return;
  if (key === " " && target.matches("button, summary")) return; // it presses what has the focus
  const mode = MODES[Number(key) - 1];
  const action = mode ? () => setMode(mode) : KEYS[key.length === 1 ? key.toLowerCase() : key];
  if (!action) return;
  event.preventDefault();
  action(event);
}

/** Arrow keys go from key to key of the keyboard, which is one stop of the tab key. */
function keyboardKeyDown(event) {
  const keys = [...event.currentTarget.querySelectorAll("button")], step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const next = keys[Math.min(Math.max(keys.indexOf(document.activeElement) + step, 0), keys.length - 1)];
  for (const key of keys) key.tabIndex = key === next ? 0 : -1;
  next.focus();
}

// --- The page's parts ---------------------------------------------------------------------------

function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function fillPage() {
  const { title, notes, pitches, code, roll } = page, listed = pitches.length;
  document.title = `${title} \u00b7 note by note`;
  element("title").textContent = title;
  const span = page.offset ? `${timeText(0)} to ${timeText(page.seconds)} min` : `${timeText(page.seconds, 0)} min`;
  const of = `${notes.length} notes of ${listed} ${listed === 1 ? "pitch" : "pitches"}`;
  const found = notes.length ? of : "no notes were found in it";
  element("summary").textContent = `${span} \u00b7 ${found} \u00b7 ${code} inside`;
  element("inside").textContent = page.inside;
  element("code").textContent = code === "FLAC"
    ? "The sounds in this page are FLAC, 16 bit, which loses nothing that can be heard of what it holds."
    : "The sounds in this page are MP3, as FLAC would be too large: they are a little coarser than the stems.";
  element("quietest").textContent = `\u2212${roll.range}`;
  const some = roll.colours.filter((_, i) => i % 15 === 0);
  element("colours").style.background = `linear-gradient(to right, ${some.join(", ")})`;
  element("readout").textContent = readoutAtRest();
  const drawn = `Energy heard at each pitch, with ${notes.length} notes outlined. They are listed in the table below.`;
  element("picture").setAttribute("aria-label", drawn);
  MODES.forEach((mode, i) => {
    const words = mode[0].toUpperCase() + mode.slice(1);
    const digit = make("kbd", {}, String(i + 1));
    const button = make("button", { type: "button", value: mode, onclick: () => setMode(mode) }, digit, words);
    button.disabled = !notes.length && (mode === "notes" || mode === "transcription");
    element("modes").append(button);
  });
  fillKeyboard();
  element("rows").append(...notes.map(tableRow));
}

function fillKeyboard() {
  const { lowest, rows } = page.roll, listed = new Set(page.pitches.map(({ midi }) => midi));
  shown.rowHeight = Math.min(Math.max(Math.round(620 / rows), 11), 20);
  for (let midi = lowest + rows - 1; midi >= lowest; midi--) {
    const name = noteName(midi), sharp = name.includes("#");
    const button = listed.has(midi);
    const key = make(button ? "button" : "span", { className: `key${sharp ? " sharp" : ""}` });
    key.textContent = button || midi % 12 === 0 ? name : "";
    Object.assign(key.style, { top: `${rowTop(midi)}px`, height: `${shown.rowHeight}px` });
    if (button) {
      const first = !element("keyboard").querySelector("button");
      const title = "Click: only this note. Shift: one more. Alt: without it.";
      Object.assign(key, { type: "button", value: midi, tabIndex: first ? 0 : -1, title });
      key.onclick = (event) => (event.altKey ? mute(midi) : solo(midi, event.shiftKey));
    }
    element("keyboard").append(key);
  }
}

function tableRow(note) {
  const button = make("button", { type: "button", onclick: () => playNote(note) }, `\u25b8 ${note.name}`);
  button.setAttribute("aria-label", `Play ${note.name} at ${timeText(note.onset, 2)}`);
  const head = make("th", { scope: "row" }, button);
  const cells = [timeText(note.onset, 2), timeText(note.offset, 2), decibels(note.level), note.doubtful ? "yes" : ""];
  return make("tr", {}, head, ...cells.map((text) => make("td", {}, text)));
}

function listenToUser() {
  const picture = element("picture"), roll = element("roll");
  element("play").onclick = toggle;
  element("loop").onclick = loopInView;
  element("all").onclick = hearAll;
  element("in").onclick = () => zoom(1.5);
  element("out").onclick = () => zoom(1 / 1.5);
  element("fit").onclick = () => zoom(0);
  element("volume").oninput = ({ target }) => {
    view.volume = target.value / 100;
    target.setAttribute("aria-valuetext", `${target.value} %`);
    if (run) run.heard.volume = view.volume;
    viewChanged();
  };
  picture.onpointerdown = pointerDown;
  picture.onpointermove = pointerMove;
  picture.onpointerup = pointerUp;
  picture.onpointerleave = picture.onpointercancel = pointerGone;
  roll.onscroll = draw;
  roll.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, place(event).x);
  }, { passive: false });
  element("keyboard").onkeydown = keyboardKeyDown;
  document.onkeydown = keyDown;
  // a click with the mouse leaves the focus where it is, so that the space key goes on playing
  document.onmousedown = (event) => event.target.closest("button") && event.preventDefault();
  new ResizeObserver(() => zoom(1)).observe(roll);
  setInterval(advance, 250);
}

async function start() {
  fillPage();
  listenToUser();
  zoom(1, 0);
  showState();
  await loadPicture();
  draw();
  element("play").textContent = "Reading\u2026";
  try {
    await loadSounds();
    element("play").disabled = false;
    showState();
  } catch (error) {
    const { message } = error;
    const what = `the sounds in this page, which are ${page.code} (${message})`;
    say(`This browser cannot read ${what}. Try a newer one. ${STILL}`);
  }
}

// what a test may see and hear
window.listen = { page, view, shown, render, xOf, rowTop, clockPosition, playing: () => run, ready: start() };
