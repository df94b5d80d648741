package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5"

	"sallyport/api"
	"sallyport/client"
	"sallyport/internal/testkit"
)

// grantUses is how many uses are timed at once.
const grantUses = 2000

// grantScript uses a grant so often, one use after the other, and replies with the microseconds of one, as the script itself sees them.
const grantScript = `
const uses = {
  set: (g) => g.store.set("k", { total: 12, paid: true }),
  kv: (g) => g.store.get("k"),
  http: async (g, body) => (await g.web.fetch({ method: "POST", values: { id: "ch_1" }, headers: { "content-type": "application/json" }, body })).text(),
  read: (g) => g.db.find("o-500"),
  write: (g) => g.db.raise("o-500", 1),
};
export default async (event, ctx) => {
  const { what, n } = event.data, use = uses[what], g = ctx.grants, body = "x".repeat(200);
  const began = performance.now();
  for (let i = 0; i < n; i++) await use(g, body);
  return (performance.now() - began) * 1000 / n;
};
`

// Statements of the sql grant, and of the bare client.
const (
	findOrder  = "select id, total from orders where id = $1"
	raiseOrder = "update orders set total = total + $2 where id = $1"
)

// grantTimes are microseconds a use.
type grantTimes struct{ HTTP, Read, Write float64 }

// measureGrants is what one use of a grant takes, from JavaScript to the service and back with everything in between (the sandbox, the second wall, the
// gate, limits, counting), beside a bare client of Go that does the same. Server and bare client are on one processor, the services on the other.
func measureGrants(ctx context.Context, o options, r *report, stderr io.Writer) (err error) {
	answer := bytes.Repeat([]byte("0123456789abcdef"), 64)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answer)
	}))
	defer web.Close()
	address := ""
	db, pgErr := testkit.StartPostgres("fsync = off")
	if pgErr == nil {
		defer func() { err = errors.Join(err, db.Close()) }()
		address = db.Address("postgres", false)
		if err := fillOrders(ctx, address); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(stderr, "  sql is left out: %v\n", pgErr)
	}
	s, err := startWalled(ctx, o, "grants", "on")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	c, err := grantApp(ctx, s, web.URL, address)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := timeGrant(ctx, c, "set", 1); err != nil {
		return err
	}
	ours, ratios := map[string][]float64{}, map[string][]float64{}
	for round := range o.rounds + 1 {
		var bare grantTimes
		if err := rolePinned(ctx, &bare, "baregrants", web.URL, address); err != nil {
			return err
		}
		for what, base := range map[string]float64{"kv": 0, "http": bare.HTTP, "read": bare.Read, "write": bare.Write} {
			if address == "" && (what == "read" || what == "write") {
				continue
			}
			took, err := timeGrant(ctx, c, what, grantUses)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if round > 0 { // the first round warms up
				ours[what] = append(ours[what], took)
				ratios[what] = append(ratios[what], took/base)
			}
		}
	}
	r.figure("(grants) from JavaScript", "kv get", median(ours["kv"]), "µs", atMost(20), "")
	for _, row := range [][2]string{{"http", "http POST"}, {"read", "sql read"}, {"write", "sql write"}} {
		if len(ours[row[0]]) == 0 {
			continue
		}
		r.figure("(grants)", row[1], median(ours[row[0]]), "µs", bar{}, "")
		r.compare("(grants)", row[1]+" : bare client of Go", median(ratios[row[0]]), atMost(1.3), "")
	}
	return measureWaiting(ctx, s, o, r)
}

func fillOrders(ctx context.Context, address string) error {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	for _, text := range []string{"create table orders (id text primary key, total integer)", "insert into orders select 'o-' || i, 0 from generate_series(1, 1000) i"} {
		if _, err := conn.Exec(ctx, text); err != nil {
			return err
		}
	}
	return conn.Close(ctx)
}

// grantApp deploys the function with its grants.
func grantApp(ctx context.Context, s *sallyport, web, database string) (*client.Client, error) {
	c, err := s.connect()
	if err != nil {
		return nil, err
	}
	const limits = "limits = { rate = 1000000 }\n" // it is to be measured, not held back
	manifest := "name = \"grants\"\n[functions.f]\nsource = \"f.js\"\ntimeout = \"60s\"\n" +
		"[functions.f.grants.store]\nkv = \"bench\"\n" + limits +
		"[functions.f.grants.web]\nhttp = \"" + web + "/v1/charges/{id}\"\nmethods = [\"POST\"]\nprivate = [\"127.0.0.1\"]\nauth = { bearer = \"secret:key\" }\n" + limits
	secrets := map[string]string{"key": "sk_live_0123456789"}
	if database != "" {
		secrets["dsn"] = database
		manifest += fmt.Sprintf("[functions.f.grants.db]\nsql = \"secret:dsn\"\nprivate = true\nqueries.find = %q\nqueries.raise = %q\n", findOrder, raiseOrder) + limits
	}
	for name, value := range secrets {
		if _, err := c.SetSecret(ctx, name, []byte(value), client.SecretOptions{}); err != nil {
			return nil, err
		}
	}
	_, err = c.Apply(ctx, &api.Bundle{Manifest: manifest, Modules: map[string]api.Module{"f": {Kind: api.ModuleScript, Code: []byte(grantScript)}}}, false)
	return c, err
}

// timeGrant has the function use a grant n times, and returns the microseconds of one.
func timeGrant(ctx context.Context, c *client.Client, what string, n int) (float64, error) {
	reply, err := c.Invoke(ctx, "f", fmt.Appendf(nil, `{"what":%q,"n":%d}`, what, n), "application/json")
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(string(bytes.TrimSpace(reply.Reply)), 64)
}

// runBareGrants is the process that does the same without Sallyport.
func runBareGrants(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: bench baregrants URL DATABASE")
	}
	var t grantTimes
	httpClient := &http.Client{Transport: &http.Transport{}}
	defer httpClient.CloseIdleConnections()
	body := bytes.Repeat([]byte("x"), 200)
	var err error
	if t.HTTP, err = timeUses(func() error { return barePost(ctx, httpClient, args[0], body) }); err != nil {
		return err
	}
	if args[1] != "" {
		conn, err := pgx.Connect(ctx, args[1])
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }() // the process ends
		t.Read, err = timeUses(func() error {
			var id string
			var total int
			return conn.QueryRow(ctx, findOrder, "o-500").Scan(&id, &total)
		})
		if err != nil {
			return err
		}
		t.Write, err = timeUses(func() error {
			_, err := conn.Exec(ctx, raiseOrder, "o-500", 1)
			return err
		})
		if err != nil {
			return err
		}
	}
	return json.MarshalWrite(os.Stdout, t)
}

func barePost(ctx context.Context, c *http.Client, url string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/charges/ch_1", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer sk_live_0123456789")
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	_, err = io.ReadAll(resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// timeUses returns the microseconds of one use: pgx prepares a statement when it first sees it, so some go before.
func timeUses(use func() error) (float64, error) {
	for range 100 {
		if err := use(); err != nil {
			return 0, err
		}
	}
	began := time.Now()
	for range grantUses {
		if err := use(); err != nil {
			return 0, err
		}
	}
	return float64(time.Since(began).Nanoseconds()) / 1e3 / grantUses, nil
}
