// What is heard: sounds on one clock, through the faders to the loudspeaker or to a file.

const AHEAD_S = 2.5; // scheduled ahead of the clock; timers of hidden tabs come once a second
const CHUNK_S = 3; // of the recording, stretched at a time
const PATIENCE_MS = 1500; // until a context that does not start counts as silent
const BEFORE_S = 0.03, AFTER_S = 0.4; // heard around a note that is played alone
const FADE_S = 0.005; // of everything that starts or stops
const LEAD_S = 0.01; // of a key's own sound before its onset, so that no attack is cut
const FLOOR = fromDecibels(-60); // of the recording's peak; what is softer is not heard beside it
const NEAR_KEYS = 12, DECIBELS_A_KEY = 2; // how far a sound is transposed at most, and what a semitone of it costs
const LIMIT = 0.8, MOST = 8; // where loud peaks begin to be rounded, and the loudest that can be
const SOFT_KEY_DB = -6; // of a key that is tried where nothing is listed
const SILENT_DB = 40; // below what is usual beside its level in the list: a note has no sound in its stem
const BAND_Q = 17; // of a filter a semitone wide
const STILL = "The picture and the list still work.";
const NO_DEVICE = `No sound comes out: this computer seems to have no sound device that the browser may use. ${STILL}`;
const SOURCES = { stem: "its stem", row: "the recording, at its partials only", piano: "another key of this piano",
  tone: "a plain tone" };

let sounds = []; // what is coded in the page, see loadSounds
let clips = new Map(); // those of `sounds` that are of a stem, by MIDI number
let written = []; // the transcription, one sound a note
let bank = []; // the clearest sound of each key
let peak = 0; // of the recording
let context = null; // of the loudspeaker
let run = null; // what is playing now
let silent = false; // whether the loudspeaker was asked in vain
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
  peak = loudest(rest);
  sounds = [whole("recording", recording), whole("residual", residual)];
  stems.forEach((buffer, i) => {
    const { midi, clips } = page.pitches[i], samples = buffer.getChannelData(0);
    let from = 0;
    for (const [start, length] of clips) {
      for (let j = 0; j < length; j++) rest[start + j] -= samples[from + j];
      const end = (start + length) / page.rate;
      sounds.push({ mode: "notes", midi, start: start / page.rate, end, buffer, samples, skip: from / page.rate });
      from += length;
    }
  });
  clips = byKey(sounds.slice(2));
  doubtSilent();
  fillBank();
  transcribe();
}

function whole(mode, buffer) {
  return { mode, midi: null, start: 0, end: page.seconds, buffer, skip: 0 };
}

function loudest(samples, first = 0, last = samples.length) {
  let most = 0;
  for (let i = first; i < last; i++) most = Math.max(most, samples[i], -samples[i]);
  return most;
}

/** The largest sample of a stem from one time to another; zero where there is no clip of it. */
function stemPeak(midi, from, until) {
  const inside = (clips.get(midi) ?? []).filter((clip) => clip.start < until && clip.end > from);
  return inside.reduce((most, { samples, start, end, skip }) => {
    const at = (seconds) => Math.round((seconds - start + skip) * page.rate);
    return Math.max(most, loudest(samples, at(Math.max(from, start)), at(Math.min(until, end))));
  }, 0);
}

/** What a note that is played alone is heard from: a key of SOURCES. */
function sourceOf({ midi, onset, offset }) {
  if (stemPeak(midi, onset, offset) > FLOOR * peak) return "stem";
  if (energyIn(midi, onset, offset)) return "row";
  return sampleFor(midi) ? "piano" : "tone";
}

/** Doubt listed notes whose stem is silent where they lie: far below what the list says of them. */
function doubtSilent() {
  const levels = new Map(page.notes.filter(({ edited }) => !edited).map((note) => {
    return [note, 20 * Math.log10(stemPeak(note.midi, note.onset, note.offset) / peak + 1e-9) - note.level];
  }));
  const usual = [...levels.values()].sort((one, other) => one - other)[levels.size >> 1];
  const isSilent = (note) => levels.get(note) < usual - SILENT_DB;
  setNotes(list.notes.map((note) => (isSilent(note) ? { ...note, doubtful: true, silent: true } : note)));
}

/** The clearest note of each key: sure, loud and long. Its sound is that of the key in the transcription. */
function fillBank() {
  const best = new Map();
  for (const note of page.notes) {
    const clip = clips.get(note.midi)?.find(({ start, end }) => start <= note.onset && note.onset < end);
    if (!clip || note.silent || note.onset < LEAD_S) continue;
    const end = Math.min(clip.end, nextOnset(note)), start = grid(Math.max(note.onset - LEAD_S, clip.start));
    const long = Math.min(note.offset, end) - note.onset;
    const clear = note.level + 20 * Math.log10(Math.min(long, 2)) - (note.doubtful ? 20 : 0);
    if (clear <= (best.get(note.midi)?.clear ?? -Infinity) || long <= 0) continue;
    const { buffer, skip } = clip;
    best.set(note.midi, { note, clear, start, buffer, skip: skip + start - clip.start, long: end - start });
  }
  bank = [...best.values()];
}

/** The sound of the key itself, or of one nearby that is clearer. */
function sampleFor(midi) {
  const cost = ({ note, clear }) => DECIBELS_A_KEY * Math.abs(note.midi - midi) - clear;
  const near = bank.filter(({ note }) => Math.abs(note.midi - midi) <= NEAR_KEYS);
  return near.reduce((best, sample) => (!best || cost(sample) < cost(best) ? sample : best), null);
}

function nextOnset({ midi, onset }) {
  return Math.min(page.byKey.get(midi)?.find((note) => note.onset > onset)?.onset ?? page.seconds, page.seconds);
}

/** Make the transcription anew: of the notes as they are now. */
function transcribe() {
  const gain = toneGain(), samples = new Map();
  written = page.notes.map((note) => {
    if (!samples.has(note.midi)) samples.set(note.midi, sampleFor(note.midi));
    const sample = samples.get(note.midi), start = grid(Math.max(note.onset - (sample ? LEAD_S : 0), 0));
    const level = sample ? fromDecibels(note.level - sample.note.level) : gain * fromDecibels(note.level);
    const end = Math.min(note.offset + page.tone.release, page.seconds);
    return { mode: "transcription", midi: note.midi, start, end, note, sample, level };
  });
}

/** What makes the loudest moment of a transcription in tones about as loud as that of the recording. */
function toneGain() {
  const steps = page.notes.flatMap(({ onset, offset, level }) => {
    return [[onset, fromDecibels(level)], [offset, -fromDecibels(level)]];
  });
  steps.sort((one, other) => one[0] - other[0]);
  let now = 0, together = 0;
  for (const [, step] of steps) together = Math.max(together, (now += step));
  return together ? Math.min(peak, 1) / (1.8 * together) : 0; // 1.8: the partials of a tone, added up
}

// --- From sounds to the loudspeaker, or to a file -------------------------------------------------

/** How loud each mode is. Of the recording without some keys, or with some only, the notes stand in for it. */
function modeGains({ mix, solo, muted }) {
  const { recording, notes, residual, transcription } = mix, picked = solo.size || muted.size;
  return {
    recording: picked ? 0 : recording,
    notes: notes + (picked ? recording : 0),
    residual: residual + (muted.size && !solo.size ? recording : 0),
    transcription,
  };
}

function isHeard({ solo, muted }, midi) {
  return solo.size ? solo.has(midi) : !muted.has(midi);
}

/** A run plays from `from` to `until`; its gains are one for each mode and, within it, one for each pitch. */
function newRun(context, from, until, heard) {
  const master = new GainNode(context), seams = new GainNode(context);
  const modes = Object.fromEntries(MODES.map((mode) => [mode, new GainNode(context)]));
  const pitches = { recording: new Map(), notes: new Map(), residual: new Map(), transcription: new Map() };
  for (const mode of MODES) modes[mode].connect(master);
  for (const { mode, midi } of [...sounds, ...written]) {
    if (midi === null || pitches[mode].has(midi)) continue;
    const node = new GainNode(context);
    node.connect(modes[mode]);
    pitches[mode].set(midi, node);
  }
  const limiter = newLimiter(context);
  master.connect(seams).connect(limiter.input);
  const clock = grid(context.currentTime + (context.state === "running" ? 0.05 : 0));
  const rounds = [{ clock, from, at: from, until }], { speed } = heard;
  const made = { context, master, seams, limiter, modes, pitches, wave: waveOf(context), heard, speed, rounds,
    sources: new Set(), done: false, stopped: false };
  setGains(made, 0);
  return made;
}

function waveOf(context) {
  const { partials: count, timbre } = page.tone;
  const partials = Float32Array.from({ length: count + 1 }, (_, n) => (n ? timbre ** (n - 1) : 0));
  return context.createPeriodicWave(new Float32Array(partials.length), partials, { disableNormalization: true });
}

/** The last step before the loudspeaker. It changes nothing until `limit` is called. */
function newLimiter(context) {
  const input = new GainNode(context, { gain: 1 / MOST }), shaper = new WaveShaperNode(context);
  const output = new GainNode(context, { gain: MOST });
  const meter = new AnalyserNode(context, { fftSize: 2048 });
  input.connect(shaper).connect(output).connect(context.destination);
  input.connect(meter);
  return { input, shaper, meter };
}

/** Round what would be louder than a loudspeaker can play, rather than cut it off. */
function rounded(x) {
  const size = Math.abs(x), over = (size - LIMIT) / (1 - LIMIT);
  return over <= 0 ? x : Math.sign(x) * (LIMIT + (1 - LIMIT) * (over / (1 + over)));
}

function limit({ shaper }) {
  if (shaper.curve) return;
  const half = 2 ** 14;
  shaper.curve = Float32Array.from({ length: 2 * half + 1 }, (_, i) => rounded(MOST * (i / half - 1)) / MOST);
}

/** Whether the limiter rounds peaks right now. */
function isLimited() {
  if (!run?.limiter.shaper.curve) return false;
  const { meter } = run.limiter, heard = new Float32Array(meter.fftSize);
  meter.getFloatTimeDomainData(heard);
  return loudest(heard) * MOST > LIMIT;
}

/** Whether faders and volume are so far up that all together can be louder than a loudspeaker can play. */
function isLoud(heard) {
  return heard.volume * Object.values(modeGains(heard)).reduce((sum, gain) => sum + gain) * Math.max(peak, 0.5) > 1;
}

/** Let a run be heard as its view says, within `fade` seconds. */
function setGains(run, fade = FADE_S) {
  const gains = modeGains(run.heard);
  const set = (node, value) => {
    if (fade) node.gain.setTargetAtTime(value, run.context.currentTime, fade / 3);
    else node.gain.value = value;
  };
  if (isLoud(run.heard)) limit(run.limiter);
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
    for (const sound of run.heard.sounds ?? [...sounds, ...written]) {
      const begins = sound.start >= round.at && sound.start < to;
      const goesOn = round.at === round.from && sound.start < round.from && sound.end > round.from;
      if (begins || goesOn) startSound(run, sound, round);
    }
    round.at = to;
    if (to < round.until) return;
    nextRound(run, round);
  }
}

function nextRound(run, round) {
  const { loop } = run.heard;
  const clock = grid(round.clock + (round.until - round.from) / run.speed);
  if (loop) run.rounds.push({ clock, from: loop.from, at: loop.from, until: loop.until });
  else run.done = true;
}

/** Fade where a round cuts into the recording, so that no loop clicks. */
function fadeEnds({ seams: { gain }, speed }, { clock, from, until }) {
  const end = clock + (until - from) / speed;
  gain.setValueAtTime(from > 0 ? 0 : 1, clock);
  if (from > 0) gain.linearRampToValueAtTime(1, clock + FADE_S);
  if (until === page.seconds) return;
  gain.setValueAtTime(1, Math.max(clock, end - FADE_S));
  gain.linearRampToValueAtTime(0, end);
}

function startSound(run, sound, round) {
  const begin = Math.max(sound.start, round.from), end = Math.min(sound.end, round.until);
  const when = round.clock + begin - round.from;
  let source;
  if (sound.sample) {
    source = keySound(run, sound, when, begin, end);
  } else if (sound.note) {
    source = tone(run, sound, when, begin, end);
  } else {
    source = new AudioBufferSourceNode(run.context, { buffer: sound.buffer });
    connectTo(run, sound, source);
    source.start(when, sound.skip + begin - sound.start, end - begin);
  }
  remember(run, source);
}

function remember(run, source) {
  run.sources.add(source);
  source.onended = () => run.sources.delete(source);
}

/** Into its pitch's gain; what is heard of a row goes through a filter at each of the note's partials. */
function connectTo(run, { mode, midi, row }, source) {
  if (!row) return source.connect(run.pitches[mode].get(midi) ?? run.modes[mode]);
  for (let n = 1; n <= 8 && n * row.f0 < 0.45 * page.rate; n++) {
    const band = { type: "bandpass", frequency: n * row.f0, Q: BAND_Q };
    const bands = [1, 2, 3].map(() => new BiquadFilterNode(run.context, band));
    bands.reduce((last, band) => last.connect(band), source).connect(run.modes.notes); // each is steeper
  }
}

/** A transcribed note from the sound of its own key, or of one nearby, transposed. */
function keySound(run, sound, when, begin, end) {
  const { sample, note, level, start } = sound, rate = note.f0 / sample.note.f0;
  const skipped = (begin - start) * rate, left = sample.long - skipped;
  const source = new AudioBufferSourceNode(run.context, { buffer: sample.buffer, playbackRate: rate });
  const envelope = new GainNode(run.context, { gain: 0 });
  const letGo = Math.max(when + FADE_S, when + Math.min(end - begin - page.tone.release, left / rate - 2 * FADE_S));
  envelope.gain.setValueAtTime(0, when);
  envelope.gain.linearRampToValueAtTime(level, when + FADE_S);
  envelope.gain.setTargetAtTime(0, letGo, page.tone.release / 4);
  connectTo(run, sound, source.connect(envelope));
  source.start(when, sample.skip + Math.min(skipped, sample.long), Math.max(Math.min(left, (end - begin) * rate), 0));
  return source;
}

/** A transcribed note, from `begin` to `end`: a few partials that decay. */
function tone(run, sound, when, begin, end) {
  const { note, level, start } = sound, { attack, release, decay } = page.tone;
  const slowness = decay * 2 ** ((60 - note.midi) / 24); // low strings ring longer
  const source = new OscillatorNode(run.context, { type: "custom", periodicWave: run.wave, frequency: note.f0 });
  const envelope = new GainNode(run.context, { gain: 0 });
  const now = level * Math.exp(-(begin - start) / slowness);
  const letGo = Math.max(when + attack, when + end - begin - release);
  envelope.gain.setValueAtTime(0, when);
  envelope.gain.linearRampToValueAtTime(now, when + attack);
  envelope.gain.setTargetAtTime(0, when + attack, slowness);
  envelope.gain.setTargetAtTime(0, letGo, release / 4);
  connectTo(run, sound, source.connect(envelope));
  source.start(when);
  source.stop(when + end - begin);
  return source;
}

/** A time on the grid of samples, so that nothing is interpolated. */
function grid(seconds) {
  return Math.round(seconds * page.rate) / page.rate;
}

// --- As samples -----------------------------------------------------------------------------------

/** What a part sounds like as the page is set, or otherwise: the code that plays, but heard by a file or a test. */
async function render({ from = 0, until = page.seconds, seconds, ...heard } = {}) {
  const as = { ...view, ...heard, solo: new Set(heard.solo ?? view.solo), muted: new Set(heard.muted ?? view.muted) };
  const length = Math.round((seconds ?? (until - from) / as.speed) * page.rate);
  const offline = new OfflineAudioContext(1, length, page.rate);
  const made = newRun(offline, grid(from), grid(until), as);
  if (as.speed === 1) scheduleUntil(made, length / page.rate);
  else await scheduleSlow(made, length / page.rate);
  return (await offline.startRendering()).getChannelData(0);
}

/** All modes by themselves, keys that are not heard left out: four arrays from sample `first` to `last`. */
async function renderModes(first, last, heard) {
  const parts = MODES.map(() => new Float32Array(last - first));
  const start = Math.max(first, 0), stop = Math.min(last, page.length);
  if (stop <= start) return parts;
  const offline = new OfflineAudioContext(MODES.length, stop - start, page.rate);
  const as = { ...heard, mix: Object.fromEntries(MODES.map((mode) => [mode, 1])), volume: 1, loop: null, speed: 1 };
  const made = newRun(offline, start / page.rate, stop / page.rate, as);
  const merger = new ChannelMergerNode(offline, { numberOfInputs: MODES.length });
  made.master.disconnect();
  MODES.forEach((mode, i) => {
    made.modes[mode].disconnect();
    made.modes[mode].gain.value = 1;
    made.modes[mode].connect(merger, 0, i);
  });
  merger.connect(offline.destination);
  scheduleUntil(made, (stop - start) / page.rate);
  const buffer = await offline.startRendering();
  parts.forEach((part, i) => part.set(buffer.getChannelData(i), start - first));
  return parts;
}

/** As scheduleUntil, for a run that is slower: chunks are rendered, stretched together, and played. */
async function scheduleSlow(run, horizon) {
  if (run.busy) return;
  run.busy = true;
  while (!run.done && !run.stopped) {
    const round = run.rounds.at(-1), { speed } = run, begins = round.at === round.from;
    if (round.clock + (round.at - round.from) / speed >= horizon) break;
    round.state ??= newStretch(Math.round(round.from * page.rate), speed);
    const { state } = round, hop = state.hop * speed;
    const count = Math.ceil((Math.min(CHUNK_S, round.until - round.at) * page.rate) / hop);
    const [first, last] = neededFor(state, count), length = state.done * state.hop;
    const parts = await renderModes(first, last, run.heard);
    if (run.stopped) break;
    const pieces = stretchOn(state, parts, mixOf(parts, run.heard), first, count);
    if (begins && run.rounds.length === 1 && run.context.state === "running")
      round.clock = grid(Math.max(round.clock, run.context.currentTime + 0.02));
    if (begins) fadeEnds(run, round);
    const end = (round.until - round.from) / speed;
    startPieces(run, pieces, round.clock + length / page.rate, end - length / page.rate);
    round.at = Math.min(round.from + (state.done * hop) / page.rate, round.until);
    if (round.until - round.at < 1 / page.rate) nextRound(run, round);
  }
  run.busy = false;
}

/** What pieces of a stretched sound are chosen by: all that is heard, or all there is where nothing is. */
function mixOf(parts, heard) {
  const gains = Object.values(modeGains(heard)), silent = gains.every((gain) => !gain);
  const mix = new Float32Array(parts[0].length);
  parts.forEach((part, p) => {
    const gain = silent ? 1 : gains[p];
    if (gain) for (let i = 0; i < mix.length; i++) mix[i] += gain * part[i];
  });
  return mix;
}

function startPieces(run, pieces, when, most) {
  const buffer = new AudioBuffer({ length: pieces[0].length, numberOfChannels: MODES.length, sampleRate: page.rate });
  pieces.forEach((piece, i) => buffer.copyToChannel(piece, i));
  const source = new AudioBufferSourceNode(run.context, { buffer });
  const splitter = new ChannelSplitterNode(run.context, { numberOfOutputs: MODES.length });
  source.connect(splitter);
  MODES.forEach((mode, i) => splitter.connect(run.modes[mode], i));
  source.start(when, 0, Math.min(most, buffer.duration));
  remember(run, source);
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
  shown.follow = true;
  return play(from, loop ? loop.until : page.seconds);
}

/** Hear one note alone; a piece that plays goes on afterwards, where it was. */
function playNote(note) {
  const { from, until } = spanOf(note), after = pieceAt();
  if (after === null) shown.position = clamp(note.onset, 0, page.seconds);
  return play(from, until, alone(note, after));
}

/** Where the playhead is, as a note that is heard alone leaves it. */
function here() {
  return pieceAt() ?? shown.position;
}

/** Where the piece will go on, or null where it does not play. */
function pieceAt() {
  return !run ? null : run.heard.note ? run.heard.after : clockPosition();
}

function alone(note, after = null) {
  const source = sourceOf(note), mix = { recording: 0, notes: 0, residual: 0, transcription: 0 };
  mix[source === "stem" || source === "row" ? "notes" : "transcription"] = 1;
  const { volume } = view, keys = { solo: new Set([note.midi]), muted: new Set() };
  const heard = { mix, ...keys, loop: null, speed: 1, volume, note, after };
  return source === "row" ? { ...heard, sounds: [{ ...sounds[0], row: note }] } : heard;
}

/** From just before a note to the end of its sound, or to the next note of its pitch. */
function spanOf(note) {
  const from = Math.max(0, note.onset - BEFORE_S), next = nextOnset(note);
  const end = next < page.seconds ? next - BEFORE_S : next;
  return { from, until: Math.max(from + 0.05, Math.min(note.offset + AFTER_S, end)) };
}

/** A key, as on a piano: its clearest note, or what the transcription would make of one. */
function playKey(midi) {
  const own = bank.find(({ note }) => note.midi === midi)?.note, rest = shown.position;
  if (own) return play(spanOf(own).from, spanOf(own).until, { ...alone(own), rest });
  const sample = sampleFor(midi), until = Math.min(1, page.seconds);
  const note = { midi, f0: frequencyOf(midi), onset: 0, offset: until, level: 0 };
  const level = sample ? fromDecibels(SOFT_KEY_DB) : 0.2;
  const sound = { mode: "transcription", midi, start: 0, end: until, note, sample, level };
  const mix = { recording: 0, notes: 0, residual: 0, transcription: 1 };
  return play(0, until, { ...alone(note), mix, sounds: [sound], rest });
}

function stop() {
  asked++;
  if (!run) return;
  const { context, master, sources, heard } = run;
  const { note, after, rest } = heard;
  shown.position = note ? (after ?? rest ?? clamp(note.onset, 0, page.seconds)) : clockPosition();
  master.gain.setTargetAtTime(0, context.currentTime, FADE_S / 3);
  for (const source of sources) source.stop(context.currentTime + 2 * FADE_S);
  setTimeout(() => master.disconnect(), 200);
  run.stopped = true;
  run = null;
  showState();
}

function toggle() {
  if (run) stop();
  else resume();
}

function seek(position) {
  const goOn = pieceAt() !== null;
  stop();
  shown.position = clamp(position, 0, page.seconds);
  shown.follow = true;
  if (goOn) resume();
  reveal(shown.position);
  showPlayhead();
}

/** Play on with what has changed; what is scheduled already is dropped. */
function refresh() {
  if (!run || run.heard.note) return;
  const position = clockPosition(), { follow } = shown;
  stop();
  shown.position = position;
  resume();
  shown.follow = follow;
}

/** Schedule what comes next, again and again while a run lasts. */
function advance() {
  if (!run) return;
  const horizon = run.context.currentTime + AHEAD_S;
  if (run.speed === 1) scheduleUntil(run, horizon);
  else scheduleSlow(run, horizon);
}

/** Where the run is now, or where it was left. */
function clockPosition() {
  if (!run) return shown.position;
  const now = run.context.currentTime - (run.context.outputLatency || 0);
  const round = run.rounds.findLast(({ clock }) => clock <= now) ?? run.rounds[0];
  if (run.speed !== 1 && !round.state?.done) return round.from; // it is being rendered
  return clamp(round.from + (now - round.clock) * run.speed, round.from, round.until);
}

function animate() {
  if (!run) return;
  const last = run.rounds.at(-1), end = last.clock + (last.until - last.from) / run.speed;
  if (run.done && run.context.currentTime > end + 0.1) {
    const { note, after } = run.heard;
    stop();
    if (!note) shown.position = 0;
    else if (after !== null) resume();
  } else {
    if (!run.heard.note) follow(clockPosition());
    requestAnimationFrame(animate);
  }
  showPlayhead();
}

/** Start the loudspeaker's clock; without a sound device, or before a click, it may never start. */
async function wakeUp() {
  try {
    context ??= new AudioContext({ sampleRate: page.rate, latencyHint: "interactive" });
  } catch {
    say("This browser cannot play sound at this recording's sampling rate. Try a newer one.", true);
    return false;
  }
  if (context.state === "running") return true;
  const patience = new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
  await Promise.race([context.resume(), patience]);
  const awake = context.state === "running", clicked = navigator.userActivation?.hasBeenActive ?? true;
  const why = clicked ? NO_DEVICE : "The browser keeps sound off until you click. Click Play.";
  if (!awake) say(why, true);
  else if (silent) say("");
  silent = !awake;
  return awake;
}

// --- What is heard ------------------------------------------------------------------------------

/** One mode alone. */
function setMode(mode) {
  if (!hasSound(mode)) return;
  for (const name of MODES) view.mix[name] = name === mode ? 1 : 0;
  viewChanged();
}

function hasSound(mode) {
  return mode === "notes" ? page.pitches.length > 0 : mode !== "transcription" || page.notes.length > 0;
}

/** Only these keys, or with `more` these as well; pressed again, all of them. */
function solo(keys, more = false) {
  const { solo } = view, had = keys.every((midi) => solo.has(midi));
  view.hand = null;
  if (!more) solo.clear();
  for (const midi of keys) {
    if (had) solo.delete(midi);
    else solo.add(midi);
    view.muted.delete(midi);
  }
  hearNotes();
}

function mute(keys) {
  const { muted } = view, had = keys.every((midi) => muted.has(midi));
  view.hand = null;
  for (const midi of keys) {
    if (had) muted.delete(midi);
    else muted.add(midi);
    view.solo.delete(midi);
  }
  hearNotes();
}

/** One hand alone, or without it; chosen again, both. */
function setHand(which, how) {
  const same = view.hand?.which === which && view.hand.how === how;
  view.solo.clear();
  view.muted.clear();
  view.hand = same ? null : { which, how };
  applyHand();
}

function applyHand() {
  if (view.hand) {
    const { which, how } = view.hand, keys = view[how];
    keys.clear();
    for (let midi = 0; midi < 128; midi++) if (midi < view.split === (which === "lower")) keys.add(midi);
  }
  hearNotes();
}

function setSplit(midi) {
  view.split = clamp(midi, shown.rows.at(-1) + 1, Math.max(shown.rows[0], shown.rows.at(-1) + 1));
  applyHand();
}

/** The residual has no keys: where they are picked, notes are heard. */
function hearNotes() {
  const { mix, solo, muted } = view;
  const none = !mix.recording && !mix.notes && !mix.transcription;
  if (none && (solo.size || muted.size)) Object.assign(mix, { residual: 0, notes: 1 });
  keysChanged();
}

function hearAll() {
  view.solo.clear();
  view.muted.clear();
  view.hand = null;
  keysChanged();
}

function viewChanged() {
  if (run) setGains(run);
  showState();
}

/** What a slower run has rendered has its keys in it. */
function keysChanged() {
  if (run && run.speed !== 1) refresh();
  viewChanged();
  draw();
}

function setSpeed(speed) {
  const position = pieceAt();
  view.speed = speed;
  if (position !== null) {
    stop();
    shown.position = position;
    resume();
  }
  showState();
}
