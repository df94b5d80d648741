package wall

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"time"

	"sallyport/internal/cell"
	"sallyport/internal/problem"
)

// How grants cross the wall. A guest's use of a grant is a frame to the server, and its answer one back; they go the way of their
// invocation, along a lane or among the others. A worker names an invocation that runs in it, and a grant; which function that is, and which revision of it,
// is what the server itself knows of the invocation. So whatever a worker says, it uses no grant but those of what was handed to it,
// while it runs, within the bounds of their limits.

// Bits of a use frame.
const (
	useWaits = 1 // the guest waits now
	useOnly  = 2 // and for nothing else: no other answer, and no timer
	useBody  = 4 // there are bytes besides the JSON, maybe none: to a kv grant that is not the same as no bytes
)

const (
	// useRoom is what a use frame takes besides its request: numbers, names and lengths.
	useRoom = 2*cell.MaxGrantText + 64
	// maxReply is more than any reply of a grant, and answerRoom what an answer takes besides.
	maxReply   = 16 << 20
	answerRoom = cell.MaxGrantError + 64
)

func encodeUse(b []byte, id uint64, number uint32, u cell.GrantUse) []byte {
	start := len(b)
	bits := byte(0)
	if u.Body != nil {
		bits = useBody
	}
	b = append(begin(b, kindUse, id), bits)
	b = binary.AppendUvarint(b, uint64(number))
	b = appendText(appendText(b, u.Grant), u.Op)
	return end(appendText(appendText(b, u.Request), u.Body), start)
}

func decodeUse(body []byte) (bits byte, number uint32, u cell.GrantUse, err error) {
	d := decoder{left: body}
	bits = byte(d.number(useWaits | useOnly | useBody))
	number = uint32(d.number(math.MaxInt32))
	u.Grant, u.Op = string(d.bytes(cell.MaxGrantText)), string(d.bytes(cell.MaxGrantText))
	u.Request, u.Body = d.bytes(len(body)), d.bytes(len(body))
	if bits&useBody == 0 {
		if len(u.Body) > 0 {
			d.fail("a use without bytes has some")
		}
		u.Body = nil
	}
	return bits, number, u, d.done()
}

func encodeWaits(b []byte, id uint64, waits bool) []byte {
	start := len(b)
	b = append(begin(b, kindWaits, id), 0)
	if waits {
		b[len(b)-1] = 1
	}
	return end(b, start)
}

func encodeAnswer(b []byte, id uint64, number uint32, a cell.GrantAnswer) []byte {
	start := len(b)
	failed := byte(0)
	if a.Failed {
		failed = 1
	}
	b = binary.AppendUvarint(append(begin(b, kindAnswer, id), failed), uint64(number))
	return end(appendText(appendText(b, a.JSON), a.Body), start)
}

func decodeAnswer(body []byte) (number uint32, a cell.GrantAnswer, err error) {
	d := decoder{left: body}
	a.Failed = d.number(1) == 1
	number = uint32(d.number(math.MaxInt32))
	a.JSON, a.Body = d.bytes(len(body)), d.bytes(len(body))
	return number, a, d.done()
}

// useBytes is how long the body of a use frame of these grants may be; without grants there is none.
func useBytes(specs []cell.GrantSpec) (int, error) {
	if len(specs) == 0 {
		return 0, broken("a function without grants uses one")
	}
	most := 0
	for _, s := range specs {
		most = max(most, s.Request)
	}
	return most + useRoom, nil
}

// desk is the server's end of the uses of one invocation.
type desk struct {
	ctx    func() context.Context
	cancel context.CancelFunc
	specs  []cell.GrantSpec
	in     *cell.Input
	send   func(number uint32, a cell.GrantAnswer)

	mu      sync.Mutex
	left    int // uses that may still come
	begun   map[uint32]struct{}
	waiting bool
	over    bool
}

// newDesk returns the desk of an invocation of f, or nil when f has no grants. Its close MUST be called.
func newDesk(ctx context.Context, f *Function, in *cell.Input, send func(number uint32, a cell.GrantAnswer)) *desk {
	if len(f.spec.Grants) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.limits.Timeout)
	return &desk{
		ctx: func() context.Context { return ctx }, cancel: cancel, specs: f.spec.Grants, in: in, send: send,
		left: f.limits.HostCalls, begun: map[uint32]struct{}{},
	}
}

// close ends what is running. No answer is sent after it but one that is being sent.
func (d *desk) close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	d.over = true
	d.wait(false)
	d.mu.Unlock()
	d.cancel()
}

// most says how long a frame about uses may be.
func (d *desk) most(k kind) (int, error) {
	if d == nil {
		return 0, broken("a function without grants sends a frame of kind %d", k)
	}
	if k == kindWaits {
		return 1, nil
	}
	return useBytes(d.specs)
}

// abandon ends what is running, for nobody waits for it any more.
func (d *desk) abandon() {
	if d != nil {
		d.cancel()
	}
}

// take does what a frame asks for. A use is made in a goroutine of its own, or before take returns when inline says that the caller has
// nothing else to do and the guest waits for nothing else: until the use is over, which it is soon after the context is, there is nothing to read
// but what a worker sends that breaks the rules. An error says that the worker broke the protocol.
func (d *desk) take(f frame, inline bool) error {
	if f.kind == kindWaits {
		if len(f.body) != 1 {
			return broken("a frame of kind %d is malformed", f.kind)
		}
		d.mu.Lock()
		d.wait(f.body[0] == 1)
		d.mu.Unlock()
		return nil
	}
	bits, number, use, err := decodeUse(f.body)
	if err != nil {
		return err
	}
	spec, err := d.begin(number, use)
	if err != nil {
		return err
	}
	alone := inline && bits&useOnly != 0
	if bits&useWaits != 0 && !(alone && quick(spec)) {
		d.mu.Lock()
		d.wait(true)
		d.mu.Unlock()
	}
	if alone {
		d.do(spec, number, use)
	} else {
		go d.do(spec, number, use)
	}
	return nil
}

// quick reports whether a use is over so soon that it is no wait for which somebody else could run.
func quick(spec *cell.GrantSpec) bool { return spec.Kind == "kv" }

// begin checks a use and notes it: a worker refuses what is wrong with it by itself.
func (d *desk) begin(number uint32, use cell.GrantUse) (*cell.GrantSpec, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left--; d.left < 0 {
		return nil, broken("an invocation uses grants more often than its limit")
	}
	if _, again := d.begun[number]; again || number == 0 {
		return nil, broken("a use has the number of another")
	}
	if len(d.begun) >= cell.MaxUses {
		return nil, broken("an invocation uses more than %d grants at a time", cell.MaxUses)
	}
	for i := range d.specs {
		spec := &d.specs[i]
		if spec.Name != use.Grant {
			continue
		}
		if err := cell.CheckUse(spec, use); err != nil {
			return nil, broken("a use is not as it has to be: %w", err)
		}
		d.begun[number] = struct{}{}
		return spec, nil
	}
	return nil, broken("an invocation uses a grant that its function has not")
}

// do makes a use and sends its answer.
func (d *desk) do(spec *cell.GrantSpec, number uint32, use cell.GrantUse) {
	a := d.ask(spec, use)
	d.mu.Lock()
	delete(d.begun, number)
	// When the time of the invocation is over, its worker ends it, and its function is not to take that for an answer that it can handle.
	over := d.over || errors.Is(d.ctx().Err(), context.DeadlineExceeded)
	d.wait(false)
	d.mu.Unlock()
	if !over {
		d.send(number, a)
	}
}

func (d *desk) ask(spec *cell.GrantSpec, use cell.GrantUse) cell.GrantAnswer {
	if d.in.Use == nil {
		return cell.FailedUse(cell.NotGranted(use.Grant))
	}
	a := d.in.Use(d.ctx(), use)
	if size := len(a.JSON) + len(a.Body); !a.Failed && size > min(spec.Reply, maxReply) {
		return cell.FailedUse(problem.New(problem.TooLarge, "grant.reply_too_large", "the reply is %d bytes long, the grant %q takes %d", size, spec.Name, spec.Reply).
			WithHint("raise limits.reply of the grant in app.toml"))
	}
	return a
}

// wait notes whether the guest waits. d.mu is held.
func (d *desk) wait(waits bool) {
	if d.waiting == waits || waits && d.over {
		return
	}
	d.waiting = waits
	if d.in.Waits != nil {
		d.in.Waits(waits)
	}
}

// asking is what both ways to the server have in common in a worker: cell.Grants of one invocation.
type asking struct {
	id uint64
	// out are frames that were not sent, the last of which has its bits at bits; 0 is none.
	out  []byte
	bits int
	// begun is how many uses have no answer. told is what the server was told: whether the guest waits.
	begun int
	told  bool
}

// Start implements cell.Grants: what is begun is sent when the guest waits for it.
func (a *asking) Start(number uint32, use cell.GrantUse) {
	a.bits = len(a.out) + headBytes
	a.out = encodeUse(a.out, a.id, number, use)
	a.begun++
}

// frames returns what is to be sent before the guest waits for so long; it is valid until the next call of a method.
func (a *asking) frames(wait time.Duration) []byte {
	out := a.out
	waits := wait != 0
	if a.bits > 0 {
		if waits {
			out[a.bits] |= useWaits
			if wait < 0 && a.begun == 1 {
				out[a.bits] |= useOnly
			}
		}
	} else if waits && !a.told {
		out = encodeWaits(out, a.id, true)
	}
	a.told, a.bits, a.out = waits, 0, out[:0]
	return out
}

// stop returns what is to be sent when the guest goes on without an answer.
func (a *asking) stop() []byte {
	if !a.told {
		return nil
	}
	a.told = false
	return encodeWaits(a.out[:0], a.id, false)
}

// answered reads an answer. The server knows that the guest goes on.
func (a *asking) answered(f frame) (uint32, cell.GrantAnswer, bool) {
	number, answer, err := decodeAnswer(f.body)
	if err != nil {
		panic("BUG: the server broke the protocol: " + err.Error())
	}
	a.begun--
	a.told = false
	return number, answer, true
}

// amongOthers is cell.Grants of an invocation that goes through the socket that all share.
type amongOthers struct {
	asking
	w       *worker
	answers chan frame // has room for all that may come
}

// Next implements cell.Grants.
func (a *amongOthers) Next(ctx context.Context, wait time.Duration) (uint32, cell.GrantAnswer, bool) {
	a.flush(a.frames(wait))
	f, ok := cell.Await(ctx, a.answers, wait)
	if !ok {
		a.flush(a.stop())
		return 0, cell.GrantAnswer{}, false
	}
	return a.answered(f)
}

func (a *amongOthers) flush(frames []byte) {
	if len(frames) > 0 {
		a.w.send(func(b []byte) []byte { return append(b, frames...) })
	}
}

// alongLane is cell.Grants of an invocation on a lane, which its own goroutine reads.
type alongLane struct {
	asking
	conn  laneConn
	in    reader
	ready func(wait time.Duration) bool // waits until there is something to read
	err   error
}

type laneConn interface{ Write(p []byte) (int, error) }

// Next implements cell.Grants. What ends the invocation from outside makes the server answer, so that nothing else has to be waited for but the
// deadline.
func (a *alongLane) Next(ctx context.Context, wait time.Duration) (uint32, cell.GrantAnswer, bool) {
	a.flush(a.frames(wait))
	end, bounded := ctx.Deadline()
	if until := time.Now().Add(wait); wait >= 0 && (!bounded || until.Before(end)) {
		end, bounded = until, true
	}
	for a.err == nil && ctx.Err() == nil {
		left := time.Duration(-1)
		if bounded {
			left = max(time.Until(end), 0)
		}
		if a.in.from.Buffered() == 0 && !a.ready(left) {
			break
		}
		f, err := a.in.next(mostAnswer)
		if err != nil {
			a.fail(err)
			break
		}
		if f.id == a.id { // else it is for an invocation that is over
			return a.answered(f)
		}
	}
	a.flush(a.stop())
	return 0, cell.GrantAnswer{}, false
}

// fail notes that nothing comes any more: the server is gone.
func (a *alongLane) fail(err error) {
	if errors.Is(err, errProtocol) {
		panic("BUG: the server broke the protocol: " + err.Error())
	}
	a.err = err
}

func (a *alongLane) flush(frames []byte) {
	if len(frames) > 0 && a.err == nil {
		_, a.err = a.conn.Write(frames)
	}
}

// mostAnswer says how long a frame may be while an answer is waited for on a lane.
func mostAnswer(k kind, _ uint64) (int, error) {
	if k != kindAnswer {
		return 0, broken("a frame of kind %d is no answer", k)
	}
	return maxReply + answerRoom, nil
}
