package cell

import (
	"bytes"
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"sallyport/internal/problem"
)

// Bounds of what one invocation may have of grants at a time.
const (
	// MaxUses is how many uses of grants may be begun and not read: more is no help, for a function runs on one core.
	MaxUses = 64
	// MaxUnread is how many bytes of answers may wait for the function to read them; an answer that would pass it is replaced by an error.
	MaxUnread = 32 << 20
	// MaxGrantText is the longest name of a grant or of what is to be done with it, in bytes.
	MaxGrantText = 128
	// MaxGrantError is the longest error of a use, in bytes.
	MaxGrantError = 4 << 10
)

// GrantSpec is what a module may know of one of its function's grants.
type GrantSpec struct {
	Name, Kind string
	// About is what a script has to know of it to use it: of http, its methods and the template of its URL. It decides nothing.
	About string
	// Request and Reply are the most bytes of a request and of a reply, with their bodies.
	Request, Reply int
}

// GrantUse is one use of a grant by a guest.
type GrantUse struct {
	Grant, Op string
	// Request is a JSON text, and Body what comes with it as bytes.
	Request, Body []byte
}

// GrantAnswer is what came of a use.
type GrantAnswer struct {
	// JSON is a JSON value, in UTF-8. When Failed is set it is {code, message, retry}.
	JSON, Body []byte
	Failed     bool
}

func (a *GrantAnswer) size() int { return len(a.JSON) + len(a.Body) }

// Grants is how an invocation uses grants: Start begins uses, which run beside each other, and Next waits for what comes of
// them. Both are called by the goroutine of Invoke. When the invocation is over, what was not waited for is abandoned.
type Grants interface {
	// Start begins a use; number tells it from others of this invocation. It does not wait.
	Start(number uint32, use GrantUse)
	// Next returns an answer. It waits until one is there, for at most wait when that is not negative, and while ctx lasts.
	Next(ctx context.Context, wait time.Duration) (number uint32, answer GrantAnswer, ok bool)
}

// FailedUse is the answer of a use that failed. The guest sees the code, the sentence with its hint, and whether to come again.
func FailedUse(err error) GrantAnswer {
	p := problem.From(err)
	e := grantError{Code: p.Code, Message: p.Public, Retry: retryable(p.Kind), RetryAfter: p.RetryAfter.Seconds()}
	if len(e.Message) > MaxGrantError/2 || !utf8.ValidString(e.Message) {
		e.Message = string([]rune(p.Public)[:min(len([]rune(p.Public)), MaxGrantError/16)])
	}
	text, err := json.Marshal(e)
	if err != nil {
		panic("BUG: an error of a grant cannot be written: " + err.Error())
	}
	return GrantAnswer{JSON: text, Failed: true}
}

// grantError is an error as a guest gets it.
type grantError struct {
	Code       string  `json:"code"`
	Message    string  `json:"message"`
	Retry      bool    `json:"retry"`
	RetryAfter float64 `json:"retry_after_seconds,omitzero"`
}

// retryable reports whether the same use may succeed later.
func retryable(k problem.Kind) bool {
	switch k {
	case problem.Timeout, problem.Unavailable, problem.Exhausted, problem.Conflict:
		return true
	}
	return false
}

// Beside returns Grants that make each use in a goroutine of its own. When the invocation is over nobody waits for them: use MUST
// return soon then.
func Beside(use func(GrantUse) GrantAnswer) Grants {
	return &beside{use: use, answers: make(chan numbered, MaxUses)}
}

// beside is Grants in one process.
type beside struct {
	use     func(GrantUse) GrantAnswer
	answers chan numbered // room for as many as there may be
}

type numbered struct {
	number uint32
	answer GrantAnswer
}

func (b *beside) Start(number uint32, use GrantUse) {
	go func() { b.answers <- numbered{number, b.use(use)} }()
}

func (b *beside) Next(ctx context.Context, wait time.Duration) (uint32, GrantAnswer, bool) {
	n, ok := Await(ctx, b.answers, wait)
	return n.number, n.answer, ok
}

// Await receives from a channel as Grants.Next waits.
func Await[T any](ctx context.Context, from <-chan T, wait time.Duration) (v T, ok bool) {
	select {
	case v = <-from:
		return v, true
	default:
	}
	if wait == 0 {
		return v, false
	}
	var timer <-chan time.Time
	if wait > 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
	}
	select {
	case v = <-from:
		return v, true
	case <-timer:
	case <-ctx.Done():
	}
	return v, false
}

// uses are the uses of grants of one invocation: those that are begun, and the answers that were not read.
type uses struct {
	inv   *invocation
	specs []GrantSpec
	via   Grants
	last  uint32
	begun map[uint32]*begunUse
	// order has those that have an answer, the first that came first. unread is what these hold, in bytes, and waiting how many have none.
	order   []uint32
	unread  int
	waiting int
}

// begunUse is a use that was not read.
type begunUse struct {
	answer  *GrantAnswer // nil until it is there
	dropped bool         // nobody will read it
}

// start begins a use and returns its number. What may not be is answered with an error, which the guest finds like any answer; 0
// says that the invocation is over.
func (u *uses) start(use GrantUse) uint32 {
	if u.inv == nil || !u.inv.called() { // without an invocation, a module is loaded
		return 0
	}
	if len(u.begun) >= 2*MaxUses { // it does not read the refusals either
		u.inv.abort(problem.New(problem.FunctionFailed, "cell.uses_unread", "the function began %d uses of grants and read none of their answers", len(u.begun)))
		return 0
	}
	err := u.refuse(use)
	if u.begun == nil {
		u.begun = map[uint32]*begunUse{}
	}
	u.last++
	u.begun[u.last] = &begunUse{}
	u.waiting++
	if err != nil {
		u.arrived(u.last, FailedUse(err))
	} else {
		u.via.Start(u.last, GrantUse{Grant: use.Grant, Op: use.Op, Request: bytes.Clone(use.Request), Body: bytes.Clone(use.Body)})
	}
	return u.last
}

// refuse returns why a use may not be begun, or nil.
func (u *uses) refuse(use GrantUse) error {
	spec := grantNamed(u.specs, use.Grant)
	switch {
	case spec == nil || u.via == nil:
		return NotGranted(use.Grant)
	case u.waiting >= MaxUses || len(u.begun) >= MaxUses:
		return problem.New(problem.Exhausted, "grant.too_many_uses", "%d uses of grants are begun and not read, which is as many as may be", len(u.begun))
	case u.unread > MaxUnread:
		return problem.New(problem.Exhausted, "grant.unread", "%d bytes of answers wait to be read, which is more than may be", u.unread)
	}
	return CheckUse(spec, use)
}

// CheckUse returns what is wrong with a use of a grant, or nil.
func CheckUse(spec *GrantSpec, use GrantUse) error {
	switch size := len(use.Request) + len(use.Body); {
	case len(use.Op) > MaxGrantText || !utf8.ValidString(use.Op):
		return problem.New(problem.Invalid, "grant.request_invalid", "what is to be done with the grant %q is not a short text", spec.Name)
	case size > spec.Request:
		return problem.New(problem.TooLarge, "grant.request_too_large", "the request is %d bytes long, the grant %q takes %d", size, spec.Name, spec.Request).
			WithHint("raise limits.request of the grant in app.toml")
	}
	if v := jsontext.Value(use.Request); v.Kind() != jsontext.KindBeginObject || !v.IsValid() {
		return problem.New(problem.Invalid, "grant.request_invalid", "the request to the grant %q is not a JSON object", spec.Name)
	}
	return nil
}

// NotGranted is the error of a use of what the function has no grant of.
func NotGranted(name string) error {
	return problem.New(problem.Denied, "grant.not_granted", "the function has no grant %q that is used while it runs", clip(name)).
		WithHint("add it to the function's grants in app.toml")
}

func grantNamed(specs []GrantSpec, name string) *GrantSpec {
	for i := range specs {
		if specs[i].Name == name {
			return &specs[i]
		}
	}
	return nil
}

// arrived notes an answer.
func (u *uses) arrived(number uint32, a GrantAnswer) {
	b := u.begun[number]
	if b == nil || b.answer != nil {
		return
	}
	u.waiting--
	if b.dropped {
		delete(u.begun, number)
		return
	}
	if u.unread+a.size() > MaxUnread {
		a = FailedUse(problem.New(problem.Exhausted, "grant.unread", "the answer of %d bytes finds no room beside the %d that wait to be read", a.size(), u.unread))
	}
	b.answer = &a
	u.order = append(u.order, number)
	u.unread += a.size()
}

// pending reports whether an answer is there or may come.
func (u *uses) pending() bool { return len(u.begun) > 0 }

// await returns the number of a use that has its answer: of number, or of any when that is 0. It waits for at most wait when that is
// not negative, and returns 0 when none came.
func (u *uses) await(ctx context.Context, number uint32, wait time.Duration) uint32 {
	until := time.Now().Add(max(wait, 0))
	for {
		if n := u.ready(number); n != 0 || u.waiting == 0 {
			return n
		}
		left := wait
		if wait > 0 {
			left = max(time.Until(until), 0)
		}
		n, answer, ok := u.next(ctx, left)
		if !ok {
			return 0
		}
		u.arrived(n, answer)
	}
}

// next waits on no core: the thread is free, and what passes is no processor time of the function.
func (u *uses) next(ctx context.Context, wait time.Duration) (uint32, GrantAnswer, bool) {
	u.inv.cpu.stop()
	defer u.inv.cpu.start()
	if waits := u.inv.input.Waits; waits != nil && wait != 0 {
		waits(true)
		defer waits(false)
	}
	return u.via.Next(ctx, wait)
}

func (u *uses) ready(number uint32) uint32 {
	switch {
	case number == 0 && len(u.order) > 0:
		return u.order[0]
	case number != 0 && u.answer(number) != nil:
		return number
	}
	return 0
}

// answer returns the answer of a use without reading it, or nil.
func (u *uses) answer(number uint32) *GrantAnswer {
	if b := u.begun[number]; b != nil {
		return b.answer
	}
	return nil
}

// end forgets a use. One without an answer keeps its place until that comes.
func (u *uses) end(number uint32) {
	b := u.begun[number]
	switch {
	case b == nil:
	case b.answer == nil:
		b.dropped = true
	default:
		u.unread -= b.answer.size()
		u.order = slices.DeleteFunc(u.order, func(n uint32) bool { return n == number })
		delete(u.begun, number)
	}
}
