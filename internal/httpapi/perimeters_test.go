package httpapi_test

import (
	"context"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/api"
	"sallyport/internal/narrow"
	"sallyport/internal/policy"
)

// use has the guard decide by policies and perimeters of the namespace shop.
func (w *world) use(t testing.TB, cedar string, perimeters ...policy.Perimeter) {
	t.Helper()
	cfg := policy.Config{Files: []policy.File{{Name: "a.cedar", Text: []byte(cedar), Namespace: "shop"}}}
	if len(perimeters) > 0 {
		cfg.Perimeters = []policy.PerimeterFile{{Name: "perimeters.toml", Namespace: "shop", Perimeters: perimeters}}
	}
	set, err := policy.NewWith(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.guard.Use(set)
}

// inside is a perimeter around what the namespaces of the world have.
func inside(mode policy.Mode) policy.Perimeter {
	return policy.Perimeter{Name: "orders", Mode: mode, EventTypes: []string{"order.*"}, Functions: []string{"price"}}
}

// TestPerimeterLists: what is inside a perimeter is in no list of somebody outside, and nobody outside replaces its code.
func TestPerimeterLists(t *testing.T) {
	t.Parallel()
	for _, mode := range []policy.Mode{policy.Enforce, policy.DryRun} {
		w := newWorld(t)
		publish(t, w, "e-1", "/s")
		w.use(t, "", inside(mode))
		seen := 0
		if mode == policy.DryRun {
			seen = 1
		}
		if got := decode[api.EventList](t, w.do("GET", shop+"/events", ""), 200); len(got.Events) != seen {
			t.Errorf("%s: %d events, want %d", mode, len(got.Events), seen)
		}
		letters := decode[api.DeadLetterList](t, w.do("GET", shop+"/dead-letters", ""), 200)
		if len(letters.DeadLetters) != seen || letters.Cursor != "next" {
			t.Errorf("%s: dead letters %+v, want %d, and the cursor", mode, letters, seen)
		}
		if got := strings.Count(w.do("GET", shop+"/logs", "").Body.String(), "\n"); got != seen {
			t.Errorf("%s: %d lines, want %d", mode, got, seen)
		}
		deploy := w.do("POST", shop+"/apps", `{"manifest":"","modules":{}}`)
		if mode == policy.Enforce {
			if p := wantProblem(t, deploy, 403, "access.denied"); !slices.Equal(p.Policies, []string{"perimeter:shop/orders"}) {
				t.Errorf("deploy is denied by %v", p.Policies)
			}
		} else if deploy.Code != 200 {
			t.Errorf("deploy in dry-run: %d %s", deploy.Code, deploy.Body)
		}
		// All of it is on record: what was denied, or would have been.
		test := decode[api.PerimeterTest](t, w.do("GET", shop+"/perimeters/orders/test", ""), 200)
		var asked []string
		for _, d := range test.Asked {
			asked = append(asked, d.Action+" "+d.Kind+" "+d.Resource)
			if d.Allowed != (mode == policy.DryRun) || mode == policy.DryRun && !slices.Equal(d.DryRun, []string{"perimeter:shop/orders"}) {
				t.Errorf("%s: recorded %+v", mode, d)
			}
		}
		slices.Sort(asked)
		want := []string{"deploy Function price", "readDeadLetters EventType order.created", "readEvents EventType order.created", "readLogs Function price"}
		if !slices.Equal(asked, want) {
			t.Errorf("%s: recorded %q, want %q", mode, asked, want)
		}
		// Of what is declared, the subscription to everything is for types too that nobody has named yet, and those are outside.
		if d := test.Declared; len(d) != 1 || d[0].From != "event_type:shop/*" || d[0].Resource != "function:shop/price" || d[0].Perimeter != "perimeter:shop/orders" {
			t.Errorf("declared: %+v", test.Declared)
		}
	}
}

// TestPerimeterDeclared: a test of a perimeter names what apps declare over its border, and the bridge for it.
func TestPerimeterDeclared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.use(t, "", policy.Perimeter{Name: "orders", Mode: policy.DryRun, EventTypes: []string{"order.*"}})
	test := decode[api.PerimeterTest](t, w.do("GET", shop+"/perimeters/orders/test", ""), 200)
	var got []string
	for _, d := range test.Declared {
		got = append(got, d.By+": "+d.From+" "+d.Action+" "+d.Resource+" "+strings.Join(d.Needed.From, ",")+" "+strings.Join(d.Needed.To, ","))
	}
	want := []string{
		"subscription orders: event_type:shop/order.* deliver function:shop/price event_type:order.* function:price",
		"subscription orders: event_type:shop/order.priced deliver function:shop/price event_type:order.priced function:price",
		"grant out of function price: function:shop/price publish event_type:shop/order.priced function:price event_type:order.priced",
	}
	if !slices.Equal(got, want) {
		t.Errorf("declared = %q, want %q", got, want)
	}
	// Somebody of another namespace learns nothing of it, and the server's are apart.
	bank := w.token(t, api.TokenRequest{Role: "developer", Namespace: "bank"})
	wantProblem(t, w.do("GET", shop+"/perimeters/orders/test", "", as(bank)...), 403, "access.denied")
	wantProblem(t, w.do("GET", "/v1/perimeters/orders", ""), 404, "policy.perimeter_not_found")
	if got := decode[api.PerimeterList](t, w.do("GET", "/v1/namespaces/bank/perimeters", ""), 200); len(got.Perimeters) != 0 {
		t.Errorf("bank has the perimeters %+v", got)
	}
}

const noReaders = `@id("no-readers") forbid (principal, action in [Action::"readLogs", Action::"readEvents", Action::"invoke"], resource) when { principal has role && principal.role == "reader" || principal has role && principal.role == "publisher" };`

// begin begins a request that does not end by itself.
func begin(w *world, token, method, target, body string) (*httptest.ResponseRecorder, chan struct{}) {
	rec, done := httptest.NewRecorder(), make(chan struct{})
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+token)
	go func() {
		defer close(done)
		w.ServeHTTP(rec, r)
	}()
	synctest.Wait()
	return rec, done
}

// TestPolicyChangeOnRunningWork: other policies hold within a second for a stream and for requests that wait for an outcome, and so does
// that a token was revoked, or the one that a narrowed one was made of.
func TestPolicyChangeOnRunningWork(t *testing.T) {
	t.Parallel()
	const second = time.Second
	type work struct {
		name, role, method, target, body string
		denied, ended                    int // the status, and that when the credential is none any more
	}
	works := []work{
		{"logs -f", "reader", "GET", shop + "/logs?follow=true", "", 200, 200},
		{"send --wait", "reader", "GET", shop + "/events/e-1?wait=1m", "", 403, 401},
		{"invoke", "publisher", "POST", shop + "/functions/price/invoke", "1", 403, 401},
	}
	for _, how := range []string{"policy", "revoked", "narrowed, revoked"} {
		for _, tc := range works {
			t.Run(how+", "+tc.name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					publish(t, w, "e-1", "/s")
					tok, err := w.guard.Create(t.Context(), "test", api.TokenRequest{Role: tc.role})
					if err != nil {
						t.Fatal(err)
					}
					text, want := tok.Text, tc.ended
					if how == "narrowed, revoked" {
						if text, err = narrow.Narrow(text, narrow.Caveats{Expires: time.Now().Add(time.Hour).Unix()}); err != nil {
							t.Fatal(err)
						}
					}
					rec, done := begin(w, text, tc.method, tc.target, tc.body)
					time.Sleep(10 * time.Second)
					select {
					case <-done:
						t.Fatalf("ended before the change: %d %s", rec.Code, rec.Body)
					default:
					}
					if how == "policy" {
						w.use(t, noReaders)
						want = tc.denied
					} else if err := w.guard.Revoke(t.Context(), tok.ID); err != nil {
						t.Fatal(err)
					}
					changed := time.Now()
					<-done
					if took := time.Since(changed); took > second {
						t.Errorf("it took %s until the change had an effect", took)
					}
					if rec.Code != want {
						t.Errorf("status = %d, want %d\n%s", rec.Code, want, rec.Body)
					}
					if !w.Idle() {
						t.Error("something is still counted")
					}
				})
			})
		}
	}
}

// TestPerimeterOnRunningStream: the next line is decided by the perimeters that hold then.
func TestPerimeterOnRunningStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.spaces["shop"]
		rec, done := follow(w, w.tokens[policy.Reader], "")
		synctest.Wait()
		s.say(line(3, "before"))
		synctest.Wait()
		w.use(t, "", inside(policy.Enforce))
		s.say(line(4, "a secret"))
		synctest.Wait()
		w.use(t, "")
		s.say(line(5, "after"))
		synctest.Wait()
		w.Drain()
		<-done
		body := rec.Body.String()
		if !strings.Contains(body, "before") || strings.Contains(body, "a secret") || !strings.Contains(body, "after") {
			t.Errorf("the stream is\n%s", body)
		}
	})
}

// TestStillRecordsNothing: that somebody may go on is no decision to count; that they may not is.
func TestStillRecordsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, err := w.guard.Authenticate(context.Background(), w.tokens[policy.Reader])
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := w.guard.Still(t.Context(), p, policy.ReadLogs, policy.OfNamespace("shop")); err != nil {
			t.Fatal(err)
		}
	}
	w.use(t, noReaders)
	if err := w.guard.Still(t.Context(), p, policy.ReadLogs, policy.OfNamespace("shop")); err == nil {
		t.Fatal("allowed")
	}
	list := decode[api.DecisionList](t, w.do("GET", shop+"/decisions?principal="+string(p.ID), ""), 200)
	if len(list.Decisions) != 1 || list.Decisions[0].Allowed || list.Decisions[0].Count != 1 {
		t.Errorf("decisions = %+v, want the one deny", list.Decisions)
	}
}
