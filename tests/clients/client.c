/* One of the clients of tests/clients.rs: libmysqlclient and MariaDB Connector/C (setup.sh builds it with each).
 *
 *   client HOST PORT USER PASSWORD off|on FILE      FILE is in the format that scenarios.txt describes
 *
 * Prints what the library was told, as bytes: every column's whole metadata, every value, counts, session tracking.
 * HOLDFAST_SYNC names a port: connecting there and reading to the end waits until the followers have everything. */
#include <arpa/inet.h>
#include <ctype.h>
#include <mysql.h>
#include <errmsg.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONNS = 26, STMTS = 16, PARAMS = 16, ROWS_SHOWN = 30, VALUE_SHOWN = 150 };
typedef struct { char name[16]; MYSQL_STMT *st; } Stmt;
typedef struct { MYSQL *m; unsigned long id; Stmt stmts[STMTS]; } Conn;
static Conn conns[CONNS];
static const char *host, *user, *password;
static int port, tls;

static unsigned crc(unsigned c, const unsigned char *p, size_t n) {
    static unsigned table[256];
    if (!table[1])
        for (unsigned i = 0; i < 256; i++) {
            unsigned v = i;
            for (int k = 0; k < 8; k++) v = v & 1 ? 0xEDB88320u ^ (v >> 1) : v >> 1;
            table[i] = v;
        }
    for (c = ~c; n--; p++) c = table[(c ^ *p) & 255] ^ (c >> 8);
    return ~c;
}

static void show(const char *p, size_t n) {
    if (!p) { printf("NULL"); return; }
    if (n > VALUE_SHOWN) { printf("<%zu bytes, crc %08x>", n, crc(0, (const unsigned char *)p, n)); return; }
    putchar('"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = p[i];
        if (c < 32 || c > 126 || c == '"' || c == '\\') printf("\\x%02x", c); else putchar(c);
    }
    putchar('"');
}

static void error(unsigned code, const char *state, const char *message) {
    /* one event, a connection that was closed, has many names: by who noticed first, and whether TLS said goodbye */
    if (code == CR_SERVER_LOST || code == CR_SERVER_GONE_ERROR || code == CR_SSL_CONNECTION_ERROR) { printf("  connection lost\n"); return; }
    printf("  error %u %s %s\n", code, state, message);
}

enum { VARIABLES = 64 };
typedef struct { const char *d[2]; size_t n[2]; } Variable;
static int by_name(const void *a, const void *b) {
    const Variable *x = a, *y = b;
    size_t n = x->n[0] < y->n[0] ? x->n[0] : y->n[0];
    int c = memcmp(x->d[0], y->d[0], n);
    return c ? c : (int)x->n[0] - (int)y->n[0];
}
/* Variables are a set to the server: it sends them in the order of its hash. */
static void tracked_variables(MYSQL *m) {
    Variable v[VARIABLES]; int k = 0; const char *d; size_t n;
    if (mysql_session_track_get_first(m, SESSION_TRACK_SYSTEM_VARIABLES, &d, &n)) return;
    do { v[k / 2].d[k % 2] = d; v[k / 2].n[k % 2] = n; k++; }
    while (k < 2 * VARIABLES && !mysql_session_track_get_next(m, SESSION_TRACK_SYSTEM_VARIABLES, &d, &n));
    qsort(v, k / 2, sizeof *v, by_name);
    for (int i = 0; i < k / 2; i++) { printf("  variable "); show(v[i].d[0], v[i].n[0]); putchar(' '); show(v[i].d[1], v[i].n[1]); putchar('\n'); }
}

static void tracked(MYSQL *m) {
    /* Connector/C keeps what an earlier statement said */
    if (!(m->server_status & SERVER_SESSION_STATE_CHANGED)) return;
    tracked_variables(m);
    for (int t = SESSION_TRACK_SYSTEM_VARIABLES + 1; t <= SESSION_TRACK_END; t++) {
        const char *d; size_t n;
        if (mysql_session_track_get_first(m, t, &d, &n)) continue;
        do { printf("  tracked %d ", t); show(d, n); putchar('\n'); } while (!mysql_session_track_get_next(m, t, &d, &n));
    }
}

static void columns(MYSQL_RES *r) {
    MYSQL_FIELD *f = mysql_fetch_fields(r);
    if (!f) { printf("  no metadata, %u columns\n", mysql_num_fields(r)); return; }
    for (unsigned i = 0; i < mysql_num_fields(r) && i < 30; i++)
        printf("  column %s %s %s %s %s charset=%u length=%lu type=%d flags=%u decimals=%u\n", f[i].name ? f[i].name : "-",
               f[i].org_name ? f[i].org_name : "-", f[i].table ? f[i].table : "-", f[i].org_table ? f[i].org_table : "-",
               f[i].db ? f[i].db : "-", f[i].charsetnr, f[i].length, f[i].type, f[i].flags, f[i].decimals);
}

typedef struct { unsigned long n; unsigned crc; } Rows;
static void begin_row(Rows *r) { if (r->n < ROWS_SHOWN) printf("  row"); }
static void value(Rows *r, const char *p, unsigned long n) {
    if (r->n < ROWS_SHOWN) { putchar(' '); show(p, n); return; }
    r->crc = crc(r->crc, (unsigned char *)&n, sizeof n);
    if (p) r->crc = crc(r->crc, (const unsigned char *)p, n); else r->crc++;
}
static void end_row(Rows *r) { if (r->n++ < ROWS_SHOWN) putchar('\n'); }
static void end_rows(Rows *r, MYSQL *m) {
    printf("  rows %lu crc %08x status=%u warnings=%u\n", r->n, r->crc, m->server_status, mysql_warning_count(m));
}

/* Everything that follows a sent query. */
static void results(MYSQL *m, int failed) {
    for (;;) {
        if (failed) { error(mysql_errno(m), mysql_sqlstate(m), mysql_error(m)); return; }
        MYSQL_RES *r = mysql_use_result(m);
        if (r) {
            columns(r);
            unsigned n = mysql_num_fields(r); MYSQL_ROW row; Rows rows = {0, 0};
            while ((row = mysql_fetch_row(r))) {
                unsigned long *len = mysql_fetch_lengths(r);
                begin_row(&rows);
                for (unsigned i = 0; i < n; i++) value(&rows, row[i], row[i] ? len[i] : 0);
                end_row(&rows);
            }
            if (mysql_errno(m)) error(mysql_errno(m), mysql_sqlstate(m), mysql_error(m));
            else end_rows(&rows, m);
            mysql_free_result(r);
        } else if (mysql_field_count(m)) {
            error(mysql_errno(m), mysql_sqlstate(m), mysql_error(m)); return;
        } else {
            const char *info = mysql_info(m);
            printf("  ok affected=%lld id=%llu status=%u warnings=%u info=%s\n", (long long)mysql_affected_rows(m),
                   (unsigned long long)mysql_insert_id(m), m->server_status, mysql_warning_count(m), info ? info : "-");
        }
        tracked(m);
        int more = mysql_next_result(m);
        if (more < 0) return;
        failed = more > 0;
    }
}

static char *pattern(size_t n) {
    char *p = malloc(n + 1);
    for (size_t i = 0; i < n; i++) p[i] = 'a' + (i * 7 + i / 1000) % 26;
    p[n] = 0;
    return p;
}

typedef struct { MYSQL_BIND bind[PARAMS]; unsigned long len[PARAMS]; bool is_null[PARAMS]; int n; } Params;
static void params(char *text, Params *p) {
    memset(p, 0, sizeof *p);
    while (text && p->n < PARAMS) {
        char *next = strstr(text, " | ");
        if (next) { *next = 0; next += 3; }
        MYSQL_BIND *b = &p->bind[p->n];
        char *v = strchr(text, ':');
        if (v) v++;
        b->buffer = malloc(v ? strlen(v) + 16 : 16);
        b->length = &p->len[p->n++];
        switch (v ? *text : 'z') {
        case 'i': b->buffer_type = MYSQL_TYPE_LONGLONG; *(long long *)b->buffer = strtoll(v, 0, 10); break;
        case 'u': b->buffer_type = MYSQL_TYPE_LONGLONG; b->is_unsigned = 1; *(unsigned long long *)b->buffer = strtoull(v, 0, 10); break;
        case 'f': b->buffer_type = MYSQL_TYPE_DOUBLE; *(double *)b->buffer = strtod(v, 0); break;
        case 's': b->buffer_type = MYSQL_TYPE_STRING; strcpy(b->buffer, v); *b->length = strlen(v); break;
        case 'b':
            b->buffer_type = MYSQL_TYPE_BLOB;
            for (size_t i = 0; i < strlen(v) / 2; i++) { unsigned x; sscanf(v + 2 * i, "%2x", &x); ((unsigned char *)b->buffer)[i] = x; }
            *b->length = strlen(v) / 2; break;
        case 'n': free(b->buffer); b->buffer_type = MYSQL_TYPE_BLOB; *b->length = strtoul(v, 0, 10); b->buffer = pattern(*b->length); break;
        default: b->buffer_type = MYSQL_TYPE_NULL;
        }
        b->buffer_length = *b->length;
        text = next;
    }
}
static void params_free(Params *p) { for (int i = 0; i < p->n; i++) free(p->bind[i].buffer); }

static int stmt_error(MYSQL_STMT *s) { error(mysql_stmt_errno(s), mysql_stmt_sqlstate(s), mysql_stmt_error(s)); return 1; }

static int stmt_rows(MYSQL_STMT *s, MYSQL *m) {
    MYSQL_RES *r = mysql_stmt_result_metadata(s);
    if (!r) {
        printf("  ok affected=%lld id=%llu status=%u warnings=%u\n", (long long)mysql_stmt_affected_rows(s),
               (unsigned long long)mysql_stmt_insert_id(s), m->server_status, mysql_warning_count(m));
        tracked(m);
        return 0;
    }
    columns(r);
    unsigned n = mysql_num_fields(r);
    MYSQL_BIND *b = calloc(n, sizeof *b); unsigned long *len = calloc(n, sizeof *len);
    char *isnull = calloc(n, 1), *space = malloc(64 * n);
    for (unsigned i = 0; i < n; i++) {
        b[i].buffer_type = MYSQL_TYPE_STRING; b[i].buffer = space + 64 * i; b[i].buffer_length = 64;
        b[i].length = &len[i]; b[i].is_null = (void *)&isnull[i];
    }
    int failed = mysql_stmt_bind_result(s, b), got = 0; Rows rows = {0, 0};
    while (!failed && ((got = mysql_stmt_fetch(s)) == 0 || got == MYSQL_DATA_TRUNCATED)) {
        begin_row(&rows);
        for (unsigned i = 0; i < n; i++) {
            if (isnull[i]) { value(&rows, 0, 0); continue; }
            if (len[i] <= 64) { value(&rows, b[i].buffer, len[i]); continue; }
            MYSQL_BIND one = b[i]; unsigned long l = 0;
            one.buffer = malloc(len[i]); one.buffer_length = len[i]; one.length = &l;
            if (mysql_stmt_fetch_column(s, &one, i, 0)) stmt_error(s);
            value(&rows, one.buffer, l); free(one.buffer);
        }
        end_row(&rows);
    }
    if (failed || got == 1) stmt_error(s); else end_rows(&rows, m);
    mysql_free_result(r); free(b); free(len); free(isnull); free(space);
    tracked(m);
    return failed || got == 1;
}

static void stmt_run(MYSQL_STMT *s, MYSQL *m, char *ptext, int ahead, unsigned long cursor) {
    Params p; params(ptext, &p);
    if ((unsigned long)p.n != mysql_stmt_param_count(s)) { printf("  wants %lu parameters\n", mysql_stmt_param_count(s)); goto out; }
    unsigned long type = cursor ? CURSOR_TYPE_READ_ONLY : CURSOR_TYPE_NO_CURSOR;
    mysql_stmt_attr_set(s, STMT_ATTR_CURSOR_TYPE, &type);
    if (cursor) mysql_stmt_attr_set(s, STMT_ATTR_PREFETCH_ROWS, &cursor);
    if (p.n && mysql_stmt_bind_param(s, p.bind)) { stmt_error(s); goto out; }
    for (int i = 0; ahead && i < p.n; i++) {
        if (p.bind[i].buffer_type != MYSQL_TYPE_BLOB && p.bind[i].buffer_type != MYSQL_TYPE_STRING) continue;
        for (unsigned long at = 0, n = *p.bind[i].length; at < n || n == 0; at += 65536) {
            if (mysql_stmt_send_long_data(s, i, (char *)p.bind[i].buffer + at, n - at > 65536 ? 65536 : n - at)) stmt_error(s);
            if (n == 0) break;
        }
    }
    if (mysql_stmt_execute(s)) { stmt_error(s); goto out; }
    int more = 0;
    do { if (stmt_rows(s, m)) break; } while ((more = mysql_stmt_next_result(s)) == 0);
    if (more > 0) stmt_error(s);
    mysql_stmt_free_result(s);
out:
    params_free(&p);
}

static Stmt *stmt(Conn *c, const char *name, bool make) {
    Stmt *empty = 0;
    for (int i = 0; i < STMTS; i++) {
        if (c->stmts[i].st && !strcmp(c->stmts[i].name, name)) return &c->stmts[i];
        if (!c->stmts[i].st && !empty) empty = &c->stmts[i];
    }
    if (make && empty) strncpy(empty->name, name, sizeof empty->name - 1);
    return make ? empty : 0;
}

static void hang_up(Conn *c) {
    for (int i = 0; i < STMTS; i++) if (c->stmts[i].st) mysql_stmt_close(c->stmts[i].st);
    if (c->m) mysql_close(c->m);
    memset(c, 0, sizeof *c);
}

static void dial(Conn *c, char *options) {
    char *u = (char *)user, *pw = (char *)password, *db = "suite", *zip = 0;
    unsigned long flags = 0; unsigned infile = 0, max = 1 << 30; bool yes = 1, optmeta = 0;
    for (char *o = strtok(options, " "); o; o = strtok(0, " ")) {
        if (!strncmp(o, "user=", 5)) u = o + 5;
        else if (!strncmp(o, "pw=", 3)) pw = o + 3;
        else if (!strncmp(o, "db=", 3)) db = o + 3;
        else if (!strcmp(o, "multi")) flags |= CLIENT_MULTI_STATEMENTS;
        else if (!strcmp(o, "found")) flags |= CLIENT_FOUND_ROWS;
        else if (!strcmp(o, "infile")) infile = 1;
        else if (!strcmp(o, "noschema")) db = 0;
        else if (!strcmp(o, "optmeta")) optmeta = 1;
        else if (o[0] == 'z') zip = o;
    }
    hang_up(c);
    MYSQL *m = mysql_init(0);
    mysql_options(m, MYSQL_OPT_LOCAL_INFILE, &infile);
    mysql_options(m, MYSQL_OPT_MAX_ALLOWED_PACKET, &max);
    mysql_options(m, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    const char *dir = getenv("HOLDFAST_PLUGINS");
    if (dir) mysql_options(m, MYSQL_PLUGIN_DIR, dir);
#ifdef MARIADB_BASE_VERSION
    bool on = tls; mysql_options(m, MYSQL_OPT_SSL_ENFORCE, &on);
    if (optmeta || (zip && strcmp(zip, "zlib"))) { printf("  unsupported\n"); mysql_close(m); return; }
    if (zip) mysql_options(m, MYSQL_OPT_COMPRESS, 0);
    (void)yes;
#else
    unsigned mode = tls ? SSL_MODE_REQUIRED : SSL_MODE_DISABLED;
    mysql_options(m, MYSQL_OPT_SSL_MODE, &mode);
    mysql_options(m, MYSQL_OPT_GET_SERVER_PUBLIC_KEY, &yes);
    if (zip) mysql_options(m, MYSQL_OPT_COMPRESSION_ALGORITHMS, zip);
    if (optmeta) mysql_options(m, MYSQL_OPT_OPTIONAL_RESULTSET_METADATA, &yes);
#endif
    if (!mysql_real_connect(m, host, u, pw, db, port, 0, flags)) {
        error(mysql_errno(m), mysql_sqlstate(m), mysql_error(m));
        mysql_close(m);
        return;
    }
    c->m = m; c->id = mysql_thread_id(m);
    printf("  connected version=%s protocol=%u tls=%s status=%u charset=%s\n", mysql_get_server_info(m), mysql_get_proto_info(m),
           mysql_get_ssl_cipher(m) ? "yes" : "no", m->server_status, mysql_character_set_name(m));
    tracked(m);
}

static void outcome(MYSQL *m, int failed) {
    if (failed) error(mysql_errno(m), mysql_sqlstate(m), mysql_error(m));
    else { printf("  done status=%u\n", m->server_status); tracked(m); }
}

static void kill_query(Conn *by, Conn *of) {
    char sql[64]; struct pollfd fd = {0, POLLIN, 0};
    snprintf(sql, sizeof sql, "KILL QUERY %lu", of->id);
#ifdef MARIADB_BASE_VERSION
    fd.fd = mysql_get_socket(of->m);
#else
    fd.fd = of->m->net.fd;
#endif
    /* a kill that comes before its statement hits nothing, so it is repeated until the answer is there */
    for (int i = 0; i < 400 && poll(&fd, 1, 50) == 0; i++)
        if (mysql_query(by->m, sql)) { outcome(by->m, 1); break; }
}

/* Replaces ${id:C}, ${n:SIZE}, ${file}. */
static char *expand(const char *sql) {
    char *out = strdup(sql), *at;
    while ((at = strstr(out, "${"))) {
        char *end = strchr(at, '}'), id[32] = "", *with = id; char *own = 0;
        if (!strncmp(at, "${id:", 5)) snprintf(id, sizeof id, "%lu", conns[at[5] - 'a'].id);
        else if (!strncmp(at, "${n:", 4)) with = own = pattern(strtoul(at + 4, 0, 10));
        else with = getenv("HOLDFAST_FILE");
        char *next = malloc(strlen(out) + strlen(with) + 1);
        size_t head = at - out;
        memcpy(next, out, head); strcpy(next + head, with); strcat(next + head, end + 1);
        free(out); free(own); out = next;
    }
    return out;
}

static void attribute(Conn *c, char *rest) {
#ifdef MARIADB_BASE_VERSION
    printf("  unsupported\n");
#else
    char *sql = strchr(rest, ' '), *v = strchr(rest, '=');
    *sql++ = 0; *v++ = 0;
    MYSQL_BIND b; memset(&b, 0, sizeof b);
    unsigned long n = strlen(v); const char *names[] = {rest};
    b.buffer_type = MYSQL_TYPE_STRING; b.buffer = v; b.buffer_length = n; b.length = &n;
    mysql_bind_param(c->m, 1, &b, names);
    results(c->m, mysql_query(c->m, sql));
#endif
}

static char *word(char **rest) {
    char *w = *rest, *e = strchr(w, ' ');
    if (e) { *e = 0; *rest = e + 1; } else *rest = w + strlen(w);
    return w;
}

static void statement(Conn *c, const char *op, char *rest) {
    char *arrow = strstr(rest, " <- "), *ptext = 0;
    if (arrow) { *arrow = 0; ptext = arrow + 4; }
    if (!strcmp(op, "x") || !strcmp(op, "prep")) {
        Stmt *s = stmt(c, op[0] == 'x' ? "x" : word(&rest), true);
        if (s->st) mysql_stmt_close(s->st);
        s->st = mysql_stmt_init(c->m);
        char *sql = expand(rest);
        int failed = mysql_stmt_prepare(s->st, sql, strlen(sql));
        free(sql);
        if (failed) stmt_error(s->st);
        else if (op[0] == 'x') stmt_run(s->st, c->m, ptext, 0, 0);
        else printf("  prepared parameters=%lu columns=%u\n", mysql_stmt_param_count(s->st), mysql_stmt_field_count(s->st));
        if (failed || op[0] == 'x') { mysql_stmt_close(s->st); s->st = 0; }
        return;
    }
    Stmt *s = stmt(c, word(&rest), false);
    if (!s) { printf("  no such statement\n"); return; }
    if (!strcmp(op, "drop")) { if (mysql_stmt_close(s->st)) printf("  not closed\n"); s->st = 0; return; }
    if (!strcmp(op, "rst")) { if (mysql_stmt_reset(s->st)) stmt_error(s->st); else printf("  done\n"); return; }
    if (!strcmp(op, "cursor")) stmt_run(s->st, c->m, ptext, 0, strtoul(word(&rest), 0, 10));
    else stmt_run(s->st, c->m, ptext, !strcmp(op, "long"), 0);
}

static void step(Conn *c, char *op, char *rest) {
    if (!strcmp(op, "connect")) { dial(c, rest); return; }
    if (!c->m) { printf("  not connected\n"); return; }
    MYSQL *m = c->m;
    if (!strcmp(op, "close")) hang_up(c);
    else if (!strcmp(op, "q") || !strcmp(op, "send")) {
        char *sql = expand(rest);
        if (op[0] == 'q') results(m, mysql_real_query(m, sql, strlen(sql)));
        else if (mysql_send_query(m, sql, strlen(sql))) outcome(m, 1);
        free(sql);
    } else if (!strcmp(op, "recv")) results(m, mysql_read_query_result(m));
    else if (!strcmp(op, "ping")) outcome(m, mysql_ping(m));
    else if (!strcmp(op, "use")) outcome(m, mysql_select_db(m, rest));
    else if (!strcmp(op, "reset")) outcome(m, mysql_reset_connection(m));
    else if (!strcmp(op, "debug")) outcome(m, mysql_dump_debug_info(m));
    else if (!strcmp(op, "setopt")) outcome(m, mysql_set_server_option(m, strcmp(rest, "on") ? MYSQL_OPTION_MULTI_STATEMENTS_OFF : MYSQL_OPTION_MULTI_STATEMENTS_ON));
    else if (!strcmp(op, "change")) {
        char *u = word(&rest), *p = word(&rest);
        outcome(m, mysql_change_user(m, u, p, *rest ? rest : 0));
        c->id = mysql_thread_id(m);
    } else if (!strcmp(op, "stat")) {
        const char *s = mysql_stat(m);
        printf("  ");
        for (; s && *s; s++) if (!isdigit((unsigned char)*s) && *s != '.') putchar(*s);
        putchar('\n');
    } else if (!strcmp(op, "fields")) {
        MYSQL_RES *r = mysql_list_fields(m, rest, 0);
        if (!r) outcome(m, 1);
        else { columns(r); printf("  fields %u\n", mysql_num_fields(r)); mysql_free_result(r); }
    } else if (!strcmp(op, "killq")) kill_query(c, &conns[rest[0] - 'a']);
    else if (!strcmp(op, "kill")) {
        char sql[64]; snprintf(sql, sizeof sql, "KILL %lu", conns[rest[0] - 'a'].id);
#ifdef MARIADB_BASE_VERSION
        outcome(m, mysql_kill(m, conns[rest[0] - 'a'].id));
#else
        outcome(m, mysql_query(m, sql));
#endif
    } else if (!strcmp(op, "attr")) attribute(c, rest);
    else statement(c, op, rest);
}

static void sync_followers(void) {
    const char *p = getenv("HOLDFAST_SYNC");
    if (!p) return;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(p)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int s = socket(AF_INET, SOCK_STREAM, 0); char byte;
    if (connect(s, (struct sockaddr *)&a, sizeof a)) { perror("sync"); exit(1); }
    while (read(s, &byte, 1) > 0) {}
    close(s);
}

int main(int argc, char **argv) {
    if (argc != 7) { fprintf(stderr, "client HOST PORT USER PASSWORD off|on FILE\n"); return 2; }
    host = argv[1]; port = atoi(argv[2]); user = argv[3]; password = argv[4]; tls = !strcmp(argv[5], "on");
    FILE *f = fopen(argv[6], "r");
    if (!f) { perror(argv[6]); return 2; }
    char *line = 0; size_t size = 0; ssize_t n; bool fresh = false;
    while ((n = getline(&line, &size, f)) > 0) {
        if (line[n - 1] == '\n') line[n - 1] = 0;
        if (!strncmp(line, "== ", 3)) {
            for (int i = 0; i < CONNS; i++) hang_up(&conns[i]);
            printf("%s\n", line);
            fresh = true;
        } else if (line[0] >= 'a' && line[0] <= 'z' && line[1] == ':') {
            char *rest = line + 3, none[] = "";
            if (fresh && strncmp(line, "a: connect", 10)) { printf("a: connect\n"); dial(&conns[0], none); }
            fresh = false;
            sync_followers();
            printf("%s\n", line);
            char *op = word(&rest);
            step(&conns[line[0] - 'a'], op, rest);
        }
        fflush(stdout);
    }
    for (int i = 0; i < CONNS; i++) hang_up(&conns[i]);
    return 0;
}
