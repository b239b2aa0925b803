//! Lists and watches pods for ever, and hands each cluster the facts of its own.
//!
//! List and watch, not streaming lists, which old API servers don't have. While the API server is away the last facts stay
//! as they are, and [`Shared::trouble`] says so; the way back is tried again and again, at [`AGAIN_MAX`] at the longest.
//! 410 Gone is a new list, which drops only what it does not name.

use super::client::{Trouble, explain, explain_call};
use super::index::Index;
use super::pod::{Group, Pod, PodFacts};
use super::watch::{GroupList, PodList, WatchKey};
use crate::metrics;
use futures_util::{Stream, StreamExt};
use kube::api::ListParams;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The API server ends each watch after this, seconds: a connection that died without a word is noticed soon after.
pub(super) const ROUND_S: u32 = 60;
/// After the first failure, and the longest pause between two attempts.
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// A watch that has not failed after so long has begun.
const BEGUN: Duration = Duration::from_secs(2);
/// Pods of one watch; more are left out, with a warning.
const PODS_MAX: usize = 50_000;

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who wants which pods: value of the cluster's label, and of the component's.
type Wanted = (String, Option<String>);

/// What a watch knows, and who wants to know it.
pub(super) struct Shared {
    key: WatchKey,
    index: Mutex<Index>,
    counted: metrics::WatchedPods,
    feeds: Mutex<HashMap<Wanted, watch::Sender<Arc<PodList>>>>,
    pub(super) groups: watch::Sender<Arc<GroupList>>,
    /// By namespace; empty until the client is there.
    state: Mutex<BTreeMap<Arc<str>, State>>,
}

/// How the watch of one namespace is doing.
#[derive(Clone, Default)]
struct State {
    listed: bool,
    away: Option<(Instant, Trouble)>,
}

impl Shared {
    pub(super) fn new(key: WatchKey) -> Self {
        let (groups, index) = (watch::Sender::new(Arc::default()), Mutex::new(Index::new(PODS_MAX)));
        let counted = metrics::watched_pods(key.preset.as_str());
        Self { key, index, counted, feeds: Mutex::default(), groups, state: Mutex::default() }
    }

    pub(super) fn subscribe(&self, cluster: String, component: Option<String>) -> watch::Receiver<Arc<PodList>> {
        let now = Arc::new(self.list(&cluster, component.as_deref()));
        let mut feeds = lock(&self.feeds);
        feeds.retain(|_, feed| feed.receiver_count() > 0);
        feeds.entry((cluster, component)).or_insert_with(|| watch::Sender::new(now)).subscribe()
    }

    fn list(&self, cluster: &str, component: Option<&str>) -> PodList {
        let complete = self.complete();
        PodList { complete, pods: lock(&self.index).pods(cluster, component) }
    }

    /// Has every namespace been listed?
    fn complete(&self) -> bool {
        let state = lock(&self.state);
        !state.is_empty() && state.values().all(|state| state.listed)
    }

    /// Publishes what changed: one cluster costs the size of one cluster.
    fn publish(&self, changed: &[Group]) {
        if !self.complete() || changed.is_empty() {
            return;
        }
        let feeds = lock(&self.feeds);
        let mut told = BTreeSet::new();
        for group in changed {
            let component = Some(group.component.to_string());
            for wanted in [(group.cluster.to_string(), None), (group.cluster.to_string(), component)] {
                if let Some(feed) = feeds.get(&wanted)
                    && told.insert(wanted.clone())
                {
                    feed.send_replace(Arc::new(self.list(&wanted.0, wanted.1.as_deref())));
                }
            }
        }
        drop(feeds);
        self.publish_groups();
    }

    /// Publishes everything, after a first list.
    fn publish_all(&self) {
        if self.complete() {
            for (wanted, feed) in &*lock(&self.feeds) {
                feed.send_replace(Arc::new(self.list(&wanted.0, wanted.1.as_deref())));
            }
            self.publish_groups();
        }
    }

    fn publish_groups(&self) {
        let groups = lock(&self.index).groups();
        self.groups.send_if_modified(|known| {
            let differs = !known.complete || known.groups != groups;
            if differs {
                *known = Arc::new(GroupList { complete: true, groups });
            }
            differs
        });
    }

    pub(super) fn trouble(&self) -> Option<String> {
        let state = lock(&self.state);
        let word = self.key.preset.as_str();
        if state.is_empty() {
            return Some(format!("pods ({word}) have not been listed yet"));
        }
        let one = |(namespace, state): (&Arc<str>, &State)| match &state.away {
            Some((since, trouble)) => {
                let seconds = since.elapsed().as_secs();
                let kept = if state.listed { "; what was known of them stays" } else { "" };
                Some(format!("pods ({word}) in {namespace} have not been watched for {seconds} s: {trouble}{kept}"))
            }
            None if !state.listed => Some(format!("pods ({word}) in {namespace} have not been listed yet")),
            None => None,
        };
        let all: Vec<String> = state.iter().filter_map(one).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// The watch of a namespace failed.
    fn failed(&self, namespace: &Arc<str>, trouble: Trouble) {
        let preset = self.key.preset.as_str();
        metrics::watch_error(preset, namespace, trouble.kind.as_str());
        metrics::watch_up(preset, namespace, false);
        let mut state = lock(&self.state);
        let state = state.entry(Arc::clone(namespace)).or_default();
        let said = state.away.as_ref().map(|(_, said)| said.text.as_str());
        if said != Some(&trouble.text) {
            tracing::warn!(preset, %namespace, why = %trouble, "pods are not watched; the last known ones stay");
        }
        let since = state.away.as_ref().map_or_else(Instant::now, |(since, _)| *since);
        state.away = Some((since, trouble));
    }

    /// The watch of a namespace works.
    fn works(&self, namespace: &Arc<str>) {
        let mut state = lock(&self.state);
        let state = state.entry(Arc::clone(namespace)).or_default();
        if let Some((since, _)) = state.away.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(preset = self.key.preset.as_str(), %namespace, seconds, "pods are watched again");
        }
        metrics::watch_up(self.key.preset.as_str(), namespace, true);
    }

    fn listed(&self, namespace: &Arc<str>) {
        let first = {
            let mut state = lock(&self.state);
            let state = state.entry(Arc::clone(namespace)).or_default();
            !std::mem::replace(&mut state.listed, true)
        };
        let pods = lock(&self.index).len();
        tracing::debug!(preset = self.key.preset.as_str(), %namespace, pods, "listed");
        if first {
            self.publish_all();
        }
    }

    fn takes(&self, pod: &Pod) -> Option<PodFacts> {
        PodFacts::read(pod, &self.key.rules)
    }

    /// A pod was added or changed.
    fn apply(&self, pod: &Pod) {
        let changed = match self.takes(pod) {
            Some(facts) => {
                let name = Arc::clone(&facts.name);
                lock(&self.index).apply(facts).unwrap_or_else(|full| {
                    tracing::warn!(pod = %name, why = %full, "too many pods: this one is left out");
                    Vec::new()
                })
            }
            None => self.removal(pod),
        };
        self.publish(&changed);
    }

    fn removal(&self, pod: &Pod) -> Vec<Group> {
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        lock(&self.index).remove(namespace.unwrap_or_default(), name.unwrap_or_default())
    }
}

/// Watches until the task is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut pause = Pause::new();
    let nowhere: Arc<str> = shared.key.namespaces.first().map_or("(own)", String::as_str).into();
    let (client, home) = loop {
        match shared.key.access.open().await {
            Ok(opened) => break opened,
            Err(trouble) => {
                shared.failed(&nowhere, trouble);
                pause.wait().await;
            }
        }
    };
    lock(&shared.state).clear();
    let own = || vec![home];
    let namespaces = Some(shared.key.namespaces.clone()).filter(|names| !names.is_empty()).unwrap_or_else(own);
    for namespace in &namespaces {
        lock(&shared.state).insert(namespace.as_str().into(), State::default());
    }
    let mut tasks = JoinSet::new();
    for namespace in namespaces {
        tasks.spawn(follow(Arc::clone(&shared), client.clone(), namespace.into()));
    }
    tasks.join_all().await;
}

/// Follows one namespace for ever.
async fn follow(shared: Arc<Shared>, client: Client, namespace: Arc<str>) {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods");
    let api: Api<Pod> = Api::namespaced_with(client, &namespace, &resource);
    let selector = shared.key.rules.watch_selector(shared.key.selector.as_deref());
    let config = watcher::Config::default().labels(&selector).timeout(ROUND_S);
    let mut events = pin!(watcher::watcher(api.clone(), config));
    let mut listed = BTreeSet::new();
    let mut pause = Pause::new();
    loop {
        let Some(event) = events.next().await else { return };
        match event {
            Ok(event) => {
                take(&shared, &namespace, event, &mut listed);
                pause.reset();
                shared.works(&namespace);
            }
            Err(error) => {
                shared.failed(&namespace, explain(&error, &namespace));
                pause.wait().await;
                come_back(&shared, &api, &namespace, &selector, &mut pause).await;
                if let Some(event) = begun(&shared, &namespace, events.as_mut()).await {
                    take(&shared, &namespace, event, &mut listed);
                }
            }
        }
    }
}

/// Waits until a list of one pod succeeds: the watch itself says nothing when it begins and nothing changes.
async fn come_back(shared: &Shared, api: &Api<Pod>, namespace: &Arc<str>, selector: &str, pause: &mut Pause) {
    let any = ListParams::default().labels(selector).limit(1);
    while let Err(error) = api.list(&any).await {
        shared.failed(namespace, explain_call(&error, "list", namespace));
        pause.wait().await;
    }
}

/// Lets the watch begin again; `Some` if it had something to say at once.
async fn begun(
    shared: &Shared,
    namespace: &Arc<str>,
    events: Pin<&mut impl Stream<Item = Result<Event<Pod>, watcher::Error>>>,
) -> Option<Event<Pod>> {
    let mut events = events;
    match tokio::time::timeout(BEGUN, events.next()).await {
        Err(_) => shared.works(namespace),
        Ok(Some(Ok(event))) => {
            shared.works(namespace);
            return Some(event);
        }
        Ok(Some(Err(error))) => {
            shared.failed(namespace, explain(&error, namespace));
            tokio::time::sleep(AGAIN).await;
        }
        Ok(None) => {}
    }
    None
}

fn take(shared: &Shared, namespace: &Arc<str>, event: Event<Pod>, listed: &mut BTreeSet<Arc<str>>) {
    let preset = shared.key.preset.as_str();
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(pod) => {
            listed.insert(pod.metadata.name.as_deref().unwrap_or_default().into());
            shared.apply(&pod);
        }
        Event::InitDone => {
            metrics::watch_event(preset, namespace, "list");
            let gone = lock(&shared.index).retain(namespace, listed);
            listed.clear();
            shared.publish(&gone);
            shared.listed(namespace);
        }
        Event::Apply(pod) => {
            metrics::watch_event(preset, namespace, "apply");
            shared.apply(&pod);
        }
        Event::Delete(pod) => {
            metrics::watch_event(preset, namespace, "delete");
            let changed = shared.removal(&pod);
            shared.publish(&changed);
        }
    }
    let index = lock(&shared.index);
    shared.counted.set(index.len());
}

/// Pauses that grow, up to a limit.
struct Pause(Duration);

impl Pause {
    fn new() -> Self {
        Self(AGAIN)
    }

    fn reset(&mut self) {
        self.0 = AGAIN;
    }

    async fn wait(&mut self) {
        // Many proxies lose the same API server at the same moment; they need not come back at the same moment.
        let mut random = [0_u8; 1];
        let _ = getrandom::fill(&mut random);
        let spread = self.0.mul_f64(f64::from(random[0]) / 512.0);
        tokio::time::sleep(self.0 / 2 + spread).await;
        self.0 = (self.0 * 2).min(AGAIN_MAX);
    }
}
