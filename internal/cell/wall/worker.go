package wall

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"sallyport/internal/cell"
)

// serve is what a worker does: it runs functions in engine as the server tells it, and returns nil
// when the server is gone. Lanes may be waited for by then, which ends with the process.
func serve(ctx context.Context, in reader, out *packer, lanes []*os.File, engine *cell.Engine, codes *handed) error {
	ctx, stop := context.WithCancel(ctx)
	w := &worker{
		engine: engine, codes: codes, out: out,
		functions: map[uint64]*cell.Function{}, running: map[uint64]context.CancelCauseFunc{}, answers: map[uint64]chan frame{},
	}
	defer w.background.Wait()
	defer stop()
	for _, conn := range lanes {
		w.background.Go(func() { w.along(ctx, conn) })
	}
	for {
		f, err := in.next(mostAsked)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = w.take(ctx, f)
		}
		if err != nil {
			return fmt.Errorf("serve the server: %w", err)
		}
	}
}

// mostAsked says how long a frame from the server may be.
func mostAsked(k kind, _ uint64) (int, error) {
	switch k {
	case kindLoad, kindCompile:
		return maxLoad, nil
	case kindHand:
		return maxCompiled + maxEntries*maxKey, nil
	case kindInvoke:
		return maxEvent + maxName, nil
	case kindAnswer:
		return maxReply + answerRoom, nil
	case kindDrop, kindCancel:
		return 0, nil
	}
	return 0, broken("a frame of kind %d", k)
}

// worker is the state of a worker process.
type worker struct {
	engine     *cell.Engine
	codes      *handed
	out        *packer
	background sync.WaitGroup

	mu        sync.Mutex
	functions map[uint64]*cell.Function
	running   map[uint64]context.CancelCauseFunc
	// answers has, for the invocations of functions with grants, where answers to their uses go.
	answers map[uint64]chan frame
	// early are the ids of the last cancels that came for what does not run: it has ended, or it comes on a
	// lane, which a cancel can overtake.
	early     [earlyCancels]uint64
	nextEarly int

	// next is compiled code for the load frame that comes next, of the reader's goroutine.
	next   []entry
	nextID uint64
}

// earlyCancels is more than there are lanes.
const earlyCancels = 256

// errCancelled is the cause of the end of what the server cancelled.
var errCancelled = errors.New("the server cancelled it")

// take does what a frame asks for, or begins to.
func (w *worker) take(ctx context.Context, f frame) error {
	switch f.kind {
	case kindLoad:
		function, spec, limits, err := decodeLoad(f.body)
		if err != nil {
			return err
		}
		code := w.next
		if w.nextID != f.id {
			code = nil
		}
		w.next = nil
		w.codes.offer(code)
		w.begin(ctx, f.id, func(ctx context.Context) {
			defer w.codes.withdraw(code)
			w.load(ctx, f.id, function, spec, limits)
		})
	case kindHand:
		d := decoder{left: f.body}
		w.next, w.nextID = d.entries(), f.id
		return d.done()
	case kindCompile:
		spec, err := decodeCompile(f.body)
		if err != nil {
			return err
		}
		w.begin(ctx, f.id, func(ctx context.Context) { w.compile(ctx, f.id, spec) })
	case kindInvoke:
		fn, in, err := w.asked(f)
		if err != nil {
			return err
		}
		w.expect(f.id, fn, &in)
		w.begin(ctx, f.id, func(ctx context.Context) { w.invoke(ctx, f.id, fn, in) })
	case kindAnswer:
		w.answer(f)
	case kindCancel:
		w.cancel(f.id)
	case kindDrop:
		w.drop(ctx, f.id)
	}
	return nil
}

// expect gives an invocation of a function with grants a way to use them.
func (w *worker) expect(id uint64, fn *cell.Function, in *cell.Input) {
	if !fn.Granted() {
		return
	}
	g := &amongOthers{asking: asking{id: id}, w: w, answers: make(chan frame, cell.MaxUses)}
	in.Grants = g
	w.mu.Lock()
	w.answers[id] = g.answers
	w.mu.Unlock()
}

// answer hands an answer to the invocation that waits for it, or might have.
func (w *worker) answer(f frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case w.answers[f.id] <- f:
	default: // it is over
	}
}

// cancel ends what runs under an id, now or as soon as it begins.
func (w *worker) cancel(id uint64) {
	w.mu.Lock()
	cancel := w.running[id]
	if cancel == nil {
		w.early[w.nextEarly%earlyCancels] = id
		w.nextEarly++
	}
	w.mu.Unlock()
	if cancel != nil {
		cancel(errCancelled)
	}
}

// begin runs do in a goroutine, with a context that a cancel frame of this id ends.
func (w *worker) begin(ctx context.Context, id uint64, do func(context.Context)) {
	ctx, cancel := w.enter(ctx, id)
	w.background.Go(func() {
		do(ctx)
		w.leave(id, cancel)
	})
}

// enter notes that something runs which a cancel frame of this id ends.
func (w *worker) enter(ctx context.Context, id uint64) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	w.mu.Lock()
	w.running[id] = cancel
	early := slices.Contains(w.early[:], id)
	w.mu.Unlock()
	if early {
		cancel(errCancelled)
	}
	return ctx, cancel
}

func (w *worker) leave(id uint64, cancel context.CancelCauseFunc) {
	w.mu.Lock()
	delete(w.running, id)
	delete(w.answers, id)
	w.mu.Unlock()
	cancel(nil)
}

// asked reads an invoke frame.
func (w *worker) asked(f frame) (*cell.Function, cell.Input, error) {
	function, in, err := decodeInvoke(f.body)
	if err != nil {
		return nil, in, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	fn := w.functions[function]
	if fn == nil {
		return nil, in, broken("function %d is not loaded", function)
	}
	return fn, in, nil
}

// send sends a frame. When that fails the server is gone, which the reader finds out as well.
func (w *worker) send(encode func(b []byte) []byte) { _ = w.out.send(encode) }

func (w *worker) load(ctx context.Context, id, function uint64, spec cell.Spec, limits cell.Limits) {
	fn, err := w.engine.Load(ctx, spec, limits)
	if err != nil {
		w.send(func(b []byte) []byte { return encodeRefused(b, id, err) })
		return
	}
	w.mu.Lock()
	w.functions[function] = fn
	w.mu.Unlock()
	w.send(func(b []byte) []byte {
		return encodeLoaded(b, id, loaded{kind: fn.Kind(), resident: fn.Resident()})
	})
}

func (w *worker) invoke(ctx context.Context, id uint64, fn *cell.Function, in cell.Input) {
	in.Log = func(level, message string) {
		w.send(func(b []byte) []byte { return encodeLog(b, id, level, message) })
	}
	result, usage, err := fn.Invoke(ctx, in)
	w.send(func(b []byte) []byte {
		if err != nil {
			return encodeFailed(b, id, usage, err)
		}
		return encodeDone(b, id, usage, result)
	})
}

// drop forgets a function. The server has none of its invocations running, but the goroutine of one
// that was answered may not have returned yet: its engine has.
func (w *worker) drop(ctx context.Context, function uint64) {
	w.mu.Lock()
	fn := w.functions[function]
	delete(w.functions, function)
	w.mu.Unlock()
	if fn != nil {
		_ = fn.Close(ctx) // a failure to free is a leak of compiled code, nothing to act on
	}
}
