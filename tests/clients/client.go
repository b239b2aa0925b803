// One of the clients of tests/clients.rs: go-sql-driver/mysql through database/sql.
//
//	client HOST PORT USER PASSWORD off|on FILE      FILE is in the format that scenarios.txt describes
//
// Prints every value as the driver hands it over, column types, counts and errors. HOLDFAST_SYNC names a port: connecting
// there and reading to the end waits until the followers have everything.
package main

import (
	"bufio"
	"context"
	"crypto/md5"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

const rowsShown, valueShown = 30, 150

var (
	errUnsupported = errors.New("unsupported")
	host, port     string
	user, password string
	tlsMode        string
	ctx            = context.Background()
	out            = bufio.NewWriter(os.Stdout)
)

type conn struct {
	db         *sql.DB
	c          *sql.Conn
	id         int64
	statements map[string]*sql.Stmt
	reads      map[string]bool
	done       chan string
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + (i*7+i/1000)%26)
	}
	return b
}

func parameters(text string) []interface{} {
	var values []interface{}
	if text == "" {
		return nil
	}
	for _, p := range strings.Split(text, " | ") {
		i := strings.IndexByte(p, ':')
		if i < 0 {
			values = append(values, nil)
			continue
		}
		v := p[i+1:]
		switch p[0] {
		case 'i':
			n, _ := strconv.ParseInt(v, 10, 64)
			values = append(values, n)
		case 'u':
			n, _ := strconv.ParseUint(v, 10, 64)
			values = append(values, n)
		case 'f':
			n, _ := strconv.ParseFloat(v, 64)
			values = append(values, n)
		case 's':
			values = append(values, v)
		case 'b':
			n, _ := hex.DecodeString(v)
			values = append(values, n)
		case 'n':
			n, _ := strconv.Atoi(v)
			values = append(values, pattern(n))
		}
	}
	return values
}

func show(v interface{}) string {
	text := fmt.Sprintf("%T %v", v, v)
	if b, ok := v.([]byte); ok {
		if len(b) > valueShown {
			return fmt.Sprintf("<%d bytes, md5 %x>", len(b), md5.Sum(b))
		}
		text = fmt.Sprintf("%+q", b)
	}
	return text
}

// One event, a connection that was closed, has many names: by who noticed first.
func showError(err error) string {
	var known *mysql.MySQLError
	if err == errUnsupported || errors.As(err, &known) {
		return "  error " + err.Error()
	}
	for _, lost := range []error{mysql.ErrInvalidConn, driver.ErrBadConn, sql.ErrConnDone, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, lost) {
			return "  connection lost"
		}
	}
	return fmt.Sprintf("  error %T %v", err, err)
}

func printRows(rows *sql.Rows) error {
	defer rows.Close()
	for {
		types, err := rows.ColumnTypes()
		if err != nil {
			return err
		}
		for i, t := range types {
			if i < 30 {
				length, hasLength := t.Length()
				precision, scale, decimal := t.DecimalSize()
				null, known := t.Nullable()
				fmt.Fprintf(out, "  column %q %s %v %d %v %d %d %v %v %v\n", t.Name(), t.DatabaseTypeName(), t.ScanType(), length, hasLength, precision, scale, decimal, null, known)
			}
		}
		values := make([]interface{}, len(types))
		into := make([]interface{}, len(types))
		for i := range values {
			into[i] = &values[i]
		}
		count, digest := 0, md5.New()
		for rows.Next() {
			if err := rows.Scan(into...); err != nil {
				return err
			}
			if count < rowsShown {
				fmt.Fprint(out, "  row")
			}
			for _, v := range values {
				if count < rowsShown {
					fmt.Fprint(out, " ", show(v))
				} else {
					fmt.Fprintf(digest, "%T%v;", v, v)
				}
			}
			if count < rowsShown {
				fmt.Fprintln(out)
			}
			count++
		}
		if err := rows.Err(); err != nil {
			return err
		}
		fmt.Fprintf(out, "  rows %d md5 %x\n", count, digest.Sum(nil))
		if !rows.NextResultSet() {
			return rows.Err()
		}
	}
}

func printResult(r sql.Result, err error) error {
	if err != nil {
		return err
	}
	affected, _ := r.RowsAffected()
	id, _ := r.LastInsertId()
	fmt.Fprintf(out, "  ok affected=%d id=%d\n", affected, id)
	return nil
}

// The interface has one call for statements with rows and one for those without.
func hasRows(sql string) bool {
	word := strings.ToUpper(strings.SplitN(strings.TrimLeft(sql, " \t(/*!"), " ", 2)[0])
	switch word {
	case "INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "DROP", "ALTER", "SET", "BEGIN", "COMMIT", "ROLLBACK", "START", "USE", "DO", "KILL", "LOCK", "UNLOCK", "LOAD", "TRUNCATE":
		return false
	}
	return true
}

func (k *conn) query(text string) error {
	if !hasRows(text) {
		return printResult(k.c.ExecContext(ctx, text))
	}
	rows, err := k.c.QueryContext(ctx, text)
	if err != nil {
		return err
	}
	return printRows(rows)
}

func (k *conn) run(s *sql.Stmt, text string, values []interface{}) error {
	if !hasRows(text) {
		return printResult(s.ExecContext(ctx, values...))
	}
	rows, err := s.QueryContext(ctx, values...)
	if err != nil {
		return err
	}
	return printRows(rows)
}

func dial(options string) (*conn, error) {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName, c.Net, c.Addr = user, password, "suite", "tcp", net.JoinHostPort(host, port)
	c.TLSConfig, c.MaxAllowedPacket, c.AllowNativePasswords = tlsMode, 1<<30, true
	c.Params = map[string]string{"charset": "utf8mb4"}
	for _, o := range strings.Fields(options) {
		kv := append(strings.SplitN(o, "=", 2), "")
		switch kv[0] {
		case "user":
			c.User = kv[1]
		case "pw":
			c.Passwd = kv[1]
		case "db":
			c.DBName = kv[1]
		case "multi":
			c.MultiStatements = true
		case "found":
			c.ClientFoundRows = true
		case "infile":
			mysql.RegisterLocalFile(os.Getenv("HOLDFAST_FILE"))
		case "noschema":
			c.DBName = ""
		case "track":
		default:
			return nil, errUnsupported
		}
	}
	db, err := sql.Open("mysql", c.FormatDSN())
	if err != nil {
		return nil, err
	}
	one, err := db.Conn(ctx)
	if err != nil {
		db.Close()
		return nil, err
	}
	k := &conn{db: db, c: one, statements: map[string]*sql.Stmt{}, reads: map[string]bool{}}
	var version string
	one.QueryRowContext(ctx, "SELECT CONNECTION_ID(), @@version").Scan(&k.id, &version)
	fmt.Fprintf(out, "  connected version=%s\n", version)
	return k, nil
}

func (k *conn) close() {
	for _, s := range k.statements {
		s.Close()
	}
	k.c.Close()
	k.db.Close()
}

func (k *conn) send(text string) {
	k.done = make(chan string, 1)
	go func() {
		r, err := k.c.ExecContext(ctx, text)
		if err != nil {
			k.done <- showError(err)
			return
		}
		n, _ := r.RowsAffected()
		k.done <- fmt.Sprintf("  affected=%d", n)
	}()
}

// A kill that comes before its statement hits nothing, so it is repeated until the answer is there.
func (k *conn) killQuery(other *conn) error {
	for i := 0; i < 400; i++ {
		select {
		case answer := <-other.done:
			other.done <- answer
			return nil
		case <-time.After(50 * time.Millisecond):
		}
		if _, err := k.c.ExecContext(ctx, fmt.Sprintf("KILL QUERY %d", other.id)); err != nil {
			return err
		}
	}
	return nil
}

func expand(text string, conns map[string]*conn) string {
	for {
		i := strings.Index(text, "${")
		if i < 0 {
			return text
		}
		j := i + strings.IndexByte(text[i:], '}')
		what, with := text[i+2:j], os.Getenv("HOLDFAST_FILE")
		if strings.HasPrefix(what, "id:") {
			with = "0"
			if k := conns[what[3:]]; k != nil {
				with = strconv.FormatInt(k.id, 10)
			}
		} else if strings.HasPrefix(what, "n:") {
			n, _ := strconv.Atoi(what[2:])
			with = string(pattern(n))
		}
		text = text[:i] + with + text[j+1:]
	}
}

func statement(k *conn, op, rest string) error {
	parts := append(strings.SplitN(rest, " <- ", 2), "")
	head, values := parts[0], parameters(parts[1])
	switch op {
	case "x":
		s, err := k.c.PrepareContext(ctx, head)
		if err != nil {
			return err
		}
		defer s.Close()
		return k.run(s, head, values)
	case "prep":
		p := strings.SplitN(head, " ", 2)
		s, err := k.c.PrepareContext(ctx, p[1])
		if err == nil {
			k.statements[p[0]] = s
			k.reads[p[0]] = hasRows(p[1])
		}
		return err
	}
	s := k.statements[head]
	if s == nil {
		fmt.Fprintln(out, "  no such statement")
		return nil
	}
	if op == "drop" {
		delete(k.statements, head)
		return s.Close()
	}
	if !k.reads[head] {
		return k.run(s, "INSERT", values)
	}
	return k.run(s, "SELECT", values)
}

func step(k *conn, op, rest string, conns map[string]*conn) error {
	switch op {
	case "q":
		return k.query(expand(rest, conns))
	case "x", "prep", "run", "drop":
		return statement(k, op, expand(rest, conns))
	case "ping":
		return k.c.PingContext(ctx)
	case "close":
		k.close()
	case "send":
		k.send(expand(rest, conns))
	case "recv":
		fmt.Fprintln(out, <-k.done)
	case "killq":
		return k.killQuery(conns[rest])
	case "kill":
		return printResult(k.c.ExecContext(ctx, fmt.Sprintf("KILL %d", conns[rest].id)))
	default:
		return errUnsupported
	}
	return nil
}

func waitForFollowers() {
	if p := os.Getenv("HOLDFAST_SYNC"); p != "" {
		c, err := net.Dial("tcp", "127.0.0.1:"+p)
		if err != nil {
			panic(err)
		}
		io.Copy(io.Discard, c)
		c.Close()
	}
}

func main() {
	host, port, user, password = os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	mysql.SetLogger(discard{})
	tlsMode = "false"
	if os.Args[5] == "on" {
		tlsMode = "suite"
		mysql.RegisterTLSConfig(tlsMode, &tls.Config{InsecureSkipVerify: true})
	}
	text, err := os.ReadFile(os.Args[6])
	if err != nil {
		panic(err)
	}
	conns, fresh := map[string]*conn{}, false
	for _, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(line, "== ") {
			for _, k := range conns {
				k.close()
			}
			conns, fresh = map[string]*conn{}, true
			fmt.Fprintln(out, line)
			continue
		}
		if len(line) < 4 || line[1] != ':' {
			continue
		}
		steps := []string{line}
		if fresh && !strings.HasPrefix(line, "a: connect") {
			steps = []string{"a: connect", line}
		}
		fresh = false
		for _, s := range steps {
			waitForFollowers()
			fmt.Fprintln(out, s)
			p := append(strings.SplitN(s[3:], " ", 2), "")
			name := s[:1]
			var err error
			if p[0] == "connect" {
				var k *conn
				if k, err = dial(p[1]); err == nil {
					conns[name] = k
				}
			} else if conns[name] == nil {
				fmt.Fprintln(out, "  not connected")
			} else {
				err = step(conns[name], p[0], p[1], conns)
			}
			if err != nil {
				fmt.Fprintln(out, showError(err))
			}
			out.Flush()
		}
	}
	for _, k := range conns {
		k.close()
	}
}

type discard struct{}

func (discard) Print(...interface{}) {}
