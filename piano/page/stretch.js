// Slower at the same pitch: WSOLA (Verhelst and Roelands, ICASSP 1993). Pieces of the sound are laid one over the next
// with cross-fades; each is taken from where it goes on best from the last, near the place where it is due.

const HOP_S = 0.04; // of cross-fades; longer than a period of A0
const REACH_S = 0.02; // how far from its place a piece may come from; a period of A0, there and back

/** Where each chunk begins and what the last one left. `from` is a sample of the recording. */
function newStretch(from, speed) {
  const hop = Math.round(HOP_S * page.rate);
  return { from, speed, hop, reach: Math.round(REACH_S * page.rate), done: 0, next: from };
}

/** First and last sample of the recording that `count` more hops need. */
function neededFor({ from, speed, hop, reach, done }, count) {
  const place = (k) => Math.round(from + k * hop * speed);
  return [place(done) - reach - 2 * hop, place(done + count) + reach + 2 * hop];
}

/**
 * The next `count` hops of some sounds that stay in step.
 * `parts` and `guide` are arrays whose first element is sample `first`; pieces are chosen by the guide.
 */
function stretchOn(state, parts, guide, first, count) {
  const { from, speed, hop, reach } = state;
  const out = parts.map(() => new Float32Array(count * hop));
  const fade = Float32Array.from({ length: hop }, (_, i) => Math.sin((Math.PI / 2) * ((i + 0.5) / hop)) ** 2);
  for (let k = 0; k < count; k++) {
    const due = Math.round(from + (state.done + k) * hop * speed) - first, goOn = state.next - first;
    const start = speed === 1 || state.done + k === 0 ? due : bestPlace(guide, goOn, due, reach, hop);
    parts.forEach((part, p) => {
      for (let i = 0; i < hop; i++) {
        const last = part[goOn + i] ?? 0, next = part[start + i] ?? 0;
        out[p][k * hop + i] = last + fade[i] * (next - last);
      }
    });
    state.next = first + start + hop;
  }
  state.done += count;
  return out;
}

/** The place within `reach` of `due` where the sound is most like that from `goOn` on; first roughly, then finely. */
function bestPlace(x, goOn, due, reach, hop) {
  const coarse = Math.max(1, Math.round(page.rate / 11025));
  const rough = mostAlike(x, goOn, due - reach, due + reach, hop, coarse, due);
  return coarse === 1 ? rough : mostAlike(x, goOn, rough - coarse, rough + coarse, hop, 1, rough);
}

function mostAlike(x, goOn, least, most, hop, step, otherwise) {
  let best = otherwise, likeness = 0;
  for (let place = Math.max(least, 0); place <= most && place + hop <= x.length; place += step) {
    let product = 0, energy = 1e-12;
    for (let i = 0; i < hop; i += step) {
      product += x[goOn + i] * x[place + i];
      energy += x[place + i] * x[place + i];
    }
    const like = product / Math.sqrt(energy);
    if (like > likeness) [best, likeness] = [place, like];
  }
  return best;
}
