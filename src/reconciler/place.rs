//! Where a cluster's members, wishes and record are read and written: the seam between the engine and Kubernetes.
//!
//! [`super::kubernetes`] has the one in Kubernetes. [`Listed`] is the place without it: members by address, the record in a file. It knows no labels and elects no
//! leader: one process per file.

use super::action::Plan;
use super::resource::MysqlClusterStatus;
use super::snapshot::{Member, MemberName, Record, Snapshot, Wishes};
use super::status;
use crate::metrics::reconciler as metrics;
use crate::topology::report::{Failure, FailureKind};
use crate::types::{Address, Role, Term};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::watch;

/// Why nothing could be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Somebody else has written in between: read again.
    #[error("somebody else wrote the record")]
    Overtaken,
    /// The place is away; roles stay as they are.
    #[error("{0}")]
    Away(String),
}

/// A cluster as it is written down.
#[derive(Clone, Debug)]
pub struct Site {
    /// What the user asks for.
    pub wishes: Wishes,
    /// What was written down.
    pub record: Record,
    /// The members, not yet asked.
    pub members: Vec<Member>,
    /// The servers' certificates are files that somebody renews under them.
    pub renewed_certificates: bool,
}

/// A place where a cluster is written down.
pub trait Place {
    /// How often at least what members have is written down while nothing else is, for whoever comes after.
    const KEEP: Duration = Duration::from_secs(1);

    /// Reads it; on the `busy` members a long step is under way.
    fn read(&mut self, busy: &[MemberName]) -> impl Future<Output = Result<Site, PlaceError>> + Send;
    /// Replaces the record that was read last, if nobody else has in between.
    fn write(&mut self, record: &Record) -> impl Future<Output = Result<(), PlaceError>> + Send;
    /// Puts a role on a member, or takes it off.
    fn label(&mut self, member: &MemberName, role: Option<Role>)
    -> impl Future<Output = Result<(), PlaceError>> + Send;
    /// Puts a term on a member.
    fn announce(&mut self, member: &MemberName, term: Term) -> impl Future<Output = Result<(), PlaceError>> + Send;

    /// The data of this member are about to be replaced: it needs another `server_uuid` afterwards.
    fn renew(&mut self, _: &MemberName) -> impl Future<Output = Result<(), PlaceError>> + Send {
        std::future::ready(Ok(()))
    }

    /// What was seen and decided, to be told with the record; is it worth writing down at once?
    fn tell(&mut self, _: &Snapshot, _: &Plan) -> bool {
        false
    }

    /// Ends when something may have changed. Cancel safe.
    fn changed(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// A member that has not been asked.
pub fn unasked(name: MemberName, address: Address) -> Member {
    let sight = Err(Failure { kind: FailureKind::Silent, text: "not asked yet".into() });
    let (fenced, deleting, leaving, stopped, busy) = (false, false, false, false, false);
    Member { name, address, fenced, deleting, leaving, stopped, busy, label: None, term: None, lag_ms: None, sight }
}

/// Members by address, the record in a file.
pub struct Listed {
    wishes: Wishes,
    members: Vec<Member>,
    file: PathBuf,
    /// A file beside it: the name of the member that is to be the primary, for as long as it is there.
    asked: PathBuf,
    /// Rung by proxies.
    suspicion: Option<watch::Receiver<()>>,
}

impl Listed {
    /// These members; the record is in `file`, a switchover is asked for by writing a member's name to `file` + `.switchover`.
    pub fn new(wishes: Wishes, members: Vec<(MemberName, Address)>, file: &Path) -> Self {
        let members = members.into_iter().map(|(name, address)| unasked(name, address)).collect();
        let mut asked = file.as_os_str().to_owned();
        asked.push(".switchover");
        Self { wishes, members, file: file.to_owned(), asked: asked.into(), suspicion: None }
    }

    /// Looks at once when this says that the primary looks lost.
    pub fn hearing(self, suspicion: watch::Receiver<()>) -> Self {
        Self { suspicion: Some(suspicion), ..self }
    }

    fn status(&self) -> Result<MysqlClusterStatus, PlaceError> {
        let away = |why: &dyn std::fmt::Display| PlaceError::Away(format!("{}: {why}", self.file.display()));
        match std::fs::read(&self.file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| away(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(MysqlClusterStatus::default()),
            Err(error) => Err(away(&error)),
        }
    }

    fn member(&mut self, name: &MemberName) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.name == *name)
    }
}

impl Place for Listed {
    async fn read(&mut self, _: &[MemberName]) -> Result<Site, PlaceError> {
        let record = status::record(&self.status()?);
        let mut wishes = self.wishes.clone();
        if let Ok(asked) = std::fs::read_to_string(&self.asked) {
            let target = Some(asked.trim()).filter(|name| !name.is_empty()).map(MemberName::from);
            let done = target.is_some() && record.primary == target && record.target == target;
            if done {
                drop(std::fs::remove_file(&self.asked));
            } else {
                wishes.switchover = Some(super::snapshot::Switchover { target });
            }
        }
        Ok(Site { wishes, record, members: self.members.clone(), renewed_certificates: false })
    }

    async fn write(&mut self, record: &Record) -> Result<(), PlaceError> {
        let mut text = self.status()?;
        if text.term > record.term.0 {
            return Err(PlaceError::Overtaken);
        }
        status::write_record(&mut text, record);
        let new = self.file.with_extension("new");
        let away = |error: std::io::Error| PlaceError::Away(format!("{}: {error}", new.display()));
        let bytes = serde_json::to_vec(&text).map_err(|error| PlaceError::Away(error.to_string()))?;
        // In one step and on the disk: what a failover is decided by must survive this process and this host.
        let mut file = std::fs::File::create(&new).map_err(away)?;
        std::io::Write::write_all(&mut file, &bytes).and_then(|()| file.sync_all()).map_err(away)?;
        std::fs::rename(&new, &self.file).map_err(away)
    }

    async fn label(&mut self, member: &MemberName, role: Option<Role>) -> Result<(), PlaceError> {
        if let Some(member) = self.member(member) {
            member.label = role;
        }
        Ok(())
    }

    async fn announce(&mut self, member: &MemberName, term: Term) -> Result<(), PlaceError> {
        if let Some(member) = self.member(member) {
            member.term = Some(term);
        }
        Ok(())
    }

    async fn changed(&mut self) {
        if let Some(suspicion) = &mut self.suspicion
            && suspicion.changed().await.is_ok()
        {
            let name = self.file.file_stem().unwrap_or_default();
            return metrics::nudged_look(&name.to_string_lossy());
        }
        std::future::pending().await
    }
}
