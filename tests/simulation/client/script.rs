//! What each kind of client does, and how it holds the answers against what it knows.

use super::{Client, Fate, Got};
use crate::simulation::packets;
use crate::simulation::shell::Request;
use bytes::Bytes;
use holdfast::classify::classify;
use holdfast::session::{Remote, Slot, Statement};
use holdfast::types::{Consistency, StatementId};
use holdfast::wire::command::Answer;

impl Client {
    pub(super) async fn write(&mut self) {
        let n = self.number();
        let got = self.query(&format!("INSERT INTO t VALUES ({}, {n})", self.me)).await;
        let fate = self.fate_of(&got);
        self.note(&[n], fate);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// Reads its own rows; `fresh`: after a write of the same session.
    pub(super) async fn read(&mut self, fresh: bool) {
        let got = self.query(&format!("SELECT n FROM t WHERE c = {}", self.me)).await;
        let session = self.w.setup().consistency == Consistency::Session;
        self.judge_rows(&got, fresh && session, &[]);
    }

    /// Holds rows against what the client knows. `open`: those of its open transaction.
    fn judge_rows(&mut self, got: &Got, complete: bool, open: &[u64]) {
        let rows = match got {
            Got::Rows(rows) => rows,
            Got::Err { code: 1159, behind: false, .. } => return self.fail("1159 and no piece of a result".to_owned()),
            Got::Err { .. } | Got::Cut => return,
            Got::Ok => return self.fail("a SELECT answers OK".to_owned()),
        };
        let read = rows.iter().map(|row| row.as_deref()?.split_once(':')?.0.parse().ok());
        let Some(read) = read.collect::<Option<Vec<u64>>>() else { return self.fail(format!("strange rows {rows:?}")) };
        let mut once = read.clone();
        once.sort_unstable();
        once.dedup();
        if once.len() != read.len() {
            self.fail(format!("rows twice: {read:?}"));
        }
        for n in &read {
            let known = self.mine.iter().find(|(m, _)| m == n).map(|(_, fate)| *fate);
            if known == Some(Fate::Absent) || (known.is_none() && !open.contains(n)) {
                self.fail(format!("row {n} was never committed, and is read: {read:?}"));
            }
        }
        let committed = self.mine.iter().filter(|(_, fate)| *fate == Fate::Committed).map(|(n, _)| n);
        let missing: Vec<&u64> = committed.chain(open).filter(|n| !read.contains(n)).collect();
        if complete && !missing.is_empty() {
            self.fail(format!("rows {missing:?} of its own are not read: {read:?}"));
        }
    }

    pub(super) async fn transaction(&mut self) {
        let (mut open, mut ended) = (Vec::new(), None);
        let reads = self.rng.percent(50);
        let counts = self.rng.percent(25);
        // Rows of others, by the first count of the transaction: they stay as many in its eyes.
        let mut others = None;
        let begun = self.query("BEGIN").await;
        if begun != Got::Ok {
            return;
        }
        for _ in 0..self.rng.between(1, 4) {
            let n = self.number();
            let got = self.query(&format!("INSERT INTO t VALUES ({}, {n})", self.me)).await;
            open.push(n);
            if got != Got::Ok {
                ended = Some(got);
                break;
            }
            let pause = self.rng.below(30_000);
            self.think(pause).await;
            if self.rng.percent(15) {
                // It commits what is open.
                let got = self.query("BEGIN").await;
                let fate = self.fate_of(&got);
                self.note(&open, fate);
                (open, others) = (Vec::new(), None);
                if got != Got::Ok {
                    return;
                }
            }
            let sql = match counts {
                true => "SELECT COUNT(*) FROM t".to_owned(),
                false => format!("SELECT n FROM t WHERE c = {}", self.me),
            };
            if !reads && !counts {
                continue;
            }
            let got = self.query(&sql).await;
            if !counts {
                self.judge_rows(&got, true, &open);
            } else if let Some(count) = got.number() {
                let theirs = count.checked_sub(open.len() as u64);
                if theirs.is_none() || *others.get_or_insert(theirs) != theirs {
                    self.fail(format!("the same transaction counts {others:?} rows of others, then {theirs:?}"));
                }
            }
            if !matches!(got, Got::Rows(_)) {
                ended = Some(got);
                break;
            }
        }
        let Some(got) = ended else { return self.end_transaction(&open).await };
        // Whatever ended it, COMMIT was never sent.
        match got {
            Got::Err { code: 1213, state, .. } => {
                if &state != b"40001" {
                    self.fail(format!("1213 with state {state:?}"));
                }
                self.note(&open, Fate::Absent);
            }
            Got::Cut | Got::Err { code: 1041 | 2003, .. } => self.note(&open, Fate::Absent),
            Got::Err { code: 1159, .. } => {
                // The result was cut; the transaction is lost, and the client has to end it.
                self.note(&open, Fate::Absent);
                self.query("ROLLBACK").await;
            }
            other => self.fail(format!("a transaction ends with {other:?}")),
        }
    }

    async fn end_transaction(&mut self, open: &[u64]) {
        if self.rng.percent(10) {
            let got = self.query("ROLLBACK").await;
            self.note(open, Fate::Absent);
            if !matches!(got, Got::Ok | Got::Err { code: 1213 | 1041 | 2003, .. }) {
                self.fail(format!("ROLLBACK answers {got:?}"));
            }
            return;
        }
        let got = self.query("COMMIT").await;
        let fate = self.fate_of(&got);
        self.note(open, fate);
    }

    async fn prepare(&mut self, sql: &str) -> Option<StatementId> {
        let classified = classify(sql.as_bytes(), self.shell.session.dialect());
        let request = Request {
            packet: packets::command(0x16, sql.as_bytes()).freeze(),
            answer: Answer::Prepared,
            statement: classified,
            prepared: None,
            new_id: self.shell.session.statements.next_id().0,
            only: None,
            repeatable: true,
        };
        let got = self.ask(request, sql).await;
        let kept = self.statements.iter().find(|(_, text)| text == sql).map(|(id, _)| *id);
        if got == Got::Ok { kept } else { None }
    }

    pub(super) fn keep_prepared(&mut self, sql: &str, slot: Slot, id: u32) {
        let classified = classify(sql.as_bytes(), self.shell.session.dialect());
        let epoch = self.shell.slots[slot.index()].as_ref().map_or(0, |conn| conn.epoch);
        let mut remotes = [None; 2];
        remotes[slot.index()] = Some(Remote { id, epoch, types: 0 });
        let (sql_bytes, types) = (sql.as_bytes().into(), None);
        let statement = Statement {
            sql: sql_bytes,
            classified,
            schema: None,
            state: self.shell.session.prepared_under(None),
            parameters: 0,
            types,
            long_data: None,
            cursor: None,
            remotes,
        };
        let id = self.shell.session.statements.add(statement);
        self.statements.push((id, sql.to_owned()));
    }

    async fn run_prepared(&mut self, id: StatementId, sql: &str) -> Got {
        let statement = classify(sql.as_bytes(), self.shell.session.dialect());
        let body = [&id.0.to_le_bytes()[..], &[0, 1, 0, 0, 0]].concat();
        let packet: Bytes = packets::command(0x17, &body).freeze();
        let (answer, prepared) = (Answer::Results, Some(id));
        let request = Request { packet, answer, statement, prepared, new_id: 0, only: None, repeatable: false };
        self.ask(request, sql).await
    }

    pub(super) async fn prepared(&mut self) {
        let select = format!("SELECT n FROM t WHERE c = {}", self.me);
        let known = self.statements.iter().find(|(_, text)| *text == select).map(|(id, _)| *id);
        let reader = match known {
            Some(id) => Some(id),
            None => self.prepare(&select).await,
        };
        let open = self.rng.percent(40) && self.query("BEGIN").await == Got::Ok;
        let n = self.number();
        let insert = format!("INSERT INTO t VALUES ({}, {n})", self.me);
        let Some(writer) = self.prepare(&insert).await else {
            if open {
                self.query("ROLLBACK").await;
            }
            return;
        };
        let got = self.run_prepared(writer, &insert).await;
        if !open {
            let fate = self.fate_of(&got);
            self.note(&[n], fate);
        } else if got == Got::Ok {
            if let Some(reader) = reader {
                let got = self.run_prepared(reader, &select).await;
                self.judge_rows(&got, true, &[n]);
                if !matches!(got, Got::Rows(_)) {
                    self.note(&[n], Fate::Absent);
                    self.query("ROLLBACK").await;
                    return;
                }
            }
            self.end_transaction(&[n]).await;
        } else {
            self.note(&[n], Fate::Absent);
        }
        if let Some(reader) = reader.filter(|_| !self.statements.is_empty()) {
            let got = self.run_prepared(reader, &select).await;
            self.judge_rows(&got, self.w.setup().consistency == Consistency::Session, &[]);
        }
    }

    pub(super) async fn idle(&mut self) {
        let long = self.rng.between(200_000, 1_500_000);
        self.think(long).await;
        let sql = if self.rng.percent(50) { "/* holdfast:primary */ SELECT 1" } else { "SELECT 1" };
        let got = self.query(sql).await;
        self.expect(sql, &got, "1");
    }

    /// One row with this value, or what was judged already.
    fn expect(&mut self, sql: &str, got: &Got, value: &str) {
        let right = match got {
            Got::Rows(rows) => rows.len() == 1 && rows[0].as_deref() == Some(value),
            Got::Err { code: 1159, behind, .. } => *behind,
            Got::Err { .. } | Got::Cut => true,
            Got::Ok => false,
        };
        if !right {
            self.fail(format!("{sql} answers {got:?}, not {value}"));
        }
    }

    pub(super) async fn set(&mut self) {
        if self.rng.percent(40) {
            let zone = format!("+{:02}:00", self.rng.between(1, 13));
            let got = self.query(&format!("SET time_zone = '{zone}'")).await;
            if got == Got::Ok {
                self.zone = zone;
            }
        }
        let sql = if self.rng.percent(40) { "/* holdfast:primary */ SELECT @@time_zone" } else { "SELECT @@time_zone" };
        let got = self.query(sql).await;
        let zone = self.zone.clone();
        self.expect(sql, &got, &zone);
    }

    pub(super) async fn temporary(&mut self) {
        let got = self.query("CREATE TEMPORARY TABLE tmp (x INT)").await;
        if got != Got::Ok {
            return;
        }
        let epoch = self.shell.slots[0].as_ref().map(|conn| conn.epoch);
        for _ in 0..self.rng.between(1, 8) {
            let pause = self.rng.between(1_000, 200_000);
            self.think(pause).await;
            let got = self.query("SELECT x FROM tmp").await;
            self.expect("SELECT x FROM tmp", &got, "7");
            if !matches!(got, Got::Rows(_)) || self.shell.slots[0].as_ref().map(|conn| conn.epoch) != epoch {
                break;
            }
        }
        self.reconnect();
    }

    pub(super) async fn read_only(&mut self) {
        if self.query("START TRANSACTION READ ONLY").await != Got::Ok {
            return;
        }
        for _ in 0..self.rng.between(1, 4) {
            let got = self.query("SELECT 1").await;
            self.expect("SELECT 1", &got, "1");
            if !matches!(got, Got::Rows(_)) {
                if matches!(got, Got::Err { code: 1159, .. }) {
                    self.query("ROLLBACK").await;
                }
                return;
            }
            let pause = self.rng.below(60_000);
            self.think(pause).await;
        }
        self.query("COMMIT").await;
    }

    /// autocommit=0: every statement opens a transaction; COMMIT ends it, or autocommit=1.
    pub(super) async fn manual(&mut self) {
        if self.shell.session.autocommit() && self.query("SET autocommit = 0").await != Got::Ok {
            return;
        }
        let mut open = Vec::new();
        for _ in 0..self.rng.between(1, 4) {
            let n = self.number();
            let got = self.query(&format!("INSERT INTO t VALUES ({}, {n})", self.me)).await;
            open.push(n);
            if got != Got::Ok {
                return self.note(&open, Fate::Absent);
            }
        }
        let pause = self.rng.below(30_000);
        self.think(pause).await;
        if self.rng.percent(60) {
            return self.end_transaction(&open).await;
        }
        let got = self.query("SET autocommit = 1").await;
        let fate = self.fate_of(&got);
        self.note(&open, fate);
    }

    pub(super) async fn unknown(&mut self) {
        if self.rng.percent(50) {
            let got = self.query("SELECT audit(1)").await;
            self.expect("SELECT audit(1)", &got, "1");
        } else {
            let sql = "FROBNICATE 7";
            let got = self.query(sql).await;
            if !matches!(got, Got::Err { .. } | Got::Cut) {
                self.fail(format!("{sql} answers {got:?}"));
            }
        }
    }
}
