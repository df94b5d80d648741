package snapshot

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// The format of an image, all numbers little-endian and in units but for the first:
//
//	8 bytes   magic
//	32 bytes  digest of the base, or zero
//	4 bytes   size of the memory
//	4 bytes   number of runs
//	8 bytes   for each run: where it begins, how long it is
//	          the bytes of all runs
//
// There is one encoding of an image. The digest of an image is the SHA-256 of its encoding.
const (
	magic       = "spimage1"
	headerBytes = len(magic) + sha256.Size + 4 + 4
	runBytes    = 4 + 4
)

// ErrMalformed is returned by Parse for bytes that are not an image.
var ErrMalformed = errors.New("not an image of a memory")

// ErrOtherBase is returned by Parse for an image that is the difference to another base.
var ErrOtherBase = errors.New("the image belongs to another base")

// Append appends the encoding of im, which holds all of it but its base, to b.
func (im *Image) Append(b []byte) []byte {
	return append(im.appendHead(b), im.data...)
}

// appendHead appends the encoding of im up to its data.
func (im *Image) appendHead(b []byte) []byte {
	var base [sha256.Size]byte
	if im.base != nil {
		base = im.base.digest()
	}
	b = append(append(b, magic...), base[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(im.size/unit))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(im.runs)))
	for i, r := range im.runs {
		b = binary.LittleEndian.AppendUint32(b, r.at)
		b = binary.LittleEndian.AppendUint32(b, im.length(i, len(im.data)/unit))
	}
	return b
}

// digest returns the digest of im.
func (im *Image) digest() [sha256.Size]byte {
	im.summing.Do(func() {
		h := sha256.New()
		h.Write(im.appendHead(nil))
		h.Write(im.data)
		h.Sum(im.sum[:0])
	})
	return im.sum
}

// Parse returns the image whose encoding b is. It keeps b, which MUST NOT be changed any more. The
// base must be the one that the image was taken with, nil when there was none. Parse is safe with
// bytes from anywhere and takes no more room than b, but an image is as good as code: bytes that
// were outside the process must be authenticated first.
func Parse(b []byte, base *Image) (*Image, error) {
	im, err := parse(b, base)
	if err != nil {
		return nil, fmt.Errorf("parse image: %w", err)
	}
	return im, nil
}

func parse(b []byte, base *Image) (*Image, error) {
	if len(b) < headerBytes || string(b[:len(magic)]) != magic {
		return nil, ErrMalformed
	}
	var want [sha256.Size]byte
	if base != nil {
		if base.base != nil {
			return nil, ErrBase
		}
		want = base.digest()
	}
	if [sha256.Size]byte(b[len(magic):]) != want {
		return nil, ErrOtherBase
	}
	size := int64(binary.LittleEndian.Uint32(b[headerBytes-8:])) * unit
	if err := checkSize(size); err != nil {
		return nil, err
	}
	im := &Image{size: int(size), base: base}
	runs := int64(binary.LittleEndian.Uint32(b[headerBytes-4:]))
	b = b[headerBytes:]
	if runs > int64(len(b)/runBytes) {
		return nil, fmt.Errorf("%w: it has %d bytes left for %d runs", ErrMalformed, len(b), runs)
	}
	if err := im.parseRuns(b[:runs*runBytes], b[runs*runBytes:]); err != nil {
		return nil, err
	}
	return im, nil
}

// parseRuns reads the table of runs, which has a whole number of them, and their bytes.
func (im *Image) parseRuns(table, data []byte) error {
	im.runs = make([]run, 0, len(table)/runBytes)
	last := int64(im.size / unit)
	end, from := int64(-1), int64(0) // of the last run, and how many units there were so far
	for ; len(table) > 0; table = table[runBytes:] {
		at := int64(binary.LittleEndian.Uint32(table))
		length := int64(binary.LittleEndian.Uint32(table[4:]))
		if length == 0 || at <= end || at+length > last {
			return fmt.Errorf("%w: run %d is %d units at %d", ErrMalformed, len(im.runs), length, at)
		}
		im.runs = append(im.runs, run{uint32(at), uint32(from)})
		end, from = at+length, from+length
	}
	if int64(len(data)) != from*unit {
		return fmt.Errorf("%w: it has %d bytes for %d units", ErrMalformed, len(data), from)
	}
	im.data = slices.Clip(data)
	return nil
}
