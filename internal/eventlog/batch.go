package eventlog

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A batch, as it is one message of the stream:
//
//	version   1 byte, 0x01
//	count     2 bytes, frames in the batch
//	total     8 bytes, events ever accepted, this batch included
//	lengths   4 bytes for each frame
//	frames    each sealed by itself (keyring.Sealer)
//	seal      a sealed empty text whose additional data is everything that fixes the batch
//
// All numbers are big endian. The seal's additional data are the stream's name, the sequence the
// batch is written at, the header and the tag of every frame. A tag stands for its frame, so the
// seal costs the same however large the events are.
const (
	batchVersion    = 1
	batchHeaderSize = 1 + 2 + 8
	tagSize         = 16
	// recordOverhead is what a record is longer than its data, at most in practice: attributes and framing.
	recordOverhead = 320
)

// errDamaged means that bytes read back are not what was written.
var errDamaged = errors.New("batch in the event log is damaged")

// cipher is the part of keyring.Sealer that the codec uses.
type cipher interface {
	Seal(dst, plaintext, aad []byte) ([]byte, error)
	Open(dst, sealed, aad []byte) ([]byte, error)
}

// codebook seals and opens the frames and batches of one stream.
type codebook struct {
	cipher   cipher
	frameAAD []byte
	batchAAD []byte
}

func newCodebook(ns, stream string, c cipher) codebook {
	name := func(what string) []byte {
		b := append([]byte("sallyport/"), what...)
		for _, s := range []string{ns, stream} {
			b = append(b, byte(len(s)))
			b = append(b, s...)
		}
		return b
	}
	return codebook{cipher: c, frameAAD: name("frame/1"), batchAAD: name("batch/1")}
}

// frame is one sealed record inside a request's buffer.
type frame struct {
	start, end int
	dropped    bool // a duplicate: not written
}

// sealFrame seals text as the next frame of r.
func (b codebook) sealFrame(r *request, text []byte) error {
	start := len(r.sealed)
	sealed, err := b.cipher.Seal(r.sealed, text, b.frameAAD)
	if err != nil {
		return err
	}
	r.sealed = sealed
	r.frames = append(r.frames, frame{start: start, end: len(sealed)})
	return nil
}

// openFrame opens one frame into dst.
func (b codebook) openFrame(dst, sealed []byte) ([]byte, error) {
	text, err := b.cipher.Open(dst, sealed, b.frameAAD)
	if err != nil {
		return nil, fmt.Errorf("%w: open frame: %w", errDamaged, err)
	}
	return text, nil
}

// appendBatch appends to dst the batch that the requests' kept frames make, to be written at seq.
// scratch is reused for the additional data and returned.
func (b codebook) appendBatch(dst, scratch []byte, seq, total uint64, reqs []*request) (batch, aad []byte, err error) {
	begin := len(dst)
	dst = append(dst, batchVersion, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, total)
	count := 0
	for _, r := range reqs {
		for _, f := range r.frames {
			if !f.dropped {
				dst = binary.BigEndian.AppendUint32(dst, uint32(f.end-f.start))
				count++
			}
		}
	}
	binary.BigEndian.PutUint16(dst[begin+1:], uint16(count))
	aad = b.bind(scratch, seq, dst[begin:])
	for _, r := range reqs {
		for _, f := range r.frames {
			if !f.dropped {
				dst = append(dst, r.sealed[f.start:f.end]...)
				aad = append(aad, r.sealed[f.end-tagSize:f.end]...)
			}
		}
	}
	dst, err = b.cipher.Seal(dst, nil, aad)
	return dst, aad, err
}

// bind begins the additional data of a batch's seal: everything but the tags.
func (b codebook) bind(scratch []byte, seq uint64, header []byte) []byte {
	aad := append(scratch[:0], b.batchAAD...)
	aad = binary.BigEndian.AppendUint64(aad, seq)
	return append(aad, header...)
}

// openBatch checks the batch read at seq and returns its frames, still sealed; they alias b.
func (b codebook) openBatch(seq uint64, batch []byte) (frames [][]byte, total uint64, err error) {
	if len(batch) < batchHeaderSize || batch[0] != batchVersion {
		return nil, 0, fmt.Errorf("%w: batch %d: no header of version %d", errDamaged, seq, batchVersion)
	}
	count := int(binary.BigEndian.Uint16(batch[1:]))
	total = binary.BigEndian.Uint64(batch[3:])
	header := batchHeaderSize + 4*count
	if len(batch) < header {
		return nil, 0, fmt.Errorf("%w: batch %d: ends inside its header", errDamaged, seq)
	}
	aad := b.bind(make([]byte, 0, len(b.batchAAD)+8+header+tagSize*count), seq, batch[:header])
	frames = make([][]byte, count)
	rest := batch[header:]
	for i := range frames {
		n := int(binary.BigEndian.Uint32(batch[batchHeaderSize+4*i:]))
		if n < tagSize || n > len(rest) {
			return nil, 0, fmt.Errorf("%w: batch %d: frame %d has the length %d", errDamaged, seq, i, n)
		}
		frames[i], rest = rest[:n:n], rest[n:]
		aad = append(aad, frames[i][n-tagSize:]...)
	}
	if _, err := b.cipher.Open(nil, rest, aad); err != nil {
		return nil, 0, fmt.Errorf("%w: batch %d: its seal does not open: %w", errDamaged, seq, err)
	}
	return frames, total, nil
}
