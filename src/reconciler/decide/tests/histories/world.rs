//! The model: servers with real semi-sync rules, and a reconciler that does some of its steps.

use super::*;

/// One server of the model.
#[derive(Clone, Debug)]
pub(super) struct Server {
    name: char,
    /// Clones it has been through: each gives it another `server_uuid`, lest it give out numbers again that it once gave to
    /// transactions which the clone did away with.
    life: u8,
    runs: bool,
    frozen: bool,
    /// The reconciler can't reach it, the others can.
    cut: bool,
    pub(super) executed: GtidSet,
    relayed: GtidSet,
    /// Began here and waits for acknowledgements: in the binary log, not yet executed.
    pending: GtidSet,
    own: u64,
    pub(super) read_only: bool,
    semisync: bool,
    acks: u32,
    /// Its data are gone, and come from that one.
    cloning: Option<usize>,
    source: Option<usize>,
    receives: bool,
    label: Option<Role>,
    term: Option<Term>,
}

impl Server {
    fn uuid(&self) -> Uuid {
        let mut bytes = uuid(self.name).0;
        bytes[0] = self.life;
        Uuid(bytes)
    }

    fn awake(&self) -> bool {
        self.runs && !self.frozen
    }

    fn binlog(&self) -> GtidSet {
        self.executed.union(&self.pending)
    }
}

pub(super) struct World {
    pub(super) servers: Vec<Server>,
    pub(super) record: Record,
    pub(super) switchover: Option<Switchover>,
    pub(super) acknowledged: GtidSet,
    /// The one that was opened last, and every one before it.
    opened: Option<usize>,
    /// Looks since the primary began to change.
    looks: u64,
}

impl World {
    pub(super) fn new(n: usize) -> Self {
        let server = |i: usize| Server {
            name: (b'a' + i as u8) as char,
            life: 0,
            runs: true,
            frozen: false,
            cut: false,
            executed: GtidSet::default(),
            relayed: GtidSet::default(),
            pending: GtidSet::default(),
            own: 0,
            read_only: true,
            semisync: false,
            acks: 1,
            cloning: None,
            source: None,
            receives: false,
            label: None,
            term: None,
        };
        let (record, acknowledged) = (Record::default(), GtidSet::default());
        Self { servers: (0..n).map(server).collect(), record, switchover: None, acknowledged, opened: None, looks: 0 }
    }

    fn index(&self, name: &MemberName) -> usize {
        self.servers.iter().position(|server| named(server.name) == *name).unwrap()
    }

    pub(super) fn happen(&mut self, event: &Event) {
        let n = self.servers.len();
        let of = |i: &usize| i % n;
        match event {
            Event::Write(i) => self.write(of(i)),
            Event::Receive(i) => self.receive(of(i)),
            Event::Apply(i) => self.apply(of(i)),
            Event::Kill(i) => self.kill(of(i)),
            Event::Restart(i) => self.restart(of(i)),
            Event::Freeze(i) => self.servers[of(i)].frozen = true,
            Event::Thaw(i) => self.servers[of(i)].frozen = false,
            Event::Cut(i) => self.servers[of(i)].cut = true,
            Event::Join(i) => self.servers[of(i)].cut = false,
            Event::Reconcile(steps) => drop(self.reconcile(*steps)),
            Event::Switch(i) => self.switchover = Some(Switchover { target: Some(named(self.servers[of(i)].name)) }),
        }
    }

    fn write(&mut self, i: usize) {
        let server = &mut self.servers[i];
        if !server.awake() || server.read_only {
            return;
        }
        server.own += 1;
        let gtid: GtidSet = format!("{}:{}", server.uuid(), server.own).parse().unwrap();
        if server.semisync {
            server.pending = server.pending.union(&gtid);
        } else {
            server.executed = server.executed.union(&gtid);
            self.acknowledge(i, &gtid);
        }
    }

    fn receive(&mut self, i: usize) {
        let Some(source) = self.servers[i].source.filter(|_| self.servers[i].receives && self.servers[i].awake())
        else {
            return;
        };
        if self.servers[source].awake() {
            let all = self.servers[source].binlog();
            // What a server began itself it never takes back.
            let own = self.servers[i].uuid();
            self.servers[i].relayed = self.servers[i].relayed.union(&all.without(own));
            self.settle_waits(source);
        }
    }

    /// Commits of `source` that enough replicas have are executed and acknowledged.
    fn settle_waits(&mut self, source: usize) {
        let waiting = self.servers[source].pending.clone();
        let has = |s: &Server| s.source == Some(source) && s.receives && s.awake() && s.relayed.contains(&waiting);
        let count = self.servers.iter().filter(|s| has(s)).count();
        if !waiting.is_empty() && count >= self.servers[source].acks as usize {
            let server = &mut self.servers[source];
            server.executed = server.executed.union(&waiting);
            server.pending = GtidSet::default();
            self.acknowledge(source, &waiting);
        }
    }

    fn acknowledge(&mut self, i: usize, gtids: &GtidSet) {
        assert_eq!(self.opened, Some(i), "{} acknowledges after another was opened", self.servers[i].name);
        self.acknowledged = self.acknowledged.union(gtids);
    }

    fn apply(&mut self, i: usize) {
        if let Some(donor) =
            self.servers[i].cloning.filter(|donor| self.servers[i].awake() && self.servers[*donor].awake())
        {
            (self.servers[i].executed, self.servers[i].cloning) = (self.servers[donor].executed.clone(), None);
        }
        let server = &mut self.servers[i];
        if server.awake() && server.source.is_some() {
            server.executed = server.executed.union(&server.relayed);
        }
    }

    fn kill(&mut self, i: usize) {
        let server = &mut self.servers[i];
        // A clone that broke off leaves nothing behind.
        (server.runs, server.frozen, server.cloning) = (false, false, None);
    }

    /// Crash recovery: what is in the binary log is committed; read-only, receiving nothing.
    fn restart(&mut self, i: usize) {
        let server = &mut self.servers[i];
        if server.runs {
            return;
        }
        server.executed = server.binlog();
        server.pending = GtidSet::default();
        (server.runs, server.read_only, server.semisync, server.receives) = (true, true, false, false);
    }

    fn snapshot(&mut self) -> Snapshot {
        let members: Vec<Member> = (0..self.servers.len()).map(|i| self.look(i)).collect();
        let wishes = Wishes {
            topology: TopologyKind::Semisync,
            durability: Durability::Strict,
            auto_reclone: true,
            failover_delay_ms: 0,
            switchover: self.switchover.clone(),
            force: false,
            reclone: None,
            max_lag_ms: 0,
        };
        let mut s = Snapshot { wishes, record: self.record.clone(), members, lost_ms: 1, change_ms: 0 };
        self.looks = if s.is_changing() { self.looks + 1 } else { 0 };
        s.change_ms = self.looks * 1000;
        self.record.known = learn(&s);
        s.record.known = self.record.known.clone();
        s
    }

    fn look(&self, i: usize) -> Member {
        let server = &self.servers[i];
        let silent = Failure { kind: FailureKind::Silent, text: "silent".into() };
        let sight = if server.awake() && !server.cut { Ok(self.answer(i)) } else { Err(silent) };
        let busy = server.cloning.is_some();
        Member { label: server.label, term: server.term, busy, ..member(server.name, sight) }
    }

    fn answer(&self, i: usize) -> Answer {
        let server = &self.servers[i];
        let channel = server.source.map(|source| {
            let receiver = match (server.receives, self.servers[source].awake()) {
                (false, _) => Receiver::Off,
                (true, true) => Receiver::On,
                (true, false) => Receiver::Connecting,
            };
            let from = &self.servers[source];
            Channel {
                source_uuid: Some(from.uuid()),
                source: Some(address(from.name)),
                receiver,
                received: server.relayed.clone(),
                silent: false,
                applying: true,
                error: None,
            }
        });
        let clients = self.servers.iter().filter(|s| s.source == Some(i) && s.receives && s.awake()).count() as u32;
        let semisync = Semisync {
            source: server.semisync,
            acks: server.acks,
            timeout_ms: FOR_EVER_MS,
            replica: server.source.is_some(),
            clients,
            waiting: u32::from(!server.pending.is_empty()),
        };
        let (read_only, super_read_only) = (server.read_only, server.read_only);
        let executed = server.executed.clone();
        let uuid = server.uuid();
        Answer { uuid, channel, semisync, read_only, super_read_only, executed, ..primary(server.name, "") }
    }

    /// Looks, decides, and does at most `steps`. The plan.
    pub(super) fn reconcile(&mut self, steps: usize) -> Plan {
        let s = self.snapshot();
        let plan = decide(&s);
        for step in plan.steps.iter().take(steps) {
            if !self.act(&step.action) && !step.action.is_alone() {
                break;
            }
        }
        plan
    }

    /// Does one step as the real one would; false if it can't be done now.
    fn act(&mut self, action: &Action) -> bool {
        let i = action.member().map(|name| self.index(name));
        let reach = |world: &Self, i: usize| world.servers[i].awake() && !world.servers[i].cut;
        match action {
            Action::Claim { member, term } => {
                assert!(*term > self.record.term, "terms only grow");
                (self.record.target, self.record.term) = (Some(member.clone()), *term);
            }
            Action::Settle { member } => self.record.primary = Some(member.clone()),
            Action::RecordAcks { acks } => self.record.acks = Some(*acks),
            Action::Announce { term, .. } => self.servers[i.unwrap()].term = Some(*term),
            Action::Label { role, .. } => self.servers[i.unwrap()].label = Some(*role),
            Action::Unlabel { .. } => self.servers[i.unwrap()].label = None,
            _ if !reach(self, i.unwrap()) => return false,
            Action::Fence { how, .. } => return self.fence(i.unwrap(), *how),
            Action::StopReceiver { .. } => self.servers[i.unwrap()].receives = false,
            Action::CatchUp { source, .. } => {
                let source = self.index(source);
                let i = i.unwrap();
                if !reach(self, source) || !self.servers[source].read_only {
                    return false;
                }
                self.receive(i);
                self.apply(i);
                return self.servers[i].executed.contains(&self.servers[source].executed);
            }
            Action::Promote { acks, .. } => self.promote(i.unwrap(), *acks),
            Action::Acks { acks, .. } => {
                (self.servers[i.unwrap()].acks, self.servers[i.unwrap()].semisync) = (*acks, *acks > 0)
            }
            Action::Follow { source, .. } => {
                let source = self.index(source);
                if !reach(self, source) {
                    return false;
                }
                let theirs = self.servers[source].binlog();
                let server = &mut self.servers[i.unwrap()];
                if server.source != Some(source) {
                    // A new source: the relay log goes, after what the source has, too, was applied.
                    let shared = server.relayed.subtract(&server.relayed.subtract(&theirs));
                    server.executed = server.executed.union(&shared);
                    server.relayed = GtidSet::default();
                }
                (server.source, server.receives, server.read_only, server.semisync) = (Some(source), true, true, false);
            }
            Action::Clone { donor, .. } => {
                let donor = self.index(donor);
                if !reach(self, donor) {
                    return false;
                }
                let server = &mut self.servers[i.unwrap()];
                assert!(server.read_only, "nobody clones over a primary");
                (server.executed, server.relayed, server.source) = Default::default();
                (server.receives, server.pending, server.cloning) = (false, GtidSet::default(), Some(donor));
                (server.life, server.own) = (server.life + 1, 0);
            }
            Action::Bootstrap { .. }
            | Action::Join { .. }
            | Action::Leave { .. }
            | Action::Elect { .. }
            | Action::ForceMembers { .. } => panic!("{action} is for groups"),
        }
        true
    }

    fn fence(&mut self, i: usize, how: Fencing) -> bool {
        if how == Fencing::Planned && !self.servers[i].pending.is_empty() {
            // It hangs behind the commits that wait.
            return false;
        }
        let server = &mut self.servers[i];
        // Their clients are cut off before they are let go: executed, and acknowledged to nobody.
        server.executed = server.binlog();
        server.pending = GtidSet::default();
        (server.read_only, server.semisync) = (true, server.semisync && how == Fencing::Planned);
        true
    }

    fn promote(&mut self, i: usize, acks: u32) {
        self.apply(i);
        let server = &mut self.servers[i];
        let missing = self.acknowledged.subtract(&server.executed);
        assert!(missing.is_empty(), "{} is opened and lacks {missing}", server.name);
        (server.source, server.receives, server.relayed) = (None, false, GtidSet::default());
        (server.read_only, server.semisync, server.acks) = (false, acks > 0, acks.max(1));
        self.opened = Some(i);
    }
}
