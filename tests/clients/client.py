"""Three of the clients of tests/clients.rs: PyMySQL, mysql-connector-python and mysqlclient.

    client.py LIBRARY HOST PORT USER PASSWORD off|on FILE      LIBRARY: pymysql, connector, mysqlclient

FILE is in the format that scenarios.txt describes. Prints every value as Python sees it, column descriptions, counts and
errors. HOLDFAST_SYNC names a port: connecting there and reading to the end waits until the followers have everything.
"""
import hashlib
import os
import select
import socket
import sys
import threading
import warnings

ROWS_SHOWN, VALUE_SHOWN = 30, 150


class Unsupported(Exception):
    """The library's interface has no such operation."""


class Failed(Exception):
    """What the library reported: one line."""


def pattern(size):
    rows = bytes(97 + i % 26 for i in range(26 * 40))
    return (rows * (size // len(rows) + 1))[:size]


def parameters(text):
    kinds = {"i": int, "u": int, "f": float, "s": str, "b": bytes.fromhex, "n": lambda v: pattern(int(v))}
    split = [p.partition(":") for p in text.split(" | ")] if text else []
    return [kinds[k](v) if colon else None for k, colon, v in split]


def show(value):
    text = ascii(value)
    if len(text) <= VALUE_SHOWN:
        return text
    raw = value if isinstance(value, (bytes, bytearray)) else str(value).encode()
    return f"<{type(value).__name__} {len(raw)} bytes, md5 {hashlib.md5(raw).hexdigest()}>"


def show_error(error):
    # one event, a connection that was closed, has many names: by who noticed first, and whether TLS said goodbye
    if error.args[:1] in ((2006,), (2013,), (2026,), (2055,), (0,)) or getattr(error, "errno", 0) in (2006, 2013, 2055) or isinstance(error, OSError) or "MySQL Connection not available" in str(error):
        return "connection lost"
    args = ", ".join(ascii(a) for a in getattr(error, "args", ()))
    state = getattr(error, "sqlstate", None)
    return f"error {type(error).__name__}({args[:600]})" + (f" sqlstate={state}" if state else "")


def print_rows(description, rows):
    for column in (description or [])[:30]:
        print("  column", *[ascii(part) for part in column])
    count, digest = 0, hashlib.md5()
    for row in rows:
        if count < ROWS_SHOWN:
            print("  row", *[show(v) for v in row])
        else:
            digest.update(repr(row).encode())
        count += 1
    print(f"  rows {count} md5 {digest.hexdigest()}")


class Connection:
    """One connection; a subclass per library says how each operation is asked for."""

    flags = ("multi", "found", "infile", "track", "noschema")

    def __init__(self, options, where):
        self.statements = {}
        self.thread = None
        o = {"user": where["user"], "pw": where["password"], "db": "suite"}
        for word in options.split():
            key, equals, value = word.partition("=")
            if not equals and key not in self.flags:
                raise Unsupported(key)
            o[key] = value if equals else True
        if o.get("noschema"):
            o["db"] = None
        self.open(o, where)

    def q(self, sql):
        cursor = self.c.cursor()
        try:
            cursor.execute(sql)
            while True:
                if cursor.description is not None:
                    print_rows(cursor.description, cursor.fetchall())
                else:
                    print(f"  ok affected={cursor.rowcount} id={cursor.lastrowid} {self.extra(cursor)}")
                if not cursor.nextset():
                    break
        finally:
            cursor.close()

    def x(self, rest):
        raise Unsupported("prepared statements")

    prep = run = long = cursor = rst = drop = attr = x

    def use(self, name):
        raise Unsupported("use")

    reset = change = stat = debug = fields = setopt = use

    def send(self, sql):
        """The statement runs on a thread; recv prints what it printed."""
        out = []

        def work():
            try:
                cursor = self.c.cursor()
                cursor.execute(sql)
                out.append(f"  {cursor.fetchall() if cursor.description else cursor.rowcount}")
                cursor.close()
            except Exception as e:
                out.append("  " + show_error(e))

        self.sent = out
        self.thread = threading.Thread(target=work)
        self.thread.start()

    def recv(self, _):
        self.thread.join()
        print(*self.sent, sep="\n")

    def killq(self, other):
        # a kill that comes before its statement hits nothing, so it is repeated until the answer is there
        for _ in range(400):
            other.thread.join(0.05)
            if not other.thread.is_alive():
                return
            self.c.cursor().execute(f"KILL QUERY {other.id()}")

    def kill(self, other):
        self.c.cursor().execute(f"KILL {other.id()}")

    def extra(self, cursor):
        return ""

    def close(self, _=None):
        self.c.close()


class PyMySql(Connection):
    def open(self, o, where):
        import pymysql
        from pymysql.constants import CLIENT
        self.errors = pymysql.err.Error
        flags = (CLIENT.MULTI_STATEMENTS if o.get("multi") else 0) | (CLIENT.FOUND_ROWS if o.get("found") else 0)
        self.c = pymysql.connect(host=where["host"], port=where["port"], user=o["user"], password=o["pw"], database=o["db"],
                                 charset="utf8mb4", client_flag=flags, local_infile=bool(o.get("infile")), autocommit=None,
                                 ssl={"check_hostname": False} if where["tls"] else None, ssl_disabled=not where["tls"],
                                 max_allowed_packet=1 << 30)
        print(f"  connected version={self.c.get_server_info()} protocol={self.c.get_proto_info()}")

    def q(self, sql):
        cursor = self.c.cursor()
        try:
            cursor.execute(sql)
            while True:
                r = cursor._result
                if r.description is not None:
                    for f in r.fields[:30]:
                        print("  field", f.catalog, f.db, f.table_name, f.org_table, f.name, f.org_name, f.charsetnr, f.length,
                              f.type_code, f.flags, f.scale)
                    print_rows(None, cursor.fetchall())
                    print(f"  status={r.server_status} warnings={r.warning_count}")
                else:
                    print(f"  ok affected={r.affected_rows} id={r.insert_id} status={r.server_status} "
                          f"warnings={r.warning_count} info={r.message}")
                if not cursor.nextset():
                    break
        finally:
            cursor.close()

    def id(self):
        return self.c.thread_id()

    def ping(self, _):
        self.c.ping(reconnect=False)

    def use(self, name):
        self.c.select_db(name)


class MySqlClient(Connection):
    flags = Connection.flags + ("zlib",)

    def open(self, o, where):
        import MySQLdb
        from MySQLdb.constants import CLIENT
        self.errors = MySQLdb.Error
        flags = (CLIENT.MULTI_STATEMENTS if o.get("multi") else 0) | (CLIENT.FOUND_ROWS if o.get("found") else 0)
        schema = {"database": o["db"]} if o["db"] else {}
        self.c = MySQLdb.connect(host=where["host"], port=where["port"], user=o["user"], password=o["pw"], charset="utf8mb4",
                                 client_flag=flags, local_infile=int(bool(o.get("infile"))), compress=bool(o.get("zlib")),
                                 ssl_mode="REQUIRED" if where["tls"] else "DISABLED", autocommit=None,
                                 multi_statements=bool(o.get("multi")), **schema)
        print(f"  connected version={self.c.get_server_info()} protocol={self.c.get_proto_info()}")

    def extra(self, cursor):
        return f"info={self.c.info()} warnings={self.c.warning_count()}"

    def id(self):
        return self.c.thread_id()

    def ping(self, _):
        self.c.ping()

    def use(self, name):
        self.c.select_db(name)

    def change(self, rest):
        self.c.change_user(*(rest.split(" ") + [""])[:3])

    def debug(self, _):
        self.c.dump_debug_info()

    def stat(self, _):
        print("  " + "".join(c for c in self.c.stat() if c not in "0123456789."))

    def setopt(self, rest):
        self.c.set_server_option(0 if rest == "on" else 1)

    def send(self, sql):
        # the library's own two halves of a query
        self.c.send_query(sql.encode())

    def recv(self, _):
        self.c.read_query_result()
        result = self.c.store_result()
        print("  " + (str(result.fetch_row(maxrows=0)) if result else f"affected={self.c.affected_rows()}"))

    def killq(self, other):
        for _ in range(400):
            if select.select([other.c.fileno()], [], [], 0.05)[0]:
                return
            self.c.cursor().execute(f"KILL QUERY {other.id()}")

    def kill(self, other):
        self.c.kill(other.id())


class Connector(Connection):
    flags = Connection.flags + ("zlib",)

    def open(self, o, where):
        import mysql.connector
        from mysql.connector.constants import ClientFlag
        self.errors = mysql.connector.Error
        flags = [ClientFlag.FOUND_ROWS if o.get("found") else -ClientFlag.FOUND_ROWS]
        flags += [ClientFlag.MULTI_STATEMENTS if o.get("multi") else -ClientFlag.MULTI_STATEMENTS]
        self.c = mysql.connector.connect(host=where["host"], port=where["port"], user=o["user"], password=o["pw"], database=o["db"],
                                         charset="utf8mb4", collation="utf8mb4_general_ci", client_flags=flags, use_pure=True,
                                         allow_local_infile=bool(o.get("infile")), compress=bool(o.get("zlib")),
                                         ssl_disabled=not where["tls"], raw=False, get_warnings=True, autocommit=True)
        print(f"  connected version={self.c.server_info}")

    def extra(self, cursor):
        return f"warnings={cursor.warning_count} {cursor.warnings}"

    def id(self):
        return self.c.connection_id

    def ping(self, _):
        self.c.cmd_ping()

    def use(self, name):
        self.c.cmd_init_db(name)

    def reset(self, _):
        self.c.cmd_reset_connection()

    def change(self, rest):
        self.c.cmd_change_user(*(rest.split(" ") + [""])[:3])

    def stat(self, _):
        print("  " + ascii(sorted(self.c.cmd_statistics())))

    def debug(self, _):
        self.c.cmd_debug()

    def attr(self, rest):
        tag, sql = rest.split(" ", 1)
        cursor = self.c.cursor()
        cursor.add_attribute(*tag.split("="))
        cursor.execute(sql)
        print_rows(cursor.description, cursor.fetchall())

    def one(self, cursor, sql, values):
        cursor.execute(sql, values)
        if cursor.description is not None:
            print_rows(cursor.description, cursor.fetchall())
        else:
            print(f"  ok affected={cursor.rowcount} id={cursor.lastrowid} {self.extra(cursor)}")

    def x(self, rest):
        sql, _, values = rest.partition(" <- ")
        cursor = self.c.cursor(prepared=True)
        try:
            self.one(cursor, sql, parameters(values))
        finally:
            cursor.close()

    def prep(self, rest):
        # this library prepares with the first execution
        name, sql = rest.split(" ", 1)
        self.statements[name] = (self.c.cursor(prepared=True), sql)

    def run(self, rest):
        head, _, values = rest.partition(" <- ")
        cursor, sql = self.statements[head]
        self.one(cursor, sql, parameters(values))

    def drop(self, name):
        self.statements.pop(name)[0].close()


LIBRARIES = {"pymysql": PyMySql, "connector": Connector, "mysqlclient": MySqlClient}


def wait_for_followers():
    port = os.environ.get("HOLDFAST_SYNC")
    if port:
        with socket.create_connection(("127.0.0.1", int(port))) as s:
            while s.recv(64):
                pass


def expand(rest, connections):
    while "${" in rest:
        head, _, tail = rest.partition("${")
        what, _, tail = tail.partition("}")
        if what.startswith("id:"):
            known = connections.get(what[3:])
            rest = head + str(known.id() if known else 0) + tail
        elif what.startswith("n:"):
            rest = head + pattern(int(what[2:])).decode() + tail
        else:
            rest = head + os.environ["HOLDFAST_FILE"] + tail
    return rest


def step(name, op, rest, connections, library, where):
    if op == "connect":
        connections.pop(name, None)
        connections[name] = library(rest, where)
        return
    connection = connections.get(name)
    if connection is None:
        print("  not connected")
    elif op in ("killq", "kill"):
        getattr(connection, op)(connections[rest])
    else:
        getattr(connection, op)(expand(rest, connections))


def main():
    library = LIBRARIES[sys.argv[1]]
    where = dict(host=sys.argv[2], port=int(sys.argv[3]), user=sys.argv[4], password=sys.argv[5], tls=sys.argv[6] == "on")
    connections = {}
    fresh = False
    for line in open(sys.argv[7], encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith("== "):
            for connection in connections.values():
                try:
                    connection.close()
                except Exception:
                    pass  # killed in its scenario
            connections = {}
            print(line)
            fresh = True
            continue
        if not (line[:1].isalpha() and line[1:3] == ": "):
            continue
        steps = [line] if not fresh or line.startswith("a: connect") else ["a: connect", line]
        fresh = False
        for text in steps:
            wait_for_followers()
            print(text)
            name, _, rest = text.partition(": ")
            op, _, rest = rest.partition(" ")
            try:
                step(name, op, rest, connections, library, where)
            except Unsupported:
                print("  unsupported")
            except Exception as e:
                print("  " + show_error(e))
            sys.stdout.flush()


warnings.simplefilter("ignore")  # the libraries' own, of statements that are meant to warn
main()
