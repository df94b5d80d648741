package harden

import (
	"encoding/binary"
	"unicode/utf8"
)

// reader reads from the front of rest. After a read past the end, or of something that is not
// encoded as the format says, failed is true and everything reads as zero.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) fail() { r.failed, r.rest = true, nil }

func (r *reader) byte() byte {
	if len(r.rest) == 0 {
		r.fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

func (r *reader) take(n uint32) []byte {
	if r.failed || uint64(n) > uint64(len(r.rest)) {
		r.fail()
		return nil
	}
	part := r.rest[:n]
	r.rest = r.rest[n:]
	return part
}

// u32 reads an unsigned LEB128 number of at most 32 bits.
func (r *reader) u32() uint32 {
	if len(r.rest) > 0 && r.rest[0] < 0x80 { // nearly all are
		v := r.rest[0]
		r.rest = r.rest[1:]
		return uint32(v)
	}
	v, n := binary.Uvarint(r.rest[:min(len(r.rest), binary.MaxVarintLen32)])
	if n <= 0 || v > 1<<32-1 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return uint32(v)
}

// signed reads a signed LEB128 number of at most that many bits.
func (r *reader) signed(bits uint) int64 {
	var v int64
	for shift := uint(0); shift < bits; shift += 7 {
		b := r.byte()
		v |= int64(b&0x7f) << shift
		if left := bits - shift; left < 7 { // what does not fit repeats the sign, and ends the number
			sign := int64(int8(b<<1) >> left)
			if b >= 0x80 || sign != 0 && sign != -1 {
				break
			}
			return v | sign<<(bits-1)
		}
		if b < 0x80 {
			if b&0x40 != 0 && shift+7 < 64 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
	r.fail()
	return 0
}

// name reads a name: its length and that many bytes of UTF-8.
func (r *reader) name() string {
	name := r.take(r.u32())
	if !utf8.Valid(name) {
		r.fail()
	}
	return string(name)
}
