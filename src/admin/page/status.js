// Asks status.json while the page is looked at, and shows the answer. All that servers say becomes text nodes.

const EVERY_MS = 2000, PATIENCE_MS = 8000, SAMPLE_MS_MIN = 500, SAMPLES_MAX = 150, SAMPLES_MIN = 30, OPEN_MAX = 4, CHANGES_MAX = 40, LANES_MAX = 8;
const SIGNS = { ok: "✔", warn: "▲", bad: "✖", lost: "✖", unknown: "…" };

let last = null;              // the last answer
let lastAt = 0;               // when it came, on our own clock
let timer = 0;
const samples = new Map();    // cluster -> [{at, primary, follower, servers, rate: {primary, follower}, rates}]

// ---- words ---------------------------------------------------------------------------------------------------------

const number = (n) => (n >= 10 ? Math.round(n) : Math.round(n * 10) / 10).toLocaleString("en");
const percent = (share) => `${Math.round(100 * share)} %`;
const plural = (n, one, many) => (n === 1 ? `one ${one}` : `${n.toLocaleString("en")} ${many || one + "s"}`);

function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10000) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 120000) return `${Math.round(ms / 1000)} s`;
  if (ms < 7200000) return `${Math.round(ms / 60000)} min`;
  if (ms < 172800000) return `${Math.round(ms / 3600000)} h`;
  if (ms < 86400000 * 730) return `${Math.round(ms / 86400000)} days`;
  return `${Math.round(ms / 86400000 / 365.25)} years`;
}
function clock(ms, now) {
  const at = new Date(ms);
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  return new Date(now).toDateString() === at.toDateString() ? time : `${at.toLocaleDateString()} ${time}`;
}
const ago = (ms, now) => (now - ms < 1000 ? "just now" : `${span(now - ms)} ago`);
const when = (ms, now) => h("time", { datetime: new Date(ms).toISOString(), title: new Date(ms).toString() }, clock(ms, now));

// ---- rates ---------------------------------------------------------------------------------------------------------

const sum = (counts) => Object.values(counts || {}).reduce((all, n) => all + n, 0);

// Notes what a cluster has done so far; rates are differences of two answers.
function sample(cluster, now) {
  const traffic = cluster.traffic || {};
  const next = { at: now, primary: sum(traffic.primary), follower: sum(traffic.follower), classes: {}, servers: {} };
  for (const classes of Object.values(traffic)) {
    for (const [name, n] of Object.entries(classes)) next.classes[name] = (next.classes[name] || 0) + n;
  }
  for (const server of cluster.backends) next.servers[server.address] = server.queries;
  const list = samples.get(cluster.cluster) || [];
  const before = list[list.length - 1];
  // Two answers of the same moment say nothing about a rate.
  if (before && next.at - before.at < SAMPLE_MS_MIN) return;
  if (before) {
    const seconds = (next.at - before.at) / 1000;
    const per = (a, b) => Math.max(0, ((a || 0) - (b || 0)) / seconds);
    const each = (a, b) => Object.fromEntries(Object.keys(a).map((key) => [key, per(a[key], b[key])]));
    next.rate = {
      primary: per(next.primary, before.primary), follower: per(next.follower, before.follower),
      classes: each(next.classes, before.classes), servers: each(next.servers, before.servers),
    };
  }
  list.push(next);
  if (list.length > SAMPLES_MAX) list.shift();
  samples.set(cluster.cluster, list);
}
const latest = (cluster) => (samples.get(cluster.cluster) || []).at(-1) || {};

function spark(cluster) {
  const rates = (samples.get(cluster.cluster) || []).filter((one) => one.rate).map((one) => one.rate);
  if (rates.length < 3) return null;
  const top = Math.max(1, ...rates.map((r) => r.primary + r.follower));
  const wide = Math.max(SAMPLES_MIN, rates.length);
  const x = (i) => (100 * (wide - rates.length + i)) / (wide - 1);
  const area = (low, high) => {
    const y = (v) => (30 * (1 - v / top)).toFixed(2);
    const there = rates.map((r, i) => `${x(i).toFixed(2)},${y(high(r))}`);
    const back = rates.map((r, i) => `${x(i).toFixed(2)},${y(low(r))}`).reverse();
    return there.concat(back).join(" ");
  };
  const words = `the last ${span(rates.length * EVERY_MS)}, at most ${number(top)}/s`;
  return [s("svg.spark", { viewBox: "0 0 100 30", preserveAspectRatio: "none", role: "img", "aria-label": `Statements per second over ${words}` },
    s("line", { x1: 0, x2: 100, y1: 30, y2: 30 }),
    s("polygon.follower", { points: area((r) => r.primary, (r) => r.primary + r.follower) }),
    s("polygon.primary", { points: area(() => 0, (r) => r.primary) })), h("p.small.soft", null, words)];
}

// ---- the parts of the page -----------------------------------------------------------------------------------------

function verdict(state, headline, problems) {
  $("verdict").dataset.state = state;
  if ($("sign").textContent !== SIGNS[state]) $("sign").textContent = SIGNS[state];
  if ($("said").textContent !== headline) $("said").textContent = headline;
  const word = { warn: "Warning:", bad: "Trouble:" };
  show("problems", problems.map((problem) => h("li", null,
    h("span.mark." + problem.state, { role: "img", "aria-label": word[problem.state] || "" }, SIGNS[problem.state]),
    h("b", null, problem.about), problem.text)));
  const title = state === "ok" ? "Holdfast" : headline;
  document.title = `${SIGNS[state]} ${title}`;
  const colour = { ok: "%231a7f37", warn: "%23d29922", bad: "%23cf222e", lost: "%23cf222e" }[state] || "%23888";
  const icon = `data:image/svg+xml,<svg xmlns="${SVG}" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="${colour}"/></svg>`;
  const link = document.querySelector("link[rel=icon]");
  if (link.getAttribute("href") !== icon) link.setAttribute("href", icon);
}

function worst(status, name) {
  const mine = status.verdict.problems.filter((problem) => problem.about === name).map((problem) => problem.state);
  return mine.includes("bad") ? "bad" : mine.includes("warn") ? "warn" : "ok";
}

function traffic(cluster) {
  const { rate, primary, follower } = latest(cluster);
  const now = rate || { primary, follower };
  const all = now.primary + now.follower;
  const share = all > 0 ? now.follower / all : 0;
  const title = rate ? [h("span.big", null, number(all)), " statements/s"] : [h("span.big", null, number(all)), " statements so far"];
  const classes = rate ? Object.entries(rate.classes).filter(([, n]) => n >= 0.05).sort((a, b) => b[1] - a[1]) : [];
  return h("div", null, h("h3", null, "Traffic"), h("p", null, title),
    all > 0 && h("div.bar", { role: "img", "aria-label": `${percent(1 - share)} to the primary, ${percent(share)} to followers` },
      part("primary", 1 - share), part("follower", share)),
    all > 0 && h("p.legend", null, h("span", null, h("span.role.primary", null, "◆ "), `primary ${percent(1 - share)}`),
      h("span", null, h("span.role.follower", null, "● "), `followers ${percent(share)}`)),
    classes.length > 0 && h("p.soft", null, classes.map(([name, n]) => `${name} ${number(n)}/s`).join(" · ")),
    spark(cluster));
}

// In Kubernetes people know servers by their pods: an address lives no longer than its pod.
const podOf = (cluster, address) => (cluster.backends.find((server) => server.address === address) || {}).pod;
const called = (cluster, address) => podOf(cluster, address) || address;

function primaryFact(cluster, now) {
  const since = cluster.since_unix_ms ? `for ${span(now - cluster.since_unix_ms)}` : "";
  const doubts = cluster.history.doubts;
  return h("div", null, h("h3", null, "Primary"),
    cluster.primary ? h("p", null, h("span.big.word", null, called(cluster, cluster.primary))) : h("p.bad", null, h("span.big", null, "none")),
    podOf(cluster, cluster.primary) && h("p.soft", null, cluster.primary),
    h("p.soft", null, cluster.primary ? `${since}, term ${cluster.term}` : `${since}; last term ${cluster.term}`),
    h("p.evidence", null, cluster.primary && "proven: ", cluster.why),
    cluster.primary && cluster.doubt && h("p.warn", null, `in doubt; last proven ${span(cluster.proof_age_ms || 0)} ago`),
    doubts.count > 0 && h("p.soft", null, `doubted ${doubts.count === 1 ? "once" : doubts.count + " times"}, last ${ago(doubts.last_unix_ms, now)}${doubts.last_ms === null ? "" : " for " + span(doubts.last_ms)}`));
}

function holdFact(cluster) {
  const hold = cluster.hold;
  return h("div", null, h("h3", null, "Waiting statements"),
    h(hold.now ? "p.bad" : "p", null, h("span.big", null, hold.now.toLocaleString("en")),
      hold.now ? ` of at most ${hold.max.toLocaleString("en")}, for ${span(hold.since_ms || 0)}` : " now"),
    h("p.soft", null, hold.entered ? `${plural(hold.entered, "statement")} so far, the longest ${span(Math.max(hold.longest_ms, hold.since_ms || 0))}` : "none so far"));
}

const KNOWN = ["address", "role", "serving", "reason", "lag_ms", "evidence", "connections", "queries", "pod", "pod_state", "label"];
const ROLES = { primary: "◆ primary", follower: "● follower", unknown: "? unknown" };

// Whether the pod's label contradicts what was proven. Not every operator labels followers.
const agrees = (server) => server.label === server.role || server.role === "unknown" || server.label === "learner" ||
  (server.label === "none" && server.role === "follower");

function serverRow(server, cluster) {
  const { rate, servers } = latest(cluster);
  const counts = rate ? rate.servers : servers || {};
  const all = sum(counts), mine = counts[server.address] || 0, share = all > 0 ? mine / all : 0;
  const serves = server.serving === "yes" ? null
    : server.serving !== "no" ? h("p.warn.word", null, `${server.serving}, no new work: ${server.reason || "no reason given"}`)
    : h("p.warn.word", null, `serves nothing: ${server.reason || "no reason given"}`);
  const extra = Object.entries(server).filter(([key, value]) => !KNOWN.includes(key) && value !== null && value !== "");
  return h("tr", null,
    h("td", { "data-label": "Server" }, h("div", null, h("span.word", null, server.pod || server.address),
      server.pod && h("div.soft", null, server.address),
      server.pod && server.pod_state !== "ready" && h("div.warn", null, `pod ${server.pod_state}`))),
    h("td", { "data-label": "Role" }, h("div", null, h("span.role." + server.role, null, ROLES[server.role] || server.role),
      server.label && h(agrees(server) ? "div.soft" : "div.warn", null, `label: ${server.label}`))),
    h(server.role === "follower" ? "td.n" : "td.n.none", { "data-label": "Behind" }, server.role !== "follower" ? "–" : server.lag_ms === null ? "not known" : server.lag_ms === 0 ? "0" : span(server.lag_ms)),
    h("td.n", { "data-label": "Connections" }, server.connections.toLocaleString("en")),
    h("td.n", { "data-label": rate ? "Statements/s" : "Statements" }, h("div", null, `${number(mine)} · ${percent(share)}`,
      h("div.bar", { "aria-hidden": "true" }, part(server.role === "primary" ? "primary" : "follower", share)))),
    h("td", { "data-label": "Evidence" }, h("div.evidence", null, serves, server.evidence !== server.reason && server.evidence,
      h("details.more", null, h("summary", null, "more"),
        h("dl", null, extra.flatMap(([key, value]) => [h("dt", null, key.replaceAll("_", " ")),
          h("dd", null, typeof value === "object" ? JSON.stringify(value) : String(value))]))))));
}

// Pods in the order of their numbers; a pod that was made anew comes last in the answer. Others as they are listed.
const byName = (a, b) => (a.pod && b.pod ? a.pod.localeCompare(b.pod, "en", { numeric: true }) : 0);

function table(heads, rows) {
  return h("table", null, h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", null, rows));
}

function clusterCard(cluster, status, state, open) {
  const now = status.now_unix_ms, { rate } = latest(cluster);
  const serving = cluster.backends.filter((server) => server.serving === "yes").length;
  const certificate = cluster.certificate_end_unix_ms;
  return h("details.cluster", { "data-state": state, "data-key": cluster.cluster },
    h("summary", null,
      h("h2", null, h("span.mark." + state, { role: "img", "aria-label": state }, SIGNS[state]), cluster.cluster),
      h("span", null, cluster.primary ? `primary ${called(cluster, cluster.primary)}` : "no primary"),
      h("span.soft", null, `term ${cluster.term}`),
      h("span.soft", null, `${serving} of ${cluster.backends.length} ${cluster.backends.length === 1 ? "server" : "servers"} serving`),
      rate && h("span.soft", null, `${number(rate.primary + rate.follower)}/s`),
      cluster.hold.now > 0 && h("span.bad.word", null, `${plural(cluster.hold.now, "statement")} waiting`)),
    open && [h("div.facts", null, primaryFact(cluster, now), traffic(cluster), holdFact(cluster)),
    table(["Server", "Role", "Behind", "Connections", rate ? "Statements/s · share" : "Statements · share", "Evidence"],
      [...cluster.backends].sort(byName).map((server) => serverRow(server, cluster))),
    certificate && h("p.soft", null, `The certificate shown to these servers ends ${certificate > now ? "in " + span(certificate - now) : span(now - certificate) + " ago"}.`),
    cluster.source_trouble && h("p.warn", null, cluster.source_trouble[0].toUpperCase() + cluster.source_trouble.slice(1) + ".")]);
}

function clusterCards(status) {
  const box = $("clusters"), rank = { bad: 0, warn: 1, ok: 2 };
  const order = [...status.clusters].sort((a, b) =>
    rank[worst(status, a.cluster)] - rank[worst(status, b.cluster)] || a.cluster.localeCompare(b.cluster));
  const there = new Map([...box.children].map((card) => [card.dataset.key, card]));
  order.forEach((cluster, i) => {
    const state = worst(status, cluster.cluster);
    let card = there.get(cluster.cluster);
    const worse = card && state !== "ok" && card.dataset.state === "ok";
    const open = card ? card.open || worse : state !== "ok" || order.length <= OPEN_MAX;
    const fresh = clusterCard(cluster, status, state, open);
    if (card) morph(card, fresh);
    else card = fresh;
    if (card.open !== open) card.open = open;
    there.delete(cluster.cluster);
    if (box.children[i] !== card) box.insertBefore(card, box.children[i] || null);
  });
  for (const gone of there.values()) gone.remove();
}

function changeWords(change, now) {
  const { from, to, ms } = change;
  const name = (address, pod) => h("b", { title: pod && address }, pod || address);
  const before = () => name(from, change.from_pod), after = () => name(to, change.to_pod);
  if (!from) return [after(), " is the first primary"];
  if (!to) return [before(), " was lost; ", h("span.bad.word", null, `no primary for ${span(now - change.lost_unix_ms)}`)];
  const length = ms > 0 ? [" after ", h("b", null, span(ms)), " without a primary"] : [", without a gap"];
  return from === to ? [after(), " again", length] : [before(), " → ", after(), length];
}

function changes(status) {
  const now = status.now_unix_ms;
  const all = status.clusters.flatMap((cluster) => cluster.history.primaries.map((change) => ({ cluster: cluster.cluster, ...change })));
  const at = (change) => change.lost_unix_ms || change.proven_unix_ms;
  all.sort((a, b) => at(b) - at(a));
  $("failovers").hidden = all.length === 0;
  const gap = (change) => (change.from ? (change.ms === null ? now - change.lost_unix_ms : change.ms) : 0);
  const longest = Math.max(1, ...all.slice(0, CHANGES_MAX).map(gap));
  show("changes", all.slice(0, CHANGES_MAX).map((change) => h("li", null,
    h("p", null, when(at(change), now), h("br"), h("span.soft", null, ago(at(change), now))),
    h("div", null,
      h("p", null, status.clusters.length > 1 && h("b", null, `${change.cluster}: `), changeWords(change, now)),
      gap(change) > 0 && h("div.bar", { "aria-hidden": "true" }, part("gap", gap(change) / longest)),
      h("p.soft", null, [`term ${change.term}`, change.held ? `${plural(change.held, "statement")} waited${change.to ? "" : " so far"}` : change.from ? "no statement waited" : null].filter(Boolean).join(" · ")),
      change.why_lost && change.ms !== 0 && h("p.evidence", null, `lost: ${change.why_lost}`),
      change.why_proven && h("p.evidence", null, `proven: ${change.why_proven}`)))));
  show("strip", strip(all, gap, at, now));
  roleChanges(status, now);
}

// The last hour (or day) at a glance: a lane for each cluster, red where it had no primary.
function strip(all, gap, at, now) {
  const hour = 3600000, seen = all.filter((change) => change.from && now - at(change) < 24 * hour);
  if (seen.length === 0) return null;
  const length = seen.every((change) => now - at(change) < hour) ? hour : 24 * hour;
  const lanes = [...new Set(seen.map((change) => change.cluster))].slice(0, LANES_MAX);
  const whole = Math.max(280, $("strip").clientWidth), few = whole < 600;
  const left = lanes.length > 1 ? 120 : 4, right = whole - 4, wide = right - left, high = 22 * lanes.length;
  const x = (ms) => left + (wide * (length - Math.min(length, Math.max(0, now - ms)))) / length;
  const [step, unit, ms] = length === hour ? [10, "min", 60000] : [4, "h", hour];
  const ticks = [0, 1, 2, 3, 4, 5, 6].filter((n) => !few || n % 3 === 0).map((n) => [n * step * ms, n ? `−${n * step} ${unit}` : "now"]);
  const label = `Over the last ${length === hour ? "hour" : "24 hours"}: ${plural(seen.length, "change")} of the primary`;
  return s("svg.strip", { viewBox: `0 0 ${whole} ${high + 24}`, role: "img", "aria-label": label },
    ticks.map(([back, words]) => [s("line", { x1: x(now - back), x2: x(now - back), y1: 0, y2: high }),
      s("text", { x: x(now - back), y: high + 18, "text-anchor": back === 0 ? "end" : back === length ? "start" : "middle" }, words)]).flat(),
    lanes.map((lane, i) => [s("line", { x1: left, x2: right, y1: 22 * i + 11, y2: 22 * i + 11 }),
      lanes.length > 1 && s("text", { x: 0, y: 22 * i + 15 }, lane.slice(0, 16)),
      seen.filter((change) => change.cluster === lane).map((change) => {
        const begin = x(at(change)), end = x(at(change) + gap(change));
        return s(gap(change) > 0 ? "rect.gap" : "rect.moved", { x: begin, y: 22 * i + 3, width: Math.max(4, end - begin), height: 16, rx: 2 });
      })].flat()).flat());
}

function roleChanges(status, now) {
  const all = status.clusters.flatMap((cluster) => cluster.history.roles.map((change) => ({ cluster: cluster.cluster, ...change })));
  all.sort((a, b) => b.at_unix_ms - a.at_unix_ms);
  if (!$("roles").open) return;
  show("role-changes", table(["When", "Cluster", "Server", "From", "To", "Why"], all.slice(0, 200).map((change) => h("tr", null,
    h("td.n", { "data-label": "When" }, when(change.at_unix_ms, now)),
    h("td", { "data-label": "Cluster" }, change.cluster),
    h("td", { "data-label": "Server" }, h("div", null, h("span.word", null, change.pod || change.server), change.pod && h("div.soft", null, change.server))),
    h("td", { "data-label": "From" }, change.from),
    h("td", { "data-label": "To" }, change.to),
    h("td", { "data-label": "Why" }, h("span.evidence", null, change.why))))));
}

function listeners(status) {
  const now = status.now_unix_ms;
  $("doors").hidden = status.listeners.length === 0;
  show("listeners", table(["Listener", "Leads to", "Clients", "Logins", "TLS"], status.listeners.map((one) => {
    const { ok, refused, failed } = one.logins, end = one.certificate_end_unix_ms;
    const left = end && end - now, soon = end && left < 14 * 86400000;
    return h("tr", null,
      h("td", { "data-label": "Listener" }, h("div", null, h("span.word", null, one.name), h("div.soft", null, one.address))),
      h("td", { "data-label": "Leads to" }, `${Array.isArray(one.cluster) ? one.cluster.join(", ") : one.cluster ?? "by rule"}, ${one.mode}`),
      h("td.n", { "data-label": "Clients" }, `${one.sessions.toLocaleString("en")} of ${one.sessions_max.toLocaleString("en")}`),
      h("td", { "data-label": "Logins" }, h("div", null, `${ok.toLocaleString("en")} let in`,
        refused > 0 && [", ", h("span.warn", null, `${refused.toLocaleString("en")} refused`)],
        failed > 0 && [", ", h("span.warn", null, `${failed.toLocaleString("en")} failed`)])),
      h("td", { "data-label": "TLS" }, h("div", null, one.tls, end && h(soon ? "div.warn" : "div.soft", null, left > 0 ? `certificate ends in ${span(left)}` : `certificate ended ${span(-left)} ago`))));
  })));
}

function configuration(status) {
  const file = status.configuration, fine = file.state === "current", now = status.now_unix_ms;
  $("file").hidden = false;
  show("configuration",
    h("p", null, h("span.mark." + (fine ? "ok" : "warn"), { role: "img", "aria-label": fine ? "ok" : "warning" }, fine ? "✔" : "▲"),
      fine ? "The file is in effect" : file.state === "refused" ? "The file is not valid; the one before stays in effect" : "The file needs a restart; the one before stays in effect",
      ": ", h("span.soft", null, file.file), " ", h("span.soft", null, `(${ago(file.at_unix_ms, now)})`)),
    file.text && h("pre", null, file.text));
}

function live(state, words) {
  $("live").dataset.state = state;
  if ($("live").textContent !== words) $("live").textContent = words;
}

function render(status) {
  const now = status.now_unix_ms;
  document.body.classList.remove("stale");
  status.clusters.forEach((cluster) => sample(cluster, now));
  const known = new Set(status.clusters.map((cluster) => cluster.cluster));
  for (const name of samples.keys()) if (!known.has(name)) samples.delete(name);
  verdict(status.verdict.state, status.verdict.headline, status.verdict.problems);
  children($("who"), [document.createTextNode(`${status.version} on ${status.host || "this host"}, up ${span(now - status.started_unix_ms)}`)]);
  clusterCards(status);
  changes(status);
  listeners(status);
  configuration(status);
  live("live", `live, ${clock(now, now)}`);
}

// ---- asking --------------------------------------------------------------------------------------------------------

async function ask() {
  const began = performance.now();
  const giveUp = new AbortController(), clockOut = setTimeout(() => giveUp.abort(), PATIENCE_MS);
  try {
    const answer = await fetch("status.json", { signal: giveUp.signal, cache: "no-store" });
    if (!answer.ok) throw new Error(`the proxy answers ${answer.status}`);
    const status = await answer.json();
    const first = !last;
    last = status;
    lastAt = Date.now();
    render(status);
    return first ? EVERY_MS / 2 : Math.max(EVERY_MS, 10 * (performance.now() - began));
  } catch (error) {
    document.body.classList.add("stale");
    live("lost", last ? `no answer for ${span(Date.now() - lastAt)}` : "no answer");
    verdict("lost", "This page cannot reach the proxy.", [{ state: "bad", about: "page",
      text: last ? `what is shown below is as of ${clock(last.now_unix_ms, Date.now())}` : String(error.message || error) }]);
    return EVERY_MS;
  } finally {
    clearTimeout(clockOut);
  }
}

let asking = false;
async function run() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  const wait = await ask();
  asking = false;
  timer = setTimeout(run, wait);
}

document.addEventListener("visibilitychange", run);
// Folded clusters are not drawn; one that is unfolded has to be.
$("clusters").addEventListener("toggle", () => last && clusterCards(last), true);
$("roles").addEventListener("toggle", () => last && roleChanges(last, last.now_unix_ms));
run();
