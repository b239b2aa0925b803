// The proxy's page: its clusters, their story, its listeners and its file. All that servers say becomes text nodes.

const SAMPLE_MS_MIN = 500, SAMPLES_MAX = 150, SAMPLES_MIN = 30, OPEN_MAX = 4;

const samples = new Map();    // cluster -> [{at, primary, follower, servers, rate: {primary, follower}, rates}]

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

function renderProxy(status) {
  const now = status.now_unix_ms;
  status.clusters.forEach((cluster) => sample(cluster, now));
  const known = new Set(status.clusters.map((cluster) => cluster.cluster));
  for (const name of samples.keys()) if (!known.has(name)) samples.delete(name);
  clusterCards(status);
  story(status.clusters.map((cluster) => [cluster.cluster, cluster.history.primaries]), now);
  roleChanges(status, now);
  listeners(status);
  configuration(status);
}
