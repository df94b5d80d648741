package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/api"
	"sallyport/internal/dispatch"
	"sallyport/internal/event"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

const jobs = `name = "jobs"

[functions.fa]
source = "fa.wasm"

[functions.fb]
source = "fb.wasm"

[subscriptions.a]
function = "fa"
filter = { type = "job.*" }
retry = { attempts = 3, backoff = "100ms", max_backoff = "10s", max_age = "1h" }

[subscriptions.b]
function = "fb"
filter = { type = "job.*" }
retry = { attempts = 3, backoff = "100ms", max_backoff = "10s", max_age = "1h" }
`

// inWorld runs f in a bubble of its own, with a dispatcher that runs, and sees that the counts are
// right at the end and after a restart.
func inWorld(t *testing.T, manifest string, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, manifest)
		w.start()
		f(t, w)
		done, dead, pending := w.balance()
		w.restart()
		time.Sleep(time.Millisecond)
		if pending == 0 {
			w.wantBalance(done, dead, 0)
		}
		w.stop()
	})
}

// way returns an event's state and its deliveries in words.
func (w *world) way(pos ident.Position) []string {
	w.t.Helper()
	state, list, err := w.d.Way(w.t.Context(), pos)
	if err != nil {
		w.t.Fatal(err)
	}
	out := []string{string(state)}
	for _, del := range list {
		text := fmt.Sprint(del.Subscription, " ", del.Function, " ", del.State, ":")
		for _, a := range del.Attempts {
			text += fmt.Sprint(" ", a.Number)
			if a.Code != "" {
				text += " " + a.Code
			}
		}
		out = append(out, text)
	}
	return out
}

func (w *world) letters(sub ident.SubscriptionName) []api.DeadLetter {
	w.t.Helper()
	list, next, err := w.d.DeadLetters(w.t.Context(), sub, "", 1000)
	if err != nil || next != "" {
		w.t.Fatalf("DeadLetters() = next %q, %v", next, err)
	}
	return list
}

func TestDelivery(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, data string
		after      time.Duration
		want       []string
	}{
		{"done", `{}`, time.Second, []string{"done", "a fa done: 1", "b fb done: 1"}},
		{"retried", `{"a":{"fails":2}}`, time.Second, []string{"done", "a fa done: 1 cell.function_failed 2 cell.function_failed 3", "b fb done: 1"}},
		{"retried while another is under way", `{"a":{"fails":1},"b":{"takes":500000000}}`, 10 * time.Second,
			[]string{"done", "a fa done: 1 cell.function_failed 2", "b fb done: 1"}},
		{"retries exhausted", `{"a":{"fails":-1}}`, time.Second,
			[]string{"dead", "a fa dead: 1 cell.function_failed 2 cell.function_failed 3 cell.function_failed", "b fb done: 1"}},
		{"no retry", `{"b":{"fails":-1,"final":true}}`, time.Second, []string{"dead", "a fa done: 1", "b fb dead: 1 cell.function_failed"}},
		{"not granted", `{"b":{"fails":-1,"code":"ingress.publish_not_granted"}}`, time.Second,
			[]string{"dead", "a fa done: 1", "b fb dead: 1 ingress.publish_not_granted"}},
		{"all dead", `{"a":{"fails":-1,"final":true},"b":{"fails":-1,"final":true}}`, time.Second,
			[]string{"dead", "a fa dead: 1 cell.function_failed", "b fb dead: 1 cell.function_failed"}},
		{"dead while another is under way", `{"a":{"fails":-1,"final":true},"b":{"takes":500000000}}`, 10 * time.Second,
			[]string{"dead", "a fa dead: 1 cell.function_failed", "b fb done: 1"}},
		{"slow", `{"a":{"takes":5000000000}}`, 10 * time.Second, []string{"done", "a fa done: 1", "b fb done: 1"}},
		{"slow and failing", `{"a":{"takes":5000000000,"fails":1}}`, time.Minute,
			[]string{"done", "a fa done: 1 cell.function_failed 2", "b fb done: 1"}},
		{"asks for a pause past its age", `{"a":{"fails":1,"later":7200000000000}}`, time.Second,
			[]string{"dead", "a fa dead: 1 cell.function_failed", "b fb done: 1"}},
		{"asks for a pause", `{"a":{"fails":1,"later":60000000000}}`, 61 * time.Second,
			[]string{"done", "a fa done: 1 cell.function_failed 2", "b fb done: 1"}},
		{"pending", `{"a":{"fails":1,"later":60000000000}}`, 59 * time.Second,
			[]string{"pending", "a fa pending: 1 cell.function_failed", "b fb done: 1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, jobs, func(t *testing.T, w *world) {
				pos := w.accept(tt.data)[0]
				awaited := make(chan string, 1)
				ctx, cancel := context.WithTimeout(t.Context(), tt.after)
				defer cancel()
				go func() {
					state, reply, err := w.d.Await(ctx, pos)
					awaited <- fmt.Sprint(state, " ", reply, " ", err)
				}()
				w.balance()
				time.Sleep(tt.after)
				w.balance()
				if d := cmp.Diff(tt.want, w.way(pos)); d != "" {
					t.Errorf("Way(%s) (-want +got):\n%s", pos, d)
				}
				want := tt.want[0] + " <nil> <nil>"
				if tt.want[0] == "pending" {
					want = "pending <nil> context deadline exceeded"
				}
				if got := <-awaited; got != want {
					t.Errorf("Await(%s) = %s; want %s", pos, got, want)
				}
				w.crash()
				w.start()
				time.Sleep(10 * time.Millisecond)
				if d := cmp.Diff(tt.want, w.way(pos)); d != "" {
					t.Errorf("after a crash, Way(%s) (-want +got):\n%s", pos, d)
				}
				w.restart()
				time.Sleep(10 * time.Millisecond)
				if d := cmp.Diff(tt.want, w.way(pos)); d != "" {
					t.Errorf("after a restart, Way(%s) (-want +got):\n%s", pos, d)
				}
			})
		})
	}
}

func TestDeadLetter(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		begin := time.Now().UTC()
		pos := w.accept(`{"a":{"fails":-1,"takes":1000000,"later":1000000000}}`)[0]
		time.Sleep(10 * time.Second)
		want := []api.DeadLetter{{
			ID: pos.String() + ".a", EventID: "e-" + pos.String(), Source: "/test", Type: "job.made",
			Subscription: "a", Function: "fa", Reason: "cell.function_failed", Attempts: 3,
			FirstError: "failure 1", LastError: "failure 3",
			FirstAttempt: begin, DeadAt: begin.Add(2*time.Second + 3*time.Millisecond), Position: uint64(pos),
		}}
		for range 2 {
			if d := cmp.Diff(want, w.letters("")); d != "" {
				t.Errorf("dead letters (-want +got):\n%s", d)
			}
			letter, rec, err := w.d.DeadLetter(t.Context(), want[0].ID)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&want[0], letter); d != "" {
				t.Errorf("dead letter (-want +got):\n%s", d)
			}
			if d := cmp.Diff(&w.batches[0].Records[0], rec); d != "" {
				t.Errorf("its event (-want +got):\n%s", d)
			}
			w.restart()
		}
		if got := w.letters("b"); len(got) != 0 {
			t.Errorf("dead letters of b = %v; want none", got)
		}
	})
}

func TestDeadLetterPages(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		var data []string
		for range 600 {
			data = append(data, `{"a":{"fails":-1,"final":true}}`)
		}
		all := w.accept(data...)
		time.Sleep(time.Second)
		var got []string
		for cursor, pages := "", 0; ; pages++ {
			list, next, err := w.d.DeadLetters(t.Context(), "a", cursor, 250)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range list {
				got = append(got, l.ID)
			}
			if cursor = next; cursor == "" || pages > 3 {
				break
			}
		}
		var want []string
		for i := range all {
			want = append(want, all[len(all)-1-i].String()+".a")
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("pages (-want +got):\n%s", d)
		}
	})
}

func TestSlowFunctionHoldsUpNobody(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		var data []string
		for range 200 {
			data = append(data, `{"a":{"takes":20000000000}}`)
		}
		all := w.accept(data...)
		time.Sleep(500 * time.Millisecond)
		for _, pos := range all {
			if n := w.attemptsAt(pos, "b"); n != 1 {
				t.Fatalf("attempts of b at %s = %d; want 1", pos, n)
			}
		}
		w.wantBalance(0, 0, 200)
		late := w.accept(`{}`)[0]
		time.Sleep(time.Millisecond)
		if n := w.attemptsAt(late, "b"); n != 1 {
			t.Errorf("attempts of b at a later event = %d; want 1", n)
		}
		time.Sleep(2 * time.Hour)
		w.wantBalance(201, 0, 0)
	})
}

// Each of many batches has one delivery to a slow function: all that are read at the same time are waiting for it soon, and what
// comes then, for others, is delivered all the same.
func TestSlowFunctionsDoNotFillTheRoomForBatches(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		const batches = 700 // more than twice as many as are live
		var all []ident.Position
		for range batches {
			all = append(all, w.accept(`{"a":{"takes":20000000000}}`)...)
			synctest.Wait()
			time.Sleep(time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond) // virtual: what is parked for its age has to be a second old
		for _, pos := range all {
			if n := w.attemptsAt(pos, "b"); n != 1 {
				t.Fatalf("attempts of b at %s = %d; want 1", pos, n)
			}
		}
		w.wantBalance(0, 0, batches)
		w.crash()
		w.restart()
		time.Sleep(6 * time.Hour)
		w.wantBalance(batches, 0, 0)
	})
}

func TestDirectInvocation(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		for _, tt := range []struct {
			name, data string
			target     ident.FunctionName
			state      api.EventState
			code       string
		}{
			{"done", `{}`, "fa", api.StateDone, ""},
			{"failed, and not tried again", `{"":{"fails":1}}`, "fa", api.StateDead, "cell.function_failed"},
			{"no such function", `{}`, "fz", api.StateDead, "deploy.function_not_found"},
		} {
			pos := w.append(event.Record{Event: event.Event{Type: "job.made", Data: []byte(tt.data)}, Target: tt.target})[0]
			state, reply, err := w.d.Await(t.Context(), pos)
			if err != nil || reply == nil {
				t.Fatalf("%s: Await() = %v, %v, %v", tt.name, state, reply, err)
			}
			code := ""
			if reply.Problem != nil {
				code = reply.Problem.Code
			}
			if state != tt.state || code != tt.code {
				t.Errorf("%s: Await() = %s, %q; want %s, %q", tt.name, state, code, tt.state, tt.code)
			}
			if n := w.attemptsAt(pos, "a"); n != 0 {
				t.Errorf("%s: a subscription got it too", tt.name)
			}
		}
		w.wantBalance(1, 2, 0)
		// A redriven invocation is made once more.
		if _, err := w.d.Redrive(t.Context(), api.DeadLetterSelection{All: true}); err != nil {
			t.Fatal(err)
		}
		w.wantBalance(2, 1, 0)
	})
}

func TestOnlySubscription(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		pos := w.append(event.Record{Event: event.Event{Type: "job.made", Data: []byte(`{}`)}, OnlySubscription: "b"})[0]
		time.Sleep(time.Second)
		if d := cmp.Diff([]string{"done", "b fb done: 1"}, w.way(pos)); d != "" {
			t.Errorf("Way() (-want +got):\n%s", d)
		}
		none := w.append(event.Record{Event: event.Event{Type: "other", Data: []byte(`{}`)}})[0]
		time.Sleep(time.Second)
		if d := cmp.Diff([]string{"done"}, w.way(none)); d != "" {
			t.Errorf("Way() (-want +got):\n%s", d)
		}
	})
}

func TestPause(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		pauseA := func(paused bool) {
			t.Helper()
			if _, err := w.deployer.SetPaused(t.Context(), "default", "a", paused); err != nil {
				t.Fatal(err)
			}
			w.d.Changed()
		}
		pauseA(true)
		all := w.accept(`{}`, `{"a":{"fails":2}}`, `{"a":{"fails":-1}}`)
		time.Sleep(time.Hour / 2)
		w.wantBalance(0, 0, 3)
		if d := cmp.Diff(map[ident.SubscriptionName]dispatch.Counts{"a": {Pending: 3}}, w.d.Counts()); d != "" {
			t.Errorf("Counts() (-want +got):\n%s", d)
		}
		for _, again := range []func(){func() {}, w.crash, func() { w.stop() }} {
			again()
			if w.d == nil {
				w.start()
			}
			time.Sleep(time.Second)
			w.wantBalance(0, 0, 3)
			if d := cmp.Diff([]string{"pending", "a fa pending:", "b fb done: 1"}, w.way(all[1])); d != "" {
				t.Errorf("Way() (-want +got):\n%s", d)
			}
		}
		pauseA(false)
		time.Sleep(10 * time.Second)
		w.wantBalance(2, 1, 0)
		if d := cmp.Diff([]string{"done", "a fa done: 1 cell.function_failed 2 cell.function_failed 3", "b fb done: 1"}, w.way(all[1])); d != "" {
			t.Errorf("Way() (-want +got):\n%s", d)
		}
		if d := cmp.Diff(map[ident.SubscriptionName]dispatch.Counts{"a": {Dead: 1}}, w.d.Counts()); d != "" {
			t.Errorf("Counts() (-want +got):\n%s", d)
		}
	})
}

// TestFull: while the namespace is full, what may emit waits, also when it was being retried and across restarts, and all else goes on: what
// emits nothing, and invocations that somebody waits for.
func TestFull(t *testing.T) {
	t.Parallel()
	emits := strings.Replace(jobs, "source = \"fa.wasm\"", "source = \"fa.wasm\"\ngrants.out.publish = [\"other.made\"]", 1)
	inWorld(t, emits, func(t *testing.T, w *world) {
		retried := w.accept(`{"a":{"fails":1,"later":1000000000}}`)[0]
		time.Sleep(500 * time.Millisecond)
		w.set(func() { w.full = true })
		time.Sleep(500 * time.Millisecond)
		all := append(w.accept(`{}`, `{"a":{"fails":2}}`, `{"a":{"fails":-1}}`), retried)
		for _, again := range []func(){func() {}, w.crash, func() { w.stop() }} {
			again()
			if w.d == nil {
				w.start()
			}
			time.Sleep(10 * time.Minute)
			w.wantBalance(0, 0, 4)
			if d := cmp.Diff([]string{"pending", "a fa pending:", "b fb done: 1"}, w.way(all[1])); d != "" {
				t.Errorf("Way() (-want +got):\n%s", d)
			}
		}
		w.set(func() { w.full = false })
		time.Sleep(10 * time.Second)
		w.wantBalance(3, 1, 0)
		if n := w.attemptsAt(retried, "a"); n != 2 {
			t.Errorf("attempts = %d, want 2", n)
		}
	})
}

// A long backlog is worked off in order, so that each of its batches is read about once.
func TestResumeReadsBatchesOnce(t *testing.T) {
	t.Parallel()
	for _, again := range []struct {
		name string
		do   func(*world)
	}{{"resumed", func(*world) {}}, {"resumed after a restart", func(w *world) { w.restart() }}} {
		t.Run(again.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, jobs, func(t *testing.T, w *world) {
				setPaused := func(paused bool) {
					t.Helper()
					if _, err := w.deployer.SetPaused(t.Context(), "default", "a", paused); err != nil {
						t.Fatal(err)
					}
					w.d.Changed()
				}
				setPaused(true)
				const batches, size = 60, 20
				for range batches {
					w.accept(slices.Repeat([]string{`{}`}, size)...)
				}
				time.Sleep(time.Minute)
				again.do(w)
				w.set(func() { w.reads = 0 })
				setPaused(false)
				time.Sleep(time.Minute)
				w.wantBalance(batches*size, 0, 0)
				// Those that run at the same time may each read the batch that they are the first of.
				var reads int
				w.set(func() { reads = w.reads })
				if reads < batches || reads > 3*batches {
					t.Errorf("%d batches of %d events were read %d times; want about once each", batches, size, reads)
				}
			})
		})
	}
}

func TestPauseDuringRetries(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		pos := w.accept(`{"a":{"fails":1,"later":1000000000}}`)[0]
		time.Sleep(500 * time.Millisecond)
		if _, err := w.deployer.SetPaused(t.Context(), "default", "a", true); err != nil {
			t.Fatal(err)
		}
		w.d.Changed()
		time.Sleep(time.Minute)
		if n := w.attemptsAt(pos, "a"); n != 1 {
			t.Errorf("attempts while paused = %d; want 1", n)
		}
		if _, err := w.deployer.SetPaused(t.Context(), "default", "a", false); err != nil {
			t.Fatal(err)
		}
		w.d.Changed()
		time.Sleep(time.Millisecond)
		w.wantBalance(1, 0, 0)
	})
}

func TestRedrive(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		all := w.accept(`{"a":{"fails":3}}`, `{"a":{"fails":-1,"final":true},"b":{"fails":1,"final":true}}`, `{}`)
		time.Sleep(10 * time.Second)
		w.wantBalance(1, 2, 0)
		id := all[0].String() + ".a"
		redrive := func(sel api.DeadLetterSelection, want ...string) {
			t.Helper()
			got, err := w.d.Redrive(t.Context(), sel)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(&api.DeadLetterResult{IDs: want, DryRun: sel.DryRun}, got); d != "" {
				t.Errorf("Redrive(%+v) (-want +got):\n%s", sel, d)
			}
			time.Sleep(10 * time.Second)
		}
		redrive(api.DeadLetterSelection{IDs: []string{id}, DryRun: true}, id)
		w.wantBalance(1, 2, 0)
		redrive(api.DeadLetterSelection{IDs: []string{id}}, id)
		w.wantBalance(2, 1, 0)
		if d := cmp.Diff([]string{"done", "a fa done: 1", "b fb done: 1"}, w.way(all[0])); d != "" {
			t.Errorf("Way() (-want +got):\n%s", d)
		}
		redrive(api.DeadLetterSelection{Subscription: "b"}, all[1].String()+".b")
		w.wantBalance(2, 1, 0) // a has failed it too
		redrive(api.DeadLetterSelection{All: true}, all[1].String()+".a")
		w.wantBalance(2, 1, 0) // and fails again
		if got := w.letters(""); len(got) != 1 || got[0].ID != all[1].String()+".a" {
			t.Errorf("dead letters = %v; want that of a", got)
		}
		w.set(func() { w.trimmed = 1 })
		w.restart() // which forgets the batches it had read
		_, err := w.d.Redrive(t.Context(), api.DeadLetterSelection{All: true})
		if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != "dispatch.event_trimmed" {
			t.Errorf("Redrive() of a trimmed event = %v; want dispatch.event_trimmed", err)
		}
		if len(w.letters("")) != 1 {
			t.Error("the dead letter of a trimmed event is gone")
		}
	})
}

// A letter that is written anew while the old one is removed stays.
func TestRedriveThatDiesAtOnce(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		// The redriven delivery dies in the moment in which the journal is on disk.
		pos := w.accept(`{"a":{"fails":-1,"final":true,"takes":10000000}}`)[0]
		time.Sleep(time.Second)
		for range 100 {
			if _, err := w.d.Redrive(t.Context(), api.DeadLetterSelection{All: true}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			w.wantBalance(0, 1, 0)
			if got := w.letters(""); len(got) != 1 || got[0].ID != pos.String()+".a" {
				t.Fatalf("dead letters = %v; want the new one", got)
			}
		}
	})
}

func TestDiscard(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, data string
		companion  string // an event of the same batch
		done       int64
	}{
		{"alone", `{"a":{"fails":-1,"final":true}}`, `{}`, 1},
		{"its batch is under way", `{"a":{"fails":-1,"final":true}}`, `{"b":{"takes":500000000}}`, 1},
		{"it is under way itself", `{"a":{"fails":-1,"final":true},"b":{"takes":500000000}}`, `{}`, 1},
		{"another retries", `{"a":{"fails":-1,"final":true},"b":{"fails":1,"later":1000000000}}`, `{}`, 1},
		{"another is dead", `{"a":{"fails":-1,"final":true},"b":{"fails":-1,"final":true}}`, `{}`, 1},
	} {
		for _, end := range []string{"none", "restart", "crash"} {
			t.Run(tt.name+", "+end, func(t *testing.T) {
				t.Parallel()
				inWorld(t, jobs, func(t *testing.T, w *world) {
					pos := w.accept(tt.data, tt.companion)[0]
					time.Sleep(100 * time.Millisecond)
					got, err := w.d.Discard(t.Context(), api.DeadLetterSelection{IDs: []string{pos.String() + ".a"}})
					if err != nil || len(got.IDs) != 1 {
						t.Fatalf("Discard() = %v, %v; want one", got, err)
					}
					w.balance()
					switch end {
					case "restart":
						w.restart()
					case "crash":
						w.crash()
						w.start()
					}
					for range 20 {
						w.balance()
						time.Sleep(100 * time.Millisecond)
					}
					w.wantBalance(1, 1, 0)
					if got := w.letters("a"); len(got) != 0 {
						t.Errorf("dead letters = %v; want none", got)
					}
					if n := w.attemptsAt(pos, "a"); n != 1 {
						t.Errorf("attempts of a = %d; want 1", n)
					}
				})
			})
		}
	}
}

func TestSelection(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		w.accept(`{"a":{"fails":-1,"final":true}}`)
		time.Sleep(time.Second)
		for _, tt := range []struct {
			sel  api.DeadLetterSelection
			code string
		}{
			{api.DeadLetterSelection{}, "dispatch.bad_selection"},
			{api.DeadLetterSelection{All: true, Subscription: "a"}, "dispatch.bad_selection"},
			{api.DeadLetterSelection{IDs: []string{"x"}}, "dispatch.dead_letter_not_found"},
			{api.DeadLetterSelection{IDs: []string{"1024.b"}}, "dispatch.dead_letter_not_found"},
			{api.DeadLetterSelection{IDs: []string{"1024.a", "1024.-invoke"}}, "dispatch.dead_letter_not_found"},
		} {
			for name, do := range map[string]func(context.Context, api.DeadLetterSelection) (*api.DeadLetterResult, error){
				"Redrive": w.d.Redrive, "Discard": w.d.Discard,
			} {
				_, err := do(t.Context(), tt.sel)
				if p, ok := errors.AsType[*problem.Error](err); !ok || p.Code != tt.code {
					t.Errorf("%s(%+v) = %v; want %s", name, tt.sel, err, tt.code)
				}
			}
		}
		if _, _, err := w.d.DeadLetters(t.Context(), "", "x", 1); err == nil {
			t.Error("DeadLetters took a cursor that is none")
		}
		w.wantBalance(0, 1, 0)
	})
}

func TestSubscriptionRemoved(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		pos := w.accept(`{"a":{"fails":1,"later":1000000000}}`)[0]
		time.Sleep(500 * time.Millisecond)
		w.apply("name = \"jobs\"\n")
		time.Sleep(time.Second)
		if d := cmp.Diff([]string{"dead", "a fa dead: 1 cell.function_failed 2 dispatch.subscription_removed", "b fb done: 1"}, w.way(pos)); d != "" {
			t.Errorf("Way() (-want +got):\n%s", d)
		}
		w.apply(jobs)
		if _, err := w.d.Redrive(t.Context(), api.DeadLetterSelection{All: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.wantBalance(1, 0, 0)
	})
}

// What fails is the server: no attempt is used up, and nothing is lost.
func TestEventLogCannotBeRead(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		pos := w.accept(`{"a":{"fails":1,"later":1000000000}}`)[0]
		time.Sleep(500 * time.Millisecond)
		w.set(func() { w.logErr = errDisk })
		time.Sleep(time.Minute)
		w.wantBalance(0, 0, 1)
		w.set(func() { w.logErr = nil })
		time.Sleep(10 * time.Second)
		if d := cmp.Diff([]string{"done", "a fa done: 1 cell.function_failed 2", "b fb done: 1"}, w.way(pos)); d != "" {
			t.Errorf("Way() (-want +got):\n%s", d)
		}
	})
}

func TestEventGone(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		pos := w.accept(`{"a":{"fails":1,"later":1000000000}}`)[0]
		time.Sleep(500 * time.Millisecond)
		w.set(func() { w.trimmed = 1 })
		time.Sleep(time.Minute)
		if d := cmp.Diff([]string{"dead", "a fa dead: 1 cell.function_failed 2 dispatch.event_gone", "b fb done: 1"}, w.way(pos)); d != "" {
			t.Errorf("Way() (-want +got):\n%s", d)
		}
	})
}

func TestDeadLetterCannotBeWritten(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		w.set(func() { w.frozen = true })
		pos := w.accept(`{"a":{"fails":-1,"final":true}}`)[0]
		time.Sleep(time.Minute)
		w.wantBalance(0, 0, 1)
		w.set(func() { w.frozen = false })
		time.Sleep(10 * time.Second)
		w.wantBalance(0, 1, 0)
		if got := w.letters(""); len(got) != 1 || got[0].ID != pos.String()+".a" {
			t.Errorf("dead letters = %v; want that of a", got)
		}
	})
}

// An append that is made and reports a failure is made again, and counts once.
func TestJournalWrittenTwice(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		w.set(func() { w.twice = true })
		w.accept(`{}`, `{"a":{"fails":-1,"final":true}}`)
		time.Sleep(10 * time.Second)
		w.set(func() { w.twice = true })
		w.accept(`{}`)
		time.Sleep(10 * time.Second)
		w.crash()
		w.start()
		time.Sleep(time.Second)
		w.wantBalance(2, 1, 0)
	})
}

// The log must keep what is pending.
func TestTrimFloor(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		w.accept(`{}`)
		w.accept(`{"a":{"fails":1,"later":1800000000000}}`)
		for range 10 {
			w.accept(`{}`)
		}
		time.Sleep(time.Minute)
		check := func(want uint64) {
			t.Helper()
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.floor != want {
				t.Errorf("trim floor = %d; want %d", w.floor, want)
			}
		}
		check(2)
		w.restart()
		check(2)
		time.Sleep(time.Hour)
		check(13)
	})
}

// What is under way when the server stops gets a while to end; what does not end is made again.
func TestStop(t *testing.T) {
	t.Parallel()
	inWorld(t, jobs, func(t *testing.T, w *world) {
		all := w.accept(`{"a":{"takes":3000000000}}`, `{"a":{"takes":30000000000}}`)
		time.Sleep(100 * time.Millisecond)
		w.restart()
		time.Sleep(time.Millisecond)
		w.wantBalance(1, 0, 1)
		time.Sleep(time.Minute)
		w.wantBalance(2, 0, 0)
		for i, want := range []int{1, 2} {
			if n := w.attemptsAt(all[i], "a"); n != want {
				t.Errorf("attempts at event %d = %d; want %d", i, n, want)
			}
		}
		if d := cmp.Diff([]string{"done", "a fa done: 1", "b fb done: 1"}, w.way(all[1])); d != "" {
			t.Errorf("Way() (-want +got):\n%s", d)
		}
	})
}
