// One of the clients of tests/clients.rs: node's mysql2.
//
//   node client.js HOST PORT USER PASSWORD off|on FILE      FILE is in the format that scenarios.txt describes
//
// Prints every value as JavaScript sees it, column definitions, counts and errors. HOLDFAST_SYNC names a port: connecting
// there and reading to the end waits until the followers have everything. NODE_PATH leads to mysql2.
'use strict';
const mysql = require('mysql2/promise');
const crypto = require('crypto');
const fs = require('fs');
const net = require('net');

const ROWS_SHOWN = 30;
const VALUE_SHOWN = 150;
const [host, port, user, password, tls, file] = process.argv.slice(2);
const conns = new Map();
const print = (text) => fs.writeSync(1, text + '\n');
class Unsupported extends Error {}

function pattern(size) {
  const b = Buffer.alloc(size);
  for (let i = 0; i < size; i++) b[i] = 97 + (i * 7 + Math.floor(i / 1000)) % 26;
  return b;
}

function parameters(text) {
  if (!text) return [];
  return text.split(' | ').map((p) => {
    const colon = p.indexOf(':');
    if (colon < 0) return null;
    const v = p.slice(colon + 1);
    switch (p[0]) {
      case 'i': return Number.isSafeInteger(Number(v)) ? Number(v) : BigInt(v);
      case 'u': return Number.isSafeInteger(Number(v)) ? Number(v) : BigInt(v);
      case 'f': return Number(v);
      case 'b': return Buffer.from(v, 'hex');
      case 'n': return pattern(Number(v));
      default: return v;
    }
  });
}

function show(v) {
  if (v === null) return 'NULL';
  const text = Buffer.isBuffer(v) ? 'x' + v.toString('hex') : `${typeof v} ${typeof v === 'bigint' ? v : JSON.stringify(v)}`;
  if (text.length <= VALUE_SHOWN) return text;
  return `<${text.length} characters, md5 ${crypto.createHash('md5').update(text).digest('hex')}>`;
}

function showError(e) {
  // one event, a connection that was closed, has many names: by who noticed first
  if (!e.errno || e.errno < 0 || e.fatal === true && !e.sqlState) return '  connection lost';
  return `  error ${e.errno} ${e.sqlState} ${e.code} ${JSON.stringify(String(e.sqlMessage || e.message).replace(/handler \(\d+\)/, 'handler (ID)').slice(0, 500))} fatal=${e.fatal}`;
}

// Variables are a set to the server: it sends them in the order of its hash.
function showTracked(t) {
  if (!t || !t.systemVariables) return JSON.stringify(t);
  return JSON.stringify({ ...t, systemVariables: Object.entries(t.systemVariables).sort() });
}

function showHeader(h) {
  return `  ok affected=${h.affectedRows} id=${h.insertId} status=${h.serverStatus} warnings=${h.warningStatus} ` +
    `changed=${h.changedRows} info=${h.info} tracked=${showTracked(h.stateChanges)}`;
}

function showRows(rows, fields) {
  for (const f of fields.slice(0, 30)) {
    print(`  column ${f.name} ${f.orgName} ${f.table} ${f.orgTable} ${f.schema} charset=${f.characterSet} length=${f.columnLength} ` +
      `type=${f.columnType} flags=${f.flags} decimals=${f.decimals}`);
  }
  const digest = crypto.createHash('md5');
  rows.forEach((row, i) => {
    const text = row.map(show).join(' ');
    if (i < ROWS_SHOWN) print(`  row ${text}`); else digest.update(text);
  });
  print(`  rows ${rows.length} md5 ${digest.digest('hex')}`);
}

// A result is rows and fields, a header, or for several results an array of either.
function results(answer, fields) {
  const several = Array.isArray(fields) && (fields.length === 0 ? false : fields.some((f) => f === undefined || f === null || Array.isArray(f)));
  if (!Array.isArray(answer)) { print(showHeader(answer)); return; }
  if (!several) { showRows(answer, fields); return; }
  answer.forEach((part, i) => (fields[i] ? showRows(part, fields[i]) : print(showHeader(part))));
}

async function dial(name, options) {
  const o = {
    host, port: Number(port), user, password, database: 'suite', charset: 'utf8mb4_general_ci', rowsAsArray: true,
    supportBigNumbers: true, bigNumberStrings: true, dateStrings: true, jsonStrings: true,
    ssl: tls === 'on' ? { rejectUnauthorized: false } : undefined, flags: ['-FOUND_ROWS'],
  };
  let infile = false;
  for (const option of options.split(' ').filter(Boolean)) {
    const [key, value] = option.split('=');
    if (key === 'user') o.user = value;
    else if (key === 'pw') o.password = value;
    else if (key === 'db') o.database = value;
    else if (key === 'multi') o.multipleStatements = true;
    else if (key === 'found') o.flags = ['FOUND_ROWS'];
    else if (key === 'zlib') o.compress = true;
    else if (key === 'infile') infile = true;
    else if (key === 'noschema') delete o.database;
    else if (key === 'track') o.flags.push('SESSION_TRACK');
    else throw new Unsupported();
  }
  conns.delete(name);
  const c = await mysql.createConnection(o);
  c.on('error', () => {}); // a killed connection says so in its next step
  conns.set(name, { c, infile, statements: new Map(), sent: null, done: false });
  const h = c.connection._handshakePacket || {};
  print(`  connected version=${h.serverVersion} charset=${h.characterSet} status=${h.statusFlags}`);
}

function query(k, sql) {
  if (!k.infile) return k.c.query(sql);
  return k.c.query({ sql, infileStreamFactory: (path) => fs.createReadStream(path) });
}

// A kill that comes before its statement hits nothing, so it is repeated until the answer is there.
async function killQuery(k, other) {
  for (let i = 0; i < 400; i++) {
    await Promise.race([other.sent, new Promise((r) => setTimeout(r, 50))]);
    if (other.done) return;
    await k.c.query(`KILL QUERY ${other.c.threadId}`);
  }
}

function expand(text) {
  return text.replace(/\$\{(\w+)(?::(\w+))?\}/g, (_, what, arg) => {
    if (what === 'id') return conns.has(arg) ? conns.get(arg).c.threadId : 0;
    return what === 'n' ? pattern(Number(arg)).toString('latin1') : process.env.HOLDFAST_FILE;
  });
}

async function statement(k, op, rest) {
  const [head, values] = rest.split(' <- ');
  if (op === 'x') {
    const s = await k.c.prepare(head);
    try { results(...await s.execute(parameters(values))); } finally { s.close(); }
    return;
  }
  if (op === 'prep') {
    const name = head.split(' ', 1)[0];
    k.statements.set(name, await k.c.prepare(head.slice(name.length + 1)));
    print('  prepared');
    return;
  }
  const s = k.statements.get(head);
  if (!s) print('  no such statement');
  else if (op === 'drop') { s.close(); k.statements.delete(head); }
  else results(...await s.execute(parameters(values)));
}

async function step(name, op, rest) {
  if (op === 'connect') return dial(name, rest);
  const k = conns.get(name);
  if (!k) { print('  not connected'); return undefined; }
  switch (op) {
    case 'q': return results(...await query(k, expand(rest)));
    case 'x': case 'prep': case 'run': case 'drop': return statement(k, op, expand(rest));
    case 'ping': return k.c.ping();
    case 'reset': if (k.c.reset) { await k.c.reset(); return undefined; } throw new Unsupported();
    case 'change': {
      const [u, p, d] = rest.split(' ');
      return k.c.changeUser({ user: u, password: p, database: d });
    }
    case 'send': {
      const settle = (lines) => { k.done = true; k.lines = lines; };
      k.done = false;
      k.sent = k.c.query(expand(rest)).then(([r]) => settle(`  ${JSON.stringify(r)}`), (e) => settle(showError(e)));
      return undefined;
    }
    case 'recv': await k.sent; print(k.lines); return undefined;
    case 'killq': return killQuery(k, conns.get(rest));
    case 'kill': return void await k.c.query(`KILL ${conns.get(rest).c.threadId}`);
    case 'close': return k.c.end();
    default: throw new Unsupported();
  }
}

function waitForFollowers() {
  const sync = process.env.HOLDFAST_SYNC;
  if (!sync) return Promise.resolve();
  return new Promise((done, failed) => {
    const s = net.connect(Number(sync), '127.0.0.1');
    s.on('error', failed).on('close', done).resume();
  });
}

async function main() {
  let fresh = false;
  for (const line of fs.readFileSync(file, 'utf8').split('\n')) {
    if (line.startsWith('== ')) {
      for (const k of conns.values()) k.c.destroy();
      conns.clear();
      print(line);
      fresh = true;
      continue;
    }
    if (!/^[a-z]: /.test(line)) continue;
    const steps = fresh && !line.startsWith('a: connect') ? ['a: connect', line] : [line];
    fresh = false;
    for (const text of steps) {
      await waitForFollowers();
      print(text);
      const [, name, op, rest] = /^([a-z]): (\S+) ?(.*)$/.exec(text);
      try { await step(name, op, rest); } catch (e) { print(e instanceof Unsupported ? '  unsupported' : showError(e)); }
    }
  }
  for (const k of conns.values()) k.c.destroy();
}

main().then(() => process.exit(0), (e) => { console.error(e); process.exit(1); });
