// Asks status.json while the page is looked at, has the answer shown, and says so when there is none. And words for numbers and
// times.

const EVERY_MS = 2000, PATIENCE_MS = 8000;
const SIGNS = { ok: "✔", warn: "▲", bad: "✖", lost: "✖", unknown: "…" };

let last = null;              // the last answer
let lastAt = 0;               // when it came, on our own clock
let timer = 0;

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

// ---- how it is -----------------------------------------------------------------------------------------------------

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

function live(state, words) {
  $("live").dataset.state = state;
  if ($("live").textContent !== words) $("live").textContent = words;
}

// Whose answer it is, and of when.
function answered(status) {
  const now = status.now_unix_ms;
  document.body.classList.remove("stale");
  verdict(status.verdict.state, status.verdict.headline, status.verdict.problems);
  children($("who"), [document.createTextNode(`${status.version} on ${status.host || "this host"}, up ${span(now - status.started_unix_ms)}`)]);
  live("live", `live, ${clock(now, now)}`);
}

// ---- asking --------------------------------------------------------------------------------------------------------

async function ask() {
  const began = performance.now();
  const giveUp = new AbortController(), clockOut = setTimeout(() => giveUp.abort(), PATIENCE_MS);
  try {
    const answer = await fetch("status.json", { signal: giveUp.signal, cache: "no-store" });
    if (!answer.ok) throw new Error(`it answers ${answer.status}`);
    const status = await answer.json();
    const first = !last;
    last = status;
    lastAt = Date.now();
    answered(status);
    (status.reconciler ? renderReconciler : renderProxy)(status);
    return first ? EVERY_MS / 2 : Math.max(EVERY_MS, 10 * (performance.now() - began));
  } catch (error) {
    document.body.classList.add("stale");
    live("lost", last ? `no answer for ${span(Date.now() - lastAt)}` : "no answer");
    verdict("lost", "This page cannot reach Holdfast.", [{ state: "bad", about: "page",
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
