package fault_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// unreadScript takes more of its grants than there is, and reads nothing of it, or reads for ever.
const unreadScript = `
const codes = {};
const note = (e) => { codes[e?.code ?? String(e)] = (codes[e?.code ?? String(e)] ?? 0) + 1 };
const begin = {
  rows: (g) => g.db.endless(),
  wide: (g) => g.db.wide(),
  body: (g) => g.endless.fetch({}),
  slow: (g) => g.slow.fetch({}),
  open: (g) => g.files.call("open", { name: "x" }),
  read: (g) => g.files.call("get", { name: "big" }),
};
export default async (event, ctx) => {
  const { what, how, times } = event.data;
  if (what === "put") return ctx.grants.files.call("put", { name: "big" }, new Uint8Array(512 << 10));
  for (let n = 0; n < times; n++) {
    try {
      const use = begin[what](ctx.grants);
      use.catch(note);
      if (how === "await") await use;
    } catch (e) { note(e) }
  }
  return { codes };
};
`

const unreadApp = `
name = "unread"
[functions.hog]
source  = "hog.js"
timeout = "20s"
limits  = { host_calls = 100000 }
[functions.hog.grants]
db      = { sql = "sqlite:big", queries.endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n", queries.wide = "select zeroblob(100000000) as z", limits.timeout = "2s" }
endless = { http = "%[1]s/endless", private = ["127.0.0.1"], limits.timeout = "5s" }
slow    = { http = "%[1]s/slow", private = ["127.0.0.1"], limits.timeout = "2s" }
files   = { blob = "files" }
`

// TestUnreadAnswers: a function that begins uses and never reads their answers, and one that reads what has no end, are bounded for each kind of grant: the
// invocation ends, what fails does so with a code, the server stays small, leaves no file behind and serves the next event; with the second wall and without.
func TestUnreadAnswers(t *testing.T) {
	t.Parallel()
	binary := testkit.Binary(t)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 64<<10)
		for r.URL.Path == "/endless" {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
		_, _ = w.Write(chunk[:1])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(service.Close)
	for _, wall := range []string{"on", "off"} {
		t.Run("second wall "+wall, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			config := filepath.Join(dir, "server.toml")
			if err := os.WriteFile(config, fmt.Appendf(nil, "[cells]\nsecond_wall = %q\n", wall), 0o600); err != nil {
				t.Fatal(err)
			}
			s := testkit.Start(t, binary, filepath.Join(dir, "data"), "--config", config)
			s.Apply(t, &api.Bundle{Manifest: fmt.Sprintf(unreadApp, service.URL), Modules: map[string]api.Module{"hog": {Kind: api.ModuleScript, Code: []byte(unreadScript)}}})
			invoke := func(what, how string, times int) (codes map[string]int, a testkit.Answer) {
				t.Helper()
				body := fmt.Sprintf(`{"what":%q,"how":%q,"times":%d}`, what, how, times)
				a = s.MustDo(t, http.MethodPost, "/v1/namespaces/default/functions/hog/invoke", []byte(body), "Content-Type", "application/json")
				var got struct {
					Codes map[string]int `json:"codes"`
				}
				if a.Status == http.StatusOK {
					if err := json.Unmarshal(a.Body, &got); err != nil {
						t.Fatal(err)
					}
				} else if code := a.Problem().Code; code == "internal" || !strings.Contains(code, ".") {
					t.Errorf("%s: %d %s", body, a.Status, a.Body)
				}
				return got.Codes, a
			}
			if _, a := invoke("put", "", 1); a.Status != http.StatusOK {
				t.Fatalf("put: %d %s", a.Status, a.Body)
			}
			for _, c := range []struct {
				what  string
				times int // awaited, one after the other
				fails bool
			}{{"rows", 3, true}, {"wide", 3, true}, {"body", 3, true}, {"slow", 2, true}, {"open", 10_000, true}, {"read", 100, false}} {
				codes, a := invoke(c.what, "await", c.times)
				t.Logf("%s read: %d %v %.150s", c.what, a.Status, codes, a.Body)
				for code := range codes {
					if !c.fails || !strings.Contains(code, ".") {
						t.Errorf("%s: a use failed with %q", c.what, code)
					}
				}
				if a.Status == http.StatusOK && c.fails && len(codes) == 0 {
					t.Errorf("%s: nothing of what has no end failed", c.what)
				}
				for _, times := range []int{50, 1000} {
					codes, a := invoke(c.what, "leave", times)
					t.Logf("%d %s left: %d %v %.150s", times, c.what, a.Status, codes, a.Body)
				}
			}
			if _, a := invoke("read", "await", 1); a.Status != http.StatusOK {
				t.Errorf("afterwards: %d %s", a.Status, a.Body)
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID()))
			if err != nil {
				t.Fatal(err)
			}
			_, peak, _ := strings.Cut(string(status), "VmHWM:")
			var kib int
			if _, err := fmt.Sscan(peak, &kib); err != nil || kib > 768<<10 {
				t.Errorf("the server took %d KiB at most, %v", kib, err)
			}
			if _, err := s.Stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
			files := 0
			err = filepath.WalkDir(filepath.Join(dir, "data", "blobs"), func(_ string, d os.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					files++
				}
				return err
			})
			if err != nil || files > 4 {
				t.Errorf("%d files of blobs are left, %v", files, err)
			}
			t.Logf("at most %d MiB, %d files left", kib>>10, files)
		})
	}
}
