// A cluster's story: who was the primary when, why that changed, how long it took.
//
// A change is {from, from_pod, lost_unix_ms, why_lost, to, to_pod, proven_unix_ms, why_proven, ms, term, held}, as in status.json,
// the newest first. Without `to` it is not over, or was given up if there is a newer one.

const CHANGES_MAX = 40, LANES_MAX = 8, HUES = 4, LETTER = 7;
const MINUTE = 60000, HOUR = 3600000;
// How much the strip shows: its length, between two ticks, their unit.
const SCALES = [[10 * MINUTE, 2, "min", MINUTE, "10 minutes"], [HOUR, 10, "min", MINUTE, "hour"], [24 * HOUR, 4, "h", HOUR, "24 hours"]];

// [[cluster, changes]…]
function story(clusters, now) {
  const all = clusters.flatMap(([cluster, changes]) => changes.map((change, i) => ({ cluster, ...change, ...reign(change, changes.slice(0, i), now) })));
  all.sort((a, b) => at(b) - at(a) || b.term - a.term);
  $("failovers").hidden = all.length === 0;
  const shown = all.slice(0, CHANGES_MAX), longest = Math.max(1, ...shown.map((change) => gap(change, now)));
  show("changes", shown.map((change) => h("li", null,
    h("p", null, when(at(change), now), h("br"), h("span.soft", null, ago(at(change), now))),
    h("div", null,
      h("p", null, clusters.length > 1 && h("b", null, `${change.cluster}: `), changeWords(change, now)),
      gap(change, now) > 0 && h("div.bar", { "aria-hidden": "true" }, part("gap", gap(change, now) / longest)),
      h("p.soft", null, facts(change, now)),
      change.why_lost && change.ms !== 0 && h("p.evidence", null, `lost: ${change.why_lost}`),
      change.why_proven && h("p.evidence", null, `${change.proof || "proven"}: ${change.why_proven}`)))));
  show("strip", strip(all, now));
}

const at = (change) => change.lost_unix_ms || change.proven_unix_ms;
// How long there was no primary.
const gap = (change, now) => (!change.from || change.given_up ? 0 : change.ms === null ? now - change.lost_unix_ms : change.ms);
const nameOf = (change) => change.to_pod || change.to;

// From when until when its new primary was one; `newer` are the changes after it.
function reign(change, newer, now) {
  if (!change.to) return { given_up: newer.length > 0 };
  const next = newer.filter((one) => one.to || one === newer[0]).at(-1);
  return { until: next ? at(next) : null, reigned: (next ? at(next) : now) - change.proven_unix_ms };
}

function changeWords(change, now) {
  const { from, to, ms } = change;
  const name = (address, pod) => h("b", { title: pod && address }, pod || address);
  const before = () => name(from, change.from_pod), after = () => name(to, change.to_pod);
  if (change.given_up) return [before(), " was to be replaced; ", "given up for another change"];
  if (!from) return [after(), " is the first primary"];
  if (!to) return [before(), " was lost; ", h("span.bad.word", null, `no primary for ${span(now - change.lost_unix_ms)}`)];
  // What the reconciler measures of a planned change begins with the decision, when the old one still takes writes.
  const length = ms > 0 ? [" after ", h("b", null, span(ms)), change.proof ? "" : " without a primary"] : [", without a gap"];
  return from === to ? [after(), " again", length] : [before(), " → ", after(), length];
}

function facts(change, now) {
  const held = change.held ? `${plural(change.held, "statement")} waited${change.to ? "" : " so far"}` : change.held === 0 && change.from ? "no statement waited" : null;
  const reigned = !change.to ? null : change.until === null ? `the primary since, for ${span(change.reigned)}` : `the primary until ${clock(change.until, now)}, for ${span(change.reigned)}`;
  return [`term ${change.term}`, held, reigned].filter(Boolean).join(" · ");
}

// The last minutes, hour or day at a glance: a lane for each cluster, with the names of its primaries; red where it had none.
function strip(all, now) {
  const seen = all.filter((change) => change.from && !change.given_up && now - at(change) < 24 * HOUR);
  if (seen.length === 0) return null;
  const [length, step, unit, ms, called] = SCALES.find(([length]) => seen.every((change) => now - at(change) < length)) || SCALES.at(-1);
  const lanes = [...new Set(seen.map((change) => change.cluster))].slice(0, LANES_MAX);
  const whole = Math.max(280, $("strip").clientWidth), few = whole < 600;
  const left = lanes.length > 1 ? 120 : 4, right = whole - 4, wide = right - left, high = 22 * lanes.length;
  const x = (ms) => left + (wide * (length - Math.min(length, Math.max(0, now - ms)))) / length;
  const ticks = [0, 1, 2, 3, 4, 5, 6].filter((n) => n * step * ms <= length && (!few || n % 3 === 0)).map((n) => [n * step * ms, n ? `−${n * step} ${unit}` : "now"]);
  const label = `Over the last ${called}: ${plural(seen.length, "change")} of the primary`;
  return s("svg.strip", { viewBox: `0 0 ${whole} ${high + 24}`, role: "img", "aria-label": label },
    ticks.map(([back, words]) => [s("line", { x1: x(now - back), x2: x(now - back), y1: 0, y2: high }),
      s("text", { x: x(now - back), y: high + 18, "text-anchor": back === 0 ? "end" : back === length ? "start" : "middle" }, words)]).flat(),
    lanes.map((lane, i) => [s("line", { x1: left, x2: right, y1: 22 * i + 11, y2: 22 * i + 11 }),
      lanes.length > 1 && s("text", { x: 0, y: 22 * i + 15 }, lane.slice(0, 16)),
      reigns(all.filter((change) => change.cluster === lane), now - length, now).map((one) => band(one, x, 22 * i + 3)),
      seen.filter((change) => change.cluster === lane).map((change) => {
        const begin = x(at(change)), end = x(at(change) + gap(change, now));
        return s(gap(change, now) > 0 ? "rect.gap" : "rect.moved", { x: begin, y: 22 * i + 3, width: Math.max(3, end - begin), height: 16, rx: 1 });
      })].flat()).flat());
}

// Who was the primary of one cluster from when until when; before the oldest change that is known it was whom that replaced.
function reigns(changes, since, now) {
  const names = [...new Set(changes.map(nameOf).filter(Boolean))].sort();
  const all = changes.filter((change) => change.to)
    .map((change) => ({ name: nameOf(change), begin: change.proven_unix_ms, end: change.until ?? now }));
  const oldest = changes.at(-1);
  if (oldest && oldest.from) all.push({ name: oldest.from_pod || oldest.from, begin: since, end: at(oldest) });
  return all.filter((one) => one.end > since).map((one) => ({ ...one, hue: Math.max(0, names.indexOf(one.name)) % HUES }));
}

function band({ name, begin, end, hue }, x, y) {
  const from = x(begin), width = Math.max(1, x(end) - from);
  return [s("rect.reign.hue" + hue, { x: from, y, width, height: 16 }),
    width > LETTER * name.length + 8 && s("text.name", { x: from + 4, y: y + 12 }, name)];
}
