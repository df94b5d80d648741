package secret_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/internal/event"
	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
	"sallyport/internal/secret"
)

// outsider is what a rotation function of the user's does: it has the outside accept the pending value, and tries it.
type outsider struct {
	w        *world
	t        *testing.T
	mu       sync.Mutex
	accepted map[string]bool // the values that the outside takes
	calls    []string
	fail     map[secret.Step]error
	creates  string
	past     []secret.Request // every step that was asked for
	replayed int
}

// stepUse is a use of a secret by a function that handles the event of a step.
func stepUse(data []byte) grant.Use {
	u := use
	u.Caller.Event = &event.Record{Event: event.Event{ID: "e-1", Type: secret.RotationEvent, Data: data}}
	return u
}

// replay delivers the events of all steps again that are not about what is being brought in now: none gets a value.
func (o *outsider) replay(ctx context.Context, ns ident.Namespace, now secret.Request) {
	for _, old := range o.past {
		if old.Version == now.Version && (old.Step == secret.StepCreate) == (now.Step == secret.StepCreate) {
			continue
		}
		data, err := json.Marshal(&old)
		if err != nil {
			o.t.Error(err)
		}
		o.replayed++
		for _, ref := range []string{"key", "key@pending", "key@previous"} {
			if v, err := o.w.Value(ctx, ns, ref, stepUse(data)); err == nil || code(err) != "secret.step_over" && !errors.Is(err, errDead) && !o.w.disk.dead {
				o.t.Errorf("the step %s of version %d comes again while %s of version %d is made, and gets %s: %q, %v", old.Step, old.Version, now.Step, now.Version, ref, v, err)
			}
		}
	}
}

func (o *outsider) invoke(ctx context.Context, ns ident.Namespace, fn ident.FunctionName, data []byte) ([]byte, error) {
	var req secret.Request
	if err := json.Unmarshal(data, &req); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls = append(o.calls, fmt.Sprint(fn, " ", req.Step, " ", req.Version))
	o.past = append(o.past, req)
	o.replay(ctx, ns, req)
	if err := o.fail[req.Step]; err != nil {
		return nil, err
	}
	if req.Step == secret.StepCreate {
		return []byte(o.creates), nil
	}
	v, err := o.w.Value(ctx, ns, req.Secret+"@pending", stepUse(data))
	if err != nil {
		return nil, err
	}
	switch {
	case req.Step == secret.StepSet:
		o.accepted[string(v)] = true
	case !o.accepted[string(v)]:
		return nil, problem.New(problem.FunctionFailed, "cell.function_failed", "it does not work")
	}
	return nil, nil
}

// run rotates until nothing is under way any more, or the disk is dead.
func (o *outsider) run(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	x := secret.NewRotator(o.w.Store, o.invoke, func() []ident.Namespace { return []ident.Namespace{shop} })
	done.Go(func() { x.Run(ctx) })
	for range 1000 {
		time.Sleep(time.Second) // of the bubble
		s, err := o.w.Get(t.Context(), shop, "key")
		if err != nil || s.Rotation.Step == secret.StepNone && (s.Rotation.Next.IsZero() || time.Now().Before(s.Rotation.Next)) {
			break
		}
	}
	stop()
	done.Wait()
}

func newOutsider(t *testing.T) *outsider {
	t.Helper()
	w := newWorld(t)
	w.set(t, "key", "first")
	return &outsider{w: w, t: t, accepted: map[string]bool{"first": true}, fail: map[secret.Step]error{}}
}

func (o *outsider) plan(t *testing.T, p secret.Plan) {
	t.Helper()
	p.Function = "rotator"
	if _, err := o.w.Plan(t.Context(), shop, "key", p); err != nil {
		t.Fatal(err)
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	o := newOutsider(t)
	synctest.Test(t, func(t *testing.T) {
		o.w.start(t)
		defer o.w.Close() //nolint:errcheck // checked elsewhere
		o.plan(t, secret.Plan{Now: true, Grace: time.Hour, By: "user:ann"})
		o.run(t)
		if got := strings.Join(o.calls, ", "); got != "rotator set 2, rotator test 2" {
			t.Errorf("calls = %s", got)
		}
		got := o.w.value(t, "key")
		if len(got) != 32 || !o.accepted[got] {
			t.Errorf("the new value is %q", got)
		}
		if got := o.w.value(t, "key@previous"); got != "first" {
			t.Errorf("previous = %s", got)
		}
		// On a schedule, the function makes the value.
		o.creates = `{"value":"made by the function"}`
		o.plan(t, secret.Plan{Every: 24 * time.Hour, Creates: true})
		ctx, stop := context.WithCancel(t.Context())
		var done sync.WaitGroup
		x := secret.NewRotator(o.w.Store, o.invoke, func() []ident.Namespace { return []ident.Namespace{shop} })
		done.Go(func() { x.Run(ctx) })
		time.Sleep(23 * time.Hour)
		if got := o.w.value(t, "key@3"); got != "[secret.version_unavailable]" {
			t.Errorf("rotated too early: %s", got)
		}
		time.Sleep(2 * time.Hour)
		stop()
		done.Wait()
		if got := o.w.value(t, "key"); got != "made by the function" {
			t.Errorf("current = %s", got)
		}
		o.mu.Lock()
		o.replay(t.Context(), shop, secret.Request{})
		o.mu.Unlock()
		if o.replayed < 4 {
			t.Errorf("only %d steps came again", o.replayed)
		}
		if s, err := o.w.Get(t.Context(), shop, "key"); err != nil || s.Rotation.Next.Before(time.Now()) {
			t.Errorf("next = %+v, %v", s.Rotation, err)
		}
	})
}

// TestRotationFails: whatever step fails, what was in force stays so, and the pending version cannot be used.
func TestRotationFails(t *testing.T) {
	t.Parallel()
	failed := problem.New(problem.FunctionFailed, "cell.function_failed", "no")
	for name, fail := range map[string]func(o *outsider){
		"create":        func(o *outsider) { o.fail[secret.StepCreate] = failed },
		"create answer": func(o *outsider) { o.creates = `{"valu":"x"}` },
		"create empty":  func(o *outsider) { o.creates = "" },
		"set":           func(o *outsider) { o.creates, o.fail[secret.StepSet] = `{"value":"next"}`, failed },
		"test":          func(o *outsider) { o.creates, o.fail[secret.StepTest] = `{"value":"next"}`, failed },
		"no store": func(o *outsider) {
			o.creates, o.fail[secret.StepTest] = `{"value":"next"}`, errors.New("the disk does not answer")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOutsider(t)
			fail(o)
			synctest.Test(t, func(t *testing.T) {
				o.w.start(t)
				defer o.w.Close() //nolint:errcheck // checked elsewhere
				o.plan(t, secret.Plan{Now: true, Creates: true})
				o.run(t)
				s, err := o.w.Get(t.Context(), shop, "key")
				if err != nil || s.Rotation.Error == "" || s.Rotation.Step != secret.StepNone {
					t.Fatalf("rotation = %+v, %v", s.Rotation, err)
				}
				if got := o.w.value(t, "key") + o.w.value(t, "key@pending") + o.w.value(t, "key@2"); got != "first[secret.version_unavailable][secret.version_unavailable]" {
					t.Errorf("values: %s", got)
				}
				o.fail, o.creates = map[secret.Step]error{}, `{"value":"another"}`
				o.plan(t, secret.Plan{Now: true, Creates: true})
				o.run(t)
				if got := o.w.value(t, "key"); got != "another" {
					t.Errorf("after the next rotation: %s", got)
				}
			})
		})
	}
}

// TestRotationSurvivesCrashes kills the process at every write of a rotation, before and after it is made, and once more at the
// same write after the restart. At every moment the value in force is one that the outside takes; at the end the rotation is done or given up.
func TestRotationSurvivesCrashes(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]secret.Plan{
		"begun by hand": {Now: true}, "begun by the schedule": {Every: secret.MinEvery}, "by the schedule, the function creates": {Every: secret.MinEvery, Creates: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crashRotation(t, p)
		})
	}
}

func crashRotation(t *testing.T, p secret.Plan) {
	t.Helper()
	crashes := 0
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			o := newOutsider(t)
			o.creates = `{"value":"made by the function"}`
			crashed := false
			synctest.Test(t, func(t *testing.T) {
				o.w.start(t)
				o.plan(t, p)
				if p.Every > 0 {
					time.Sleep(p.Every) // then it is due, and comes due once more when it is over
				}
				for range 2 {
					o.w.disk.mu.Lock()
					o.w.disk.crashAt, o.w.disk.after = o.w.disk.writes+at, after
					o.w.disk.mu.Unlock()
					o.run(t)
					_ = o.w.Close()
					o.w.disk.mu.Lock()
					crashed = crashed || o.w.disk.dead
					o.w.disk.dead, o.w.disk.crashAt = false, 0
					o.w.disk.mu.Unlock()
					o.w.start(t)
					if got := o.w.value(t, "key"); !o.accepted[got] {
						t.Errorf("crash at write %d (made: %v): the value in force is %q, which the outside does not take", at, after, got)
					}
				}
				o.run(t)
				s, err := o.w.Get(t.Context(), shop, "key")
				if err != nil || s.Rotation.Step != secret.StepNone || s.Rotation.Ended.IsZero() {
					t.Errorf("crash at write %d: rotation = %+v, %v", at, s.Rotation, err)
				}
				if got := o.w.value(t, "key"); !o.accepted[got] || s.Rotation.Error == "" && got == "first" {
					t.Errorf("crash at write %d: in the end %q is in force, error %q", at, got, s.Rotation.Error)
				}
				checkNothingLeft(t, o.w, fmt.Sprint("crash at write ", at))
				_ = o.w.Close()
			})
			if !crashed {
				break
			}
			crashes++
		}
	}
	if crashes < 14 {
		t.Errorf("only %d crashes were tried: the test is looking in the wrong place", crashes)
	}
}

// TestNoCallFailsWhileRotating uses a secret all the time while it is rotated again and again: the current value is always one that
// the outside takes, and one that was read before the swap is taken after it.
func TestNoCallFailsWhileRotating(t *testing.T) {
	t.Parallel()
	o := newOutsider(t)
	synctest.Test(t, func(t *testing.T) {
		o.w.start(t)
		defer o.w.Close() //nolint:errcheck // checked elsewhere
		ctx, stop := context.WithCancel(t.Context())
		var users sync.WaitGroup
		used := 0
		users.Go(func() {
			for ctx.Err() == nil {
				v := o.w.value(t, "key")
				time.Sleep(300 * time.Millisecond) // the call is under way
				o.mu.Lock()
				if !o.accepted[v] {
					t.Errorf("a call failed with %s", v)
				}
				used++
				o.mu.Unlock()
			}
		})
		for range 10 {
			o.plan(t, secret.Plan{Now: true})
			o.run(t)
		}
		stop()
		users.Wait()
		if s, err := o.w.Get(context.WithoutCancel(ctx), shop, "key"); err != nil || s.Current != 11 || used < 10 {
			t.Errorf("current = %+v, %v after %d uses", s, err, used)
		}
	})
}
