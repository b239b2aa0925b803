//! The way to the API server, and what its refusals mean to the person who gave the proxy its rights.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Client, Config};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(5);
/// Without a byte for so long the API server is away. Longer than `follow::ROUND_S`, which ends each watch.
const READ: Duration = Duration::from_secs(70);

/// Which API server, as whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// A kubeconfig; otherwise the pod's ServiceAccount, else what kubectl uses.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it other than the current one.
    pub context: Option<String>,
}

/// Why the watch is not up; a label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TroubleKind {
    /// There is no usable configuration.
    Configuration,
    /// No answer.
    Unreachable,
    /// 401 or 403.
    Forbidden,
    /// 410: what the watch knew is too old to go on from.
    Expired,
    /// Any other answer.
    Refused,
}

impl TroubleKind {
    /// The word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Unreachable => "unreachable",
            Self::Forbidden => "forbidden",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }
}

/// Why the watch is not up.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Trouble {
    /// For the metrics.
    pub kind: TroubleKind,
    /// For a person.
    pub text: String,
}

impl Access {
    /// A client, and the namespace that it is at home in.
    pub(crate) async fn open(&self) -> Result<(Client, String), Trouble> {
        let mut config = self.config().await?;
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(READ);
        let home = config.default_namespace.clone();
        let unusable = |error: kube::Error| trouble(TroubleKind::Configuration, &error);
        Ok((Client::try_from(config).map_err(unusable)?, home))
    }

    async fn config(&self) -> Result<Config, Trouble> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        if let Some(path) = &self.kubeconfig {
            let file = read(path)?;
            let config = Config::from_custom_kubeconfig(file, &options).await;
            return config.map_err(|error| trouble(TroubleKind::Configuration, &error));
        }
        if self.context.is_none()
            && let Ok(config) = Config::incluster()
        {
            return Ok(config);
        }
        Config::from_kubeconfig(&options).await.map_err(|error| {
            let text = format!("neither a pod's ServiceAccount nor a kubeconfig: {}", chain(&error));
            Trouble { kind: TroubleKind::Configuration, text }
        })
    }
}

fn read(path: &Path) -> Result<Kubeconfig, Trouble> {
    Kubeconfig::read_from(path).map_err(|error| trouble(TroubleKind::Configuration, &error))
}

fn trouble(kind: TroubleKind, error: &dyn std::error::Error) -> Trouble {
    Trouble { kind, text: chain(error) }
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

/// What a watch's error means, with the right that is missing where one is.
pub(super) fn explain(error: &watcher::Error, namespace: &str) -> Trouble {
    match error {
        watcher::Error::InitialListFailed(error) => explain_call(error, "list", namespace),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            explain_call(error, "watch", namespace)
        }
        watcher::Error::WatchError(status) => explain_status(status.code, &status.message, "watch", namespace),
        watcher::Error::NoResourceVersion => {
            Trouble { kind: TroubleKind::Refused, text: "its answer has no resourceVersion".to_owned() }
        }
    }
}

/// The same of a single call with `verb` on pods.
pub(super) fn explain_call(error: &kube::Error, verb: &str, namespace: &str) -> Trouble {
    match error {
        kube::Error::Api(status) => explain_status(status.code, &status.message, verb, namespace),
        other => {
            let text = format!("no usable answer from the API server: {}", root(other));
            Trouble { kind: TroubleKind::Unreachable, text }
        }
    }
}

/// What it comes down to: the layers of the client in between say nothing to a person.
fn root(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(inner) = root.source() {
        root = inner;
    }
    root.to_string()
}

fn explain_status(code: u16, message: &str, verb: &str, namespace: &str) -> Trouble {
    let (kind, text) = match code {
        403 => (
            TroubleKind::Forbidden,
            format!(
                "the right to {verb} pods in namespace {namespace} is missing: give the ServiceAccount a Role with \
                 the verbs list and watch on the resource pods there ({message})"
            ),
        ),
        401 => (TroubleKind::Forbidden, format!("the API server does not know these credentials ({message})")),
        410 => (TroubleKind::Expired, format!("the watch is too old to go on and begins again ({message})")),
        code => (TroubleKind::Refused, format!("the API server answered {code} ({message})")),
    };
    Trouble { kind, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_right_is_named() {
        let forbidden = explain_status(403, "pods is forbidden", "watch", "shop");
        assert_eq!(forbidden.kind, TroubleKind::Forbidden);
        assert!(forbidden.text.starts_with("the right to watch pods in namespace shop is missing"), "{forbidden}");
        assert_eq!(explain_status(410, "too old", "watch", "shop").kind, TroubleKind::Expired);
        assert_eq!(explain_status(500, "etcd", "list", "shop").kind, TroubleKind::Refused);
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let access = Access { kubeconfig: Some("/nowhere/kubeconfig".into()), context: None };
        let Err(trouble) = access.open().await else { panic!("opened") };
        assert_eq!(trouble.kind, TroubleKind::Configuration);
        assert!(trouble.text.contains("/nowhere/kubeconfig"), "{trouble}");
    }
}
