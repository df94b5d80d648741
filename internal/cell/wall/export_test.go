package wall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sallyport/internal/cell"
)

// Fake is a worker that a test plays, in this process: what it says is written to Conn, and to the
// lanes, as it is.
type Fake struct {
	Conn  *os.File
	Lanes []*os.File
	// Memory is how many bytes the worker holds; FakeMemory is how many it may.
	Memory *atomic.Int64
}

// FakeMemory is how many bytes a played worker may hold.
const FakeMemory = 1 << 20

// Greet says what an honest worker says first.
func (f Fake) Greet() error {
	text := `{"walls":[],"namespaces":[],"reset":"copy"}`
	_, err := f.Conn.Write(end(append(begin(nil, kindHello, 0), text...), 0))
	return err
}

// GreetKeeping is Greet of a worker that can be handed code.
func (f Fake) GreetKeeping() error {
	text := `{"walls":[],"namespaces":[],"reset":"copy","code":true}`
	_, err := f.Conn.Write(end(append(begin(nil, kindHello, 0), text...), 0))
	return err
}

// ServeKeeping serves as an honest worker does, with an engine of its own and a folder for code.
func (f Fake) ServeKeeping(ctx context.Context, scratch string) (err error) {
	codes := newHanded()
	cfg := cell.Default()
	cfg.Cache, cfg.Scratch = codes, scratch
	e, err := cell.New(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close(ctx)) }()
	return serve(ctx, newReader(f.Conn, readBuffer), newPacker(f.Conn), f.Lanes, e, codes)
}

// Serve serves as an honest worker does, with an engine.
func (f Fake) Serve(ctx context.Context, e *cell.Engine) error {
	return serve(ctx, newReader(f.Conn, readBuffer), newPacker(f.Conn), f.Lanes, e, newHanded())
}

// NewWithFakes returns an engine whose workers are played: each start calls play with the next number
// from 0 in a goroutine of its own, and the worker ends when play returns.
func NewWithFakes(ctx context.Context, lanes int, grace time.Duration, log *slog.Logger, play func(n int, f Fake)) (*Engine, error) {
	return NewKeeping(ctx, Config{Logger: log, Lanes: lanes, Grace: grace, Memory: FakeMemory}, play)
}

// NewKeeping is NewWithFakes with any configuration, such as one with a cache.
func NewKeeping(ctx context.Context, cfg Config, play func(n int, f Fake)) (*Engine, error) {
	var next atomic.Int64
	return build(ctx, cfg, func(r room) (*process, error) {
		n := int(next.Add(1)) - 1
		p := &process{exited: make(chan struct{}), pid: 1000 + n, how: "played to its end"}
		f := Fake{Memory: new(atomic.Int64)}
		p.resident = func() (int64, error) { return f.Memory.Load(), nil }
		for i := range 1 + r.lanes {
			pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return nil, fmt.Errorf("make a socket pair: %w", err)
			}
			for _, fd := range pair { // not in the call: only Linux takes it there
				unix.CloseOnExec(fd)
				if err := unix.SetNonblock(fd, true); err != nil {
					return nil, fmt.Errorf("make a socket pair: %w", err)
				}
			}
			ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
			if i == 0 {
				p.conn, f.Conn = ours, theirs
			} else {
				p.lanes, f.Lanes = append(p.lanes, ours), append(f.Lanes, theirs)
			}
		}
		p.kill = func() { closeAll(append(f.Lanes, f.Conn)) }
		go func() {
			play(n, f)
			p.kill()
			close(p.exited)
		}()
		return p, nil
	})
}

// The frames, for tests that write or read them as a peer would.
const (
	KindHello, KindLoaded, KindRefused, KindLog = uint8(kindHello), uint8(kindLoaded), uint8(kindRefused), uint8(kindLog)
	KindDone, KindFailed, KindLoad, KindInvoke  = uint8(kindDone), uint8(kindFailed), uint8(kindLoad), uint8(kindInvoke)
	KindCancel, KindHand                        = uint8(kindCancel), uint8(kindHand)
	KindCompile, KindCompiled                   = uint8(kindCompile), uint8(kindCompiled)
	KindUse, KindWaits, KindAnswer              = uint8(kindUse), uint8(kindWaits), uint8(kindAnswer)
)

// Frame returns the bytes of a frame.
func Frame(k uint8, id uint64, body []byte) []byte {
	return end(append(begin(nil, kind(k), id), body...), 0)
}

// Reader reads frames of any kind.
type Reader struct{ r reader }

// NewReader returns a Reader.
func NewReader(f *os.File) Reader { return Reader{newReader(f, readBuffer)} }

// Next returns the next frame.
func (r Reader) Next() (k uint8, id uint64, body []byte, err error) {
	f, err := r.r.next(func(kind, uint64) (int, error) { return maxLoad, nil })
	return uint8(f.kind), f.id, f.body, err
}

// LoadedBody is the body of a loaded frame.
func LoadedBody(k string) []byte { return encodeLoaded(nil, 0, loaded{kind: k})[headBytes:] }

// EntriesBody is the body of a compiled frame, of one entry.
func EntriesBody(key string, value []byte) []byte {
	return bytes.Join(entryPieces(kindCompiled, 0, []entry{{key, value}}), nil)[headBytes:]
}

// CompileBody is the body of a compile frame.
func CompileBody(spec cell.Spec) []byte { return encodeCompile(nil, 0, spec)[headBytes:] }

// DecodeEntries takes the body of a compiled frame apart, and returns how many entries are in it.
func DecodeEntries(body []byte) (int, error) {
	d := decoder{left: body}
	n := len(d.entries())
	return n, d.done()
}

// DoneBody is the body of a done frame.
func DoneBody(u cell.Usage, r cell.Result) []byte { return encodeDone(nil, 0, u, r)[headBytes:] }

// FailedBody is the body of a failed frame.
func FailedBody(u cell.Usage, err error) []byte { return encodeFailed(nil, 0, u, err)[headBytes:] }

// LogBody is the body of a log frame.
func LogBody(level, message string) []byte { return encodeLog(nil, 0, level, message)[headBytes:] }

// The decoders of what a worker says.
var (
	DecodeDone    = decodeDone
	DecodeFailed  = decodeFailed
	DecodeRefused = decodeRefused
	DecodeLog     = decodeLog
	DecodeLoaded  = decodeLoaded
	DecodeLoad    = decodeLoad
	DecodeInvoke  = decodeInvoke
	DecodeCompile = decodeCompile
)

// ErrProtocol is in the errors of the decoders.
var ErrProtocol = errProtocol

// LoadBody is the body of a load frame.
func LoadBody(function uint64, spec cell.Spec, l cell.Limits) []byte {
	return encodeLoad(nil, 0, function, spec, l)[headBytes:]
}

// InvokeBody is the body of an invoke frame.
func InvokeBody(function uint64, in cell.Input) []byte {
	return encodeInvoke(nil, 0, function, in)[headBytes:]
}

// SeatsAlone is how many invocations run alone at the same time.
const SeatsAlone = seatsAlone

// Retire does what comes when the worker of heavy functions was not needed for a while.
func (e *Engine) Retire() { e.heavy.retire() }

// GreetWith says what an honest worker says first, with one wall that stands or does not.
func (f Fake) GreetWith(stands bool) error {
	text := fmt.Sprintf(`{"walls":[{"name":"seccomp","stands":%t,"detail":""}],"namespaces":[],"reset":"copy"}`, stands)
	_, err := f.Conn.Write(end(append(begin(nil, kindHello, 0), text...), 0))
	return err
}

// UseBody is the body of a use frame.
func UseBody(number uint32, u cell.GrantUse) []byte { return encodeUse(nil, 0, number, u)[headBytes:] }

// AnswerBody is the body of an answer frame.
func AnswerBody(number uint32, a cell.GrantAnswer) []byte {
	return encodeAnswer(nil, 0, number, a)[headBytes:]
}

// The decoders of uses and answers.
var (
	DecodeUse    = decodeUse
	DecodeAnswer = decodeAnswer
)

// Packer is a packer, for its test.
type Packer struct{ *packer }

// NewPacker returns one that writes to w.
func NewPacker(w io.Writer) Packer { return Packer{newPacker(w)} }

// SendAfter calls sendAfter.
func (p Packer) SendAfter(long [][]byte, encode func([]byte) []byte) error {
	return p.sendAfter(long, encode)
}

// Bits of a use.
const UseWaits, UseOnly = useWaits, useOnly

// Lose ends the worker of quick functions, as if it had ended by itself.
func (e *Engine) Lose() {
	if l, _ := e.main.current(); l != nil {
		l.kill()
	}
}

// Relay logs what a worker writes to stderr.
func Relay(from io.Reader, log *slog.Logger) { relay(from, log) }
