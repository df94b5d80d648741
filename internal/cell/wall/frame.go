package wall

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame is the length of what follows it (4 bytes, little endian), its kind (1 byte), the id of
// what it is about (8 bytes) and a body. Numbers in a body are uvarints, texts have their length
// before them.

// kind says what a frame is.
type kind uint8

const (
	// From the server to a worker.
	kindLoad   kind = 1 // id: question; body: function, and what to load
	kindDrop   kind = 2 // id: function
	kindInvoke kind = 3 // id: invocation; body: function and event
	kindCancel kind = 4 // id: question or invocation
	kindHand   kind = 5 // id: the question that a load frame comes with next; body: compiled code for it
	// kindCompile is for a compiler process alone. id: question; body: what to compile.
	kindCompile kind = 6
	kindAnswer  kind = 7 // id: invocation; body: what came of a use of a grant
	// From a worker to the server.
	kindHello   kind = 64 // body: what the worker is and which walls stand around it
	kindLoaded  kind = 65 // id: question; body: what it is
	kindRefused kind = 66 // id: question; body: a failure
	kindLog     kind = 67 // id: invocation; body: a line
	kindDone    kind = 68 // id: invocation; body: usage and result
	kindFailed  kind = 69 // id: invocation; body: usage and failure
	// kindCompiled is from a compiler process. id: question; body: compiled code.
	kindCompiled kind = 70
	kindUse      kind = 71 // id: invocation; body: a use of a grant
	kindWaits    kind = 72 // id: invocation; body: whether it waits for answers and computes nothing
)

// Lengths, in bytes.
const (
	headBytes = 4 + 1 + 8
	// readBuffer takes many frames with one read.
	readBuffer = 64 << 10
)

// frame is one frame without its length.
type frame struct {
	kind kind
	id   uint64
	body []byte
}

// errProtocol is in every error that only a faulty or hostile peer can cause.
var errProtocol = errors.New("the protocol was broken")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errProtocol, fmt.Errorf(format, args...))
}

// reader reads frames.
type reader struct{ from *bufio.Reader }

func newReader(from io.Reader, buffer int) reader {
	return reader{bufio.NewReaderSize(from, buffer)}
}

// next reads a frame. most says how long the body of a frame may be: nothing is allocated before it
// is asked, and its error ends the reading.
func (r reader) next(most func(kind, uint64) (int, error)) (frame, error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(r.from, head[:]); err != nil {
		return frame{}, err
	}
	f := frame{kind: kind(head[4]), id: binary.LittleEndian.Uint64(head[5:])}
	size := int64(binary.LittleEndian.Uint32(head[:])) - (headBytes - 4)
	limit, err := most(f.kind, f.id)
	if err != nil {
		return frame{}, err
	}
	if size < 0 || size > int64(limit) {
		return frame{}, broken("a frame of kind %d has a body of %d bytes, at most %d are allowed", f.kind, size, limit)
	}
	f.body = make([]byte, size)
	_, err = io.ReadFull(r.from, f.body)
	return f, err
}

// begin appends the head of a frame; end writes its length once the body is appended.
func begin(b []byte, k kind, id uint64) []byte {
	b = append(b, 0, 0, 0, 0, byte(k))
	return binary.LittleEndian.AppendUint64(b, id)
}

// end writes the length of the frame that begins at start.
func end(b []byte, start int) []byte {
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-4))
	return b
}

func appendText[T ~string | ~[]byte](b []byte, text T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// decoder takes a body apart. After the first fault everything it returns is empty.
type decoder struct {
	left []byte
	err  error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = broken(format, args...)
	}
	d.left = nil
}

// number takes a number of at most most.
func (d *decoder) number(most uint64) uint64 {
	v, n := binary.Uvarint(d.left)
	if n <= 0 || v > most {
		d.fail("a number is cut off, or more than %d", most)
		return 0
	}
	d.left = d.left[n:]
	return v
}

// bytes takes a text of at most most bytes. It is a part of the body, not a copy.
func (d *decoder) bytes(most int) []byte {
	n := d.number(uint64(most))
	if n > uint64(len(d.left)) {
		d.fail("a text is cut off")
		return nil
	}
	out := d.left[:n:n]
	d.left = d.left[n:]
	return out
}

// digest takes a SHA-256 digest.
func (d *decoder) digest() (out [sha256.Size]byte) {
	if len(d.left) < len(out) {
		d.fail("a digest is cut off")
		return out
	}
	d.left = d.left[copy(out[:], d.left):]
	return out
}

// done reports the first fault, or that something is left over.
func (d *decoder) done() error {
	if d.err == nil && len(d.left) > 0 {
		d.fail("%d bytes are left over", len(d.left))
	}
	return d.err
}
