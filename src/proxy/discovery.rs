//! Which clusters should be there: the configuration's, and what its discoveries have found.
//!
//! A discovery says what it sees as a whole, again and again. What it no longer sees stays for as long as its statements may
//! wait (`hold_ms_max`), since the only pod of a cluster that is replaced is no cluster that has gone; and while the API
//! server is away nothing goes. It never takes a name from the configuration or from a discovery that stands before it in
//! the file, and it adds at most `clusters_max`: what is served already comes first, so that a new cluster ends no other.

use super::pods::watch_key;
use crate::config::{ClusterConfig, Config, DiscoveryConfig, KubernetesConfig, Source};
use crate::topology::kubernetes::{Group, Hub};
use crate::types::ClusterName;
use futures_util::future::select_all;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is missing while the API server is away is looked at again after this.
const AWAY_AGAIN: Duration = Duration::from_secs(1);

/// What one discovery sees: clusters, and where the servers of each are known from. `None` before it has seen anything.
pub type Found = Option<Arc<BTreeMap<ClusterName, Source>>>;

/// The clusters that should be there, those of the configuration first. `served`: is it there already?
pub(super) fn wanted(config: &Config, found: &[Found], served: impl Fn(&ClusterName) -> bool) -> Vec<ClusterConfig> {
    let mut wanted = config.clusters.clone();
    let mut taken: HashSet<String> = wanted.iter().map(|cluster| cluster.name.clone()).collect();
    for (discovery, found) in config.discoveries.iter().zip(found) {
        let Some(found) = found else { continue };
        let mut added = 0;
        let (old, new): (Vec<_>, Vec<_>) = found.iter().partition(|(name, _)| served(name));
        for (name, source) in old.into_iter().chain(new) {
            if taken.contains(&*name.0) {
                tracing::warn!(discovery = discovery.name, cluster = %name, "cluster left out: its name is taken");
            } else if added == discovery.clusters_max {
                let (left_out, max) = (found.len() - added, discovery.clusters_max);
                tracing::warn!(discovery = discovery.name, left_out, max, "more clusters than clusters_max");
                break;
            } else {
                added += 1;
                taken.insert(name.to_string());
                wanted.push(of_template(discovery, name, source));
            }
        }
    }
    wanted
}

fn of_template(discovery: &DiscoveryConfig, name: &ClusterName, source: &Source) -> ClusterConfig {
    ClusterConfig { name: name.to_string(), source: source.clone(), ..discovery.template.clone() }
}

/// The discoveries at work, in the order of the configuration.
pub(super) struct Discoveries(Vec<watch::Receiver<Found>>);

/// Starts them; they end with `control`.
pub(super) fn start(discoveries: &[DiscoveryConfig], hub: &Hub, control: &CancellationToken) -> Discoveries {
    Discoveries(discoveries.iter().map(|discovery| look(discovery, hub, control)).collect())
}

fn look(discovery: &DiscoveryConfig, hub: &Hub, control: &CancellationToken) -> watch::Receiver<Found> {
    let (tell, found) = watch::channel(None);
    let (pods, stay) = (discovery.kubernetes.clone(), discovery.template.hold_max);
    let mut feed = hub.groups(watch_key(&pods));
    tokio::spawn(control.clone().run_until_cancelled_owned(async move {
        let mut kept = Kept::default();
        loop {
            let list = Arc::clone(&feed.groups.borrow_and_update());
            let mut again = None;
            if list.complete {
                let stay = feed.trouble().is_none().then_some(stay);
                again = kept.see(clusters(&pods, &list.groups), Instant::now(), stay);
                let all = kept.all();
                tell.send_if_modified(|told| {
                    let differs = told.as_deref() != Some(&all);
                    if differs {
                        *told = Some(Arc::new(all));
                    }
                    differs
                });
            }
            tokio::select! {
                changed = feed.groups.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = sleep_until(again) => {}
            }
        }
    }));
    found
}

async fn sleep_until(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when.into()).await,
        None => std::future::pending().await,
    }
}

/// \[pure\] What has been seen, and since when what is seen no longer has been missing.
#[derive(Default)]
struct Kept(BTreeMap<ClusterName, (Source, Option<Instant>)>);

impl Kept {
    /// Takes over what is seen now; what has been missing for `stay` goes, and nothing does without one. Answers when to
    /// look again though nothing has changed.
    fn see(&mut self, seen: BTreeMap<ClusterName, Source>, now: Instant, stay: Option<Duration>) -> Option<Instant> {
        let mut again: Option<Instant> = None;
        self.0.retain(|name, (_, missing)| {
            if seen.contains_key(name) {
                return false;
            }
            let since = *missing.get_or_insert(now);
            let until = stay.map_or(now + AWAY_AGAIN, |stay| since + stay);
            let stays = until > now;
            if stays {
                again = Some(again.map_or(until, |other| other.min(until)));
            }
            stays
        });
        self.0.extend(seen.into_iter().map(|(name, source)| (name, (source, None))));
        again
    }

    fn all(&self) -> BTreeMap<ClusterName, Source> {
        self.0.iter().map(|(name, (source, _))| (name.clone(), source.clone())).collect()
    }
}

/// \[pure\] The clusters of these groups. A name is the cluster's label, with the namespace before it where several are
/// watched (`prod.orders`) and the component behind it where pods have one that the discovery doesn't (`orders-mysql`).
fn clusters(pods: &KubernetesConfig, groups: &[Group]) -> BTreeMap<ClusterName, Source> {
    let named = |group: &Group| {
        let mut name = group.cluster.to_string();
        let mut own = KubernetesConfig { cluster: Some(name.clone()), ..pods.clone() };
        if pods.component.is_none() && !group.component.is_empty() {
            own.component = Some(group.component.to_string());
            name = format!("{name}-{}", group.component);
        }
        if pods.namespaces.len() > 1 {
            own.namespaces = vec![group.namespace.to_string()];
            name = format!("{}.{name}", group.namespace);
        }
        (ClusterName::from(name.as_str()), Source::Kubernetes(Box::new(own)))
    };
    let wanted = |group: &&Group| pods.component.as_deref().is_none_or(|component| *group.component == *component);
    groups.iter().filter(wanted).filter(|group| !group.cluster.is_empty()).map(named).collect()
}

impl Discoveries {
    /// What they see now.
    pub fn found(&mut self) -> Vec<Found> {
        self.0.iter_mut().map(|found| found.borrow_and_update().clone()).collect()
    }

    /// Ends when one of them sees something else; for ever while there is none. Cancel safe.
    pub async fn changed(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        select_all(self.0.iter_mut().map(|found| Box::pin(changed(found)))).await;
    }
}

async fn changed(found: &mut watch::Receiver<Found>) {
    if found.changed().await.is_err() {
        // Its task has ended: it changes no more.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::kubernetes::Preset;

    fn group(namespace: &str, cluster: &str, component: &str) -> Group {
        Group { namespace: namespace.into(), cluster: cluster.into(), component: component.into() }
    }

    /// Name, and what its own pods are looked for by: namespaces, cluster, component.
    fn named(pods: &KubernetesConfig, groups: &[Group]) -> Vec<(String, String)> {
        let of = |(name, source): (ClusterName, Source)| {
            let Source::Kubernetes(own) = source else { panic!("{name} has no pods") };
            let word = |value: &Option<String>| value.clone().unwrap_or_default();
            let query = format!("{}/{}/{}", own.namespaces.join("+"), word(&own.cluster), word(&own.component));
            (name.to_string(), query)
        };
        clusters(pods, groups).into_iter().map(of).collect()
    }

    #[test]
    fn clusters_are_named_by_their_labels() {
        let pods = |preset, namespaces: &[&str], component: Option<&str>| KubernetesConfig {
            namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
            component: component.map(str::to_owned),
            ..KubernetesConfig::new(preset)
        };
        let plain = [group("prod", "orders", ""), group("prod", "billing", ""), group("prod", "", "")];
        let blocks = [group("prod", "orders", "mysql"), group("prod", "orders", "proxysql")];
        let twice = [group("prod", "orders", ""), group("test", "orders", "")];
        let (bare, blocky) = (Preset::Holdfast, Preset::Kubeblocks);
        for (config, groups, expected) in [
            (pods(bare, &[], None), &plain[..], &[("billing", "/billing/"), ("orders", "/orders/")][..]),
            (pods(bare, &["prod"], None), &plain[1..], &[("billing", "prod/billing/")]),
            (
                pods(blocky, &[], None),
                &blocks,
                &[("orders-mysql", "/orders/mysql"), ("orders-proxysql", "/orders/proxysql")],
            ),
            (pods(blocky, &[], Some("mysql")), &blocks, &[("orders", "/orders/mysql")]),
            (
                pods(bare, &["prod", "test"], None),
                &twice,
                &[("prod.orders", "prod/orders/"), ("test.orders", "test/orders/")],
            ),
            (pods(blocky, &["prod", "test"], None), &blocks[..1], &[("prod.orders-mysql", "prod/orders/mysql")]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(name, by)| ((*name).to_owned(), (*by).to_owned())).collect();
            assert_eq!(named(&config, groups), expected, "{config:?}");
        }
    }

    #[test]
    fn what_is_missing_stays_for_a_while_and_longer_while_nobody_watches() {
        let (start, stay) = (Instant::now(), Some(Duration::from_secs(30)));
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let seen = |names: &[&str]| -> BTreeMap<ClusterName, Source> {
            names.iter().map(|name| ((*name).into(), Source::Members { seeds: Vec::new() })).collect()
        };
        let mut kept = Kept::default();
        let mut steps = Vec::new();
        for (now, names, stay) in [
            (0, &["a", "b"][..], stay),
            (1, &["b"], stay),
            (30, &["b"], stay),
            (31, &["b"], stay),
            // It comes back in time.
            (40, &[], stay),
            (69, &["b"], stay),
            (90, &["b"], stay),
            // The API server is away when the time is over.
            (100, &[], stay),
            (130, &[], None),
            (200, &[], None),
            (201, &[], stay),
        ] {
            let again = kept.see(seen(names), at(now), stay).map(|again| (again - start).as_secs());
            let names: Vec<String> = kept.all().keys().map(ToString::to_string).collect();
            steps.push((now, names.join(" "), again));
        }
        let expected = [
            (0, "a b", None),
            (1, "a b", Some(31)),
            (30, "a b", Some(31)),
            (31, "b", None),
            (40, "b", Some(70)),
            (69, "b", None),
            (90, "b", None),
            (100, "b", Some(130)),
            (130, "b", Some(131)),
            (200, "b", Some(201)),
            (201, "", None),
        ];
        assert_eq!(steps, expected.map(|(now, names, again)| (now, names.to_owned(), again)));
        kept.see(seen(&["c"]), at(300), Some(Duration::ZERO));
        kept.see(seen(&[]), at(301), Some(Duration::ZERO));
        assert!(kept.all().is_empty());
    }
}
