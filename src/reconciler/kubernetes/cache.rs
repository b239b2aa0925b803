//! What the API server said last of one kind of object in one namespace, and a bell for each cluster that it concerns.
//!
//! While the API server is away the last words stay; who acts on them writes first, and that fails then.

use futures_util::StreamExt;
use kube::core::Resource;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Each watch ends after this: one that died without a word is noticed.
const ROUND_S: u32 = 60;
const AGAIN: Duration = Duration::from_millis(500);

/// Objects by name.
pub struct Cache<K> {
    /// `None` until all were listed once: that one is not among them means something only then.
    objects: Mutex<Option<BTreeMap<String, Arc<K>>>>,
}

impl<K> Default for Cache<K> {
    fn default() -> Self {
        Self { objects: Mutex::default() }
    }
}

/// Wakes who waits for news of a cluster.
#[derive(Default)]
pub struct Bells {
    bells: Mutex<HashMap<String, watch::Sender<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bells {
    /// The bell of this cluster; what rings while nobody listens is heard later.
    pub fn of(&self, cluster: &str) -> watch::Receiver<()> {
        lock(&self.bells).entry(cluster.to_owned()).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// All others are gone.
    pub fn keep_only(&self, clusters: &[String]) {
        lock(&self.bells).retain(|cluster, _| clusters.contains(cluster));
    }

    /// Rings this cluster's bell; all of them where it is not known whose.
    pub fn ring(&self, cluster: Option<String>) {
        let bells = lock(&self.bells);
        match cluster {
            Some(cluster) => bells.get(&cluster).into_iter().for_each(|bell| bell.send_replace(())),
            None => bells.values().for_each(|bell| bell.send_replace(())),
        }
    }
}

impl<K> Cache<K> {
    /// Has the API server said what there is?
    pub fn is_listed(&self) -> bool {
        lock(&self.objects).is_some()
    }

    /// The object of that name.
    pub fn find(&self, name: &str) -> Option<Arc<K>> {
        lock(&self.objects).as_ref()?.get(name).cloned()
    }

    /// Those that are wanted, by name.
    pub fn all(&self, wanted: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        lock(&self.objects).iter().flat_map(BTreeMap::values).filter(|object| wanted(object)).cloned().collect()
    }
}

/// Lists and watches for ever; `concerns` names the cluster whose bell rings, `news` is rung at every change.
pub async fn follow<K>(
    api: Api<K>,
    selector: &str,
    cache: &Cache<K>,
    concerns: impl Fn(&K) -> Option<String>,
    (bells, news): (&Bells, &Notify),
) where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let config = Config::default().labels(selector).timeout(ROUND_S);
    let mut events = pin!(watcher(api, config));
    let (mut fresh, mut is_up) = (BTreeMap::new(), true);
    while let Some(event) = events.next().await {
        if let Err(error) = &event {
            if std::mem::replace(&mut is_up, false) {
                tracing::warn!(%error, "the API server does not tell what changes");
            }
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        let concerned = match event {
            Ok(Event::Init) => {
                fresh.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                fresh.insert(object.name_any(), Arc::new(object));
                continue;
            }
            Ok(Event::InitDone) => {
                *lock(&cache.objects) = Some(std::mem::take(&mut fresh));
                None
            }
            Ok(Event::Apply(object)) => {
                let concerned = concerns(&object);
                lock(&cache.objects).get_or_insert_default().insert(object.name_any(), Arc::new(object));
                concerned.or_else(|| Some(String::new()))
            }
            Ok(Event::Delete(object)) => {
                lock(&cache.objects).get_or_insert_default().remove(&object.name_any());
                concerns(&object).or_else(|| Some(String::new()))
            }
            Err(_) => continue,
        };
        is_up = true;
        bells.ring(concerned);
        news.notify_one();
    }
}
