package secret

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/grant"
	"sallyport/internal/ident"
	"sallyport/internal/problem"
)

// Step is where a rotation stands: what is done next.
type Step string

// The steps. A rotation that is at one when the server stops is taken up there again, so a function may get a step twice.
const (
	StepNone   Step = ""
	StepCreate Step = "create" // the pending version is made
	StepSet    Step = "set"    // the function makes the outside accept it
	StepTest   Step = "test"   // the function tries it
	StepFinish Step = "finish" // it comes into force
)

// Limits of rotations.
const (
	// MinEvery and MaxEvery bound how often a secret is rotated.
	MinEvery = time.Minute
	MaxEvery = 10 * 366 * 24 * time.Hour
	// maxTries is how often a step is tried, over restarts too, before the rotation is given up.
	maxTries = 3
	// retryStep is how long after a failure a step is tried again.
	retryStep = 2 * time.Second
	// generated is the length of a value that the server makes, in characters of 62: 190 bits.
	generated = 32
	// lookEvery is how often the schedule is looked at.
	lookEvery = 5 * time.Second
	// maxRotationError bounds what is kept of an error, in bytes.
	maxRotationError = 300
	// RotationEvent is the type of the events that a rotation function gets.
	RotationEvent = "sallyport.secret.rotation"
)

// rotation is what is stored of the rotation of a secret.
type rotation struct {
	Function ident.FunctionName `json:"function"`
	// Creates says that the function makes the value; else the server does.
	Creates bool        `json:"creates,omitempty"`
	Every   nanoseconds `json:"every,omitzero"`
	Grace   nanoseconds `json:"grace"`
	// Next is when it is due, zero without a schedule.
	Next time.Time `json:"next,omitzero"`

	Step    Step              `json:"step,omitempty"`
	Pending int               `json:"pending,omitempty"` // the version being brought in
	Tries   int               `json:"tries,omitempty"`   // of the step
	By      ident.PrincipalID `json:"by,omitempty"`
	Started time.Time         `json:"started,omitzero"`
	Ended   time.Time         `json:"ended,omitzero"`
	Error   string            `json:"error,omitempty"`
}

// nanoseconds is a time.Duration as it is stored.
type nanoseconds int64

func (r *rotation) running() bool { return r != nil && r.Step != StepNone }

// Rotation describes how a secret is rotated.
type Rotation struct {
	Function       ident.FunctionName
	Creates        bool
	Every, Grace   time.Duration
	Next           time.Time
	Step           Step
	Started, Ended time.Time
	Error          string
}

func (r *rotation) describe() *Rotation {
	return &Rotation{
		Function: r.Function, Creates: r.Creates, Every: time.Duration(r.Every), Grace: time.Duration(r.Grace), Next: r.Next, Step: r.Step, Started: r.Started, Ended: r.Ended, Error: r.Error,
	}
}

func rotating(r *record) *problem.Error {
	return problem.New(problem.Conflict, "secret.rotating", "the secret %q is being rotated, at the step %s", r.Name, r.Rotation.Step).
		WithHint("wait for its end: sallyport secret get %s", r.Name)
}

// Plan says how a secret is to be rotated.
type Plan struct {
	// Function is called for each step; the one that is configured when it is "".
	Function ident.FunctionName
	// Creates has the function make the value, with its answer {"value": "…"} to the step create.
	Creates bool
	// Every is how often, 0 on demand only.
	Every time.Duration
	// Grace is how long the version before stays usable, DefaultGrace when it is 0.
	Grace time.Duration
	// Off ends the schedule, and Now starts a rotation.
	Off, Now bool
	By       ident.PrincipalID
}

func (p *Plan) check() error {
	switch {
	case p.Every != 0 && (p.Every < MinEvery || p.Every > MaxEvery):
		return invalid("a secret is rotated once in %d minutes at the most, and once in %d days at the least", int(MinEvery.Minutes()), int(MaxEvery.Hours()/24))
	case p.Grace < 0 || p.Grace > MaxGrace:
		return invalid("the time of grace is at most %s", MaxGrace)
	case p.Off && (p.Now || p.Every != 0):
		return invalid("a rotation is switched off, or begun, not both")
	}
	return nil
}

// Plan changes how a secret is rotated, and begins a rotation when that is asked.
func (s *Store) Plan(ctx context.Context, ns ident.Namespace, name ident.SecretName, p Plan) (*Secret, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	sp, err := s.space(ctx, ns)
	if err != nil {
		return nil, err
	}
	r, err := sp.change(ctx, name, func(r *record) (*record, error) {
		switch {
		case r == nil:
			return nil, notFound(ns, name)
		case r.Reference != "":
			return nil, problem.New(problem.Conflict, "secret.linked", "the secret %q is in another store, %s: rotate it there", name, r.Reference)
		case r.Rotation.running():
			return nil, rotating(r)
		}
		return r, r.plan(&p, time.Now().UTC())
	})
	if err != nil {
		return nil, err
	}
	out := sp.describe(r, time.Now())
	return &out, nil
}

func (r *record) plan(p *Plan, now time.Time) error {
	rot := r.Rotation
	if rot == nil {
		rot = &rotation{Grace: nanoseconds(DefaultGrace)}
		r.Rotation = rot
	}
	if p.Function != "" {
		rot.Function, rot.Creates = p.Function, p.Creates
	}
	if rot.Function == "" {
		return invalid("no function rotates the secret %q", r.Name).WithHint("name one: sallyport secret rotate %s --function NAME", r.Name)
	}
	if p.Grace != 0 {
		rot.Grace = nanoseconds(p.Grace)
	}
	if p.Every != 0 {
		rot.Every, rot.Next = nanoseconds(p.Every), now.Add(p.Every)
	}
	if p.Off {
		rot.Every, rot.Next = 0, time.Time{}
	}
	if p.Now {
		rot.begin(now, p.By)
	}
	return nil
}

func (r *rotation) begin(now time.Time, by ident.PrincipalID) {
	r.Step, r.Pending, r.Tries, r.Started, r.Ended, r.Error, r.By = StepCreate, 0, 0, now, time.Time{}, "", by
	if r.Every > 0 {
		r.Next = now.Add(time.Duration(r.Every))
	}
}

// Invoke calls a function of a namespace with an event of the type RotationEvent, and returns what it answered.
type Invoke func(ctx context.Context, ns ident.Namespace, fn ident.FunctionName, data []byte) (reply []byte, err error)

// Request is the data of an event that a rotation function gets. The value is not in it: the function has grants for that.
type Request struct {
	Secret  string `json:"secret"`
	Step    Step   `json:"step"`
	Version int    `json:"version"`
}

// stepDue returns why a use for a step of a rotation must not be made: the step is not about the version that is being brought in now. The event of a step that a crash
// interrupted is delivered again, beside the one that the rotation makes anew, and whichever is later may come when another version is pending: "the pending version" would be
// that one, made known before its time, and what such a late step creates or takes away outside is of a rotation that nobody follows any more.
func (s *Store) stepDue(ctx context.Context, ns ident.Namespace, use grant.Use) error {
	e := use.Caller.Event
	if e == nil || e.Type != RotationEvent {
		return nil
	}
	var req Request
	if err := json.Unmarshal(e.Data, &req); err != nil {
		return invalid("the event is no step of a rotation")
	}
	over := func(why string) error {
		return problem.New(problem.Unprocessable, "secret.step_over", "the step %s of version %d of the secret %q is over: %s", req.Step, req.Version, req.Secret, why)
	}
	_, r, err := s.find(ctx, ns, ident.SecretName(req.Secret))
	switch {
	case isNotFound(err):
		return over("the secret is gone")
	case err != nil:
		return err
	case !r.Rotation.running():
		return over("no rotation is under way")
	case r.Rotation.Step == StepCreate && (req.Step != StepCreate || req.Version != r.Next), r.Rotation.Step != StepCreate && (req.Step == StepCreate || req.Version != r.Rotation.Pending):
		return over("the rotation is at another")
	}
	return nil
}

// Rotator runs the rotations of all namespaces. Several secrets are rotated at the same time, each step of one after the other.
type Rotator struct {
	store      *Store
	invoke     Invoke
	namespaces func() []ident.Namespace
	log        *slog.Logger
	wake       chan struct{}

	mu     sync.Mutex
	active map[rotated]bool
}

type rotated struct {
	ns   ident.Namespace
	name ident.SecretName
}

// maxActive bounds the rotations that are under way at the same time.
const maxActive = 16

// NewRotator returns a Rotator; Run it.
func NewRotator(s *Store, invoke Invoke, namespaces func() []ident.Namespace) *Rotator {
	return &Rotator{store: s, invoke: invoke, namespaces: namespaces, log: s.log, wake: make(chan struct{}, 1), active: map[rotated]bool{}}
}

// Wake has the rotator look now for what is to be done.
func (x *Rotator) Wake() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// Run takes up what was under way, begins what is due, and returns when ctx ends and the steps under way are over.
func (x *Rotator) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	ticks := time.NewTicker(lookEvery)
	defer ticks.Stop()
	for {
		for _, ns := range x.namespaces() {
			x.look(ctx, ns, &running)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		case <-x.wake:
		}
	}
}

// look starts the rotations of a namespace that are due or were under way.
func (x *Rotator) look(ctx context.Context, ns ident.Namespace, running *sync.WaitGroup) {
	sp, err := x.store.space(ctx, ns)
	if err != nil {
		if ctx.Err() == nil {
			x.log.Error("look for secrets to rotate", "namespace", string(ns), "error", err)
		}
		return
	}
	now := time.Now()
	for _, r := range sp.all() {
		rot := r.Rotation
		if rot == nil || !rot.running() && (rot.Next.IsZero() || now.Before(rot.Next)) {
			continue
		}
		id := rotated{ns, r.Name}
		x.mu.Lock()
		busy := x.active[id] || len(x.active) >= maxActive
		if !busy {
			x.active[id] = true
		}
		x.mu.Unlock()
		if busy {
			continue
		}
		running.Go(func() {
			defer func() {
				x.mu.Lock()
				defer x.mu.Unlock()
				delete(x.active, id)
			}()
			x.rotate(ctx, sp, r.Name)
		})
	}
}

// rotate takes a rotation as far as it goes.
func (x *Rotator) rotate(ctx context.Context, sp *space, name ident.SecretName) {
	for ctx.Err() == nil {
		done, err := x.step(ctx, sp, name)
		switch {
		case err != nil && ctx.Err() == nil:
			x.log.Warn("rotate a secret", "namespace", string(sp.ns), "secret", string(name), "error", err)
			timer := time.NewTimer(retryStep)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
		case done:
			return
		}
	}
}

// step makes one step of a rotation, and stores that it is made. What a step did is done again when a crash comes before it is stored.
// The error is of the store.
func (x *Rotator) step(ctx context.Context, sp *space, name ident.SecretName) (done bool, err error) {
	r, err := sp.get(ctx, name)
	if isNotFound(err) {
		return true, nil // destroyed meanwhile
	}
	if err != nil {
		return false, err
	}
	rot := r.Rotation
	if !rot.running() {
		if rot == nil || rot.Next.IsZero() || time.Now().Before(rot.Next) {
			return true, nil
		}
		return false, sp.advance(ctx, name, StepNone, func(r *record, now time.Time) { r.Rotation.begin(now, "") })
	}
	// The try is counted before it is made: one that takes the server down must not be made for ever.
	if rot.Tries >= maxTries {
		return true, x.abandon(ctx, sp, name, fmt.Errorf("the step %s was begun %d times and did not end", rot.Step, rot.Tries))
	}
	if err := sp.advance(ctx, name, rot.Step, func(r *record, _ time.Time) { r.Rotation.Tries++ }); err != nil {
		return false, err
	}
	switch rot.Step {
	case StepCreate:
		err = x.create(ctx, sp, r)
	case StepSet:
		err = x.call(ctx, sp, r, StepTest)
	case StepTest:
		err = x.call(ctx, sp, r, StepFinish)
	case StepFinish:
		err = sp.advance(ctx, name, StepFinish, func(r *record, now time.Time) {
			rot := r.Rotation
			r.promote(rot.Pending, time.Duration(rot.Grace), now)
			rot.Step, rot.Pending, rot.Tries, rot.Ended = StepNone, 0, 0, now
		})
		if err == nil {
			x.log.Info("secret rotated", "namespace", string(sp.ns), "secret", string(name), "version", rot.Pending)
		}
		return err == nil, err
	case StepNone:
	}
	if failed, ok := errors.AsType[*stepError](err); ok && ctx.Err() == nil {
		return true, x.abandon(ctx, sp, name, failed.err)
	}
	return false, err
}

// stepError is a failure of the function: the rotation ends. Any other is of the server, and the step is tried again.
type stepError struct{ err error }

func (e *stepError) Error() string { return e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// advance changes the rotation of a secret that is at a step.
func (sp *space) advance(ctx context.Context, name ident.SecretName, at Step, f func(r *record, now time.Time)) error {
	_, err := sp.change(ctx, name, func(r *record) (*record, error) {
		if r == nil || r.Rotation == nil || r.Rotation.Step != at {
			return nil, notFound(sp.ns, name)
		}
		f(r, time.Now().UTC())
		return r, nil
	})
	if isNotFound(err) {
		return nil // somebody changed it meanwhile: the next look sees what is
	}
	return err
}

// create makes the pending version.
func (x *Rotator) create(ctx context.Context, sp *space, r *record) error {
	value := []byte(pick(generated, alphanumeric))
	if r.Rotation.Creates {
		reply, err := x.invokeStep(ctx, sp, r, StepCreate, r.Next)
		if err != nil {
			return err
		}
		if value, err = readValue(reply); err != nil {
			return &stepError{err}
		}
	}
	defer clear(value)
	sp.writing.Lock()
	defer sp.writing.Unlock()
	_, ended, err := sp.addVersion(ctx, r.Name, value, OriginRotation, r.Rotation.By, func(r *record, n int, _ time.Time) error {
		if r.Rotation == nil || r.Rotation.Step != StepCreate {
			return notFound(sp.ns, r.Name)
		}
		r.Pending, r.Rotation.Pending, r.Rotation.Step, r.Rotation.Tries = n, n, StepSet, 0
		return nil
	})
	sp.end(ctx, ended)
	if isNotFound(err) {
		return nil
	}
	return err
}

// readValue reads the answer of a function that makes a value.
func readValue(reply []byte) ([]byte, error) {
	defer clear(reply)
	var answer struct {
		Value string `json:"value"`
	}
	if err := json.Unmarshal(reply, &answer); err != nil || answer.Value == "" || len(answer.Value) > MaxValue {
		return nil, errors.New(`the function did not answer to the step create with {"value": "…"}`)
	}
	return []byte(answer.Value), nil
}

// call has the function make a step, after which another is next.
func (x *Rotator) call(ctx context.Context, sp *space, r *record, next Step) error {
	step := r.Rotation.Step
	if _, err := x.invokeStep(ctx, sp, r, step, r.Rotation.Pending); err != nil {
		return err
	}
	return sp.advance(ctx, r.Name, step, func(r *record, _ time.Time) { r.Rotation.Step, r.Rotation.Tries = next, 0 })
}

func (x *Rotator) invokeStep(ctx context.Context, sp *space, r *record, step Step, number int) (jsontext.Value, error) {
	data, err := json.Marshal(&Request{Secret: string(r.Name), Step: step, Version: number}, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encode the step of a rotation: %w", err)
	}
	reply, err := x.invoke(ctx, sp.ns, r.Rotation.Function, data)
	if err == nil {
		return reply, nil
	}
	if p, ok := errors.AsType[*problem.Error](err); ok && p.Kind != problem.Unavailable && p.Kind != problem.Internal && p.Kind != problem.StorageFull {
		return nil, &stepError{fmt.Errorf("at the step %s: %s", step, p.Error())}
	}
	return nil, fmt.Errorf("invoke %s for the step %s: %w", r.Rotation.Function, step, err)
}

// abandon ends a rotation that failed: what was in force stays so, and the pending version is disabled.
func (x *Rotator) abandon(ctx context.Context, sp *space, name ident.SecretName, cause error) error {
	text := cause.Error()
	if len(text) > maxRotationError {
		text = text[:maxRotationError] + "…"
	}
	_, err := sp.change(ctx, name, func(r *record) (*record, error) {
		if r == nil || !r.Rotation.running() {
			return nil, notFound(sp.ns, name)
		}
		rot := r.Rotation
		if v := r.version(rot.Pending); v != nil && rot.Pending == r.Pending {
			v.Disabled = true
			r.Pending = 0
		}
		rot.Step, rot.Pending, rot.Tries, rot.Ended, rot.Error = StepNone, 0, 0, time.Now().UTC(), text
		return r, nil
	})
	if isNotFound(err) {
		return nil
	}
	if err == nil {
		x.log.Warn("rotation of a secret failed; what was in force stays in force", "namespace", string(sp.ns), "secret", string(name), "error", text)
	}
	return err
}
