// The reconciler's page: its clusters and their story, from what it wrote into their status.

function renderReconciler(status) {
  const now = status.now_unix_ms, several = new Set(status.clusters.map((cluster) => cluster.namespace)).size > 1;
  const title = (cluster) => (several ? `${cluster.namespace}/${cluster.name}` : cluster.name);
  const order = [...status.clusters].sort((a, b) => title(a).localeCompare(title(b)));
  show("clusters", order.map((cluster) => keptCard(cluster, title(cluster), now)));
  story(order.map((cluster) => [title(cluster), cluster.history.filter((change) => change.from || change.to)]), now);
  $("roles").hidden = true;
}

function keptCard(cluster, title, now) {
  const state = cluster.ready ? "ok" : cluster.available ? "warn" : "bad";
  return h("details.cluster", { "data-state": state, open: "" },
    h("summary", null,
      h("h2", null, h("span.mark." + state, { role: "img", "aria-label": state }, SIGNS[state]), title),
      h("span", null, cluster.primary ? `primary ${cluster.primary}` : "no primary"),
      h("span.soft", null, `term ${cluster.term}`),
      h("span.soft", null, `${cluster.topology}, ${plural(cluster.replicas, "member")}`),
      h(cluster.ready ? "span.soft" : "span.warn", null, cluster.phase)),
    cluster.why && h("p.warn", null, cluster.why),
    table(["Member", "Role", "State", "Behind", "Of its own"], cluster.members.map((member) => h("tr", null,
      h("td.word", { "data-label": "Member" }, member.name),
      h("td", { "data-label": "Role" }, h("span.role." + member.role, null, ROLES[member.role] || member.role)),
      h("td", { "data-label": "State" }, member.state),
      h(member.lag_s === null ? "td.n.none" : "td.n", { "data-label": "Behind" }, member.lag_s === null ? "–" : member.lag_s === 0 ? "0" : span(1000 * member.lag_s)),
      h(member.errant ? "td" : "td.none", { "data-label": "Of its own" }, member.errant ? h("span.warn", null, member.errant) : "–")))));
}

// Folded clusters are not drawn; one that is unfolded has to be.
$("clusters").addEventListener("toggle", () => last && !last.reconciler && clusterCards(last), true);
$("roles").addEventListener("toggle", () => last && roleChanges(last, last.now_unix_ms));
run();
