//! \[pure\] The pods of one watch, by cluster: what a change of one pod changes.
//!
//! Why apart from the watch: with hundreds of clusters behind one watch, a change of one pod must cost the size of its own
//! cluster, and that is worth a test without an API server.

use super::pod::{Group, PodFacts};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// All pods of one watch, up to a limit.
#[derive(Debug)]
pub struct Index {
    pods_max: usize,
    groups: BTreeMap<Group, BTreeMap<Arc<str>, Arc<PodFacts>>>,
    /// Where each pod is, by namespace and name.
    homes: BTreeMap<(Arc<str>, Arc<str>), Group>,
}

/// There are as many pods as there may be, and this is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {pods_max} pods already")]
pub struct Full {
    /// As many there may be.
    pub pods_max: usize,
}

impl Index {
    /// No pods yet, and never more than `pods_max`.
    pub fn new(pods_max: usize) -> Self {
        Self { pods_max, groups: BTreeMap::new(), homes: BTreeMap::new() }
    }

    /// How many pods there are.
    pub fn len(&self) -> usize {
        self.homes.len()
    }

    /// None at all?
    pub fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    /// The clusters that have a pod.
    pub fn groups(&self) -> Vec<Group> {
        self.groups.keys().cloned().collect()
    }

    /// The pods of the clusters with this label value, in every namespace; of one component, if it is given.
    pub fn pods(&self, cluster: &str, component: Option<&str>) -> Vec<Arc<PodFacts>> {
        let wanted = |group: &Group| {
            &*group.cluster == cluster && component.is_none_or(|component| &*group.component == component)
        };
        self.groups.iter().filter(|(group, _)| wanted(group)).flat_map(|(_, pods)| pods.values().cloned()).collect()
    }

    /// A pod was added or is not what it was: the clusters that changed. [`Full`] leaves out a new one; one that is known is
    /// always taken, or its stale facts would stay.
    pub fn apply(&mut self, facts: PodFacts) -> Result<Vec<Group>, Full> {
        let key = (facts.group.namespace.clone(), facts.name.clone());
        if self.len() >= self.pods_max && !self.homes.contains_key(&key) {
            return Err(Full { pods_max: self.pods_max });
        }
        let moved = self.homes.get(&key).filter(|home| **home != facts.group).cloned();
        let mut changed: Vec<Group> = Vec::new();
        if let Some(home) = moved {
            self.take(&home, &facts.name);
            changed.push(home);
        }
        let pods = self.groups.entry(facts.group.clone()).or_default();
        if pods.get(&facts.name).is_none_or(|known| **known != facts) {
            changed.push(facts.group.clone());
            self.homes.insert(key, facts.group.clone());
            pods.insert(facts.name.clone(), Arc::new(facts));
        }
        Ok(changed)
    }

    /// A pod is gone, or has lost the labels that made it one of ours: the cluster that changed.
    pub fn remove(&mut self, namespace: &str, name: &str) -> Vec<Group> {
        let Some(home) = self.homes.remove(&(namespace.into(), name.into())) else { return Vec::new() };
        self.take(&home, name);
        vec![home]
    }

    /// After a list of one namespace: only these are left in it. The clusters that changed.
    pub fn retain(&mut self, namespace: &str, listed: &BTreeSet<Arc<str>>) -> Vec<Group> {
        let homes = self.homes.keys().filter(|(home, name)| &**home == namespace && !listed.contains(name));
        let gone: Vec<Arc<str>> = homes.map(|(_, name)| name.clone()).collect();
        gone.iter().flat_map(|name| self.remove(namespace, name)).collect()
    }

    fn take(&mut self, home: &Group, name: &str) {
        if let Some(pods) = self.groups.get_mut(home) {
            pods.remove(name);
            if pods.is_empty() {
                self.groups.remove(home);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::kubernetes::pod::{Label, PodState};

    fn pod(cluster: &str, name: &str, label: Label) -> PodFacts {
        PodFacts {
            group: Group { namespace: "ns".into(), cluster: cluster.into(), component: "".into() },
            name: name.into(),
            uid: "u".into(),
            address: None,
            state: PodState::Ready,
            restarts: 0,
            label,
            unlabelled_reads: true,
            term: None,
        }
    }

    fn names(changed: &[Group]) -> Vec<&str> {
        changed.iter().map(|group| &*group.cluster).collect()
    }

    #[test]
    fn a_change_of_a_pod_changes_its_cluster_only() {
        let mut index = Index::new(10);
        assert_eq!(names(&index.apply(pod("a", "a-0", Label::None)).unwrap()), ["a"]);
        assert_eq!(names(&index.apply(pod("b", "b-0", Label::None)).unwrap()), ["b"]);
        assert_eq!(names(&index.apply(pod("b", "b-0", Label::None)).unwrap()), [""; 0]);
        assert_eq!(names(&index.apply(pod("b", "b-0", Label::Primary)).unwrap()), ["b"]);
        assert_eq!(index.pods("b", None)[0].label, Label::Primary);
        assert_eq!(names(&index.apply(pod("a", "b-0", Label::Primary)).unwrap()), ["b", "a"]);
        assert_eq!((index.pods("a", None).len(), index.pods("b", None).len()), (2, 0));
        assert_eq!(names(&index.groups()), ["a"]);
        assert_eq!(names(&index.remove("ns", "a-0")), ["a"]);
        assert_eq!(names(&index.remove("ns", "a-0")), [""; 0]);
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn what_a_list_does_not_name_is_gone() {
        let mut index = Index::new(10);
        for name in ["a-0", "a-1", "a-2"] {
            index.apply(pod("a", name, Label::None)).unwrap();
        }
        assert_eq!(names(&index.retain("elsewhere", &BTreeSet::new())), [""; 0]);
        assert_eq!(names(&index.retain("ns", &BTreeSet::from(["a-1".into()]))), ["a", "a"]);
        assert_eq!(index.pods("a", Some("")).len(), 1);
        assert!(index.pods("a", Some("mysql")).is_empty());
        assert!(!index.is_empty());
    }

    #[test]
    fn at_the_limit_only_new_pods_are_left_out() {
        let mut index = Index::new(2);
        for name in ["a-0", "a-1"] {
            index.apply(pod("a", name, Label::None)).unwrap();
        }
        assert_eq!(index.apply(pod("a", "a-2", Label::None)), Err(Full { pods_max: 2 }));
        // Those that are known go on changing, also from one cluster to another.
        assert_eq!(names(&index.apply(pod("a", "a-0", Label::Primary)).unwrap()), ["a"]);
        assert_eq!(index.pods("a", None)[0].label, Label::Primary);
        assert_eq!(names(&index.apply(pod("b", "a-1", Label::None)).unwrap()), ["a", "b"]);
        assert_eq!(index.len(), 2);
        // And there is room again when one has gone.
        index.remove("ns", "a-0");
        assert_eq!(names(&index.apply(pod("a", "a-2", Label::None)).unwrap()), ["a"]);
    }
}
