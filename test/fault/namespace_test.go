package fault_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/api"
	"sallyport/internal/testkit"
)

// lifetimes is somebody who makes a namespace, puts things into it and deletes it, again and again. What is of one lifetime
// has its number.
type lifetimes struct {
	server *testkit.Server
	number int
	// is and was say what the namespace must be, as far as it was acknowledged; unsure that a change was asked for and not.
	exists, unsure bool
	// asks is told of each request before it is made, with its method, until the one that the fault waits for.
	asks chan string
}

const mayfly = "/v1/namespaces/mayfly"

// run goes on until a request has no answer: the server was killed.
func (l *lifetimes) run(ctx context.Context, t *testing.T) {
	ask := func(method, path, body string, want ...int) bool {
		l.asks <- method
		a, err := l.server.Do(ctx, method, path, []byte(body), "Content-Type", "application/json")
		if err != nil {
			return false
		}
		for _, w := range want {
			if a.Status == w {
				return true
			}
		}
		t.Errorf("%s %s = %d, want %v\n%s", method, path, a.Status, want, a.Body)
		return false
	}
	for {
		if !l.exists {
			l.number++
			l.unsure = true
			if !ask("POST", "/v1/namespaces", fmt.Sprintf(`{"name":"mayfly","quotas":{"functions":%d}}`, l.number), http.StatusCreated) {
				return
			}
			l.exists, l.unsure = true, false
		}
		if !ask("POST", "/v1/tokens", fmt.Sprintf(`{"role":"reader","namespace":"mayfly","description":"%d"}`, l.number), http.StatusCreated) ||
			!ask("POST", mayfly+"/policies/app", fmt.Sprintf(`{"files":{"a.cedar":"@id(\"p%d\") permit (principal == User::\"ann\", action, resource);"}}`, l.number), http.StatusOK) ||
			!ask("POST", mayfly+"/apps", fmt.Sprintf(`{"manifest":"name = \"app\"\n[functions.f%d]\nsource = \"f.js\"\n","modules":{"f%d":{"kind":"script","code":"ZXhwb3J0IGRlZmF1bHQgKCkgPT4gMQ=="}}}`, l.number, l.number), http.StatusOK) {
			return
		}
		for i := range 5 {
			l.asks <- "POST"
			a, err := l.server.Do(ctx, "POST", mayfly+"/events", []byte("{}"), "Content-Type", "application/json",
				"Ce-Specversion", "1.0", "Ce-Type", "t", "Ce-Source", "/fault", "Ce-Id", fmt.Sprintf("%d-%d", l.number, i))
			if err != nil {
				return
			}
			if a.Status != http.StatusAccepted {
				t.Errorf("publish = %d\n%s", a.Status, a.Body)
				return
			}
		}
		l.unsure = true
		if !ask("DELETE", mayfly+"?force=true", "", http.StatusOK) {
			return
		}
		l.exists, l.unsure = false, false
	}
}

// check holds the namespace after a restart to what was acknowledged: it is there or it is not, whole, and nothing of an
// earlier lifetime is left.
func (l *lifetimes) check(t *testing.T) {
	t.Helper()
	a := l.server.MustDo(t, "GET", mayfly, nil)
	exists := a.Status == http.StatusOK
	if !exists && a.Problem().Code != "server.namespace_not_found" {
		t.Errorf("get = %d\n%s", a.Status, a.Body)
	}
	if !l.unsure && exists != l.exists {
		t.Errorf("the namespace exists: %v, acknowledged was %v", exists, l.exists)
	}
	var tokens api.TokenList
	l.server.MustDo(t, "GET", "/v1/tokens", nil).Decode(t, http.StatusOK, &tokens)
	for _, tok := range tokens.Tokens {
		if tok.Namespace == "mayfly" && (!exists || tok.Description != fmt.Sprint(l.number)) {
			t.Errorf("a token of lifetime %s is left in %d", tok.Description, l.number)
		}
	}
	if l.exists = exists; !exists {
		return
	}
	var ns api.Namespace
	a.Decode(t, http.StatusOK, &ns)
	if ns.State != "active" || ns.Quotas["functions"] != int64(l.number) {
		t.Errorf("the namespace is %+v in lifetime %d", ns, l.number)
	}
	var events api.EventList
	l.server.MustDo(t, "GET", mayfly+"/events", nil).Decode(t, http.StatusOK, &events)
	for _, e := range events.Events {
		if !strings.HasPrefix(e.ID, fmt.Sprint(l.number, "-")) {
			t.Errorf("the event %s is left in lifetime %d", e.ID, l.number)
		}
	}
	var functions api.FunctionList
	l.server.MustDo(t, "GET", mayfly+"/functions", nil).Decode(t, http.StatusOK, &functions)
	for _, f := range functions.Functions {
		if f.Name != fmt.Sprint("f", l.number) {
			t.Errorf("the function %s is left in lifetime %d", f.Name, l.number)
		}
	}
	for _, p := range policies(t, l.server) {
		if strings.HasPrefix(p, "mayfly/") && p != fmt.Sprint("mayfly/p", l.number) {
			t.Errorf("the policy %s is left in lifetime %d", p, l.number)
		}
	}
}

func policies(t *testing.T, s *testkit.Server) (ids []string) {
	t.Helper()
	var list api.PolicyList
	s.MustDo(t, "GET", mayfly+"/policies", nil).Decode(t, http.StatusOK, &list)
	for _, p := range list.Policies {
		ids = append(ids, p.ID)
	}
	return ids
}

// TestKillDuringCreateAndDelete kills the server while a namespace is made, filled and deleted again and again.
func TestKillDuringCreateAndDelete(t *testing.T) {
	t.Parallel()
	dir, rnd := filepath.Join(t.TempDir(), "data"), random(t)
	l := &lifetimes{}
	completed := 0
	for cycle := range min(cycles(t), 8) {
		l.server = testkit.Start(t, testkit.Binary(t), dir)
		if strings.Contains(l.server.Output(), "could not be deleted to the end") {
			t.Fatalf("cycle %d: a deletion was not completed\n%s", cycle, l.server.Output())
		}
		if strings.Contains(l.server.Output(), "the deletion of a namespace was completed") {
			completed++
		}
		if l.number > 0 {
			l.check(t)
		}
		l.unsure = false
		l.asks = make(chan string)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer close(l.asks)
			l.run(t.Context(), t)
		}()
		// The fault comes in a deletion of this process, or anywhere; a random moment after the request began.
		left := 1 + rnd.IntN(20)
		for m := range l.asks {
			if left--; left <= 0 && (cycle%2 == 0 || m == http.MethodDelete) {
				break
			}
		}
		time.Sleep(time.Duration(rnd.IntN(60_000)) * time.Microsecond)
		go func() {
			for range l.asks { // whoever asks on finds the server gone
			}
		}()
		l.server.Kill()
		<-done
		if t.Failed() {
			t.FailNow()
		}
	}
	l.server = testkit.Start(t, testkit.Binary(t), dir)
	l.check(t)
	t.Logf("%d lifetimes, %d deletions completed by a start", l.number, completed)
	if l.number < 3 {
		t.Errorf("only %d lifetimes: the test looks at nothing", l.number)
	}
}
