package cell

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	wasm "github.com/tetratelabs/wazero/api"

	"sallyport/internal/cell/harden"
	"sallyport/internal/cell/snapshot"
)

// instance is one live sandbox. It serves one event at a time, and between two events it is made what
// it was before the first one, or closed.
type instance struct {
	wasm.Module
	function *Function
	memory   *snapshot.Memory
	globals  []wasm.MutableGlobal // all of the module's, in the order of its report
	stop     wasm.MutableGlobal
	session  session
	streams  streams
	call     *call // that it serves, or nil

	idleSince time.Time // guarded by idle.mu
}

// bind has the instance serve inv, and be stopped when that ends.
func (in *instance) bind(inv *invocation) {
	in.call = inv.call
	s := &in.streams
	s.call = inv.call
	s.stdin.Reset(inv.input.Event)
	s.stdout, s.stderr = redirected{inv.stdout, s}, redirected{inv.stderr, s}
	s.random = randomSource{streams: s}
	in.call.arm(in.stop)
}

// release ends what bind began. It reports whether the guest was stopped.
func (in *instance) release() bool {
	if in.call == nil {
		return false
	}
	stopped := in.call.disarm()
	in.call, in.streams.call = nil, nil
	return stopped
}

// initialize runs the module's start function and the guest's initialisation.
func (in *instance) initialize(ctx context.Context) error {
	if start := in.ExportedFunction(harden.StartExport); start != nil {
		if _, err := start.Call(ctx); err != nil {
			return err
		}
	}
	return in.session.initialize(ctx)
}

// serve has the guest handle the event of inv.
func (in *instance) serve(ctx context.Context, inv *invocation) error {
	if t := in.function.template; t != nil && !t.initialized {
		if err := in.initialize(ctx); err != nil {
			return err
		}
	}
	return in.session.handle(ctx, inv)
}

// size is what the instance holds while it waits, in bytes. Its tables have not grown: an instance
// whose code can make them is not used again.
func (in *instance) size() int64 {
	return in.memory.Size() + tableBytes(in.function.module.report)
}

// retire frees an instance that has ended well and is reset: its memory is kept for the next one.
func (in *instance) retire(ctx context.Context) {
	in.end(ctx)
	in.memory.Retire()
}

// close frees the instance.
func (in *instance) close(ctx context.Context) {
	in.end(ctx)
	in.memory.Release()
}

// end frees all of the instance but its memory. The guest is gone at this point, so there is no one to tell of an
// error, and wazero's only errors are of file descriptors, of which a cell has none.
func (in *instance) end(ctx context.Context) {
	in.release()
	_ = in.Module.Close(context.WithoutCancel(ctx))
}

// streams are what a guest has of the world. wazero is given them once, when the instance is made;
// what is behind them changes with the event.
type streams struct {
	stdin          bytes.Reader
	stdout, stderr redirected
	random         randomSource
	call           *call
}

// pieceBytes is how much a host function handles between two looks at whether the invocation is over:
// the guest cannot be stopped while it waits for the host, and one call may name all of its memory
// a million times.
const pieceBytes = 64 << 10

// errOver is the error of a host function when the invocation is over.
var errOver = errors.New("the invocation is over")

// over reports whether the invocation is.
func (s *streams) over() bool { return s.call.Err() != nil }

// redirected is an output that goes to the current invocation.
type redirected struct {
	to      io.Writer
	streams *streams
}

// Write implements io.Writer.
func (r *redirected) Write(p []byte) (n int, err error) {
	for {
		if r.streams.over() {
			return n, errOver
		}
		piece := p[n:min(len(p), n+pieceBytes)]
		if _, err := r.to.Write(piece); err != nil {
			return n, err
		}
		if n += len(piece); n == len(p) {
			return n, nil
		}
	}
}

// randomSource is the system's random numbers, and whether some were drawn.
type randomSource struct {
	drawn   bool
	streams *streams
}

// Read implements io.Reader.
func (r *randomSource) Read(p []byte) (int, error) {
	r.drawn = true
	if r.streams.over() {
		return 0, errOver
	}
	return rand.Read(p[:min(len(p), pieceBytes)])
}
